//! The faults of a run as they happen: each planned one, to whom the plan's kind of target is at that
//! moment, and the end of each. Whatever happens to this program, what it paused goes on, and what it
//! cut off is joined again.

use super::{
    api::Shared,
    certificates::{self, Ended},
    clocks::{self, Wrong},
    disks,
    network::{self, CutOff},
    nodes,
    overload::Flood,
    processes::Process,
    undo::Undo,
};
use crate::{
    cli::{client::Target, members},
    dev::{disk::Given, progress::Progress},
};
use ::chaos::{
    Violation,
    clock::jump,
    cut::{Cut, cut},
    disk::trouble,
    figures::{Work, standstill},
    judge::seconds,
    record::{Record, Struck},
    scenario::Harm,
    schedule::{Master, Spared, Strike, choose, choose_node},
};
use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// Whether a master is back is looked at this often; bounds how exact its absence is told.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(50);
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two questions to a master whose fault goes on: each may take as long as `LOOK_TIMEOUT`, in which
/// no fault begins or ends.
const ASK_INTERVAL: Duration = Duration::from_secs(2);
/// A fault waits so long for those before it to be over, then it is left out.
const PATIENCE: Duration = Duration::from_secs(5);

/// The masters as they describe themselves now.
pub(super) fn masters(members: &[Value]) -> Vec<Master> {
    let master = |member: &Value| Master {
        id: members::id(member),
        name: members::name(member).to_owned(),
        leads: member["leader"] == true,
        votes: member["voter"] == true,
        answers: member["reachable"] == true,
    };
    members.iter().map(master).collect()
}

/// Who was hit.
#[derive(Clone, PartialEq, Eq)]
enum Whom {
    Master(u64),
    Node(String),
}

/// A master or a node that was hit and is not back.
struct Hurt {
    whom: Whom,
    /// Of the record.
    strike: usize,
    /// `None` once that has ended, or if it was killed.
    held: Option<Held>,
    /// When it is to end.
    until: Duration,
    /// When that was, or since when whom it hit may come back.
    ended: Timestamp,
    /// When it is asked next, while its fault goes on.
    asked_next: Option<Duration>,
    /// So often it showed a certificate that has ended.
    shown: usize,
    command: Vec<String>,
}

impl Hurt {
    fn master(&self) -> Option<u64> {
        match self.whom {
            Whom::Master(id) => Some(id),
            Whom::Node(_) => None,
        }
    }

    fn node(&self) -> Option<String> {
        match &self.whom {
            Whom::Master(_) => None,
            Whom::Node(name) => Some(name.clone()),
        }
    }

    fn heal(&mut self, progress: &Progress) {
        let Some(held) = self.held.take() else { return };
        match &held {
            Held::Flooded(flood) => progress.say(&flood.told()),
            Held::Ended(_) => progress.say(&format!(
                "of those who connected meanwhile, {} were shown a certificate that has ended",
                self.shown
            )),
            Held::Paused(_) | Held::CutOff(_) | Held::Disk(_) | Held::Clock(_) => {}
        }
        drop(held);
        self.ended = Timestamp::now();
    }
}

/// What lasts until it is dropped.
enum Held {
    #[expect(dead_code, reason = "only held")]
    Paused(Undo),
    #[expect(dead_code, reason = "only held")]
    CutOff(CutOff),
    #[expect(dead_code, reason = "only held")]
    Disk(Given),
    Flooded(Flood),
    Clock(#[expect(dead_code, reason = "only held")] Wrong),
    Ended(#[expect(dead_code, reason = "only held")] Ended),
}

/// The faults that are still to come, and those that are not over.
pub(super) struct Faults<'a> {
    shared: &'a Shared,
    progress: &'a Progress,
    plan: VecDeque<Strike>,
    hurt: Vec<Hurt>,
    /// Where each master itself is asked, by id.
    servers: BTreeMap<u64, String>,
    /// Planned, and left out because of this.
    pub(super) spared: Vec<(Strike, String)>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        progress: &'a Progress,
        plan: Vec<Strike>,
        servers: BTreeMap<u64, String>,
    ) -> Faults<'a> {
        let (hurt, spared) = (Vec::new(), Vec::new());
        Faults { shared, progress, plan: plan.into(), hurt, servers, spared }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.shared.now())
    }

    /// Does what is due: ends what has lasted long enough, sees who is back, strikes.
    pub(super) async fn step(&mut self) -> Result<()> {
        self.heal();
        self.ask_meanwhile().await;
        self.see_who_is_back().await;
        let now = self.elapsed();
        let Some(strike) = self.plan.front().filter(|strike| strike.at <= now).cloned() else {
            return Ok(());
        };
        let members = members::ask(&self.shared.target).await;
        let struck = match &members {
            Ok(members) if strike.harm.is_of_node() => self.strike_node(&strike, members).await?,
            Ok(members) => self.strike(&strike, members).await?,
            Err(_) => Err(Spared::Nobody(strike.target)),
        };
        match struck {
            Ok(()) => drop(self.plan.pop_front()),
            // Those before it are not back yet, or there is no leader yet: a moment later.
            Err(_) if now < strike.at + PATIENCE => {}
            Err(why) => {
                self.progress.say(&format!("left out: {} {}: {why}", strike.harm, strike.target));
                self.spared.push((strike, why.to_string()));
                self.plan.pop_front();
            }
        }
        Ok(())
    }

    async fn strike(&mut self, strike: &Strike, members: &[Value]) -> Result<Result<(), Spared>> {
        let hurt: BTreeSet<u64> = self.hurt.iter().filter_map(Hurt::master).collect();
        let masters = masters(members);
        let master = match choose(strike, &masters, &hurt) {
            Ok(master) => master,
            Err(spared) => return Ok(Err(spared)),
        };
        let member = members.iter().find(|it| members::id(it) == master.id);
        let member = member.context("a master that was chosen is in the list")?;
        // One that is there for the others and does not answer by itself: perhaps a moment later.
        let Ok(pid) = members::local_pid(member) else {
            return Ok(Err(Spared::Nobody(strike.target)));
        };
        let process = Process::of_master(&master.name, pid)?;
        let (command, mut at) = (process.command.clone(), self.shared.now());
        let begun = self.begin(strike, master, &masters, members, process).await?;
        let Some((held, detail)) = begun else { return Ok(Err(Spared::Nobody(strike.target))) };
        if matches!(held, Some(Held::CutOff(_))) {
            at = self.shared.now();
        }
        let what = format!("{} {} (pid {pid}) {detail}", strike.harm, master.name);
        let role = if master.leads { "which leads" } else { "which follows" };
        self.progress.say(&format!("{}, {role}", what.trim_end()));
        let (harm, led, name) = (strike.harm, master.leads, master.name.clone());
        let struck = Struck { at, over: None, harm, detail, master: name, led };
        self.has_struck(strike, Whom::Master(master.id), struck, held, command);
        Ok(Ok(()))
    }

    /// What lasts of it, and what the seed said of it, for people; `None` if there is nobody to be cut
    /// off from.
    async fn begin(
        &self,
        strike: &Strike,
        master: &Master,
        masters: &[Master],
        members: &[Value],
        process: Process,
    ) -> Result<Option<(Option<Held>, String)>> {
        let nothing = String::new();
        if let Some((trouble, detail)) = trouble(strike) {
            let begin = move || disks::begin(&process, trouble);
            let held = tokio::task::spawn_blocking(begin).await??.map(Held::Disk);
            return Ok(Some((held, detail)));
        }
        if let Some(cut) = cut(strike, master, masters) {
            let detail = cut.detail.clone();
            let cut_off = cut_off(process, &master.name, cut, members, strike.hold).await?;
            return Ok(Some((Some(Held::CutOff(cut_off)), detail)));
        }
        if let Some((seconds, detail)) = jump(strike) {
            let wrong = clocks::begin(&process, seconds, strike.hold)?;
            return Ok(Some((Some(Held::Clock(wrong)), detail)));
        }
        Ok(match strike.harm {
            Harm::Kill => process.kill().map(|()| Some((None, nothing)))?,
            Harm::Pause => Some((Some(Held::Paused(process.pause(strike.hold)?)), nothing)),
            Harm::Overload => {
                let server = self.servers.get(&master.id);
                let server = server.context("a master that was chosen is asked somewhere")?;
                Some((Some(Held::Flooded(Flood::begin(self.shared, server))), nothing))
            }
            Harm::CertificateEnd => {
                let (again, hold) = (strike.coin(), strike.hold);
                let begin = move || certificates::begin(&process, again, hold);
                let ended = tokio::task::spawn_blocking(begin).await??;
                let detail = if again { "and it starts with that" } else { "as it runs" };
                Some((Some(Held::Ended(ended)), detail.to_owned()))
            }
            _ => None,
        })
    }

    async fn strike_node(
        &mut self,
        strike: &Strike,
        members: &[Value],
    ) -> Result<Result<(), Spared>> {
        let hurt: BTreeSet<String> = self.hurt.iter().filter_map(Hurt::node).collect();
        // Whoever cannot be asked now may be a moment later.
        let nodes = nodes::ask(&self.shared.target).await.unwrap_or_default();
        let name = match choose_node(strike, &nodes, &hurt) {
            Ok(node) => node.name.clone(),
            Err(spared) => return Ok(Err(spared)),
        };
        let Ok(machines) = nodes::machines(members) else {
            return Ok(Err(Spared::Nobody(strike.target)));
        };
        let process = Process::of_node(&name, &machines)?;
        let (command, pid, at) = (process.command.clone(), process.pid(), self.shared.now());
        let held = match strike.harm {
            Harm::NodePause => Some(Held::Paused(process.pause(strike.hold)?)),
            _ => process.kill().map(|()| None)?,
        };
        self.progress.say(&format!("{} {name} (pid {pid}), a node", strike.harm));
        let (harm, detail, whom) = (strike.harm, String::new(), Whom::Node(name.clone()));
        let struck = Struck { at, over: None, harm, detail, master: name, led: false };
        self.has_struck(strike, whom, struck, held, command);
        Ok(Ok(()))
    }

    fn has_struck(
        &mut self,
        strike: &Strike,
        whom: Whom,
        struck: Struck,
        held: Option<Held>,
        command: Vec<String>,
    ) {
        let (until, ended) = (self.elapsed() + strike.hold, Timestamp::now());
        let asked = matches!(strike.harm, Harm::Partition | Harm::CertificateEnd);
        let (asked_next, shown) = (asked.then(|| self.elapsed()), 0);
        self.shared.metrics.faults.with_label_values(&[&strike.harm.to_string()]).inc();
        let mut record = self.shared.record();
        let strike = record.strikes.len();
        record.strikes.push(struck);
        // To be looked through while others go on writing it.
        let copy = record.clone();
        drop(record);
        self.tell_of_the_one_before(&copy);
        self.hurt.push(Hurt { whom, strike, held, until, ended, asked_next, shown, command });
        self.shared.metrics.faults_active.set(self.hurt.len() as i64);
    }

    /// The scheduler and controllers have had their time with a fault when the next begins.
    fn tell_of_the_one_before(&self, record: &Record) {
        let Some(before) = record.strikes.len().checked_sub(2) else { return };
        let (strike, next) = (&record.strikes[before], &record.strikes[before + 1]);
        let works = [Work::Binding, Work::Reconcile];
        let told = works.map(|work| self.stood_still(record, work, strike, next.at));
        let told: Vec<String> = told.into_iter().flatten().collect();
        if !told.is_empty() {
            let after = format!("after the {} of {}", strike.harm, strike.master);
            self.progress.say(&format!("{after} {}", told.join(", ")));
        }
    }

    /// For how long after a fault, until then; counted if it was the leader's.
    fn stood_still(&self, record: &Record, work: Work, after: &Struck, to: u64) -> Option<String> {
        let longest = standstill(record, work, after.at, to)?;
        if after.led {
            let metric = self.shared.metrics.failover.with_label_values(&[work.name()]);
            metric.observe(longest.as_secs_f64());
        }
        Some(format!("{} for {}", work.stood_still(), seconds(longest)))
    }

    /// What has lasted long enough ends.
    fn heal(&mut self) {
        let now = self.elapsed();
        let due = self.hurt.iter_mut().filter(|it| it.until <= now);
        due.for_each(|it| it.heal(self.progress));
    }

    /// Clients still reach a master whom no other master reaches. It is ready if a read that must be
    /// new would be answered, and it can know of nothing new: it must not say so. One whose certificates
    /// have ended shows that to whoever connects, once it has taken them up.
    async fn ask_meanwhile(&mut self) {
        let now = self.elapsed();
        for hurt in self.hurt.iter_mut().filter(|it| it.held.is_some()) {
            let server = hurt.master().and_then(|id| self.servers.get(&id));
            let Some(server) = server else { continue };
            if hurt.asked_next.is_none_or(|at| at > now) {
                continue;
            }
            hurt.asked_next = Some(now + ASK_INTERVAL);
            if matches!(hurt.held, Some(Held::Ended(_))) {
                let asked = self.shared.target.get(server, "/readyz", LOOK_TIMEOUT).await;
                let ended = asked.is_err_and(|error| certificates::says_ended(&error));
                hurt.shown += usize::from(ended);
                continue;
            }
            if is_back(&self.shared.target, server).await {
                let mut record = self.shared.record();
                let name = &record.strikes[hurt.strike].master;
                let what = format!("{name} says it is ready while it is cut off from all others");
                record.broken.push(Violation::new("masters come back", what));
            }
        }
    }

    async fn see_who_is_back(&mut self) {
        let (target, mut back) = (&self.shared.target, BTreeSet::new());
        for hurt in self.hurt.iter().filter(|it| it.held.is_none()) {
            let is_back = match &hurt.whom {
                Whom::Master(id) => {
                    let Some(server) = self.servers.get(id) else { continue };
                    is_back(target, server).await
                }
                Whom::Node(name) => nodes::is_back(target, name, hurt.ended).await,
            };
            if is_back {
                self.is_over(hurt);
                back.insert(hurt.strike);
            }
        }
        self.hurt.retain(|it| !back.contains(&it.strike));
        self.shared.metrics.faults_active.set(self.hurt.len() as i64);
    }

    fn is_over(&self, hurt: &Hurt) {
        let now = self.shared.now();
        let record = {
            let mut record = self.shared.record();
            record.strikes[hurt.strike].over = Some(now);
            record.clone()
        };
        let strike = &record.strikes[hurt.strike];
        let away = seconds(Duration::from_nanos(now - strike.at));
        let without = self.stood_still(&record, Work::Writes, strike, now);
        let without = without.unwrap_or_else(|| format!("{} yet", Work::Writes.stood_still()));
        self.progress.say(&format!("{} answers again after {away}; {without}", strike.master));
    }

    /// Ends every fault and waits until all masters are back, at most so long. Nothing more is struck.
    pub(super) async fn end(&mut self, within: Duration) {
        self.plan.clear();
        self.hurt.iter_mut().for_each(|it| it.heal(self.progress));
        let wait = async {
            while !self.hurt.is_empty() {
                self.see_who_is_back().await;
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        let waited = tokio::time::timeout(within, wait).await;
        if waited.is_ok() {
            return;
        }
        for hurt in &self.hurt {
            let name = self.shared.record().strikes[hurt.strike].master.clone();
            self.progress.say(&format!(
                "{name} does not come back: nobody starts it again? It was started with: {}",
                hurt.command.join(" ")
            ));
        }
    }
}

/// Cuts a master off; it takes a few milliseconds until the packet filter has its rules.
async fn cut_off(
    process: Process,
    name: &str,
    cut: Cut,
    members: &[Value],
    hold: Duration,
) -> Result<CutOff> {
    let (addresses, name) = (network::addresses(members)?, name.to_owned());
    let cut_off = move || {
        let namespace = network::namespace_of(&process, &name)?;
        CutOff::begin(&namespace, &network::rules(&cut, &addresses)?, hold)
    };
    tokio::task::spawn_blocking(cut_off).await?
}

async fn is_back(target: &Target, server: &str) -> bool {
    matches!(target.get(server, "/readyz", LOOK_TIMEOUT).await, Ok((200, _)))
}

/// Where each master itself is asked, by its id.
pub(super) async fn servers(target: &Target) -> Result<BTreeMap<u64, String>> {
    let mut servers = BTreeMap::new();
    for server in &target.servers {
        let (code, body) = target.get(server, "/coxswain/members", ANSWER_TIMEOUT).await?;
        anyhow::ensure!(code == 200, "{server}: HTTP {code}: {body}");
        let members: Vec<Value> = serde_json::from_str(&body)?;
        let own = members.iter().find(|member| member["self"] == true);
        let own = own.with_context(|| format!("{server} does not say who it is"))?;
        servers.insert(members::id(own), server.clone());
    }
    Ok(servers)
}

/// Before anything is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

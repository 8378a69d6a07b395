//! The faults of a run as they happen: each planned one, to whom the plan's kind of target is at that
//! moment, and the end of each. Whatever happens to this program, what it paused goes on.

use super::{
    api::Shared,
    processes::{Paused, Process},
};
use crate::{
    cli::{client::Target, members},
    dev::progress::Progress,
};
use ::chaos::{
    figures::{acknowledgements, gap},
    judge::seconds,
    record::Struck,
    scenario::Harm,
    schedule::{Master, Spared, Strike, choose},
};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// Whether a master is back is looked at this often; bounds how exact its absence is told.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);
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

/// A master that was hit and is not back.
struct Hurt {
    id: u64,
    /// Of the record.
    strike: usize,
    /// `None` once it goes on, or if it was killed.
    paused: Option<Paused>,
    /// When it is to go on.
    until: Duration,
    command: Vec<String>,
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

    /// Does what is due: ends pauses, sees who is back, strikes.
    pub(super) async fn step(&mut self) -> Result<()> {
        self.heal();
        self.see_who_is_back().await;
        let now = self.elapsed();
        let Some(strike) = self.plan.front().filter(|strike| strike.at <= now).cloned() else {
            return Ok(());
        };
        let members = members::ask(&self.shared.target).await;
        let struck = match &members {
            Ok(members) => self.strike(&strike, members)?,
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

    fn strike(&mut self, strike: &Strike, members: &[Value]) -> Result<Result<(), Spared>> {
        let hurt: BTreeSet<u64> = self.hurt.iter().map(|it| it.id).collect();
        let masters = masters(members);
        let master = match choose(strike, &masters, &hurt) {
            Ok(master) => master,
            Err(spared) => return Ok(Err(spared)),
        };
        let member = members.iter().find(|it| members::id(it) == master.id);
        let member = member.context("a master that was chosen is in the list")?;
        let process = Process::of_master(&master.name, members::local_pid(member)?)?;
        let command = process.command.clone();
        let role = if master.leads { "which leads" } else { "which follows" };
        let what = format!("{} {} (pid {}), {role}", strike.harm, master.name, process.pid());
        let at = self.shared.now();
        let paused = match strike.harm {
            Harm::Kill => process.kill().map(|()| None)?,
            Harm::Pause => Some(process.pause(strike.hold)?),
        };
        let until = self.elapsed() + strike.hold;
        self.progress.say(&what);
        self.shared.metrics.faults.with_label_values(&[&strike.harm.to_string()]).inc();
        let (harm, led) = (strike.harm, master.leads);
        let mut record = self.shared.record();
        let number = record.strikes.len();
        record.strikes.push(Struck { at, over: None, harm, master: master.name.clone(), led });
        drop(record);
        self.hurt.push(Hurt { id: master.id, strike: number, paused, until, command });
        self.shared.metrics.faults_active.set(self.hurt.len() as i64);
        Ok(Ok(()))
    }

    /// Pauses that have lasted long enough end.
    fn heal(&mut self) {
        let now = self.elapsed();
        for hurt in self.hurt.iter_mut().filter(|it| it.until <= now) {
            hurt.paused = None;
        }
    }

    async fn see_who_is_back(&mut self) {
        let mut back = BTreeSet::new();
        for hurt in self.hurt.iter().filter(|it| it.paused.is_none()) {
            let Some(server) = self.servers.get(&hurt.id) else { continue };
            if is_back(&self.shared.target, server).await {
                self.is_over(hurt);
                back.insert(hurt.id);
            }
        }
        self.hurt.retain(|it| !back.contains(&it.id));
        self.shared.metrics.faults_active.set(self.hurt.len() as i64);
    }

    fn is_over(&self, hurt: &Hurt) {
        let now = self.shared.now();
        let mut record = self.shared.record();
        record.strikes[hurt.strike].over = Some(now);
        let strike = record.strikes[hurt.strike].clone();
        let longest = gap(&acknowledgements(&record.operations), strike.at, now);
        drop(record);
        let away = seconds(Duration::from_nanos(now - strike.at));
        let without = longest.map_or("no write was acknowledged yet".into(), |longest| {
            format!("no write was acknowledged for {}", seconds(longest))
        });
        if let (true, Some(longest)) = (strike.led, longest) {
            self.shared.metrics.failover.observe(longest.as_secs_f64());
        }
        self.progress.say(&format!("{} answers again after {away}; {without}", strike.master));
    }

    /// Ends every fault and waits until all masters are back, at most so long. Nothing more is struck.
    pub(super) async fn end(&mut self, within: Duration) {
        self.plan.clear();
        for hurt in &mut self.hurt {
            hurt.paused = None;
        }
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

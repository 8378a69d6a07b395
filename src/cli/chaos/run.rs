//! `coxswain chaos run`: from a scenario's name to the verdict. Says what it will do and asks, runs the
//! load with the faults, checks as it goes, ends every fault, and writes the report.

use super::{
    NotShown,
    api::{Client, LABEL, Shared, Write, revision},
    certificates,
    checking::Checking,
    clocks, disks,
    faults::{Faults, LOOK_INTERVAL, masters, servers},
    informing, load,
    metrics::Metrics,
    network, nodes, objects, overload,
    processes::Process,
    watching,
};
use crate::{
    cli::{
        bench::figures::machine,
        client::{Connection, Target},
        members, output, stop_signal,
    },
    dev::progress::Progress,
};
use ::chaos::{
    Violation,
    figures::{Work, failovers, totals},
    growing::Growing,
    history::{Guard, Told},
    informer::reached,
    judge::{self, State, Sum, Verdict, seconds, spread},
    record::{Record, shown},
    report,
    scenario::{self, Harm, Kind, Scenario, Workload, duration},
    schedule::{self, Strike},
};
use anyhow::{Context, Result, bail, ensure};
use http::Method;
use rand::Rng as _;
use serde_json::{Value, json};
use std::{
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Between two progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// After the end: for the last write, and for every watcher to see it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Run a scenario; exits with 0 if all checks hold, 1 if a promise is broken, 2 if nothing was shown
#[derive(clap::Args)]
pub(super) struct Args {
    /// A scenario's name (`coxswain chaos list`), or the path of a file
    scenario: String,

    /// How long, such as 60s or 10m (default: as the scenario says)
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,

    /// Which fault comes when (default: a new one, which is printed)
    #[arg(long)]
    seed: Option<u64>,

    /// Write a report to this HTML file
    #[arg(long)]
    report: Option<PathBuf>,

    /// Kubeconfig of the cluster (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(long)]
    kubeconfig: Option<PathBuf>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Do not ask, also where the masters are not those of `coxswain dev`
    #[arg(long)]
    yes: bool,

    /// Serve Prometheus metrics of the run at http://ADDRESS/metrics, on loopback (port 0: any)
    #[arg(long)]
    metrics_listen: Option<SocketAddr>,
}

pub(super) async fn run(args: Args) -> Result<()> {
    match prepare(args).await {
        Ok(Some(plan)) => verdict(plan.carry_out().await),
        Ok(None) => Ok(()),
        Err(error) => verdict(Err(error)),
    }
}

/// What the command comes to: good news, bad news, or none.
fn verdict(sum: Result<Sum>) -> Result<()> {
    match sum {
        Ok(Sum::Held) => Ok(()),
        Ok(Sum::Broken) => bail!("a promise was broken"),
        Ok(Sum::Unproven) => Err(not_shown("the run did not show what it was to show")),
        Err(error) => Err(not_shown(&format!("the run could not be made: {error:#}"))),
    }
}

fn not_shown(why: &str) -> anyhow::Error {
    anyhow::Error::new(NotShown(why.to_owned()))
}

/// What will be done, to which cluster.
struct Plan {
    args: Args,
    scenario: Scenario,
    /// Workloads of it that do not run, and why.
    left_out: Vec<(Kind, String)>,
    length: Duration,
    seed: u64,
    strikes: Vec<Strike>,
    target: Target,
    masters: usize,
}

/// Looks at the scenario and the cluster, says what will be done and asks; `None` if that is all.
async fn prepare(args: Args) -> Result<Option<Plan>> {
    let mut scenario = read(&args.scenario)?;
    let length = args.duration.unwrap_or(scenario.duration);
    let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(1..1_000_000));
    let mut strikes = schedule::plan(&scenario, seed, length);
    ensure!(!strikes.is_empty(), "{} is too short for any fault", seconds(length));
    let target = Target::of_masters(args.kubeconfig.as_deref())?;
    let members = members::ask(&target).await?;
    let voters = masters(&members).iter().filter(|it| it.votes).count();
    ensure!(
        schedule::minority(voters) > 0,
        "{voters} masters vote: without one of them the cluster stands still; at least 3 are needed"
    );
    let mut in_dev = true;
    for member in &members {
        let process = Process::of_member(member)?;
        in_dev &= process.in_dev;
    }
    if scenario.faults.iter().any(|it| it.kind.is_of_network()) {
        network::check(&members)?;
    }
    if scenario.faults.iter().any(|it| it.kind.is_of_disk()) {
        disks::check(&members)?;
    }
    if scenario.faults.iter().any(|it| it.kind == Harm::CertificateEnd) {
        certificates::check(&members)?;
    }
    if strikes.iter().any(|it| it.harm.is_of_node())
        && let Err(why) = nodes::check(&target, &members).await
    {
        leave_out(&mut strikes, |it| it.harm.is_of_node(), "of nodes", why)?;
    }
    if strikes.iter().any(|it| it.harm == Harm::Clock)
        && let Err(why) = clocks::check(&members)
    {
        leave_out(&mut strikes, |it| it.harm == Harm::Clock, "of clocks", why)?;
    }
    let left_out = without_nodes(&mut scenario, &target).await?;
    let masters = voters;
    let plan = Plan { scenario, left_out, length, seed, strikes, target, masters, args };
    plan.say(in_dev);
    if plan.args.dry_run {
        return Ok(None);
    }
    ensure!(in_dev || plan.args.yes || confirmed()?, "not confirmed");
    Ok(Some(plan))
}

/// Takes the workloads away that nodes are needed for, if there are none.
async fn without_nodes(scenario: &mut Scenario, target: &Target) -> Result<Vec<(Kind, String)>> {
    if !scenario.workloads.iter().any(|it| it.kind.needs_nodes()) {
        return Ok(Vec::new());
    }
    if nodes::ask(target).await.context("which nodes are there?")?.iter().any(|it| it.ready) {
        return Ok(Vec::new());
    }
    let all = std::mem::take(&mut scenario.workloads);
    let (left_out, kept) = all.into_iter().partition(|it: &Workload| it.kind.needs_nodes());
    scenario.workloads = kept;
    let why = "no node is ready; `coxswain dev --nodes 3`, as root, has some";
    Ok(left_out.into_iter().map(|it: Workload| (it.kind, why.to_owned())).collect())
}

/// Without what this cluster cannot show; an error if nothing would be left.
fn leave_out(
    strikes: &mut Vec<Strike>,
    what: impl Fn(&Strike) -> bool,
    named: &str,
    why: anyhow::Error,
) -> Result<()> {
    strikes.retain(|it| !what(it));
    let why = why.context(format!("faults {named} cannot be made here"));
    if strikes.is_empty() {
        return Err(why);
    }
    output::warn(&format!("{why:#}; the run goes without them"));
    Ok(())
}

fn read(wanted: &str) -> Result<Scenario> {
    if let Some(text) = scenario::built_in(wanted) {
        return scenario::parse(text).map_err(anyhow::Error::msg);
    }
    let text = std::fs::read_to_string(wanted).with_context(|| {
        format!("{wanted:?} is neither a scenario (`coxswain chaos list`) nor a file to be read")
    })?;
    scenario::parse(&text).map_err(|why| anyhow::anyhow!("{wanted}: {why}"))
}

fn confirmed() -> Result<bool> {
    let input = std::io::stdin();
    ensure!(
        input.is_terminal(),
        "these masters are not those of a `coxswain dev`: say --yes if they are to be broken"
    );
    let mut stdout = std::io::stdout();
    let asked = write!(stdout, "This cluster is not a `coxswain dev`. Type yes to break it: ");
    asked.and_then(|()| stdout.flush()).context("cannot ask")?;
    let mut answer = String::new();
    input.read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim() == "yes")
}

impl Plan {
    /// What will be done, for people.
    fn say(&self, in_dev: bool) {
        let where_ = if in_dev { "a `coxswain dev`" } else { "NOT a `coxswain dev`" };
        output::say(&format!(
            "{}: {}\n{} masters of {where_}; {:.0}s, seed {}",
            self.scenario.name,
            self.scenario.description,
            self.masters,
            self.length.as_secs_f64(),
            self.seed
        ));
        for load in &self.scenario.workloads {
            let (clients, kind) = (load.clients, load.kind);
            output::say(&format!("  load   {clients} clients: {kind}"));
        }
        for (kind, why) in &self.left_out {
            output::say(&format!("  not run: {kind} ({why})"));
        }
        for strike in &self.strikes {
            output::say(&format!("  fault {strike}"));
        }
    }

    /// How many watch, and how many list and watch.
    fn looking(&self) -> (usize, usize) {
        let count = |kind: Kind| {
            let of_kind = self.scenario.workloads.iter().filter(|it| it.kind == kind);
            of_kind.map(|it| it.clients).sum::<usize>()
        };
        // One more sees what was committed, whatever the scenario has.
        (count(Kind::WatchFollow).max(1), count(Kind::ListAndWatch))
    }

    async fn carry_out(self) -> Result<Sum> {
        let metrics = Metrics::new()?;
        let mut helpers = JoinSet::new();
        if let Some(at) = self.args.metrics_listen {
            let bound = metrics.serve(at, &mut helpers).await?;
            output::say(&format!("metrics at http://{bound}/metrics"));
        }
        let servers = servers(&self.target).await?;
        let namespace = format!("chaos-{}-{:06x}", self.seed, rand::rng().random_range(0..1 << 24));
        let version = version(&self.target).await?;
        let from = make_namespace(&self.target, &namespace).await?;
        let (target, seed) = (self.target.clone(), self.seed);
        let shared = Shared::new(target, namespace, metrics, seed, self.looking());
        let (shared, progress) = (Arc::new(shared), Progress::start());
        let started = jiff::Timestamp::now();
        let (strikes, mut load) = (self.strikes.clone(), JoinSet::new());
        let mut faults = Faults::new(&shared, &progress, strikes, servers);
        watching::start(&shared, self.looking().0, from, &mut helpers);
        informing::start(&shared, self.looking().1, &mut helpers);
        objects::start(&shared, &self.scenario.workloads, from, &mut helpers);
        let prepared = self.prepare(&shared);
        let prepared = tokio::time::timeout(SETTLE_TIMEOUT, prepared).await;
        let ran = match prepared.context("no master takes the first writes").flatten() {
            Ok(()) => {
                load::start(&shared, &self.scenario.workloads, &mut load);
                self.last(&shared, &mut faults, &progress).await
            }
            Err(error) => Err(error),
        };
        let length = Duration::from_nanos(shared.now());
        shared.stop.cancel();
        while load.join_next().await.is_some() {}
        shared.record().load_ended = Some(shared.now());
        faults.end(self.scenario.checks.back_within).await;
        if ran.is_ok() {
            progress.say("the load has ended and every fault too; looking at what is there");
            objects::settle(&shared, self.scenario.checks.reconciled_within).await;
            settle(&shared).await;
        }
        shared.record().ended = Some(shared.now());
        let spared = std::mem::take(&mut faults.spared);
        helpers.shutdown().await;
        if let Err(error) = self.clean_up(&shared).await {
            let left = &shared.namespace;
            output::warn(&format!(
                "namespace {left}, or what else is called so, is left: {error:#}"
            ));
        }
        let cut_short = ran?;
        if let Some(why) = &cut_short {
            output::say(&format!("the run ended before its time: {why}"));
        }
        let record = shared.record();
        let verdicts = judge::verdicts(&self.scenario, &record, length);
        self.say_failovers(&record);
        say_verdicts(&verdicts);
        if let Some(path) = &self.args.report {
            let facts = self.facts((started, length), cut_short.clone(), spared, version);
            let html = report::html(&facts, &record, &verdicts);
            std::fs::write(path, html)
                .with_context(|| format!("cannot write {}", path.display()))?;
            output::say(&format!("report in {}", path.display()));
        }
        Ok(match (judge::sum(&verdicts), cut_short) {
            (Sum::Held, Some(_)) => Sum::Unproven,
            (sum, _) => sum,
        })
    }

    /// Makes what the load and the faults need.
    async fn prepare(&self, shared: &Shared) -> Result<()> {
        if self.floods() {
            overload::prepare(shared).await?;
        }
        load::prepare(shared, &self.scenario.workloads).await
    }

    async fn clean_up(&self, shared: &Shared) -> Result<()> {
        let removed = remove_namespace(shared).await;
        match self.floods() {
            true => removed.and(overload::clean_up(shared).await),
            false => removed,
        }
    }

    fn floods(&self) -> bool {
        self.scenario.faults.iter().any(|it| it.kind == Harm::Overload)
    }

    /// The time of the run; why it ended before its time, if it did.
    async fn last(
        &self,
        shared: &Arc<Shared>,
        faults: &mut Faults<'_>,
        progress: &Progress,
    ) -> Result<Option<String>> {
        let stopped = stop_signal();
        tokio::pin!(stopped);
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut said, mut checking) = (Instant::now(), Checking::of(shared));
        while Duration::from_nanos(shared.now()) < self.length {
            tokio::select! {
                signal = &mut stopped => {
                    signal?;
                    return Ok(Some("it was interrupted".to_owned()));
                }
                _ = tick.tick() => faults.step().await?,
            }
            if said.elapsed() >= PROGRESS_INTERVAL {
                said = Instant::now();
                progress.say(&so_far(shared));
            }
            if let Some(first) = checking.step()?.first() {
                progress.say(&format!("BROKEN: {first}"));
                return Ok(Some("a promise was found broken".to_owned()));
            }
        }
        Ok(None)
    }

    fn say_failovers(&self, record: &Record) {
        output::say("");
        for work in Work::of(&self.scenario.workloads) {
            let (gaps, what) = (failovers(record, work), work.stood_still());
            if !gaps.is_empty() {
                output::say(&format!("{} failovers: {what} for {}", gaps.len(), spread(gaps)));
            }
        }
    }

    fn facts(
        &self,
        (started, length): (jiff::Timestamp, Duration),
        cut_short: Option<String>,
        spared: Vec<(Strike, String)>,
        version: String,
    ) -> report::Facts<'_> {
        let machine = machine();
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let build = format!("{} ({})", env!("CARGO_PKG_VERSION"), text(&machine["profile"]));
        let cpu = format!("{} cores, {}", machine["cores"], text(&machine["cpu"]));
        let environment = [
            ("coxswain", build),
            ("masters", format!("{}, as Kubernetes {version}", self.masters)),
            ("machine", cpu),
            ("kernel", kernel()),
        ];
        report::Facts {
            scenario: &self.scenario,
            seed: self.seed,
            started: started.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            length,
            cut_short,
            replay: format!(
                "coxswain chaos run {} --duration {} --seed {}",
                self.args.scenario,
                scenario::in_words(self.length),
                self.seed
            ),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            spared,
            left_out: self.left_out.clone(),
        }
    }
}

/// Its version, without what a distribution adds.
fn kernel() -> String {
    let Ok(system) = nix::sys::utsname::uname() else { return "?".to_owned() };
    let release = system.release().to_string_lossy().into_owned();
    let version = release.split('-').next().unwrap_or_default();
    format!("{} {version}", system.sysname().to_string_lossy())
}

fn so_far(shared: &Shared) -> String {
    let record = shared.record();
    let (mut writes, mut reads) = ([0; 3], 0);
    for total in totals(&record.operations).values() {
        reads += total.reads[0];
        writes.iter_mut().zip(total.writes).for_each(|(sum, count)| *sum += count);
    }
    let [done, refused, unknown] = writes;
    format!(
        "{done} writes acknowledged, {refused} refused, {unknown} unknown; {reads} lists; {} changes \
         seen by all watchers",
        record.watchers.iter().map(Growing::len).min().unwrap_or(0)
    )
}

/// Asks every master what there is, writes a last time, and waits until every watcher has seen that.
async fn settle(shared: &Shared) {
    // The load's token has ended; these clients do not stop with it.
    let within = tokio::time::timeout(SETTLE_TIMEOUT, settled(shared)).await;
    let what = match within {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => {
            let record = shared.record();
            let shown: Vec<u64> = record.watchers.iter().map(shown).collect();
            let reached: Vec<u64> = record.informers.iter().map(reached).collect();
            format!(
                "the last write is not seen within {SETTLE_TIMEOUT:?} by all watchers, who are at \
                 {shown:?}, and all who list and watch, at {reached:?}"
            )
        }
    };
    shared.record().broken.push(Violation::new("watches", what));
}

async fn settled(shared: &Shared) -> Result<()> {
    for number in 0..shared.target.servers.len() {
        for kind in [Kind::Register, Kind::Counter, Kind::Churn] {
            Client::patient(shared, kind, number as u64).list(kind).await;
        }
    }
    let mut end = None;
    for turn in 0.. {
        let key = format!("{}-end-{turn}", Kind::Register);
        let value = Some(format!("end-{turn}"));
        let write = Write { key: &key, value, guard: Guard::Absent };
        if let Some(Told::Done(revision)) =
            Client::patient(shared, Kind::Register, turn).write(write).await
        {
            end = revision;
            break;
        }
    }
    let end = end.context("the last write has no revision")?;
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    while shared.record().horizon() < end {
        tick.tick().await;
    }
    Ok(())
}

fn say_verdicts(verdicts: &[Verdict]) {
    for verdict in verdicts {
        let (mark, more) = match &verdict.state {
            State::Held => ("holds    ", Vec::new()),
            State::Broken(found) => ("BROKEN   ", found.iter().map(ToString::to_string).collect()),
            State::Unproven(why) => ("not shown", vec![why.clone()]),
        };
        output::say(&format!("{mark}  {:18} {}", verdict.check, verdict.looked_at));
        // Ten: the first say what is wrong.
        more.iter().take(10).for_each(|line| output::say(&format!("             {line}")));
    }
}

/// The Kubernetes version that the cluster says it has.
async fn version(target: &Target) -> Result<String> {
    let answer = ask(target, Method::GET, "/version", Value::Null).await?;
    Ok(answer["gitVersion"].as_str().unwrap_or("?").to_owned())
}

/// A namespace for the run; the revision as of which nothing of it is there.
async fn make_namespace(target: &Target, name: &str) -> Result<u64> {
    let labels = json!({LABEL: "run"});
    let namespace = json!({"metadata": {"name": name, "labels": labels}});
    let made = ask(target, Method::POST, "/api/v1/namespaces", namespace).await?;
    revision(&made).context("the namespace has no revision")
}

async fn remove_namespace(shared: &Shared) -> Result<()> {
    let path = format!("/api/v1/namespaces/{}", shared.namespace);
    ask(&shared.target, Method::DELETE, &path, Value::Null).await.map(drop)
}

/// One request to the first master that takes connections; an error unless it says that it is done.
pub(super) async fn ask(target: &Target, method: Method, path: &str, body: Value) -> Result<Value> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let asked = async {
        let mut connection = Connection::to_any(target).await?;
        connection.call(method, path, body).await
    };
    let asked = tokio::time::timeout(REQUEST_TIMEOUT, asked).await;
    let (code, body) = asked.with_context(|| format!("{path}: no answer"))??;
    ensure!((200..300).contains(&code), crate::cli::client::refused(path, code, &body));
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit_code;

    #[test]
    fn bad_news_and_no_news_have_exit_codes_of_their_own() {
        let code = |sum: Result<Sum>| format!("{:?}", exit_code(&verdict(sum).unwrap_err()));
        let is = |code: u8| format!("{:?}", std::process::ExitCode::from(code));
        assert!(verdict(Ok(Sum::Held)).is_ok());
        assert_eq!(code(Ok(Sum::Broken)), is(1));
        assert_eq!(code(Ok(Sum::Unproven)), is(2));
        assert_eq!(code(Err(anyhow::anyhow!("no cluster"))), is(2));
    }

    #[test]
    fn what_a_cluster_cannot_show_is_left_out_unless_nothing_remains() {
        let strikes = |name: &str| {
            let scenario = scenario::parse(scenario::built_in(name).unwrap()).unwrap();
            schedule::plan(&scenario, 7, Duration::from_secs(600))
        };
        let without = |strikes: &mut Vec<Strike>| {
            let why = anyhow::anyhow!("there are no nodes");
            leave_out(strikes, |it| it.harm.is_of_node(), "of nodes", why)
        };
        let (all, mut some) = (strikes("everything"), strikes("everything"));
        without(&mut some).unwrap();
        assert!(!some.is_empty() && some.len() < all.len());
        assert!(some.iter().all(|it| !it.harm.is_of_node() && all.contains(it)));
        let refused = format!("{:#}", without(&mut strikes("node-loss")).unwrap_err());
        assert_eq!(refused, "faults of nodes cannot be made here: there are no nodes");
    }

    #[test]
    fn a_scenario_is_found_by_name_or_in_a_file() {
        assert_eq!(read("leader-pause").unwrap().name, "leader-pause");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("own.toml");
        let path = path.to_str().unwrap();
        assert!(format!("{:#}", read(path).unwrap_err()).contains("neither a scenario"));
        let text = scenario::built_in("leader-kill").unwrap().replace("leader-kill", "own");
        std::fs::write(path, &text).unwrap();
        assert_eq!(read(path).unwrap().name, "own");
        std::fs::write(path, text.replace("kill", "tickle")).unwrap();
        let why = format!("{:#}", read(path).unwrap_err());
        assert!(why.contains("unknown variant") && why.contains("own.toml"), "{why}");
    }
}

//! The verdict on a run: what it was to show, and whether it did. A check for which nothing happened
//! has shown nothing, and says so.

use crate::{
    Violation, binding, churn, counter, figures,
    growing::Growing,
    informer, lease, linear, objects,
    record::Record,
    rollout,
    scenario::{Harm, Kind, Scenario},
    watched,
};
use std::time::Duration;

/// Under which name the counter is kept.
pub const COUNTER: &str = "counter";

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Held,
    Broken(Vec<Violation>),
    /// What it is about did not happen.
    Unproven(String),
}

/// One check of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub check: &'static str,
    /// In words for who does not know the check.
    pub means: &'static str,
    pub state: State,
    /// What it looked at.
    pub looked_at: String,
}

/// What a run comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    Held,
    Broken,
    Unproven,
}

pub fn sum(verdicts: &[Verdict]) -> Sum {
    let any = |is: fn(&State) -> bool| verdicts.iter().any(|it| is(&it.state));
    if any(|state| matches!(state, State::Broken(_))) {
        Sum::Broken
    } else if verdicts.is_empty() || any(|state| matches!(state, State::Unproven(_))) {
        Sum::Unproven
    } else {
        Sum::Held
    }
}

/// What a run is to be called off for: promises broken up to `horizon`, which [`Record::horizon`]
/// gives.
pub fn violations(record: &Record, horizon: u64) -> Vec<Violation> {
    let safety = Safety::of(record, horizon);
    let Safety { linear, counter, watches, informers, leases, .. } = safety;
    let pods = binding::check(&record.objects.pods.shown);
    let rollouts = rollout::check(&record.objects, record.objects.horizon());
    let all = [record.broken.clone(), linear, counter, watches, informers, leases, pods, rollouts];
    all.into_iter().flatten().collect()
}

/// What is promised of the answers, whatever happens to the masters.
struct Safety {
    linear: Vec<Violation>,
    counter: Vec<Violation>,
    watches: Vec<Violation>,
    informers: Vec<Violation>,
    leases: Vec<Violation>,
    /// Writes, linearizable reads and events that were looked at.
    looked_at: [usize; 3],
}

impl Safety {
    fn of(record: &Record, horizon: u64) -> Safety {
        let (truth, mut watches) = record.truth(horizon);
        let ops = record.judged(horizon);
        for seen in &record.watchers {
            let seen = seen.iter().take_while(|it| it.revision() <= horizon);
            watches.extend(watched::check("", seen, &truth));
        }
        let reads = ops.iter().filter(|op| matches!(op.what, crate::history::What::Read { .. }));
        let reads = reads.count();
        Safety {
            looked_at: [ops.len() - reads, reads, truth.events().len()],
            linear: linear::check_part(&ops, &truth),
            counter: counter::check(COUNTER, &ops, &truth),
            watches,
            informers: record
                .informers
                .iter()
                .flat_map(|steps| informer::check(steps.iter(), &truth, horizon))
                .collect(),
            leases: lease::check(&record.of_lease()),
        }
    }
}

/// The verdict per check of a run that lasted `length`.
pub fn verdicts(scenario: &Scenario, record: &Record, length: Duration) -> Vec<Verdict> {
    let safety = Safety::of(record, record.horizon());
    let (broken_watches, broken): (Vec<_>, Vec<_>) =
        record.broken.iter().cloned().partition(|it| it.check == "watches");
    let has = |kind: Kind| scenario.workloads.iter().any(|it| it.kind == kind);
    let [writes, reads, events] = safety.looked_at;
    let mut verdicts = vec![Verdict {
        check: "linearizable",
        means: "Every acknowledged write is there, none is there twice or though it was refused, \
                and every read saw all that was acknowledged before it began.",
        looked_at: format!("{writes} writes and {reads} lists, against {events} changes"),
        state: state(safety.linear, writes > 0 && events > 0, "nothing was written"),
    }];
    if has(Kind::Counter) {
        let added = figures::totals(&record.operations).get(&Kind::Counter).copied();
        let added = added.unwrap_or_default().writes[0];
        verdicts.push(Verdict {
            check: "counter",
            means: "Nobody's addition to a shared number was lost or made twice.",
            looked_at: format!("{added} acknowledged additions"),
            state: state(safety.counter, added > 0, "nothing was added"),
        });
    }
    let watches = [safety.watches, broken_watches].concat();
    // One watcher there always is, whatever the scenario has.
    if has(Kind::WatchFollow) || !watches.is_empty() {
        let count = record.watchers.len();
        verdicts.push(Verdict {
            check: "watches",
            means: "Every watcher was shown every change once, in order, also after it had moved \
                    to another master.",
            looked_at: format!("{count} watchers and {events} changes"),
            state: state(watches, events > 0 && count > 0, "nothing was shown"),
        });
    }
    if has(Kind::ListAndWatch) {
        verdicts.push(informers(record, safety.informers));
    }
    if has(Kind::Lease) {
        verdicts.push(leases(record, safety.leases));
    }
    if has(Kind::Churn) {
        verdicts.push(churn(record));
    }
    if has(Kind::Binding) {
        verdicts.push(bindings(scenario, record));
    }
    if has(Kind::RollingUpdate) {
        verdicts.push(rolling_updates(scenario, record));
    }
    verdicts.push(writes_go_on(scenario, record, length));
    verdicts.push(masters_come_back(scenario, record, broken));
    verdicts
}

fn informers(record: &Record, found: Vec<Violation>) -> Verdict {
    let steps = || record.informers.iter().flat_map(Growing::iter);
    let lists = steps().filter(|step| matches!(step, informer::Step::Listed { .. })).count();
    let events = steps().filter(|step| matches!(step, informer::Step::Event(_))).count();
    Verdict {
        check: "informers",
        means: "Who lists once and keeps what it has by a watch from there on has what is there, \
                and never goes back.",
        looked_at: format!("{lists} lists and {events} changes after them"),
        state: state(found, lists > 0 && events > 0, "nothing was listed, or nothing shown"),
    }
}

fn leases(record: &Record, found: Vec<Violation>) -> Verdict {
    let ops = record.of_lease();
    let holds = lease::holds(&ops).len();
    Verdict {
        check: "leases",
        means: "Never did two clients hold the lease at once, going by what they were told.",
        looked_at: format!("{holds} times somebody held it, {} requests", ops.len()),
        state: state(found, holds > 0, "nobody ever held it"),
    }
}

/// Only in the end: an acknowledged deletion has no revision, so that nobody can say whether it should
/// have been shown by then.
fn churn(record: &Record) -> Verdict {
    let horizon = record.horizon();
    let (truth, _) = record.truth(horizon);
    let prefix = Kind::Churn.to_string();
    let ops = record.judged(horizon);
    let found = churn::check(&prefix, &ops, &truth);
    let totals = figures::totals(&record.operations).get(&Kind::Churn).copied();
    let done = totals.unwrap_or_default().writes[0];
    let remain = truth.at(&prefix, horizon).len();
    Verdict {
        check: "churn",
        means: "Exactly those objects remain that were created and not deleted.",
        looked_at: format!("{done} acknowledged creations and deletions; {remain} remain"),
        state: state(found, done > 0, "nothing was created"),
    }
}

fn bindings(scenario: &Scenario, record: &Record) -> Verdict {
    const CHECK: &str = "binding";
    let allowed = scenario.checks.reconciled_within;
    let (waits, pods) = (objects::unbound(record), &record.objects.pods);
    let mut found = binding::check(&pods.shown);
    found.extend(objects::lost(CHECK, record, Kind::Binding, pods));
    found.extend(objects::late(CHECK, &waits, record, allowed));
    let bound = waits.iter().filter(|it| it.until.is_some()).count();
    Verdict {
        check: CHECK,
        means: "Every pod got a node soon, and the same for good: none was bound twice.",
        looked_at: format!("{} pods, {bound} were bound, {}", waits.len(), waited(&waits, allowed)),
        state: state(found, bound > 0, "no pod was bound"),
    }
}

fn rolling_updates(scenario: &Scenario, record: &Record) -> Verdict {
    const CHECK: &str = "rolling updates";
    let allowed = scenario.checks.reconciled_within;
    let (waits, objects) = (objects::unreconciled(record), &record.objects);
    let mut found = rollout::check(objects, objects.horizon());
    found.extend(objects::lost(CHECK, record, Kind::RollingUpdate, &objects.deployments));
    found.extend(objects::late(CHECK, &waits, record, allowed));
    let done = waits.iter().filter(|it| it.until.is_some()).count();
    Verdict {
        check: CHECK,
        means: "Every change of a Deployment was carried out soon, and never with more pods than it \
                allows.",
        looked_at: format!(
            "{} changes, {done} were carried out, {}",
            waits.len(),
            waited(&waits, allowed)
        ),
        state: state(found, done > 0, "no change was carried out"),
    }
}

/// How long somebody waited, for people.
fn waited(waits: &[objects::Wait], allowed: Duration) -> String {
    let took = waits.iter().filter_map(|it| Some(it.until?.saturating_sub(it.asked)));
    let spread = spread(took.map(Duration::from_nanos).collect());
    format!("after {spread}; {} without any fault are allowed", seconds(allowed))
}

/// How they are spread, for people.
pub fn spread(mut all: Vec<Duration>) -> String {
    all.sort_unstable();
    let figure = |percent| figures::percentile(&all, percent).map_or("-".into(), seconds);
    format!("{} (p50), {} (p99), {} (longest)", figure(50), figure(99), figure(100))
}

fn state(found: Vec<Violation>, looked: bool, otherwise: &str) -> State {
    match (found.is_empty(), looked) {
        (false, _) => State::Broken(found),
        (true, true) => State::Held,
        (true, false) => State::Unproven(otherwise.to_owned()),
    }
}

fn writes_go_on(scenario: &Scenario, record: &Record, length: Duration) -> Verdict {
    let acknowledged = figures::acknowledgements(&record.operations, 0);
    let end = length.as_nanos() as u64;
    let (since, longest) = figures::longest_gap(&acknowledged, end);
    let allowed = scenario.checks.longest_gap;
    let at = Duration::from_nanos(since).as_secs_f64();
    let said = format!("from {at:.2}s on no write was acknowledged for {}", seconds(longest));
    let found = (longest > allowed).then(|| Violation::new("writes go on", said));
    Verdict {
        check: "writes go on",
        means: "With a majority of masters there, somebody can write again soon.",
        looked_at: format!(
            "the longest time without an acknowledged write was {} ({} are allowed)",
            seconds(longest),
            seconds(allowed)
        ),
        state: state(found.into_iter().collect(), true, ""),
    }
}

fn masters_come_back(scenario: &Scenario, record: &Record, mut found: Vec<Violation>) -> Verdict {
    let allowed = scenario.checks.back_within;
    for strike in &record.strikes {
        let what = match figures::away(strike) {
            None => "does not answer".to_owned(),
            // Neither a pause nor a partition is a failure of whom it hit.
            Some(away) if away > allowed + hold(scenario, strike.harm) => {
                format!("was away for {}", seconds(away))
            }
            Some(_) => continue,
        };
        let at = Duration::from_nanos(strike.at).as_secs_f64();
        let what = format!("{} {what} after the {} at {at:.2}s", strike.master, strike.harm);
        found.push(Violation::new("masters come back", what));
    }
    let count = record.strikes.len();
    Verdict {
        check: "masters come back",
        means: "A master or node that was hit is ready again by itself.",
        looked_at: format!("faults: {count} ({} are allowed for each)", seconds(allowed)),
        state: state(found, count > 0, "no fault happened"),
    }
}

/// How long faults of this kind last, at most.
fn hold(scenario: &Scenario, harm: Harm) -> Duration {
    let lasting = scenario.faults.iter().filter(|it| it.kind == harm && it.kind.lasts());
    lasting.map(|it| it.hold).max().unwrap_or_default()
}

/// For people: milliseconds below a second.
pub fn seconds(length: Duration) -> String {
    match length.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms => format!("{:.2} s", ms as f64 / 1e3),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        figures::Work,
        history::{Event, Guard, Told, What},
        informer::Step,
        objects::{Shown, State as Of},
        record::{Outcome, Struck},
        scenario::{Harm, built_in, parse},
        watched::Seen,
    };

    const MS: u64 = 1_000_000;
    pub(crate) const LENGTH: Duration = Duration::from_secs(4);

    /// All are shown what was committed.
    fn show(record: &mut Record, revision: u64, key: &str, value: Option<String>) {
        let event = Event { revision, place: 0, key: key.to_owned(), value, term: 0 };
        record.watchers.iter_mut().for_each(|seen| seen.push(Seen::Event(event.clone())));
        record.informers.iter_mut().for_each(|steps| steps.push(Step::Event(event.clone())));
    }

    /// An object comes at 2 s and goes at 3 s.
    fn churn(record: &mut Record, (n, at, revision): (u64, u64, u64)) {
        let (value, done) = match n {
            100 => (Some("churn-9-0".to_owned()), Told::Done(Some(revision))),
            _ => (None, Told::Done(None)),
        };
        let key = "churn-9-0";
        let number = record.write(Kind::Churn, 9, at, (key, value.clone(), Guard::Nothing));
        record.told(number, at + 3 * MS, done);
        show(record, revision, key, value);
    }

    /// A client takes the lease, or renews it, at a time in milliseconds.
    fn hold(record: &mut Record, client: u64, at: u64, revision: u64) {
        let value = Some(lease::value(Some(client), client, at));
        let write = (lease::LEASE, value, Guard::At(revision - 1));
        let number = record.write(Kind::Lease, client, at * MS, write);
        record.told(number, (at + 3) * MS, Told::Done(Some(revision)));
    }

    fn shown(at: u64, revision: u64, name: &str, state: Option<Of>) -> Shown {
        let owner = (name == "set").then(|| "web".to_owned());
        let (uid, name) = (name.to_owned(), name.to_owned());
        Shown { at: at * MS, revision, uid, name, owner, state }
    }

    /// Two pods that each get a node, and two changes of a Deployment that are carried out: one each
    /// before and after the fault at 1 s.
    fn reconcile(record: &mut Record) {
        for (n, asked, bound) in [(0, 500, 540), (1, 1_650, 2_200)] {
            let (name, revision) = (format!("pod-{n}"), 1_001 + 10 * n);
            let write = (name.as_str(), Some(name.clone()), Guard::Absent);
            let number = record.write(Kind::Binding, 20, asked * MS, write);
            record.told(number, (asked + 4) * MS, Told::Done(Some(revision)));
            let pod =
                |node: Option<&str>| Some(Of::Pod { node: node.map(str::to_owned), active: true });
            let objects = &mut record.objects;
            objects.pods.show(shown(asked + 5, revision, &name, pod(None)));
            objects.pods.show(shown(bound, revision + 1, &name, pod(Some("n1"))));
            let deployment = |done| Some(Of::Deployment { most: 3, generation: n + 1, done });
            objects.deployments.show(shown(asked + 6, revision + 2, "web", deployment(false)));
            objects.sets.show(shown(asked + 7, revision + 3, "set", Some(Of::Set { size: 2 })));
            objects.deployments.show(shown(bound + 50, revision + 4, "web", deployment(true)));
        }
        let objects = &mut record.objects;
        for stream in [&mut objects.pods, &mut objects.sets, &mut objects.deployments] {
            stream.upto = 2_000;
        }
        record.ended = Some(60_000 * MS);
    }

    /// A run of four seconds: a write every 20 ms by a register and a counter, but for 600 ms after
    /// the leader is killed at 1 s; a read after each write of the register; a lease that is held
    /// twice, an object that comes and goes; two watchers, and one who lists and watches.
    pub(crate) fn run() -> Record {
        let mut record = Record::with_informers(2, 1);
        record.watchers.iter_mut().for_each(|seen| seen.push(Seen::From(10)));
        record.informers[0].push(Step::Listed { revision: 10, found: Vec::new() });
        reconcile(&mut record);
        hold(&mut record, 7, 10, 3);
        hold(&mut record, 8, 3_100, 4);
        let mut found: Option<(String, u64)> = None;
        let mut last = (Guard::Absent, Guard::Absent);
        for n in 0..200_u64 {
            let (at, revision) = (n * 20 * MS, 11 + n);
            if (1_000 * MS..1_600 * MS).contains(&at) {
                continue;
            }
            if [100, 150].contains(&n) {
                churn(&mut record, (n, at, revision));
                continue;
            }
            let counts = record.operations.iter().filter(|it| it.workload == Kind::Counter);
            let counts = counts.count() as u64;
            let (workload, key, value, guard) = match n % 2 {
                0 => (Kind::Register, "register-0", format!("v{n}"), last.0),
                _ => (Kind::Counter, COUNTER, counter::value(counts, 2, n), last.1),
            };
            let number = record.write(workload, n % 2, at, (key, Some(value.clone()), guard));
            record.told(number, at + 3 * MS, Told::Done(Some(revision)));
            show(&mut record, revision, key, Some(value.clone()));
            match workload {
                Kind::Register => (found, last.0) = (Some((value, revision)), Guard::At(revision)),
                _ => last.1 = Guard::At(revision),
            }
            if let Some((value, since)) = &found {
                let found = vec![("register-0".into(), value.clone(), *since)];
                let prefix = "register".into();
                let what = What::Read { prefix, revision, found, linearizable: true };
                record.read(Kind::Register, 3, (at + 4 * MS, at + 5 * MS), Ok(what));
            }
        }
        record.read(Kind::Register, 3, (1_100 * MS, 1_500 * MS), Err(Outcome::Unknown));
        let (at, over) = (1_000 * MS, Some(1_900 * MS));
        record.strikes.push(Struck {
            at,
            over,
            harm: Harm::Kill,
            detail: String::new(),
            master: "m2".into(),
            led: true,
        });
        record
    }

    pub(crate) fn scenario() -> Scenario {
        parse(built_in("leader-kill").expect("in the binary")).expect("sound")
    }

    /// The checks that are broken.
    fn broken(record: &Record) -> Vec<&'static str> {
        let verdicts = verdicts(&scenario(), record, LENGTH);
        let is = |it: &&Verdict| matches!(it.state, State::Broken(_));
        verdicts.iter().filter(is).map(|it| it.check).collect()
    }

    #[test]
    fn a_sound_run_holds_and_one_without_faults_shows_nothing() {
        let mut record = run();
        assert_eq!(violations(&record, record.horizon()), []);
        let of = |record: &Record| sum(&verdicts(&scenario(), record, LENGTH));
        assert_eq!(of(&record), Sum::Held, "{:#?}", verdicts(&scenario(), &record, LENGTH));
        record.strikes.clear();
        assert_eq!(of(&record), Sum::Unproven);
        assert_eq!(of(&Record::new(2)), Sum::Unproven);
    }

    /// What each planted mistake is found by, at the horizon and in the end.
    #[test]
    fn each_planted_mistake_is_found_by_its_check() {
        let with = |break_it: fn(&mut Record)| {
            let mut record = run();
            break_it(&mut record);
            broken(&record)
        };
        let lost = with(|record| {
            for seen in &mut record.watchers {
                seen.edit(|seen| drop(seen.remove(20)));
            }
            record.informers[0].edit(|steps| drop(steps.remove(20)));
        });
        assert_eq!(lost, ["linearizable", "counter"], "acknowledged and never there");
        let skipped = with(|record| record.watchers[1].edit(|seen| drop(seen.remove(20))));
        assert_eq!(skipped, ["watches"]);
        let twice = with(|record| {
            record.watchers[0].edit(|seen| seen.insert(21, seen[20].clone()));
        });
        assert_eq!(twice, ["watches"]);
        let stale = with(|record| {
            let reads = record.operations.iter().enumerate().filter(|(_, it)| !it.writes());
            let (late, _) = reads.into_iter().nth(30).expect("a read");
            let late = &mut record.operations.get_mut(late).expect("it is there").op;
            let What::Read { revision, found, .. } = &mut late.what else { panic!("a read") };
            (*revision, *found) = (10, Vec::new());
        });
        assert_eq!(stale, ["linearizable"]);
        let missed = with(|record| record.informers[0].edit(|steps| drop(steps.remove(20))));
        assert_eq!(missed, ["informers"]);
        assert_eq!(with(|record| hold(record, 9, 1_500, 5)), ["leases"], "held at the time");
        let denied = with(|record| {
            let numbered = record.operations.iter().enumerate();
            let of_churn = numbered.filter(|(_, it)| it.workload == Kind::Churn);
            let (last, _) = of_churn.last().expect("a deletion");
            record.told(last, 3_003 * MS, Told::Refused);
        });
        assert_eq!(denied, ["churn"]);
        let bound_twice = with(|record| {
            let mut again = record.objects.pods.shown[3].clone();
            again.state = Some(Of::Pod { node: Some("n2".into()), active: true });
            record.objects.pods.shown.push(again);
        });
        assert_eq!(bound_twice, ["binding"]);
        assert_eq!(with(|record| drop(record.objects.pods.shown.pop())), ["binding"], "never");
        let lost = with(|record| drop(record.objects.pods.shown.drain(2..)));
        assert_eq!(lost, ["binding"], "acknowledged and never shown");
        let many = with(|record| {
            let state = Some(Of::Set { size: 4 });
            record.objects.sets.shown.push(shown(3_000, 1_900, "set", state));
        });
        assert_eq!(many, ["rolling updates"]);
        let idle = with(|record| drop(record.objects.deployments.shown.pop()));
        assert_eq!(idle, ["rolling updates"], "never carried out");
        let away = with(|record| record.strikes[0].over = None);
        assert_eq!(away, ["masters come back"]);
        let never = with(|record| record.broken.push(Violation::new("watches", "lost its place")));
        assert_eq!(never, ["watches"]);
    }

    #[test]
    fn what_watchers_have_not_seen_yet_is_not_judged() {
        let mut record = run();
        let all = record.horizon();
        // They are behind; what is newer than what they saw has no verdict yet.
        record.watchers.iter_mut().for_each(|seen| seen.edit(|seen| seen.truncate(40)));
        record.informers[0].edit(|steps| steps.truncate(40));
        assert!(record.horizon() < all);
        assert_eq!(violations(&record, record.horizon()), []);
        assert_ne!(violations(&record, all), []);
    }

    #[test]
    fn a_long_time_without_writes_is_found() {
        let mut scenario = scenario();
        scenario.checks.longest_gap = Duration::from_millis(300);
        let verdicts = verdicts(&scenario, &run(), LENGTH);
        let verdict = verdicts.iter().find(|it| it.check == "writes go on").expect("judged");
        let State::Broken(found) = &verdict.state else { panic!("{verdict:?}") };
        assert!(found[0].what.starts_with("from 0.98s on"), "{found:?}");
        let mut record = run();
        let failovers = |work| figures::failovers(&record, work);
        assert_eq!(failovers(Work::Writes), [Duration::from_millis(603)]);
        assert_eq!(failovers(Work::Binding), [Duration::from_millis(550)]);
        assert_eq!(failovers(Work::Reconcile), [Duration::from_millis(594)]);
        record.strikes[0].led = false;
        assert_eq!(figures::failovers(&record, Work::Writes), []);
        let standstills = figures::standstills(&record, Work::Writes);
        assert_eq!(standstills, [Some(Duration::from_millis(603))], "whoever was hit");
        // The last write, long after the load has stopped, ends no gap.
        let write = ("register-end", Some("end".to_owned()), Guard::Absent);
        let number = record.write(Kind::Register, 0, 9_000 * MS, write);
        record.told(number, 9_001 * MS, Told::Done(Some(999)));
        record.load_ended = Some(LENGTH.as_nanos() as u64);
        assert_eq!(figures::standstills(&record, Work::Writes), standstills);
    }
}

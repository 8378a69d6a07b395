//! One run: a seed, its faults, and what was wrong. The seed decides everything else.

use super::{
    checks, clients,
    disks::{Health, StateDisks},
    scheduler::{self, Node, Sleep, WORLD, now_ms, random, run_until, spawn_on},
    witness,
    world::{Fate, Setup, World},
};
use crate::{
    MemberId, Revision,
    backup::{self, Chain, Reader, Restored, Restoring, restore_on},
    mutants::{self, Mutant},
};
use chaos::{
    Violation,
    faults::{Fault, Timed, plan},
    history::{Event, Truth},
    linear, shrink, watched,
};
use rand::{Rng as _, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::Ordering},
};

/// For how long there are faults, in simulated milliseconds.
const FAULTS_MS: u64 = 12_000;
/// In which time a healed cluster must serve again. Generous: a disk may have been slow, a log be behind.
const HEALED_MS: u64 = 40_000;
/// In which time whoever uses the cluster has ended, once it is over, whatever was under way; and for how long
/// what they began and left goes on.
const LEAVING_MS: u64 = 6_000;
const LEFT_MS: u64 = 1_000;
const CLIENTS: u64 = 5;
/// For how long there are faults once a backup was restored.
const RESTORED_MS: u64 = 5_000;
/// All masters are lost in one of so many runs.
const LOSES_ALL: u64 = 4;

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) violations: Vec<Violation>,
    /// One number for all that happened.
    pub(super) trace: u64,
    pub(super) steps: u64,
    pub(super) simulated_ms: u64,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

/// The faults of a seed.
pub(super) fn faults(seed: u64) -> Vec<Timed> {
    plan(&mut StdRng::seed_from_u64(seed ^ 0xfau64.rotate_left(32)), 3, FAULTS_MS)
}

/// Runs a seed with these faults.
pub(super) fn run(seed: u64, faults: &[Timed], mutant: Option<Mutant>) -> Report {
    mutants::switch(mutant);
    scheduler::begin(seed);
    let ran = catch_unwind(AssertUnwindSafe(|| simulate(faults, seed.is_multiple_of(LOSES_ALL))));
    let (trace, steps) = scheduler::trace();
    let simulated_ms = now_ms();
    let mut report = match ran {
        Ok(report) => report,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
            let violation = Violation::new("nothing panics", text.unwrap_or_default());
            let violations = witness::end().1.into_iter().chain([violation]).collect();
            Report { violations, ..Report::default() }
        }
    };
    scheduler::end();
    mutants::switch(None);
    (report.trace, report.steps, report.simulated_ms) = (trace, steps, simulated_ms);
    report
}

/// A cluster, who uses it, and what breaks.
struct Life<'a> {
    world: Arc<World>,
    faults: &'a [Timed],
    /// For how long there are faults, in simulated milliseconds.
    length: u64,
    /// Numbers of its clients go on after it.
    clients: u64,
    /// Watches go on after this revision.
    after: u64,
}

/// What there was to see of a cluster's life.
struct Seen {
    truth: Truth,
    watching: Vec<Watching>,
    violations: Vec<Violation>,
}

type Watching = (String, Arc<Mutex<Vec<watched::Seen>>>);

fn simulate(faults: &[Timed], loses_all: bool) -> Report {
    let world = World::new(Setup::draw());
    for node in world.nodes() {
        let fast = random(|random| random.random_range(-2_000..2_000));
        scheduler::set_skew(node, fast);
    }
    witness::begin(0);
    if loses_all {
        use_until_over(&world, clients::operator(world.clone()));
    }
    let life = Life { world: world.clone(), faults, length: FAULTS_MS, clients: 0, after: 0 };
    let Seen { truth, mut violations, .. } = live(&life, Truth::new);
    world.clear();
    let mut counts = world.counts();
    if loses_all {
        let backups = std::mem::take(&mut *world.backups.lock().expect("whole"));
        violations.extend(restored(&world, &truth, backups, &mut counts));
    }
    Report { violations, counts, ..Report::default() }
}

/// Every master is lost with its disk. A new cluster begins with what one of the backups has of one of
/// its revisions, and clients go on with it.
fn restored(
    lost: &World,
    truth: &Truth,
    mut backups: Vec<Vec<u8>>,
    counts: &mut BTreeMap<&'static str, u64>,
) -> Vec<Violation> {
    if backups.is_empty() {
        return Vec::new();
    }
    let chosen = random(|random| random.random_range(0..backups.len()));
    let world = World::new(Setup { members: 1, ..lost.setup });
    let backup = backups.swap_remove(chosen);
    let restored = match restore(&world, &backup) {
        Ok(restored) => restored,
        Err(error) => return vec![Violation::new("backups restore", error.to_string())],
    };
    let (begin, objects) = (restored.revision.0, truth.at("", restored.state_of.0));
    witness::begin(begin);
    let mut random = random(StdRng::from_rng);
    let mut faults = plan(&mut random, 3, RESTORED_MS);
    // Of the only member that would be everything.
    faults.retain(|timed| !matches!(timed.fault, Fault::LoseTail { .. }));
    faults.extend([200, 800].map(|at| Timed { at, fault: Fault::Join }));
    faults.sort_by_key(|timed| timed.at);
    let (length, clients, after) = (RESTORED_MS, CLIENTS, truth.end());
    let life = Life { world: world.clone(), faults: &faults, length, clients, after };
    let seen = live(&life, |events| Truth::after(begin, objects, events));
    world.clear();
    for (what, n) in world.counts().into_iter().chain([("clusters restored", 1)]) {
        *counts.entry(what).or_default() += n;
    }
    let mut violations = seen.violations;
    violations.extend(told_that_all_is_new(&seen.watching, begin));
    if begin <= truth.end() {
        let what = format!("restored at {begin}, but {} had been issued", truth.end());
        violations.push(Violation::new("revisions", what));
    }
    violations
}

/// As of any of its revisions.
fn restore(world: &World, backup: &[u8]) -> Result<Restored, backup::Error> {
    let mut chain = Chain::new(vec![Reader::open(backup, "backup")?])?;
    let (oldest, newest) = (chain.newest().oldest.0, chain.newest().revision.0);
    let restoring = Restoring {
        data_dir: world.data_dir(1),
        revision: Some(Revision(random(|random| random.random_range(oldest..=newest)))),
        member: MemberId(1),
        peer: world.peer(1),
        now: now_ms() / 1_000,
    };
    let disks = Arc::new(StateDisks(Health::default()));
    restore_on(disks, &mut chain, &restoring, |_| {})
}

/// Who watched the lost cluster hears that it must list again before it hears anything else.
fn told_that_all_is_new(watching: &[Watching], begin: u64) -> Option<Violation> {
    let untold = watching.iter().find(|(_, seen)| {
        let seen = seen.lock().expect("never held across a panic");
        let again = |each: &&watched::Seen| !matches!(each, watched::Seen::From(at) if *at < begin);
        let first = seen.iter().find(again);
        first.is_some_and(|first| !matches!(first, watched::Seen::From(_)))
    });
    let what = |(prefix, _): &Watching| format!("{prefix} went on as if nothing had been restored");
    untold.map(|watching| Violation::new("watches resume", what(watching)))
}

/// Runs a cluster until all is over and has settled.
fn live(life: &Life, truth: impl FnOnce(Vec<Event>) -> Truth) -> Seen {
    let Life { world, faults, length, clients, after } = life;
    let begun = now_ms();
    world.nodes().into_iter().for_each(|node| world.start(node));
    let clients = clients + 1..=clients + CLIENTS;
    clients.for_each(|id| use_until_over(world, clients::client(world.clone(), id)));
    let watching: Vec<Watching> = ["", "k1", "", "k7"]
        .map(|prefix| {
            let seen = Arc::new(Mutex::new(vec![watched::Seen::From(*after)]));
            let watcher = clients::watcher(world.clone(), prefix.to_owned(), *after, seen.clone());
            use_until_over(world, watcher);
            (format!("kv/{prefix}"), seen)
        })
        .into();
    spawn_on(WORLD, break_things(world.clone(), begun, faults.to_vec()));
    run_until(begun + length + 500, || false);
    world.heal();
    run_until(begun + length + 3_000, || false);
    let mut violations = Vec::new();
    violations.extend(recovers(world));
    world.over.store(true, Ordering::Relaxed);
    run_until(now_ms() + LEAVING_MS, || Arc::strong_count(&world.users) == 1);
    run_until(now_ms() + LEFT_MS, || false);
    let deadline = now_ms() + HEALED_MS;
    while now_ms() < deadline && !checks::settled(world) {
        run_until(now_ms() + 100, || false);
    }
    let survivors = checks::survivors(world);
    let (events, witnessed) = witness::end();
    violations.extend(witnessed);
    let truth = truth(events);
    match &survivors {
        Some(all) => violations.extend(checks::agree(all, &truth)),
        None => violations.push(Violation::new("progress", "in the end not all members serve")),
    }
    violations.extend(told(world, &truth));
    violations.extend(shown(&watching, &truth));
    Seen { truth, watching, violations }
}

fn use_until_over(world: &World, using: impl Future<Output = ()> + Send + 'static) {
    let user = world.users.clone();
    spawn_on(WORLD, async move {
        using.await;
        drop(user);
    });
}

/// Once nothing is broken any more, a write through every member succeeds.
fn recovers(world: &Arc<World>) -> Option<Violation> {
    let deadline = now_ms() + HEALED_MS;
    let mut stuck = Vec::new();
    while now_ms() < deadline {
        let done = Arc::new(Mutex::new(Vec::new()));
        stuck = world.nodes();
        stuck.retain(|node| world.fate(*node) == Some(Fate::Serves) && is_member(world, *node));
        if stuck.is_empty() {
            break;
        }
        for node in stuck.clone() {
            let (Some(store), done) = (world.store(node), done.clone()) else { continue };
            spawn_on(node, async move {
                if checks::write_something(store).await {
                    done.lock().expect("never held across a panic").push(node);
                }
            });
        }
        run_until(now_ms() + 6_000, || done.lock().expect("whole").len() == stuck.len());
        let done = done.lock().expect("never held across a panic").clone();
        stuck.retain(|node| !done.contains(node));
        if stuck.is_empty() {
            return None;
        }
    }
    let states = world.stores().into_iter().map(|(node, store)| {
        let leadership = *store.leadership().borrow();
        format!("{node}: at {}, {leadership:?}", store.revision())
    });
    let states: Vec<String> = states.collect();
    let what =
        format!("no write through {stuck:?} for {HEALED_MS} ms after all healed; {states:?}");
    Some(Violation::new("progress", what))
}

fn is_member(world: &World, node: Node) -> bool {
    let leader = world.leader().and_then(|leader| world.store(leader));
    leader.is_none_or(|leader| leader.members().iter().any(|member| member.id.0 == node))
}

/// What clients were told, against the truth.
fn told(world: &World, truth: &Truth) -> Vec<Violation> {
    let ops = std::mem::take(&mut *world.ops.lock().expect("never held across a panic"));
    linear::check(&ops, truth)
}

fn shown(watching: &[Watching], truth: &Truth) -> Vec<Violation> {
    let without_terms = |event: &Event| Event { term: 0, ..event.clone() };
    let events = truth.events().iter().map(without_terms).collect();
    let truth = Truth::after(truth.begin(), Vec::new(), events);
    let seen = watching.iter().map(|(prefix, seen)| {
        let seen = seen.lock().expect("never held across a panic");
        watched::check(prefix, seen.iter(), &truth)
    });
    seen.flatten().collect()
}

/// Does what the plan says, when it says so.
async fn break_things(world: Arc<World>, begun: u64, faults: Vec<Timed>) {
    for Timed { at, fault } in faults {
        Sleep::until_ns((begun + at) * 1_000_000).await;
        world.count("faults", 1);
        strike(&world, fault);
    }
}

fn strike(world: &Arc<World>, fault: Fault) {
    match fault {
        Fault::Kill { member, down } => world.crash(member, false, Some(down)),
        Fault::PowerCut { member, down } => world.crash(member, true, Some(down)),
        Fault::PowerCutOfAll { down } => {
            world.nodes().into_iter().for_each(|node| world.crash(node, true, Some(down)));
        }
        Fault::PowerCutOfLeader { down } => {
            if let Some(leader) = world.leader() {
                world.crash(leader, true, Some(down));
            }
        }
        Fault::Pause { member, length } => scheduler::pause(member, length),
        Fault::PauseOfLeader { length } => {
            if let Some(leader) = world.leader() {
                scheduler::pause(leader, length);
            }
        }
        Fault::SlowDisk { member, length } => {
            if let Some(health) = world.health(member) {
                health.slow_for(length);
            }
        }
        Fault::FailingDisk { member, log } => {
            if let Some(health) = world.health(member) {
                world.excuse(member);
                health.fail(log);
            }
        }
        Fault::FullDisk { member, length } => {
            world.fill_disk(member, true);
            later(world, length, move |world| world.fill_disk(member, false));
        }
        Fault::DieAfterAnswers { one_in, length } => {
            world.dying.store(one_in.into(), Ordering::Relaxed);
            later(world, length, |world| world.dying.store(0, Ordering::Relaxed));
        }
        Fault::LoseTail { member, entries } => {
            if can_lose_one_for_good(world) {
                world.damage(member, entries);
            }
        }
        Fault::Join => join(world),
        Fault::Remove { member } => remove(world, member),
        Fault::Transfer => transfer(world),
        network => disturb(world, network),
    }
}

/// The group goes on without any one of its members, whatever is being changed about them.
fn can_lose_one_for_good(world: &World) -> bool {
    let whole = world.nodes().into_iter().all(|node| world.fate(node) != Some(Fate::Damaged));
    let leader = world.leader().and_then(|leader| world.store(leader));
    let voters = leader.map_or(0, |leader| leader.members().iter().filter(|it| it.voter).count());
    whole && voters >= 3 && world.removing.load(Ordering::Relaxed) == 0
}

/// What concerns the network.
fn disturb(world: &Arc<World>, fault: Fault) {
    let nodes = world.nodes();
    let around = |apart: &[Node]| -> Vec<(Node, Node)> {
        let others: Vec<Node> = nodes.iter().copied().filter(|b| !apart.contains(b)).collect();
        let pairs = apart.iter().flat_map(|a| others.iter().map(|b| (*a, *b)));
        pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
    };
    match fault {
        Fault::Isolate { member, length } | Fault::Lag { member, length } => {
            cut(world, around(&[member]), length);
        }
        Fault::IsolateLeader { length } => {
            let leader = world.leader();
            cut(world, leader.map(|leader| around(&[leader])).unwrap_or_default(), length);
        }
        Fault::OneWay { from, to, length } => cut(world, vec![(from, to)], length),
        Fault::Cut { between, and, length } => {
            cut(world, vec![(between, and), (and, between)], length);
        }
        Fault::Contest { between, and, length } => {
            cut(world, vec![(between, and), (and, between)], length);
            world.contested.store(true, Ordering::Relaxed);
            later(world, length, |world| world.contested.store(false, Ordering::Relaxed));
            for node in world.nodes() {
                let down = random(|random| random.random_range(1..100));
                world.crash(node, true, Some(down));
            }
        }
        Fault::Split { apart, length } => cut(world, around(&apart), length),
        Fault::Loss { percent, length } => {
            world.weather().lost = percent;
            later(world, length, |world| world.weather().lost = 0);
        }
        Fault::SlowNetwork { length } => {
            world.weather().slow = true;
            later(world, length, |world| world.weather().slow = false);
        }
        Fault::Repeat { percent, length } => {
            world.weather().repeated = percent;
            later(world, length, |world| world.weather().repeated = 0);
        }
        _ => {}
    }
}

fn later(world: &Arc<World>, ms: u64, then: impl FnOnce(&Arc<World>) + Send + 'static) {
    let world = world.clone();
    spawn_on(WORLD, async move {
        Sleep::ms(ms).await;
        then(&world);
    });
}

/// A member gave a vote while others want it too.
pub(super) fn dies_over_its_vote(world: &Arc<World>, voter: Node, candidate: Node) {
    world.count("voters that died", 1);
    cut(world, vec![(voter, candidate), (candidate, voter)], 600);
    world.crash(voter, true, Some(random(|random| random.random_range(1..20))));
}

fn cut(world: &Arc<World>, pairs: Vec<(Node, Node)>, length: u64) {
    world.weather().cut.extend(pairs.iter().copied());
    later(world, length, move |world| {
        world.weather().cut.retain(|pair| !pairs.contains(pair));
    });
}

/// By then a removal is made or not, and a leader knows it.
const REMOVAL_MS: u64 = 8_000;

/// More would only make runs slower.
const NODES_MAX: u64 = 7;

fn join(world: &Arc<World>) {
    let node = world.nodes().last().map_or(1, |last| last + 1);
    let Some((at, store)) = world.stores().into_iter().next() else { return };
    if node > NODES_MAX {
        return;
    }
    world.add(node, true);
    let (world, peer) = (world.clone(), world.peer(node));
    spawn_on(at, async move {
        let added = store.add_learner(Some(MemberId(node)), peer).await;
        world.count(if added.is_ok() { "members added" } else { "members not added" }, 1);
        // It may have been added all the same.
        spawn_on(WORLD, async move { world.start(node) });
    });
}

fn remove(world: &Arc<World>, member: u64) {
    let Some((at, store)) = world.stores().into_iter().next_back() else { return };
    let world = world.clone();
    // Asked for is not yet done, nor known to everybody.
    world.removing.fetch_add(1, Ordering::Relaxed);
    later(&world, REMOVAL_MS, |world| {
        world.removing.fetch_sub(1, Ordering::Relaxed);
    });
    spawn_on(at, async move {
        let removed = store.remove_member(MemberId(member)).await;
        world.count(if removed.is_ok() { "members let go" } else { "members kept" }, 1);
    });
}

fn transfer(world: &Arc<World>) {
    let Some(store) = world.leader().and_then(|leader| world.store(leader)) else { return };
    spawn_on(world.leader().unwrap_or(WORLD), async move {
        let _ = store.transfer_leader(None).await;
    });
}

/// The faults without which a seed does not fail.
pub(super) fn shortened(seed: u64, faults: Vec<Timed>, mutant: Option<Mutant>) -> Vec<Timed> {
    let fails = |some: &[Timed]| !run(seed, some, mutant).violations.is_empty();
    shrink::shrink(faults, 60, fails)
}

/// What to tell who finds that a seed fails.
pub(super) fn explain(seed: u64, report: &Report) -> String {
    let short = shortened(seed, faults(seed), None);
    let violations: Vec<String> =
        report.violations.iter().take(5).map(|violation| format!("  {violation}")).collect();
    let faults: Vec<String> = short.iter().map(|timed| format!("  {timed}")).collect();
    format!(
        "seed {seed} breaks promises ({} found):\n{}\nthese faults are enough:\n{}\nreplay it with: \
         make sim SEED={seed}",
        report.violations.len(),
        violations.join("\n"),
        faults.join("\n"),
    )
}

#[cfg(test)]
#[path = "sim_tests.rs"]
mod tests;

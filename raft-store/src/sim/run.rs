//! One run: a seed, its faults, and what was wrong. The seed decides everything else.

use super::{
    checks, clients,
    scheduler::{self, Node, Sleep, WORLD, now_ms, random, run_until, spawn_on},
    witness,
    world::{Fate, Setup, World},
};
use crate::{
    MemberId,
    mutants::{self, Mutant},
};
use chaos::{
    Violation,
    faults::{Fault, Timed, plan},
    history::{Event, Truth},
    linear, shrink,
    watched::{self, Seen},
};
use rand::{SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::Ordering},
};

/// For how long there are faults, in simulated milliseconds.
const FAULTS_MS: u64 = 12_000;
/// In which time a healed cluster must serve again. Generous: a disk may have been slow, a log be behind.
const HEALED_MS: u64 = 40_000;
const CLIENTS: u64 = 5;

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
    witness::begin();
    let ran = catch_unwind(AssertUnwindSafe(|| simulate(faults)));
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

type Watching = (String, Arc<Mutex<Vec<Seen>>>);

fn simulate(faults: &[Timed]) -> Report {
    let world = World::new(Setup::draw());
    for node in world.nodes() {
        let fast = random(|random| rand::Rng::random_range(random, -2_000..2_000));
        scheduler::set_skew(node, fast);
        world.start(node);
    }
    (1..=CLIENTS).for_each(|id| spawn_on(WORLD, clients::client(world.clone(), id)));
    let watching: Vec<Watching> = ["", "k1", "", "k7"]
        .map(|prefix| {
            let seen = Arc::new(Mutex::new(vec![Seen::From(0)]));
            spawn_on(WORLD, clients::watcher(world.clone(), prefix.to_owned(), seen.clone()));
            (format!("kv/{prefix}"), seen)
        })
        .into();
    spawn_on(WORLD, break_things(world.clone(), faults.to_vec()));
    run_until(FAULTS_MS + 500, || false);
    world.heal();
    run_until(FAULTS_MS + 3_000, || false);
    let mut violations = Vec::new();
    violations.extend(recovers(&world));
    world.over.store(true, Ordering::Relaxed);
    // Whatever was under way has ended by then, one way or the other.
    run_until(now_ms() + 6_000, || false);
    let deadline = now_ms() + HEALED_MS;
    while now_ms() < deadline && !checks::settled(&world) {
        run_until(now_ms() + 100, || false);
    }
    let survivors = checks::survivors(&world);
    let (events, witnessed) = witness::end();
    violations.extend(witnessed);
    let truth = Truth::new(events);
    match &survivors {
        Some(all) => violations.extend(checks::agree(all, &truth)),
        None => violations.push(Violation::new("progress", "in the end not all members serve")),
    }
    violations.extend(told(&world, &truth));
    violations.extend(shown(&watching, &truth));
    let counts = world.counts();
    world.clear();
    Report { violations, counts, ..Report::default() }
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
    let truth = Truth::new(truth.events().iter().map(without_terms).collect());
    let seen = watching.iter().map(|(prefix, seen)| {
        let seen = seen.lock().expect("never held across a panic");
        watched::check(prefix, &seen, &truth)
    });
    seen.flatten().collect()
}

/// Does what the plan says, when it says so.
async fn break_things(world: Arc<World>, faults: Vec<Timed>) {
    for Timed { at, fault } in faults {
        Sleep::until_ns(at * 1_000_000).await;
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
            if world.nodes().into_iter().all(|node| world.fate(node) != Some(Fate::Damaged)) {
                world.damage(member, entries);
            }
        }
        Fault::Join => join(world),
        Fault::Remove { member } => remove(world, member),
        Fault::Transfer => transfer(world),
        network => disturb(world, network),
    }
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
                let down = random(|random| rand::Rng::random_range(random, 1..100));
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
    world.crash(voter, true, Some(random(|random| rand::Rng::random_range(random, 1..20))));
}

fn cut(world: &Arc<World>, pairs: Vec<(Node, Node)>, length: u64) {
    world.weather().cut.extend(pairs.iter().copied());
    later(world, length, move |world| {
        world.weather().cut.retain(|pair| !pairs.contains(pair));
    });
}

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

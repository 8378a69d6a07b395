use super::*;
use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Fails with the first seed that breaks a promise.
fn hold(seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, u64> {
    let (seeds, counts) = (Mutex::new(seeds), Mutex::new(BTreeMap::new()));
    let next = || seeds.lock().expect("only counted").next();
    let worker = || {
        while let Some(seed) = next() {
            let report = run(seed, &faults(seed), None);
            assert!(report.violations.is_empty(), "{}", explain(seed, &report));
            let more = [("seeds", 1), ("simulated seconds", report.simulated_ms / 1_000)];
            let mut counts = counts.lock().expect("no other seed fails");
            for (what, n) in report.counts.into_iter().chain(more) {
                *counts.entry(what).or_default() += n;
            }
        }
    };
    on_all_cores(worker);
    counts.into_inner().expect("no seed fails")
}

fn on_all_cores(work: impl Fn() + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(&work))));
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in [3, 4] {
        let traces: Vec<_> = (0..2)
            .map(|_| {
                let report = run(seed, &faults(seed), None);
                (report.trace, report.steps, report.violations)
            })
            .collect();
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}

/// The power goes from a member whose state has what its log was yet to replace.
#[test]
fn a_state_ahead_of_its_log_is_no_damage() {
    hold(3_808_757..3_808_758);
}

/// Faults that did not happen would prove nothing.
#[test]
fn promises_hold_whatever_breaks() {
    // Eight seconds on two cores. `make soak` goes on from here.
    let counts = hold(1_000..1_024);
    eprintln!("{counts:?}");
    for what in ["power cuts", "kills", "writes", "reads", "events watched", "writes fenced"] {
        assert!(counts.get(what).copied().unwrap_or(0) > 0, "no {what}: {counts:?}");
    }
}

/// Checks that find nothing would prove nothing. All mistakes take minutes: `make mutants`.
#[test]
fn mistakes_that_show_soon_are_found() {
    let found_by = [
        (Mutant::FenceIgnored, "fences"),
        (Mutant::GuardIgnored, "guards"),
        (Mutant::WatchDrops, "watches"),
        (Mutant::ApplyDiffers, "members agree"),
    ];
    for (mutant, check) in found_by {
        let finds = |seed| {
            let report = run(seed, &faults(seed), Some(mutant));
            report.violations.iter().any(|violation| violation.check == check)
        };
        assert!((1..10).any(finds), "{mutant:?} is not found by \"{check}\"");
    }
}

/// The time in the simulation, and whose turn it is.
struct Simulated;

impl tracing_subscriber::fmt::time::FormatTime for Simulated {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        let (now, node) = scheduler::place();
        write!(w, "{:10.3} member {node}", now as f64 / 1e6)
    }
}

#[test]
#[ignore = "replays COXSWAIN_SEED: `make sim SEED=7`"]
fn one_seed() {
    let seed = variable("COXSWAIN_SEED").expect("COXSWAIN_SEED: which seed to replay");
    // RUST_LOG=raft_store=debug,openraft=debug for what the members say of it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_timer(Simulated)
        .with_test_writer()
        .try_init();
    let faults = faults(seed);
    faults.iter().for_each(|timed| eprintln!("{timed}"));
    let report = run(seed, &faults, None);
    eprintln!("{:#?}", report.counts);
    eprintln!("trace {:016x} in {} steps", report.trace, report.steps);
    // Who reads what the members say wants this run, not those that shorten it.
    if std::env::var_os("RUST_LOG").is_some() {
        report.violations.iter().for_each(|violation| eprintln!("{violation}"));
        return;
    }
    assert!(report.violations.is_empty(), "{}", explain(seed, &report));
}

/// Every mistake is found. Prints which check found it, and how many seeds that took.
#[test]
#[ignore = "takes minutes: `make mutants`"]
fn every_mutant_is_caught() {
    let many = variable("COXSWAIN_SEEDS").unwrap_or(300);
    let mut survivors = Vec::new();
    eprintln!("{:28} {:>6}  found by", "mutant", "seeds");
    for mutant in mutants::FOUND {
        let mut by: BTreeMap<&str, u64> = BTreeMap::new();
        let mut first = None;
        for n in 1..=many {
            let report = run(n, &faults(n), Some(mutant));
            for violation in &report.violations {
                by.entry(violation.check).or_insert(n);
            }
            if !report.violations.is_empty() {
                first = first.or(Some(n));
            }
            // A few more, to see what else finds it.
            if first.is_some_and(|first| n >= first + 4) {
                break;
            }
        }
        let by: Vec<String> = by.iter().map(|(check, n)| format!("{check} ({n})")).collect();
        let seeds = first.map_or("-".into(), |n| n.to_string());
        eprintln!("{:28} {seeds:>6}  {}", format!("{mutant:?}"), by.join(", "));
        if first.is_none() {
            survivors.push(mutant);
        }
    }
    assert!(survivors.is_empty(), "not found in {many} seeds: {survivors:?}");
}

/// What a soak has seen so far.
#[derive(Default)]
struct Soaked {
    totals: BTreeMap<&'static str, u64>,
    failing: Vec<u64>,
    told: u64,
}

/// As many seeds as there is time for, or `COXSWAIN_SEEDS`, from `COXSWAIN_SEED` on, on all cores; `make
/// soak`.
#[test]
#[ignore = "takes as long as it is told to: `make soak`"]
fn soak() {
    let seconds = variable("COXSWAIN_SECONDS").unwrap_or(60);
    let first = variable("COXSWAIN_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    let many = variable("COXSWAIN_SEEDS").unwrap_or(u64::MAX);
    let (begun, next) = (Instant::now(), AtomicU64::new(first));
    let soaked = Mutex::new(Soaked::default());
    on_all_cores(|| {
        while begun.elapsed() < Duration::from_secs(seconds) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - first >= many {
                break;
            }
            let report = run(seed, &faults(seed), None);
            let fails = !report.violations.is_empty();
            let explained = {
                let mut soaked = soaked.lock().expect("nothing panics here");
                soaked.add(seed, fails, &report);
                soaked.tell(begun.elapsed().as_secs());
                fails && soaked.failing.len() <= 3
            };
            if explained {
                eprintln!("{}", explain(seed, &report));
            }
        }
    });
    let Soaked { totals, failing, .. } = soaked.into_inner().expect("nothing panics here");
    eprintln!("seeds from {first} on: {totals:#?}");
    assert!(failing.is_empty(), "{} seeds fail: {failing:?}", failing.len());
}

impl Soaked {
    fn add(&mut self, seed: u64, fails: bool, report: &Report) {
        if fails {
            self.failing.push(seed);
        }
        let more = [
            ("seeds", 1),
            ("simulated seconds", report.simulated_ms / 1_000),
            ("steps", report.steps),
        ];
        for (what, n) in report.counts.iter().map(|(what, n)| (*what, *n)).chain(more) {
            *self.totals.entry(what).or_default() += n;
        }
    }

    /// Now and then, how it goes.
    fn tell(&mut self, seconds: u64) {
        if seconds >= self.told + 20 {
            self.told = seconds;
            let (ran, failing) = (self.totals["seeds"], &self.failing);
            eprintln!("{ran} seeds in {seconds} s, {} of them fail: {failing:?}", failing.len());
        }
    }
}

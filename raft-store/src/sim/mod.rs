//! A whole cluster in one thread, replayed by a seed: the store as it is, with openraft's engine and
//! everything that decides; only time, scheduling, network and disks are simulated.
//!
//! `make sim SEED=7` replays one run, `make soak` runs as many as there is time for, `make mutants`
//! shows which planted mistakes are found (`mutants`). None of this is in the shipped program.

mod checks;
mod clients;
mod disks;
mod network;
mod run;
mod runtime;
mod scheduler;
mod witness;
mod world;

pub(crate) use runtime::Runtime;
pub(crate) use witness::entry_applied;
pub(crate) use world::mark_synced;

use std::time::Duration;

/// One future on a simulated clock, with nothing else around it.
pub(crate) fn simulated<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    scheduler::begin(1);
    let output = std::sync::Arc::new(std::sync::Mutex::new(None));
    let done = output.clone();
    scheduler::spawn_on(1, async move {
        let output = work.await;
        *done.lock().expect("set once") = Some(output);
    });
    scheduler::run_until(3_600_000, || output.lock().expect("set once").is_some());
    scheduler::end();
    let output = output.lock().expect("set once").take();
    output.expect("an hour is enough")
}

/// Whether the calling thread runs a simulation at the moment.
pub(crate) fn is_simulated() -> bool {
    scheduler::active()
}

/// By the clock of the member that asks.
pub(crate) fn now() -> Option<std::time::Instant> {
    scheduler::active().then(scheduler::local_now)
}

pub(crate) async fn sleep_until(moment: std::time::Instant) {
    scheduler::Sleep::until_local(moment).await;
}

/// What one member makes of a version that all the others leave as it is.
pub(crate) fn peculiar(stored: &std::sync::Arc<crate::Stored>) -> std::sync::Arc<crate::Stored> {
    if scheduler::current() != 2 {
        return stored.clone();
    }
    let (key, body) = (stored.key.clone(), bytes::Bytes::from_static(b"peculiar"));
    std::sync::Arc::new(crate::Stored::new(key, stored.revision, stored.created, body))
}

/// Sometimes a member is slow to apply what is committed, or to say what it has applied.
pub(crate) async fn apply_pause() {
    if is_simulated() && scheduler::one_in(30) {
        let most = if scheduler::one_in(4) { 200_000 } else { 5_000 };
        pause(most).await;
    }
}

/// How long work on a disk takes.
pub(crate) async fn disk_pause() {
    pause(5_000).await;
}

async fn pause(most_micros: u64) {
    let micros = scheduler::random(|random| rand::Rng::random_range(random, 0..most_micros));
    scheduler::Sleep::of(Duration::from_micros(micros)).await;
}

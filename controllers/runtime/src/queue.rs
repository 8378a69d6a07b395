//! The work queue: which roots are to be planned next. A key is in it once, whatever woke it and how
//! often; a key being worked on waits until that is done; a key that failed comes back later and later.

use crate::{Key, Metrics};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// `base * 2^failures`, at most `max`, plus up to half as much again: equal failures spread out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub base: Duration,
    pub max: Duration,
}

impl Backoff {
    /// Upstream's controllers start at 5 ms; they go to 1000 s, which nobody waits for.
    pub const KEYS: Backoff =
        Backoff { base: Duration::from_millis(5), max: Duration::from_secs(30) };

    /// For a server that does not answer.
    pub const CONNECT: Backoff =
        Backoff { base: Duration::from_millis(50), max: Duration::from_secs(5) };

    /// `jitter` is a random number from 0 to 1.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doubled = self.base.saturating_mul(1u32 << failures.min(20));
        doubled.min(self.max).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    /// Of each key in `ready`: since when.
    queued: HashMap<Key, Instant>,
    /// Ordered by time; the number keeps keys of the same instant apart.
    delayed: BTreeMap<(Instant, u64), Key>,
    /// The earliest time each delayed key is due.
    due: HashMap<Key, (Instant, u64)>,
    counter: u64,
    working: BTreeSet<Key>,
    /// Woken while being worked on.
    again: BTreeSet<Key>,
    failures: HashMap<Key, u32>,
}

/// Shared by the informers that fill it and the one dispatcher that empties it. Bounded by the number
/// of objects: each key is in it once.
pub(crate) struct Queue {
    name: &'static str,
    state: Mutex<State>,
    changed: Notify,
    metrics: Arc<Metrics>,
}

impl Queue {
    pub(crate) fn new(name: &'static str, metrics: Arc<Metrics>) -> Queue {
        Queue { name, state: Mutex::default(), changed: Notify::new(), metrics }
    }

    pub(crate) fn add(&self, key: Key) {
        let mut state = self.lock();
        self.add_locked(&mut state, key);
        drop(state);
        self.changed.notify_one();
    }

    /// Adds `key` after `delay`, or earlier if it is due earlier already.
    pub(crate) fn add_after(&self, key: Key, delay: Duration) {
        self.add_at(key, Instant::now() + delay);
    }

    fn add_at(&self, key: Key, at: Instant) {
        let mut state = self.lock();
        match state.due.get(&key) {
            Some((due, _)) if *due <= at => return,
            Some(slot) => {
                let slot = *slot;
                state.delayed.remove(&slot);
            }
            None => (),
        }
        state.counter += 1;
        let slot = (at, state.counter);
        state.delayed.insert(slot, key.clone());
        state.due.insert(key, slot);
        drop(state);
        self.changed.notify_one();
    }

    /// Puts a failed key back with a growing delay, at least `at_least`; tells how often it failed.
    pub(crate) fn retry(&self, key: Key, at_least: Duration, jitter: f64) -> u32 {
        let failures = {
            let mut state = self.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures += 1;
            *failures
        };
        self.metrics.retries.with_label_values(&[self.name]).inc();
        self.add_after(key, Backoff::KEYS.delay(failures - 1, jitter).max(at_least));
        failures
    }

    pub(crate) fn forget_failures(&self, key: &Key) {
        self.lock().failures.remove(key);
    }

    /// Takes the next key that is ready and marks it as being worked on.
    pub(crate) fn take(&self, now: Instant) -> Option<Key> {
        let mut state = self.lock();
        self.ripen(&mut state, now);
        let key = state.ready.pop_front()?;
        if let Some(since) = state.queued.remove(&key) {
            let waited = since.elapsed().as_secs_f64();
            self.metrics.queue_duration.with_label_values(&[self.name]).observe(waited);
        }
        state.working.insert(key.clone());
        self.set_depth(&state);
        Some(key)
    }

    /// Ends the work on `key`; if it was woken meanwhile, it is ready again.
    pub(crate) fn done(&self, key: &Key) {
        let mut state = self.lock();
        state.working.remove(key);
        if state.again.remove(key) {
            self.add_locked(&mut state, key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Forgets everything: leadership changed, and nothing is being worked on.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        *state = State::default();
        self.set_depth(&state);
    }

    /// Returns when [`Queue::take`] may have something: a key was added or a delayed one is due.
    pub(crate) async fn wait(&self) {
        let next = {
            let state = self.lock();
            if !state.ready.is_empty() {
                return;
            }
            state.delayed.keys().next().map(|(at, _)| *at)
        };
        match next {
            None => self.changed.notified().await,
            Some(at) => tokio::select! {
                () = self.changed.notified() => (),
                () = tokio::time::sleep_until(at) => (),
            },
        }
    }

    /// Moves keys that are due to the ready ones.
    fn ripen(&self, state: &mut State, now: Instant) {
        while let Some((&(at, number), _)) = state.delayed.first_key_value() {
            if at > now {
                break;
            }
            if let Some(key) = state.delayed.remove(&(at, number)) {
                state.due.remove(&key);
                self.add_locked(state, key);
            }
        }
    }

    fn add_locked(&self, state: &mut State, key: Key) {
        if state.working.contains(&key) {
            state.again.insert(key);
        } else if !state.queued.contains_key(&key) {
            state.queued.insert(key.clone(), Instant::now());
            state.ready.push_back(key);
            self.metrics.adds.with_label_values(&[self.name]).inc();
            self.set_depth(state);
        }
    }

    fn set_depth(&self, state: &State) {
        self.metrics.depth.with_label_values(&[self.name]).set(state.ready.len() as i64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the queue")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue::new("test", Arc::new(Metrics::new(&prometheus::Registry::new())))
    }

    fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    #[test]
    fn a_key_is_in_the_queue_once_and_worked_on_once() {
        let (queue, now) = (queue(), Instant::now());
        let take = || queue.take(now);
        queue.add(key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!((take(), take(), take()), (Some(key("a")), Some(key("b")), None));
        queue.add(key("a"));
        assert_eq!(take(), None, "it is being worked on");
        queue.done(&key("a"));
        assert_eq!(take(), Some(key("a")), "woken meanwhile");
        queue.done(&key("a"));
        assert_eq!(take(), None);
    }

    #[test]
    fn the_earliest_of_several_delays_counts() {
        let (queue, now) = (queue(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        queue.add_at(key("a"), after(10));
        queue.add_at(key("a"), after(2));
        queue.add_at(key("a"), after(5));
        assert_eq!(queue.take(after(1)), None);
        assert_eq!(queue.take(after(2)), Some(key("a")));
        queue.done(&key("a"));
        assert_eq!(queue.take(after(20)), None, "the later delays are void");
    }

    #[test]
    fn a_cleared_queue_takes_back_what_was_being_worked_on() {
        let (queue, now) = (queue(), Instant::now());
        queue.add(key("a"));
        assert_eq!(queue.take(now), Some(key("a")));
        queue.clear();
        queue.add(key("a"));
        assert_eq!(queue.take(now), Some(key("a")), "its work was dropped with the term");
    }

    #[test]
    fn failures_double_the_delay_up_to_the_bound() {
        let backoff = Backoff { base: Duration::from_millis(5), max: Duration::from_secs(1) };
        let at = |failures| backoff.delay(failures, 0.0).as_millis();
        assert_eq!([at(0), at(1), at(2), at(7), at(8), at(40)], [5, 10, 20, 640, 1000, 1000]);
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(15));
    }
}

//! Pods that want a node, in the order they get their turn. Knows no clock: every call says how long
//! the scheduler has been running.

use super::pod::{Pod, PodKey};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Upstream's `podInitialBackoffSeconds` and `podMaxBackoffSeconds`.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A refused pod is tried again after this long even if nothing woke it; upstream's figure.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(5 * 60);

#[derive(Default)]
pub(crate) struct Queue {
    entries: BTreeMap<PodKey, Entry>,
    active: BTreeSet<Rank>,
    timers: BTreeSet<(Duration, PodKey)>,
    gated: BTreeSet<PodKey>,
    arrivals: u64,
}

/// Higher priority first, then who waits longer.
type Rank = (Reverse<i32>, u64, PodKey);

pub(crate) struct Entry {
    pub(crate) pod: Arc<Pod>,
    pub(crate) attempts: u32,
    /// When it was first seen without a node.
    pub(crate) since: Duration,
    /// What the user was last told.
    pub(crate) told: Option<String>,
    place: Place,
    /// Until then it must not be tried again.
    rest_until: Duration,
}

enum Place {
    Active(Rank),
    /// Woken, or failed for a reason outside the world; goes active when its rest is over.
    Resting(Duration),
    /// Refused by these plugins; waits for a change, at most until then.
    Refused(BTreeSet<&'static str>, Duration),
    /// Taken; its binding is under way.
    Taken,
}

/// How many pods are where, by upstream's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) active: usize,
    pub(crate) backoff: usize,
    pub(crate) unschedulable: usize,
    pub(crate) gated: usize,
}

impl Queue {
    /// A pod without a node came or changed. A change that no rule looks at does not move it.
    pub(crate) fn offer(&mut self, pod: Arc<Pod>, now: Duration) {
        self.gated.remove(&pod.key);
        if let Some(entry) = self.entries.get_mut(&pod.key)
            && entry.pod.uid == pod.uid
        {
            let same = asks_the_same(&entry.pod, &pod);
            entry.pod = pod.clone();
            if same || matches!(entry.place, Place::Taken) {
                return;
            }
            return self.activate(&pod.key, now);
        }
        self.remove(&pod.key);
        let place = Place::Taken;
        let key = pod.key.clone();
        let entry =
            Entry { pod, attempts: 0, since: now, told: None, place, rest_until: Duration::ZERO };
        self.entries.insert(key.clone(), entry);
        self.activate(&key, now);
    }

    pub(crate) fn set_gated(&mut self, key: &PodKey) {
        self.remove(key);
        self.gated.insert(key.clone());
    }

    pub(crate) fn remove(&mut self, key: &PodKey) -> Option<Entry> {
        self.gated.remove(key);
        self.leave(key);
        self.entries.remove(key)
    }

    pub(crate) fn get_mut(&mut self, key: &PodKey) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    /// The next pods, at most `max`, best first; they are out of the queue until one of the calls
    /// below says what became of them.
    pub(crate) fn take(&mut self, max: usize, now: Duration) -> Vec<Arc<Pod>> {
        self.fire(now);
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some((_, _, key)) = self.active.pop_first() else { break };
            let entry = self.entries.get_mut(&key).expect("active pods have an entry");
            entry.place = Place::Taken;
            entry.attempts += 1;
            taken.push(entry.pod.clone());
        }
        taken
    }

    /// No node takes it; these plugins said so.
    pub(crate) fn refused(&mut self, key: &PodKey, by: BTreeSet<&'static str>, now: Duration) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.rest_until = now + backoff(entry.attempts);
        let until = now + UNSCHEDULABLE_MAX;
        entry.place = Place::Refused(by, until);
        self.timers.insert((until, key.clone()));
    }

    /// It could not be tried, or its binding failed: again after a rest.
    pub(crate) fn failed(&mut self, key: &PodKey, now: Duration) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.rest_until = now + backoff(entry.attempts);
        self.activate(key, now);
    }

    /// Every pod that was taken goes back, at once: whoever took them does not lead any more.
    pub(crate) fn untake(&mut self, now: Duration) {
        let taken = self.entries.iter().filter(|(_, entry)| matches!(entry.place, Place::Taken));
        let keys: Vec<PodKey> = taken.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.activate(key, now));
    }

    /// Moves the refused pods that `hopeful` says yes to.
    pub(crate) fn wake(
        &mut self,
        now: Duration,
        mut hopeful: impl FnMut(&Pod, &BTreeSet<&'static str>) -> bool,
    ) {
        let mut woken = Vec::new();
        for (key, entry) in &self.entries {
            if let Place::Refused(by, _) = &entry.place
                && hopeful(&entry.pod, by)
            {
                woken.push(key.clone());
            }
        }
        woken.iter().for_each(|key| self.activate(key, now));
    }

    /// When [`Queue::take`] may find more than now, without any other call.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    pub(crate) fn has_refused(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.place, Place::Refused(..)))
    }

    pub(crate) fn depth(&self) -> Depth {
        let mut depth = Depth { gated: self.gated.len(), ..Depth::default() };
        for entry in self.entries.values() {
            match entry.place {
                Place::Active(_) => depth.active += 1,
                Place::Resting(_) => depth.backoff += 1,
                Place::Refused(..) => depth.unschedulable += 1,
                Place::Taken => (),
            }
        }
        depth
    }

    /// To the active pods, or to rest first if its rest is not over.
    fn activate(&mut self, key: &PodKey, now: Duration) {
        self.leave(key);
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.rest_until > now {
            entry.place = Place::Resting(entry.rest_until);
            self.timers.insert((entry.rest_until, key.clone()));
            return;
        }
        self.arrivals += 1;
        let rank = (Reverse(entry.pod.priority), self.arrivals, key.clone());
        entry.place = Place::Active(rank.clone());
        self.active.insert(rank);
    }

    /// Out of whichever order it stands in.
    fn leave(&mut self, key: &PodKey) {
        match self.entries.get(key).map(|entry| &entry.place) {
            Some(Place::Active(rank)) => drop(self.active.remove(rank)),
            Some(Place::Resting(at) | Place::Refused(_, at)) => {
                self.timers.remove(&(*at, key.clone()));
            }
            Some(Place::Taken) | None => (),
        }
    }

    fn fire(&mut self, now: Duration) {
        while let Some((at, key)) = self.timers.first().cloned()
            && at <= now
        {
            self.activate(&key, now);
        }
    }
}

/// 1 s after the first attempt, doubled for each further one.
fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

/// Whether two versions of a pod are the same to every rule.
fn asks_the_same(old: &Pod, new: &Pod) -> bool {
    old.shape == new.shape
        && old.labels == new.labels
        && old.priority == new.priority
        && old.terms == new.terms
        && old.spread == new.spread
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::pod;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn names(pods: Vec<Arc<Pod>>) -> Vec<String> {
        pods.iter().map(|pod| pod.key.name.clone()).collect()
    }

    #[test]
    fn higher_priority_goes_first_and_equals_in_order_of_arrival() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 5), ("c", 5), ("d", 9)] {
            let mut pod = pod(name);
            pod.priority = priority;
            queue.offer(Arc::new(pod), secs(0));
        }
        assert_eq!(names(queue.take(3, secs(0))), ["d", "b", "c"]);
        assert_eq!(names(queue.take(3, secs(0))), ["a"]);
    }

    #[test]
    fn a_refused_pod_waits_for_its_cause_and_for_its_rest() {
        let mut queue = Queue::default();
        let pod = Arc::new(pod("a"));
        queue.offer(pod.clone(), secs(0));
        queue.take(1, secs(0));
        queue.refused(&pod.key, ["NodeAffinity"].into(), secs(0));
        assert_eq!(queue.depth().unschedulable, 1);
        queue.wake(secs(0), |_, by| by.contains("NodePorts"));
        assert_eq!(queue.depth().unschedulable, 1, "not its cause");
        queue.wake(secs(0), |_, by| by.contains("NodeAffinity"));
        assert_eq!(queue.depth().backoff, 1, "woken, but it was tried just now");
        assert_eq!(queue.next_timer(), Some(secs(1)));
        assert!(queue.take(1, Duration::from_millis(999)).is_empty());
        assert_eq!(names(queue.take(1, secs(1))), ["a"]);
        queue.refused(&pod.key, ["NodeAffinity"].into(), secs(1));
        queue.wake(secs(10), |_, _| true);
        assert_eq!(names(queue.take(1, secs(10))), ["a"], "its rest is long over");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut queue = Queue::default();
        let pod = Arc::new(pod("a"));
        queue.offer(pod.clone(), secs(0));
        queue.take(1, secs(0));
        queue.refused(&pod.key, ["NodeAffinity"].into(), secs(0));
        assert!(queue.take(1, secs(299)).is_empty());
        assert_eq!(names(queue.take(1, secs(300))), ["a"]);
    }

    #[test]
    fn a_change_of_status_does_not_wake_a_refused_pod_and_a_change_of_labels_does() {
        let mut queue = Queue::default();
        let first = pod("a");
        queue.offer(Arc::new(first.clone()), secs(0));
        queue.take(1, secs(0));
        queue.refused(&first.key, ["NodeAffinity"].into(), secs(0));
        let told = Pod { condition: Some(("False".into(), "no".into())), ..first.clone() };
        queue.offer(Arc::new(told.clone()), secs(20));
        assert_eq!(queue.depth().unschedulable, 1);
        let labels = [("app".to_string(), "web".to_string())].into();
        queue.offer(Arc::new(Pod { labels, ..told }), secs(20));
        assert_eq!(queue.depth().active, 1);
    }

    #[test]
    fn rest_doubles_up_to_ten_seconds() {
        let rests: Vec<u64> = (1..7).map(|attempts| backoff(attempts).as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 8, 10, 10]);
    }
}

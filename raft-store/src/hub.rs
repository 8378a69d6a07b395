//! The watch hub: one ring of recent changes shared by all watchers, a cursor per watcher.
//! It never copies a change per watcher and never waits for a slow one.

use crate::types::{Change, Revision};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::sync::watch;

/// How much of the newest history stays in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingLimits {
    pub(crate) changes: usize,
    /// Of bodies; a body that is also current or in two changes is counted each time.
    pub(crate) bytes: usize,
}

/// What a watcher finds after its cursor.
#[derive(Debug)]
pub(crate) enum Found {
    /// Matching changes; everything up to the revision given has been looked at.
    Changes(Vec<Arc<Change>>, Revision),
    /// Some up to the revision given may have left the ring: they are in history.
    Older(Revision),
}

#[derive(Debug)]
struct SpaceRing {
    changes: VecDeque<Arc<Change>>,
    /// Changes of this space after this revision are all in `changes`. Most spaces are quiet: who watches one
    /// need not read the history of the busy ones, however far the ring has moved on.
    complete: Revision,
    /// The revision of the newest change of this space.
    wake: watch::Sender<Revision>,
}

/// All changes after `begin`, by revision and by space.
#[derive(Debug)]
pub(crate) struct Hub {
    limits: Option<RingLimits>,
    /// What was before this revision is not known here.
    born: Revision,
    /// Changes after this revision are all in the ring; `born <= begin <= end`.
    begin: Revision,
    /// The newest change published.
    end: Revision,
    ring: VecDeque<Arc<Change>>,
    spaces: BTreeMap<Arc<str>, SpaceRing>,
    bytes: usize,
    watchers: Arc<()>,
}

impl Hub {
    /// Without limits the ring is the whole history since `revision`.
    pub(crate) fn new(revision: Revision, limits: Option<RingLimits>) -> Hub {
        Hub {
            limits,
            born: revision,
            begin: revision,
            end: revision,
            ring: VecDeque::new(),
            spaces: BTreeMap::new(),
            bytes: 0,
            watchers: Arc::new(()),
        }
    }

    pub(crate) fn begin(&self) -> Revision {
        self.begin
    }

    /// One more watcher, until the token is dropped.
    pub(crate) fn watcher_token(&self) -> Arc<()> {
        self.watchers.clone()
    }

    pub(crate) fn watchers(&self) -> usize {
        Arc::strong_count(&self.watchers) - 1
    }

    /// Wakes whoever waits for a change of this space.
    pub(crate) fn subscribe(&mut self, space: &Arc<str>) -> watch::Receiver<Revision> {
        self.space(space).wake.subscribe()
    }

    fn space(&mut self, space: &Arc<str>) -> &mut SpaceRing {
        let complete = self.born;
        self.spaces.entry(space.clone()).or_insert_with(|| SpaceRing {
            changes: VecDeque::new(),
            complete,
            wake: watch::Sender::new(Revision(0)),
        })
    }

    /// Takes the changes of one command; their revisions must follow the last one without a gap, and
    /// those of one revision come together.
    pub(crate) fn publish(&mut self, changes: &[Arc<Change>]) {
        self.trim();
        for change in changes {
            let follows = self.end.0 + u64::from(change.place == 0);
            assert_eq!(change.revision.0, follows, "changes are published without gaps");
            self.end = change.revision;
            self.bytes += size(change);
            self.ring.push_back(change.clone());
            self.space(&change.key().space).changes.push_back(change.clone());
        }
    }

    /// Wakes the watchers of the spaces that changed. Apart from `publish`, so that they find the
    /// lock free.
    pub(crate) fn wake(&self, changes: &[Arc<Change>]) {
        let newest: BTreeMap<&Arc<str>, Revision> =
            changes.iter().map(|change| (&change.key().space, change.revision)).collect();
        for (space, revision) in newest {
            if let Some(space) = self.spaces.get(space) {
                space.wake.send_replace(revision);
            }
        }
    }

    /// Forgets all changes: the state jumped to `revision` (a snapshot). Watchers are woken and
    /// find what they missed in history.
    pub(crate) fn reset(&mut self, revision: Revision) {
        (self.born, self.begin, self.end) = (revision, revision, revision);
        self.ring.clear();
        self.bytes = 0;
        for space in self.spaces.values_mut() {
            space.changes.clear();
            space.complete = revision;
            space.wake.send_replace(revision);
        }
    }

    /// Drops changes up to and including `floor`.
    pub(crate) fn drop_until(&mut self, floor: Revision) {
        while self.ring.front().is_some_and(|change| change.revision <= floor) {
            self.drop_oldest();
        }
    }

    fn trim(&mut self) {
        let Some(limits) = self.limits else { return };
        while self.ring.len() > limits.changes || self.bytes > limits.bytes {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(change) = self.ring.pop_front() else { return };
        self.begin = change.revision;
        self.bytes -= size(&change);
        if let Some(space) = self.spaces.get_mut(&change.key().space) {
            let oldest = space.changes.pop_front();
            debug_assert_eq!(oldest.map(|c| c.revision), Some(change.revision));
            space.complete = change.revision;
        }
    }

    /// The changes of `space` under `prefix` after `cursor`, about `limit`: a revision comes as a whole.
    pub(crate) fn find(&self, space: &str, prefix: &str, cursor: Revision, limit: usize) -> Found {
        let complete = self.complete(space);
        if cursor < complete {
            return Found::Older(complete);
        }
        let Some(space) = self.spaces.get(space) else {
            return Found::Changes(Vec::new(), self.end.max(cursor));
        };
        let first = space.changes.partition_point(|change| change.revision <= cursor);
        let mut found = Vec::new();
        for change in space.changes.range(first..) {
            if change.key().path.starts_with(prefix) {
                if found.len() >= limit
                    && let Some(last) = found.last().map(|last: &Arc<Change>| last.revision)
                    && last < change.revision
                {
                    return Found::Changes(found, last);
                }
                found.push(change.clone());
            }
        }
        Found::Changes(found, self.end.max(cursor))
    }

    fn complete(&self, space: &str) -> Revision {
        self.spaces.get(space).map_or(self.born, |space| space.complete)
    }

    /// The newest revision such that `space` did not change between `cursor` and it.
    pub(crate) fn quiet_until(&self, space: &str, cursor: Revision) -> Revision {
        if cursor < self.complete(space) {
            return cursor;
        }
        let changes = self.spaces.get(space).map(|space| &space.changes);
        let next = changes.and_then(|changes| {
            changes.get(changes.partition_point(|change| change.revision <= cursor))
        });
        next.map_or(self.end.max(cursor), |change| Revision(change.revision.0 - 1))
    }

    /// All changes of `space` after `cursor`, if the ring reaches back that far.
    pub(crate) fn since(&self, space: &str, cursor: Revision) -> Option<Vec<Arc<Change>>> {
        match self.find(space, "", cursor, usize::MAX) {
            Found::Changes(changes, _) => Some(changes),
            Found::Older(_) => None,
        }
    }
}

fn size(change: &Change) -> usize {
    let body = |stored: &Option<Arc<crate::Stored>>| stored.as_ref().map_or(0, |s| s.body.len());
    body(&change.old) + body(&change.new) + std::mem::size_of::<Change>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Stored};

    fn put(revision: u64, space: &str, path: &str) -> Arc<Change> {
        let revision = Revision(revision);
        let stored = Stored::new(Key::new(space, path), revision, revision, "x".into());
        Arc::new(Change { revision, place: 0, old: None, new: Some(Arc::new(stored)) })
    }

    fn revisions(found: Found) -> (Vec<u64>, u64) {
        match found {
            Found::Changes(changes, to) => (changes.iter().map(|c| c.revision.0).collect(), to.0),
            Found::Older(until) => panic!("up to {until} some are in history"),
        }
    }

    #[test]
    fn a_watcher_sees_its_space_and_prefix_only() {
        let mut hub = Hub::new(Revision(0), None);
        hub.publish(&[put(1, "pods", "a/1"), put(2, "nodes", "n"), put(3, "pods", "b/1")]);
        assert_eq!(revisions(hub.find("pods", "", Revision(0), 10)), (vec![1, 3], 3));
        assert_eq!(revisions(hub.find("pods", "a/", Revision(0), 10)), (vec![1], 3));
        assert_eq!(revisions(hub.find("pods", "", Revision(0), 1)), (vec![1], 1));
        assert_eq!(revisions(hub.find("leases", "", Revision(0), 1)), (vec![], 3));
        assert_eq!(hub.quiet_until("pods", Revision(1)), Revision(2));
        assert_eq!(hub.quiet_until("nodes", Revision(2)), Revision(3));
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_says_so() {
        let mut hub = Hub::new(Revision(0), Some(RingLimits { changes: 2, bytes: 1 << 20 }));
        for revision in 1..=4 {
            hub.publish(&[put(revision, "pods", "p")]);
        }
        hub.publish(&[]);
        assert!(matches!(hub.find("pods", "", Revision(1), 9), Found::Older(Revision(2))));
        assert_eq!(revisions(hub.find("pods", "", Revision(2), 9)), (vec![3, 4], 4));
        hub.reset(Revision(9));
        assert!(matches!(hub.find("pods", "", Revision(4), 9), Found::Older(Revision(9))));
        assert_eq!(revisions(hub.find("pods", "", Revision(9), 9)), (vec![], 9));
    }

    #[test]
    fn who_watches_a_quiet_space_does_not_notice_what_busy_ones_drop() {
        let mut hub = Hub::new(Revision(3), Some(RingLimits { changes: 2, bytes: 1 << 20 }));
        hub.publish(&[put(4, "nodes", "n")]);
        for revision in 5..=9 {
            hub.publish(&[put(revision, "pods", "p")]);
        }
        hub.publish(&[]);
        assert_eq!(revisions(hub.find("leases", "", Revision(3), 9)), (vec![], 9), "none ever");
        assert_eq!(revisions(hub.find("nodes", "", Revision(4), 9)), (vec![], 9), "none since");
        assert_eq!(hub.quiet_until("nodes", Revision(4)), Revision(9));
        // Of what is to be read in history, no more than up to the last that was dropped.
        assert!(matches!(hub.find("nodes", "", Revision(3), 9), Found::Older(Revision(4))));
        assert!(matches!(hub.find("pods", "", Revision(3), 9), Found::Older(Revision(7))));
        assert_eq!(hub.quiet_until("nodes", Revision(3)), Revision(3));
        // Before the hub began, nothing is known of any space.
        assert!(matches!(hub.find("leases", "", Revision(2), 9), Found::Older(Revision(3))));
        hub.publish(&[put(10, "nodes", "n")]);
        assert_eq!(revisions(hub.find("nodes", "", Revision(4), 9)), (vec![10], 10));
    }

    #[test]
    #[should_panic(expected = "without gaps")]
    fn a_gap_stops_the_member() {
        Hub::new(Revision(0), None).publish(&[put(2, "pods", "p")]);
    }
}

//! The deterministic state machine: the same commands give the same state on every member.
//! It never looks at a clock, a random number, a disk or the network, and every command applies
//! to every state (one that could not would stop all members at the same index).

use crate::types::{Change, Error, Guard, Key, LogIndex, Op, Page, Revision, Stored, Term, Txn};
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// How many proposers (one per start of a member) are remembered; the longest silent is forgotten.
// 64: a member that restarts every second still has a minute in which its requests are known.
const SESSIONS_MAX: usize = 64;

/// One start of one member as a proposer of requests; never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Session(pub(crate) u64);

/// A transaction with the number its proposer gave it, so that a repeat is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) serial: u64,
    pub(crate) txn: Txn,
}

/// Requests of one proposer. All its serials below `settled` have been answered or given up:
/// they need not be remembered, and applying them now would be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) session: Session,
    pub(crate) settled: u64,
    pub(crate) requests: Vec<Request>,
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Write(Vec<Batch>),
    /// Raise the compaction floor: history up to and including this revision may go.
    Compact(Revision),
}

/// What became of a request, as remembered in the state until its proposer has settled it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Outcome {
    /// `revision` of the last write, or of the state; one of `revisions` per write.
    Done {
        revision: Revision,
        revisions: Vec<Option<Revision>>,
    },
    GuardFailed {
        write: usize,
        key_space: Arc<str>,
        key_path: Arc<str>,
    },
    Fenced {
        fence: Term,
        current: Term,
    },
}

/// Which requests of a proposer are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionState {
    pub(crate) settled: u64,
    pub(crate) last_used: LogIndex,
    pub(crate) outcomes: BTreeMap<u64, Outcome>,
}

/// The effect of one command.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// In revision order, without gaps.
    pub(crate) changes: Vec<Arc<Change>>,
    /// New outcomes in order of application. Repeats and settled requests have none.
    pub(crate) outcomes: Vec<(Session, u64, Outcome)>,
    /// Sessions whose `settled` or `last_used` moved.
    pub(crate) touched: Vec<Session>,
    /// Outcomes dropped because they are settled.
    pub(crate) forgotten: Vec<(Session, u64)>,
    /// Sessions dropped altogether.
    pub(crate) evicted: Vec<Session>,
    /// Set if the floor rose.
    pub(crate) floor: Option<Revision>,
}

type Space = BTreeMap<Arc<str>, Arc<Stored>>;

/// Current objects of all spaces and what is needed to apply the next command.
#[derive(Default)]
pub(crate) struct State {
    revision: Revision,
    floor: Revision,
    spaces: BTreeMap<Arc<str>, Space>,
    sessions: BTreeMap<Session, SessionState>,
}

impl State {
    /// Of the last write; `floor <= revision` always.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Changes up to and including this one are compacted.
    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    pub(crate) fn sessions(&self) -> &BTreeMap<Session, SessionState> {
        &self.sessions
    }

    /// Applies one command at `index` of the log, written by the leader of `term`.
    pub(crate) fn apply(&mut self, term: Term, index: LogIndex, command: &Command) -> Applied {
        let mut applied = Applied::default();
        match command {
            Command::Write(batches) => {
                for batch in batches {
                    self.apply_batch(term, index, batch, &mut applied);
                }
            }
            Command::Compact(to) => {
                let to = (*to).min(self.revision);
                if to > self.floor {
                    self.floor = to;
                    applied.floor = Some(to);
                }
            }
        }
        applied
    }

    fn apply_batch(&mut self, term: Term, index: LogIndex, batch: &Batch, applied: &mut Applied) {
        let session = self.sessions.entry(batch.session).or_default();
        session.last_used = index;
        if batch.settled > session.settled {
            session.settled = batch.settled;
            let kept = session.outcomes.split_off(&batch.settled);
            let gone = std::mem::replace(&mut session.outcomes, kept);
            applied.forgotten.extend(gone.into_keys().map(|serial| (batch.session, serial)));
        }
        let settled = session.settled;
        applied.touched.push(batch.session);
        for request in &batch.requests {
            let known = self.sessions.get(&batch.session).map(|s| &s.outcomes);
            let repeat = known.is_some_and(|known| known.contains_key(&request.serial));
            if request.serial < settled || repeat {
                continue;
            }
            let outcome = self.apply_txn(term, &request.txn, &mut applied.changes);
            if let Some(session) = self.sessions.get_mut(&batch.session) {
                session.outcomes.insert(request.serial, outcome.clone());
            }
            applied.outcomes.push((batch.session, request.serial, outcome));
        }
        self.evict(applied);
    }

    fn evict(&mut self, applied: &mut Applied) {
        while self.sessions.len() > SESSIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(id, s)| (s.last_used, **id));
            let Some(oldest) = oldest.map(|(id, _)| *id) else { return };
            self.sessions.remove(&oldest);
            applied.evicted.push(oldest);
        }
    }

    fn apply_txn(&mut self, term: Term, txn: &Txn, changes: &mut Vec<Arc<Change>>) -> Outcome {
        if let Some(fence) = txn.fence.filter(|fence| *fence != term) {
            return Outcome::Fenced { fence, current: term };
        }
        if let Some(write) = self.first_unmet_guard(txn) {
            let key = &txn.writes[write].key;
            let (key_space, key_path) = (key.space.clone(), key.path.clone());
            return Outcome::GuardFailed { write, key_space, key_path };
        }
        let mut revisions = Vec::with_capacity(txn.writes.len());
        for write in &txn.writes {
            let change = self.apply_op(&write.key, &write.op);
            revisions.push(change.as_ref().map(|change| change.revision));
            changes.extend(change.map(Arc::new));
        }
        Outcome::Done { revision: self.revision, revisions }
    }

    fn first_unmet_guard(&self, txn: &Txn) -> Option<usize> {
        txn.writes.iter().position(|write| {
            let current = self.get(&write.key).map(|stored| stored.revision);
            !match write.guard {
                Guard::Absent => current.is_none(),
                Guard::Exists => current.is_some(),
                Guard::At(revision) => current == Some(revision),
                Guard::Any => true,
            }
        })
    }

    fn apply_op(&mut self, key: &Key, op: &Op) -> Option<Change> {
        let next = Revision(self.revision.0 + 1);
        let (old, new) = match op {
            Op::Check => return None,
            Op::Delete => {
                let old = self.spaces.get_mut(&key.space)?.remove(&key.path)?;
                (Some(old), None)
            }
            Op::Put(body) => {
                let space = self.spaces.entry(key.space.clone()).or_default();
                let old = space.get(&key.path).cloned();
                let created = old.as_ref().map_or(next, |old| old.created);
                let key = self.shared_key(key, old.as_deref());
                let new = Arc::new(Stored::new(key.clone(), next, created, body.clone()));
                self.spaces.entry(key.space.clone()).or_default().insert(key.path, new.clone());
                (old, Some(new))
            }
        };
        self.revision = next;
        Some(Change { revision: next, old, new })
    }

    /// The key with the strings that the state already holds, so that a version costs no copies.
    fn shared_key(&self, key: &Key, old: Option<&Stored>) -> Key {
        if let Some(old) = old {
            return old.key.clone();
        }
        let space = self.spaces.get_key_value(&key.space).map_or(&key.space, |(space, _)| space);
        Key { space: space.clone(), path: key.path.clone() }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.spaces.get(&key.space)?.get(&key.path).cloned()
    }

    /// All spaces that were ever written, with the number of their objects.
    pub(crate) fn spaces(&self) -> Vec<(Arc<str>, usize)> {
        self.spaces.iter().map(|(name, space)| (name.clone(), space.len())).collect()
    }

    /// Objects of `space` whose path starts with `prefix` and comes after `after`.
    pub(crate) fn range(
        &self,
        space: &str,
        prefix: &str,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Page {
        let mut page = Page { revision: self.revision, ..Page::default() };
        let Some(space) = self.spaces.get(space) else { return page };
        let mut items = in_range(space, prefix, after);
        page.items.extend(items.by_ref().take(limit.unwrap_or(usize::MAX)).map(|(_, s)| s.clone()));
        page.remaining = items.count() as u64;
        page
    }

    /// The same at the older revision `at`. `since` are the changes after it, oldest first.
    pub(crate) fn range_before(
        &self,
        (space, prefix, after): (&str, &str, Option<&str>),
        limit: Option<usize>,
        at: Revision,
        since: &[Arc<Change>],
    ) -> Page {
        // What each changed path held at `at`: the oldest change after it knows, so it comes last.
        let mut then: BTreeMap<&str, Option<&Arc<Stored>>> = BTreeMap::new();
        for change in since.iter().rev() {
            let key = change.key();
            let after = after.is_none_or(|after| &*key.path > after);
            if after && &*key.space == space && key.path.starts_with(prefix) {
                then.insert(&key.path, change.old.as_ref());
            }
        }
        let empty = Space::new();
        let now = in_range(self.spaces.get(space).unwrap_or(&empty), prefix, after)
            .filter(|(path, _)| !then.contains_key(&***path))
            .map(|(path, stored)| (&**path, stored));
        let then = then.iter().filter_map(|(path, stored)| stored.map(|stored| (*path, stored)));
        let mut items = merge(now, then);
        let page: Vec<_> = items.by_ref().take(limit.unwrap_or(usize::MAX)).cloned().collect();
        Page { revision: at, items: page, remaining: items.count() as u64 }
    }

    /// What the proposer is told; a failed guard is answered with the version in the way *now*.
    pub(crate) fn answer(&self, outcome: &Outcome) -> Result<crate::Committed, Error> {
        match outcome {
            Outcome::Done { revision, revisions } => {
                Ok(crate::Committed { revision: *revision, revisions: revisions.clone() })
            }
            Outcome::GuardFailed { write, key_space, key_path } => {
                let current = self.get(&Key { space: key_space.clone(), path: key_path.clone() });
                Err(Error::GuardFailed { write: *write, current })
            }
            Outcome::Fenced { fence, current } => {
                Err(Error::Fenced { fence: *fence, current: *current })
            }
        }
    }
}

fn in_range<'a>(
    space: &'a Space,
    prefix: &'a str,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Stored>)> {
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let from: (Bound<&str>, Bound<&str>) = (from, Bound::Unbounded);
    space.range::<str, _>(from).take_while(move |(path, _)| path.starts_with(prefix))
}

/// Two iterators ordered by path, with no path in common, as one.
fn merge<'a>(
    a: impl Iterator<Item = (&'a str, &'a Arc<Stored>)>,
    b: impl Iterator<Item = (&'a str, &'a Arc<Stored>)>,
) -> impl Iterator<Item = &'a Arc<Stored>> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some((left, _)), Some((right, _))) if left < right => a.next(),
        (Some(_), None) => a.next(),
        _ => b.next(),
    })
    .map(|(_, stored)| stored)
}

/// Rebuilds a state from what a disk or a snapshot holds.
#[derive(Default)]
pub(crate) struct Loader {
    state: State,
}

impl Loader {
    pub(crate) fn new(revision: Revision, floor: Revision) -> Loader {
        Loader { state: State { revision, floor, ..State::default() } }
    }

    pub(crate) fn insert(&mut self, stored: Arc<Stored>) {
        let key = self.state.shared_key(&stored.key, None);
        self.state.spaces.entry(key.space).or_default().insert(key.path, stored);
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(space) = self.state.spaces.get_mut(&key.space) {
            space.remove(&key.path);
        }
    }

    pub(crate) fn session(&mut self, id: Session, session: SessionState) {
        self.state.sessions.insert(id, session);
    }

    pub(crate) fn finish(self) -> State {
        self.state
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

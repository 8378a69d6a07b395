//! The deterministic state machine: the same commands give the same state on every member.
//! It never looks at a clock, a random number, a disk or the network, and every command applies
//! to every state (one that could not would stop all members at the same index).

use crate::divergence::Digest;
#[cfg(test)]
use crate::mutants::{self, Mutant};
use crate::types::{
    Change, Cluster, Error, Guard, Key, LogIndex, Op, Page, Revision, SpanCheck, Stored, Term, Txn,
};
use bytes::Bytes;
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
    /// Say which cluster this is, unless that was said before.
    Found(Cluster),
    /// Every member reads commands of this version, and always will.
    Raise(u32),
}

impl Command {
    /// Whether any of it is about a span of keys.
    pub(crate) fn has_spans(&self) -> bool {
        let Command::Write(batches) = self else { return false };
        let requests = batches.iter().flat_map(|batch| &batch.requests);
        let mut writes = requests.flat_map(|request| &request.txn.writes);
        writes.any(|write| write.op.is_of_span())
    }
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
    /// Set if the state now says which cluster it belongs to, and did not before.
    pub(crate) founded: Option<Cluster>,
    /// Set if the level rose.
    pub(crate) level: Option<u32>,
}

type Space = BTreeMap<Arc<str>, Arc<Stored>>;

/// Current objects of all spaces and what is needed to apply the next command.
#[derive(Default)]
pub(crate) struct State {
    revision: Revision,
    floor: Revision,
    spaces: BTreeMap<Arc<str>, Space>,
    sessions: BTreeMap<Session, SessionState>,
    /// Of all objects in `spaces`, always.
    digest: Digest,
    cluster: Option<Cluster>,
    level: u32,
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

    /// Equal on members whose objects are equal.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The cluster this state belongs to; `None` until its first leader has said so.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// The newest version of commands that every member reads; never falls. 0 before it was said.
    pub(crate) fn level(&self) -> u32 {
        self.level
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
            Command::Found(cluster) => {
                if self.cluster.is_none() {
                    self.cluster = Some(cluster.clone());
                    applied.founded = Some(cluster.clone());
                }
            }
            Command::Raise(level) => {
                if *level > self.level {
                    self.level = *level;
                    applied.level = Some(*level);
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
            #[cfg(test)]
            let (repeat, settled) = match mutants::on(Mutant::NoSessions) {
                true => (false, 0),
                false => (repeat, settled),
            };
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
        let deposed = txn.fence.filter(|fence| *fence != term);
        #[cfg(test)]
        let deposed = deposed.filter(|_| !mutants::on(Mutant::FenceIgnored));
        if let Some(fence) = deposed {
            return Outcome::Fenced { fence, current: term };
        }
        let unmet = self.first_unmet_guard(txn);
        #[cfg(test)]
        let unmet = unmet.filter(|_| !mutants::on(Mutant::GuardIgnored));
        if let Some(write) = unmet {
            let key = &txn.writes[write].key;
            let (key_space, key_path) = (key.space.clone(), key.path.clone());
            return Outcome::GuardFailed { write, key_space, key_path };
        }
        let mut revisions = Vec::with_capacity(txn.writes.len());
        let before = changes.len();
        for write in &txn.writes {
            let so_far = changes.len();
            match &write.op {
                Op::Check | Op::CheckUntil(_) => {}
                Op::Put(body) => {
                    let (revision, place) = self.next(txn, changes.len() - before);
                    changes.push(Arc::new(self.put(&write.key, revision, place, body)));
                }
                Op::Delete => {
                    let (revision, place) = self.next(txn, changes.len() - before);
                    let change = self.delete(&write.key, revision, place);
                    changes.extend(change.map(Arc::new));
                }
                Op::DeleteUntil(until) => {
                    for key in self.keys_between(&write.key, until.as_deref()) {
                        let (revision, place) = self.next(txn, changes.len() - before);
                        let change = self.delete(&key, revision, place);
                        changes.extend(change.map(Arc::new));
                    }
                }
            }
            let last = changes[so_far..].last();
            revisions.push(last.map(|change| change.revision));
        }
        Outcome::Done { revision: self.revision, revisions }
    }

    /// The revision of the next change of a transaction that has made `changed`, and its place there.
    fn next(&self, txn: &Txn, changed: usize) -> (Revision, u32) {
        match txn.one_revision && changed > 0 {
            true => (self.revision, u32::try_from(changed).expect("an entry is bounded in bytes")),
            false => (Revision(self.revision.0 + 1), 0),
        }
    }

    fn first_unmet_guard(&self, txn: &Txn) -> Option<usize> {
        txn.writes.iter().position(|write| {
            let current = self.get(&write.key).map(|stored| stored.revision);
            let guarded = match write.guard {
                Guard::Absent => current.is_none(),
                Guard::Exists => current.is_some(),
                Guard::At(revision) => current == Some(revision),
                Guard::Any => true,
            };
            let span = match &write.op {
                Op::CheckUntil(check) => self.is_unchanged(&write.key, check),
                _ => true,
            };
            !(guarded && span)
        })
    }

    fn is_unchanged(&self, key: &Key, check: &SpanCheck) -> bool {
        let mut keys = 0;
        for stored in self.between(&key.space, &key.path, check.until.as_deref()) {
            keys += 1;
            if stored.revision > check.newest || keys > check.keys {
                return false;
            }
        }
        keys == check.keys
    }

    /// What is stored from a path up to, but not including, another; `None`: to the end.
    pub(crate) fn between<'a>(
        &'a self,
        space: &str,
        from: &'a str,
        until: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Stored>> + use<'a> {
        let until = until.map_or(Bound::Unbounded, Bound::Excluded);
        // A range that ends before it begins is a mistake to `BTreeMap`, and empty here.
        let empty = matches!(until, Bound::Excluded(until) if until <= from);
        let space = self.spaces.get(space).filter(|_| !empty);
        let span: (Bound<&str>, Bound<&str>) = (Bound::Included(from), until);
        space.into_iter().flat_map(move |space| space.range::<str, _>(span)).map(|(_, s)| s)
    }

    fn keys_between(&self, from: &Key, until: Option<&str>) -> Vec<Key> {
        self.between(&from.space, &from.path, until).map(|stored| stored.key.clone()).collect()
    }

    fn delete(&mut self, key: &Key, revision: Revision, place: u32) -> Option<Change> {
        let old = self.spaces.get_mut(&key.space)?.remove(&key.path)?;
        self.digest.remove(&old);
        self.revision = revision;
        Some(Change { revision, place, old: Some(old), new: None })
    }

    fn put(&mut self, key: &Key, revision: Revision, place: u32, body: &Bytes) -> Change {
        let old = self.get(key);
        let created = old.as_ref().map_or(revision, |old| old.created);
        let version = old.as_ref().map_or(1, |old| old.version + 1);
        let key = self.shared_key(key, old.as_deref());
        let new = Stored::new(key.clone(), revision, created, body.clone());
        let new = Arc::new(new.numbered(version, place));
        #[cfg(test)]
        let new = match mutants::on(Mutant::ApplyDiffers) && revision.0.is_multiple_of(64) {
            true => crate::sim::peculiar(&new),
            false => new,
        };
        self.digest.add(&new);
        if let Some(old) = &old {
            self.digest.remove(old);
        }
        self.spaces.entry(key.space).or_default().insert(key.path, new.clone());
        self.revision = revision;
        Change { revision, place, old, new: Some(new) }
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
        self.find(key).cloned()
    }

    pub(crate) fn find(&self, key: &Key) -> Option<&Arc<Stored>> {
        self.spaces.get(&key.space)?.get(&key.path)
    }

    #[cfg(test)]
    pub(crate) fn falsify(&mut self, key: Key) {
        let revision = self.revision;
        self.put(&key, revision, 0, &Bytes::from_static(b"false"));
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

    pub(crate) fn cluster(&mut self, cluster: Option<Cluster>) {
        self.state.cluster = cluster;
    }

    pub(crate) fn level(&mut self, level: u32) {
        self.state.level = level;
    }

    pub(crate) fn finish(self) -> State {
        let mut state = self.state;
        for stored in state.spaces.values().flat_map(BTreeMap::values) {
            state.digest.add(stored);
        }
        state
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

//! The handle to one member's store: the API for everything above it.

use crate::{
    backup,
    config::{Config, OpenError, Peer},
    member::Member,
    members::{Leadership, MemberStatus},
    membership::Request,
    questions::Answer,
    shared::{Position, Shared},
    state::{Batch, Command, Session, State},
    steward::MemberError,
    threads::Threads,
    time::sleep,
    types::{
        Cluster, Committed, Error, Key, LogIndex, MemberId, Page, Revision, Stored, Term, Txn,
    },
    watch::{Watch, history},
};
use bytes::Bytes;
use futures::FutureExt as _;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch};

/// The largest transaction, in bytes of keys and bodies together.
// Kubernetes' request limit is 3 MiB; a transaction may touch a few objects.
pub const TXN_BYTES_MAX: usize = 8 << 20;

/// A replicated, revisioned byte store, seen from one member. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    mode: Mode,
}

enum Mode {
    /// One member without a log: commits at once. Holds the last serial issued.
    Memory { last_serial: Mutex<u64>, leadership: watch::Sender<Leadership> },
    /// One of a group, on threads of its own: what it spawns must be spawned there.
    Member(Arc<Member>, Threads),
}

impl Store {
    /// One member, commit at once, no disk: the real state machine and hub without consensus.
    /// It leads in term 1 and keeps all history until `compact`.
    pub fn in_memory() -> Store {
        let shared = Arc::new(Shared::new(Session(0), State::default(), None));
        let (term, member) = (Term(1), MemberId(1));
        let leadership =
            watch::Sender::new(Leadership { term, leader: Some(member), leading: Some(term) });
        let mode = Mode::Memory { last_serial: Mutex::new(0), leadership };
        Store { inner: Arc::new(Inner { shared, mode }) }
    }

    /// Starts this member: reads its disk, listens for its peers, and takes part from then on.
    ///
    /// Returns before there is a leader; `txn` and `barrier` wait for one. Refuses to start on a
    /// damaged disk or one of another member.
    pub async fn open(config: Config) -> Result<Store, OpenError> {
        let threads = Threads::start().map_err(|error| OpenError::Raft(error.to_string()))?;
        let opened = threads.run(Member::open(config, Handle::current()).boxed()).await;
        let member = opened.ok_or_else(|| OpenError::Raft("its threads ended".into()))??;
        Ok(Store::of(member, threads))
    }

    pub(crate) fn of(member: Arc<Member>, threads: Threads) -> Store {
        let shared = member.shared.clone();
        Store { inner: Arc::new(Inner { shared, mode: Mode::Member(member, threads) }) }
    }

    /// Resolves when this member has stopped, with the reason: after `shutdown`, or because its
    /// disk failed. A member that stopped by itself must be started anew by its supervisor.
    pub async fn stopped(&self) -> Error {
        self.inner.shared.until_stopped().await
    }

    /// Commits a transaction: on return it is on a quorum's disks and applied on this member.
    ///
    /// Any member takes it; a lost leader is retried inside, without applying anything twice.
    pub async fn txn(&self, txn: Txn) -> Result<Committed, Error> {
        self.inner.shared.check_running()?;
        let bytes = txn_bytes(&txn);
        if bytes > TXN_BYTES_MAX {
            return Err(Error::TooLarge { bytes, limit: TXN_BYTES_MAX });
        }
        match &self.inner.mode {
            Mode::Memory { last_serial, .. } => self.commit_in_memory(last_serial, txn),
            Mode::Member(member, _) => member.txn(txn).await,
        }
    }

    fn commit_in_memory(&self, last_serial: &Mutex<u64>, txn: Txn) -> Result<Committed, Error> {
        let shared = &self.inner.shared;
        // Held until the changes are published, so that entries apply in order.
        let mut serial = last_serial.lock().expect("only held to apply");
        *serial += 1;
        let batch = Batch {
            session: shared.session(),
            settled: *serial,
            requests: vec![crate::state::Request { serial: *serial, txn }],
        };
        let mut answer = shared.wait_for_outcome(*serial);
        let index = LogIndex(*serial);
        let applied = shared.apply(Term(1), index, &Command::Write(vec![batch]));
        shared.announce(index, &applied);
        answer.try_recv().map_err(|_| Error::Stopped("shut down".into()))?
    }

    /// After this, the state here is at least as new as the cluster's was at the call.
    pub async fn barrier(&self) -> Result<Revision, Error> {
        self.inner.shared.check_running()?;
        match &self.inner.mode {
            Mode::Memory { .. } => Ok(self.revision()),
            Mode::Member(member, _) => member.barrier().await,
        }
    }

    /// Of the state applied on this member.
    pub fn revision(&self) -> Revision {
        self.inner.shared.read().state.revision()
    }

    /// The newest revision up to which nothing in `space` changed after `after`, on this member; `after`
    /// itself if that is longer ago than memory reaches.
    pub fn quiet_until(&self, space: &str, after: Revision) -> Revision {
        self.inner.shared.read().hub.quiet_until(space, after)
    }

    /// The newest version of commands that every member reads, as far as this one knows; 0 before any was said.
    #[cfg(test)]
    pub(crate) fn level(&self) -> u32 {
        self.inner.shared.read().state.level()
    }

    /// Waits until this member has applied `revision`; `Unavailable` after `timeout`.
    pub async fn wait_for(&self, revision: Revision, timeout: Duration) -> Result<(), Error> {
        let mut applied = self.inner.shared.applied();
        let reached = |position: &Position| position.revision >= revision;
        tokio::select! {
            biased;
            reached = applied.wait_for(reached) => reached.map(drop)
                .map_err(|_| Error::Stopped("shut down".into())),
            error = self.inner.shared.until_stopped() => Err(error),
            () = sleep(timeout) => Err(Error::Unavailable { unknown: false }),
        }
    }

    /// How far this member is, and the digest of what it holds there.
    #[cfg(test)]
    pub(crate) fn fingerprint(&self) -> (Revision, u64) {
        let core = self.inner.shared.read();
        (core.state.revision(), core.state.digest().0)
    }

    /// The current version on this member; no waiting, no IO.
    pub fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.inner.shared.read().state.get(key)
    }

    /// Everything that `look` reads is of one revision. Nothing is applied meanwhile, so it is to be
    /// short.
    pub fn look<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        look(&View { state: &self.inner.shared.read().state })
    }

    /// Objects whose path starts with `prefix` and comes after `after`, on this member, in path
    /// order; no waiting, no IO.
    pub fn range(
        &self,
        space: &str,
        prefix: &str,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Page {
        self.inner.shared.read().state.range(space, prefix, after, limit)
    }

    /// The same as it was at revision `at`.
    pub async fn range_at(
        &self,
        space: &str,
        prefix: &str,
        after: Option<&str>,
        limit: Option<usize>,
        at: Revision,
    ) -> Result<Page, Error> {
        let shared = &self.inner.shared;
        let mut older = Vec::new();
        loop {
            shared.check_running()?;
            let begin = {
                let core = shared.read();
                let (revision, floor) = (core.state.revision(), core.state.floor());
                if at > revision {
                    return Err(Error::Future { asked: at, current: revision });
                }
                if at < floor {
                    return Err(Error::Compacted { oldest: floor });
                }
                let from = older.last().map_or(at, |change: &Arc<crate::Change>| change.revision);
                if let Some(newer) = core.hub.since(space, from) {
                    older.extend(newer);
                    let range = (space, prefix, after);
                    return Ok(core.state.range_before(range, limit, at, &older));
                }
                core.hub.begin()
            };
            let from = older.last().map_or(at, |change: &Arc<crate::Change>| change.revision);
            let until = Revision((from.0 + RANGE_AT_CHUNK).min(begin.0));
            older.extend(history(shared, from, until, RANGE_AT_CHUNK as usize).await?);
        }
    }

    /// Changes of a space under a path prefix after a revision already seen.
    ///
    /// `Future` if this member has not applied that revision yet (see `wait_for`).
    pub fn watch(&self, space: &str, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.inner.shared.check_running()?;
        Watch::new(self.inner.shared.clone(), space, prefix, after)
    }

    /// Which cluster this is; `None` before its first leader has said so, and in memory.
    pub fn cluster(&self) -> Option<Cluster> {
        self.inner.shared.cluster().get().cloned()
    }

    /// All spaces ever written to, with the number of objects in each.
    pub fn spaces(&self) -> Vec<(Arc<str>, usize)> {
        self.inner.shared.read().state.spaces()
    }

    /// Who leads, as this member knows it.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        match &self.inner.mode {
            Mode::Memory { leadership, .. } => leadership.subscribe(),
            Mode::Member(member, _) => member.leadership(),
        }
    }

    /// This member.
    pub fn member(&self) -> MemberId {
        match &self.inner.mode {
            Mode::Member(member, _) => member.id(),
            Mode::Memory { .. } => MemberId(1),
        }
    }

    /// All members, as this member sees them.
    pub fn members(&self) -> Vec<MemberStatus> {
        match &self.inner.mode {
            Mode::Member(member, _) => member.members(),
            Mode::Memory { .. } => vec![MemberStatus {
                id: MemberId(1),
                name: "memory".into(),
                peer_address: String::new(),
                api_address: String::new(),
                leader: true,
                voter: true,
                term: Term(1),
                applied: Some(self.revision()),
                reachable: true,
            }],
        }
    }

    /// From now on `answer` answers what other members [`ask`](Store::ask) about `topic`.
    pub fn answer(&self, topic: &'static str, answer: Answer) {
        if let Mode::Member(member, _) = &self.inner.mode {
            member.answer(topic, answer);
        }
    }

    /// What another member says about `topic`; `None` if it did not say anything in time.
    pub async fn ask(&self, of: MemberId, topic: &str, question: Bytes) -> Option<Bytes> {
        match &self.inner.mode {
            Mode::Member(member, threads) => {
                let (member, topic) = (member.clone(), topic.to_owned());
                let asked = async move { member.ask(of, &topic, question).await };
                threads.run(asked.boxed()).await.flatten()
            }
            Mode::Memory { .. } => None,
        }
    }

    /// Adds a member that follows and does not vote until it has caught up; then it votes by itself.
    /// The id is the next one unless given; ids are never given twice. It may be started afterwards,
    /// with `Config::joins`; one that is not heard from in time is removed again.
    pub async fn add_learner(
        &self,
        id: Option<MemberId>,
        peer: Peer,
    ) -> Result<MemberId, MemberError> {
        self.change(Request::Add { id, peer }).await
    }

    /// Removes a member for ever. It stops when it learns of it. A leader hands over first.
    pub async fn remove_member(&self, id: MemberId) -> Result<(), MemberError> {
        self.change(Request::Remove { id }).await.map(drop)
    }

    /// Hands leadership to a voter, or to the one that is furthest; who leads now.
    pub async fn transfer_leader(&self, to: Option<MemberId>) -> Result<MemberId, MemberError> {
        self.change(Request::Transfer { to }).await
    }

    async fn change(&self, request: Request) -> Result<MemberId, MemberError> {
        match &self.inner.mode {
            Mode::Memory { .. } => Err(MemberError::Unavailable { unknown: false }),
            Mode::Member(member, threads) => {
                let member = member.clone();
                let changed = async move { member.change(request).await };
                let changed = threads.run(changed.boxed()).await;
                changed.unwrap_or(Err(MemberError::Unavailable { unknown: true }))
            }
        }
    }

    /// Hands leadership over if it has it and another can take it: before a planned stop, while
    /// this member still answers.
    pub async fn hand_over(&self) {
        if let Mode::Member(member, _) = &self.inner.mode {
            member.hand_over().await;
        }
    }

    /// Forgets history up to and including `revision`, on all members. Only the leader can;
    /// elsewhere it is `Unavailable`.
    pub async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.shared.check_running()?;
        match &self.inner.mode {
            Mode::Member(member, _) => member.compact(revision).await,
            Mode::Memory { last_serial, .. } => {
                let serial = last_serial.lock().expect("only held to apply");
                let shared = &self.inner.shared;
                let index = LogIndex(*serial);
                let applied = shared.apply(Term(1), index, &Command::Compact(revision));
                shared.announce(index, &applied);
                Ok(())
            }
        }
    }

    /// Writes this member's state out and shortens its log, as it does by itself every half minute.
    pub async fn flush(&self) -> Result<(), Error> {
        self.inner.shared.check_running()?;
        match &self.inner.mode {
            Mode::Memory { .. } => Ok(()),
            Mode::Member(member, _) => member.flush().await,
        }
    }

    /// Begins a backup of this member's state, or one that continues `since`; it can be taken on any
    /// member, and holds nothing up. `now` is in seconds since 1970.
    pub async fn backup(
        &self,
        now: u64,
        since: Option<backup::Since>,
    ) -> Result<backup::Taken, backup::Error> {
        self.inner.shared.check_running()?;
        match &self.inner.mode {
            Mode::Memory { .. } => {
                Err(backup::Error::Refused("a store in memory has no backups".into()))
            }
            Mode::Member(member, _) => member.backup(now, since).await,
        }
    }

    /// Hands leadership over if it has it, ends all waits with `Stopped` and lets go of the disk.
    pub async fn shutdown(&self) {
        match &self.inner.mode {
            Mode::Memory { .. } => self.inner.shared.stop("shut down"),
            Mode::Member(member, _) => member.stop(true, "shut down").await,
        }
    }

    #[cfg(test)]
    pub(crate) fn inside(&self) -> &Member {
        match &self.inner.mode {
            Mode::Memory { .. } => panic!("in memory"),
            Mode::Member(member, _) => member,
        }
    }
}

/// The state of a member at one revision, while it is looked at.
pub struct View<'a> {
    state: &'a State,
}

impl<'a> View<'a> {
    pub fn revision(&self) -> Revision {
        self.state.revision()
    }

    /// Changes up to and including this one may be gone: reads at it and watches after it still work.
    pub fn floor(&self) -> Revision {
        self.state.floor()
    }

    pub fn get(&self, key: &Key) -> Option<&'a Arc<Stored>> {
        self.state.find(key)
    }

    /// What is stored from a path up to, but not including, another (`None`: to the end), in order.
    pub fn between(
        &self,
        space: &str,
        from: &'a str,
        until: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Stored>> + use<'a> {
        self.state.between(space, from, until)
    }
}

/// How many revisions `range_at` takes from history at a time.
const RANGE_AT_CHUNK: u64 = 4096;

fn txn_bytes(txn: &Txn) -> usize {
    let body = |op: &crate::Op| match op {
        crate::Op::Put(body) => body.len(),
        crate::Op::DeleteUntil(until) => until.as_ref().map_or(0, |until| until.len()),
        crate::Op::CheckUntil(check) => check.until.as_ref().map_or(0, |until| until.len()),
        crate::Op::Delete | crate::Op::Check => 0,
    };
    txn.writes.iter().map(|w| w.key.space.len() + w.key.path.len() + body(&w.op) + 16).sum()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

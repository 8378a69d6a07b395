//! What readers, watchers and the apply loop of one member share: state and hub under one lock,
//! so that a reader sees both at the same revision. The lock is never held across a wait.

use crate::{
    codec,
    divergence::{Note, Notes},
    hub::{Hub, RingLimits},
    state::{Applied, Command, Session, State},
    time::block_apart,
    types::{Change, Cluster, Committed, Error, LogIndex, Revision, Term},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{oneshot, watch};

/// Changes that have left the ring, read from disk. Calls block.
pub(crate) trait History: Send + Sync + 'static {
    /// Changes with `after < revision <= until`, oldest first, of at most `limit` revisions, each with
    /// all its changes, without gaps as long as `after` is not below the floor.
    fn changes(
        &self,
        after: Revision,
        until: Revision,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>, Error>;
}

/// State and hub, at the same revision.
pub(crate) struct Core {
    pub(crate) state: State,
    pub(crate) hub: Hub,
    pub(crate) notes: Notes,
}

/// How far this member has applied the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) index: LogIndex,
    pub(crate) revision: Revision,
}

type Answer = Result<Committed, Error>;

/// One member's applied state and everyone who waits for it.
pub(crate) struct Shared {
    /// Under which this process proposes.
    session: Session,
    /// The newest version of commands that this program reads.
    knows: u32,
    /// As the state has it, without its lock: asked with every call between members.
    cluster: Arc<OnceLock<Cluster>>,
    core: RwLock<Core>,
    history: RwLock<Option<Arc<dyn History>>>,
    applied: watch::Sender<Position>,
    /// Up to which entry the state may have been seen by somebody, announced or not.
    reached: AtomicU64,
    stopped: watch::Sender<Option<String>>,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
}

impl Shared {
    pub(crate) fn new(session: Session, state: State, limits: Option<RingLimits>) -> Shared {
        let revision = state.revision();
        let cluster = state.cluster().cloned().map_or_else(OnceLock::new, OnceLock::from);
        Shared {
            session,
            knows: codec::VERSION,
            cluster: Arc::new(cluster),
            core: RwLock::new(Core {
                hub: Hub::new(revision, limits),
                state,
                notes: Notes::default(),
            }),
            history: RwLock::new(None),
            applied: watch::Sender::new(Position { index: LogIndex(0), revision }),
            reached: AtomicU64::new(0),
            stopped: watch::Sender::new(None),
            waiting: Mutex::new(BTreeMap::new()),
        }
    }

    /// As a program that knows no more.
    #[cfg(test)]
    pub(crate) fn knowing(self, knows: u32) -> Shared {
        Shared { knows, ..self }
    }

    pub(crate) fn knows(&self) -> u32 {
        self.knows
    }

    pub(crate) fn session(&self) -> Session {
        self.session
    }

    /// Which cluster this member belongs to, once it knows.
    pub(crate) fn cluster(&self) -> &Arc<OnceLock<Cluster>> {
        &self.cluster
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Core> {
        self.core.read().expect("apply never panics half-way")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Core> {
        self.core.write().expect("apply never panics half-way")
    }

    pub(crate) fn subscribe(&self, space: &Arc<str>) -> watch::Receiver<Revision> {
        self.write().hub.subscribe(space)
    }

    pub(crate) fn history(&self) -> Option<Arc<dyn History>> {
        self.history.read().expect("history is only swapped").clone()
    }

    pub(crate) fn set_history(&self, history: Arc<dyn History>) {
        *self.history.write().expect("history is only swapped") = Some(history);
    }

    /// Applies one command and publishes its changes. Waiters are answered by `answer`, after the
    /// caller has written down what must be written down.
    pub(crate) fn apply(&self, term: Term, index: LogIndex, command: &Command) -> Applied {
        let mut core = self.write();
        let applied = core.state.apply(term, index, command);
        self.reached.fetch_max(index.0, Ordering::SeqCst);
        core.hub.publish(&applied.changes);
        let (revision, digest) = (core.state.revision(), core.state.digest());
        core.notes.take(Note { index, revision, digest });
        if let Some(cluster) = &applied.founded {
            self.cluster.get_or_init(|| cluster.clone());
        }
        if let Some(floor) = applied.floor
            && self.history().is_none()
        {
            core.hub.drop_until(floor);
        }
        applied
    }

    /// As if memory or an apply had gone wrong: an object that no entry of the log wrote.
    #[cfg(test)]
    pub(crate) fn falsify(&self, key: crate::Key) {
        self.write().state.falsify(key);
    }

    /// Wakes watchers, answers this member's own requests, moves the applied position.
    pub(crate) fn announce(&self, index: LogIndex, applied: &Applied) {
        let core = self.read();
        core.hub.wake(&applied.changes);
        let mut answers = Vec::new();
        {
            let mut waiting = self.waiting();
            for (session, serial, outcome) in &applied.outcomes {
                if *session == self.session
                    && let Some(waiter) = waiting.remove(serial)
                {
                    answers.push((waiter, core.state.answer(outcome)));
                }
            }
        }
        let revision = core.state.revision();
        drop(core);
        self.applied.send_replace(Position { index, revision });
        for (waiter, answer) in answers {
            // The caller may have given up.
            let _ = waiter.send(answer);
        }
    }

    /// Replaces everything by a snapshot; answers own requests whose outcome it contains.
    pub(crate) fn replace(&self, index: LogIndex, state: State, history: Arc<dyn History>) {
        let mut core = self.write();
        let before = std::mem::replace(&mut core.state, state);
        self.reached.fetch_max(index.0, Ordering::SeqCst);
        core.notes.clear();
        if let Some(cluster) = core.state.cluster() {
            self.cluster.get_or_init(|| cluster.clone());
        }
        self.set_history(history);
        let revision = core.state.revision();
        core.hub.reset(revision);
        let mut answers = Vec::new();
        if let Some(known) = core.state.sessions().get(&self.session) {
            let mut waiting = self.waiting();
            for (serial, outcome) in &known.outcomes {
                if let Some(waiter) = waiting.remove(serial) {
                    answers.push((waiter, core.state.answer(outcome)));
                }
            }
        }
        drop(core);
        // A large one takes long to take apart.
        block_apart(move || drop(before));
        self.applied.send_replace(Position { index, revision });
        for (waiter, answer) in answers {
            let _ = waiter.send(answer);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().expect("the map is only inserted into and removed from")
    }

    /// Whoever holds the receiver is answered when `serial` is applied here.
    pub(crate) fn wait_for_outcome(&self, serial: u64) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(serial, sender);
        receiver
    }

    /// Nobody waits for `serial` any more.
    pub(crate) fn give_up(&self, serial: u64) {
        self.waiting().remove(&serial);
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Position> {
        self.applied.subscribe()
    }

    pub(crate) fn position(&self) -> Position {
        *self.applied.borrow()
    }

    /// Nobody has seen here what a later entry did.
    pub(crate) fn reached(&self) -> LogIndex {
        LogIndex(self.reached.load(Ordering::SeqCst))
    }

    pub(crate) fn set_position(&self, position: Position) {
        self.reached.fetch_max(position.index.0, Ordering::SeqCst);
        self.applied.send_replace(position);
    }

    /// Lets go of the disk, so that it can be opened again.
    pub(crate) fn clear_history(&self) {
        *self.history.write().expect("history is only swapped") = None;
    }

    /// Ends every wait with `Error::Stopped`; the first reason stays.
    pub(crate) fn stop(&self, reason: &str) {
        self.stopped.send_if_modified(|stopped| match stopped {
            Some(_) => false,
            None => {
                *stopped = Some(reason.to_owned());
                true
            }
        });
        self.waiting().clear();
    }

    pub(crate) fn stopped(&self) -> Option<String> {
        self.stopped.borrow().clone()
    }

    /// Resolves when this member has stopped.
    pub(crate) async fn until_stopped(&self) -> Error {
        let mut stopped = self.stopped.subscribe();
        let reason = stopped.wait_for(Option::is_some).await;
        let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
        Error::Stopped(reason)
    }

    pub(crate) fn check_running(&self) -> Result<(), Error> {
        self.stopped().map_or(Ok(()), |reason| Err(Error::Stopped(reason)))
    }
}

//! Committed entries become state: applied in memory, written to disk, announced. Snapshots are
//! checkpoints of the state's disk.

use super::{Entry, LogId, Nothing, StoredMembership, Types, term_of};
use crate::{
    codec,
    disk::{AppliedTo, StateBatch, StateDisk},
    durable, levels,
    metrics::Metrics,
    roster::Roster,
    seal::Seal,
    shared::{Position, Shared},
    state::Applied,
    state_engine::Engines,
    time::{block_here, blocking},
    types::{LogIndex, Term},
};
use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Arc<SnapshotDir>>;

/// Entries are written to disk and announced after about this many bytes of commands.
// Much less than the ring, which must not lose what the disk does not have yet.
const WRITE_BYTES: usize = 1 << 20;

/// An entry of so many bytes takes longer to apply than it does to hand over everything else.
const LONG_BYTES: usize = 512 << 10;

/// A directory with a whole state; it goes with the last user.
#[derive(Debug)]
pub(crate) struct SnapshotDir {
    pub(crate) path: PathBuf,
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        // Installed snapshots were moved away.
        let _ = fs::remove_dir_all(&self.path);
    }
}

const CURRENT: &str = "current";

/// Where the state and its snapshots lie:
/// `current` names the directory of the state, which a snapshot replaces in one rename.
#[derive(Clone, Debug)]
pub(crate) struct Dirs {
    root: PathBuf,
    engines: Arc<dyn Engines>,
}

impl Dirs {
    pub(crate) fn new(root: PathBuf, engines: Arc<dyn Engines>) -> Dirs {
        Dirs { root, engines }
    }

    /// The state in `dir`, empty if there is none yet.
    pub(crate) fn open(&self, dir: &Path, seal: Arc<dyn Seal>) -> io::Result<StateDisk> {
        StateDisk::open(&*self.engines, dir, seal)
    }

    /// What a directory with a whole state covers.
    pub(crate) fn applied_in(&self, dir: &Path) -> io::Result<AppliedTo> {
        StateDisk::open_read_only(&*self.engines, dir)?.applied()
    }

    /// The directory of the state. Leftovers of earlier snapshots are removed.
    pub(crate) fn prepare(&self) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.root)?;
        let name = match durable::read(&self.root, CURRENT)? {
            Some(name) => name,
            None => {
                let name = "state-0".to_owned();
                self.point_to(&name)?;
                name
            }
        };
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && entry.file_name() != *name {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(self.root.join(name))
    }

    fn point_to(&self, name: &str) -> io::Result<()> {
        durable::write(&self.root, CURRENT, name)
    }

    /// A name that is not taken, for a state that covers the log up to `index`.
    pub(crate) fn fresh(&self, what: &str, index: u64) -> PathBuf {
        // Two at a time must not choose the same.
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let names = std::iter::repeat_with(|| NAMES.fetch_add(1, Ordering::Relaxed));
        let mut paths = names.map(|n| self.root.join(format!("{what}-{index}-{n}")));
        paths.find(|path| !path.exists()).expect("the numbers do not end")
    }
}

type CurrentSnapshot = Arc<Mutex<Option<Snapshot>>>;

/// The state machine of one member.
pub(crate) struct Machine {
    shared: Arc<Shared>,
    dirs: Dirs,
    /// Also read by whoever sweeps history.
    disk: Arc<Mutex<Arc<StateDisk>>>,
    applied: AppliedTo,
    applied_id: watch::Sender<Option<LogId>>,
    roster: watch::Sender<Roster>,
    snapshot: CurrentSnapshot,
    metrics: Metrics,
}

/// What was applied but not yet written and announced.
#[derive(Default)]
struct Unannounced {
    batch: StateBatch,
    bytes: usize,
    entries: Vec<(LogIndex, Applied, Option<ApplyResponder<Types>>)>,
}

impl Machine {
    pub(crate) fn new(
        shared: Arc<Shared>,
        dirs: Dirs,
        disk: StateDisk,
        metrics: Metrics,
    ) -> io::Result<Machine> {
        let applied = disk.applied()?;
        let disk = Arc::new(disk);
        shared.set_history(disk.clone());
        let index = LogIndex(applied.log_id.map_or(0, |id| id.index));
        shared.set_position(Position { index, revision: shared.read().state.revision() });
        Ok(Machine {
            shared,
            dirs,
            disk: Arc::new(Mutex::new(disk)),
            applied_id: watch::Sender::new(applied.log_id),
            roster: watch::Sender::new(applied.roster.clone()),
            applied,
            snapshot: Arc::default(),
            metrics,
        })
    }

    /// The last entry applied.
    pub(crate) fn applied_id(&self) -> watch::Receiver<Option<LogId>> {
        self.applied_id.subscribe()
    }

    /// Every id ever given, as of the last entry applied.
    pub(crate) fn roster(&self) -> watch::Receiver<Roster> {
        self.roster.subscribe()
    }

    pub(crate) fn disk(&self) -> Arc<Mutex<Arc<StateDisk>>> {
        self.disk.clone()
    }

    fn current_disk(&self) -> Arc<StateDisk> {
        current(&self.disk).clone()
    }

    fn apply_entry(&mut self, entry: Entry, pending: &mut Unannounced) -> io::Result<Applied> {
        #[cfg(test)]
        let witnessed = entry.clone();
        let applied = self.apply_payload(entry, pending)?;
        #[cfg(test)]
        crate::sim::entry_applied(&witnessed, &applied, &self.shared);
        Ok(applied)
    }

    fn apply_payload(&mut self, entry: Entry, pending: &mut Unannounced) -> io::Result<Applied> {
        self.applied.log_id = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Ok(Applied::default()),
            EntryPayload::Membership(membership) => {
                self.applied.roster.apply(LogIndex(entry.log_id.index), &membership);
                self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                Ok(Applied::default())
            }
            EntryPayload::Normal(payload) => {
                let length = payload.0.len();
                pending.bytes += length;
                let seal = self.current_disk().seal().clone();
                let command = codec::decode(payload.0, &*seal, self.shared.knows());
                let command = command.map_err(io::Error::other)?;
                let (term, index) = (Term(term_of(&entry.log_id)), LogIndex(entry.log_id.index));
                let apply = || self.shared.apply(term, index, &command);
                let long = length >= LONG_BYTES || command.has_spans();
                let applied = if long { block_here(apply) } else { apply() };
                for new in applied.changes.iter().filter_map(|change| change.new.as_ref()) {
                    seal.learn(&new.key, &new.body);
                }
                pending.batch.add(&applied, self.shared.read().state.sessions(), &*seal);
                Ok(applied)
            }
        }
    }

    fn announce(&self, mut pending: Unannounced) -> io::Result<()> {
        pending.batch.applied(&self.applied);
        self.current_disk().write(pending.batch)?;
        for (index, applied, responder) in pending.entries {
            self.shared.announce(index, &applied);
            if let Some(responder) = responder {
                responder.send(Nothing);
            }
        }
        self.publish();
        Ok(())
    }
}

impl Machine {
    /// Tells those who follow how far the log is applied.
    fn publish(&self) {
        self.roster.send_if_modified(|known| {
            let changed = *known != self.applied.roster;
            if changed {
                known.clone_from(&self.applied.roster);
            }
            changed
        });
        self.applied_id.send_replace(self.applied.log_id);
    }
}

fn current(disk: &Mutex<Arc<StateDisk>>) -> MutexGuard<'_, Arc<StateDisk>> {
    disk.lock().expect("the disk is only swapped")
}

/// The disk of the state as it is now; a snapshot may replace it later.
pub(crate) fn disk_now(disk: &Mutex<Arc<StateDisk>>) -> Arc<StateDisk> {
    current(disk).clone()
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Arc<SnapshotDir>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied.log_id, self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        #[cfg(test)]
        crate::sim::apply_pause().await;
        let mut pending = Unannounced::default();
        while let Some((entry, responder)) = entries.try_next().await? {
            let index = LogIndex(entry.log_id.index);
            let applied = self.apply_entry(entry, &mut pending)?;
            pending.entries.push((index, applied, responder));
            if pending.bytes >= WRITE_BYTES {
                self.announce(std::mem::take(&mut pending))?;
                // Behind thousands of entries heartbeats wait, too.
                tokio::task::yield_now().await;
            }
        }
        #[cfg(test)]
        crate::sim::apply_pause().await;
        self.announce(pending)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            dirs: self.dirs.clone(),
            disk: self.current_disk(),
            snapshot: self.snapshot.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Arc<SnapshotDir>,
    ) -> Result<(), io::Error> {
        let (dirs, expected) = (self.dirs.clone(), meta.last_log_id);
        let (seal, knows) = (self.current_disk().seal().clone(), self.shared.knows());
        let (disk, state) = blocking(move || {
            let index = expected.map_or(0, |id| id.index);
            let dir = dirs.fresh("state", index);
            fs::rename(&snapshot.path, &dir)?;
            let disk = dirs.open(&dir, seal)?;
            let found = disk.applied()?.log_id;
            if found != expected {
                let detail = format!("the snapshot is of {found:?}, not of {expected:?}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
            }
            let state = disk.load()?;
            levels::known(state.level(), knows).map_err(io::Error::other)?;
            let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            dirs.point_to(name)?;
            Ok((Arc::new(disk), state))
        })
        .await??;
        self.applied = disk.applied()?;
        let old = std::mem::replace(&mut *current(&self.disk), disk.clone());
        old.delete_when_dropped();
        drop(old);
        let index = LogIndex(expected.map_or(0, |id| id.index));
        // Before anybody can see what it brought.
        self.metrics.snapshots_installed.inc();
        self.shared.replace(index, state, disk);
        self.publish();
        self.get_snapshot_builder().await.build_snapshot().await.map(drop)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.snapshot.lock().expect("only swapped").clone())
    }
}

/// Makes a snapshot of the state as it is when `build_snapshot` runs.
pub(crate) struct Builder {
    dirs: Dirs,
    disk: Arc<StateDisk>,
    snapshot: CurrentSnapshot,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Arc<SnapshotDir>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (dirs, disk) = (self.dirs.clone(), self.disk.clone());
        let made = blocking(move || {
            let at = disk.applied()?.log_id.map_or(0, |id| id.index);
            let path = dirs.fresh("snapshot", at);
            disk.checkpoint(&path)?;
            let snapshot = Arc::new(SnapshotDir { path });
            // What is in the checkpoint, not what was applied when it was asked for.
            let AppliedTo { log_id, membership, .. } = dirs.applied_in(&snapshot.path)?;
            let meta = SnapshotMeta { last_log_id: log_id, last_membership: membership };
            Ok::<_, io::Error>(Snapshot { meta, snapshot })
        })
        .await??;
        let mut current = self.snapshot.lock().expect("only swapped");
        // An older one that took longer must not replace a newer one.
        if current.as_ref().map(|s| s.meta.last_log_id) <= Some(made.meta.last_log_id) {
            *current = Some(made.clone());
        }
        Ok(made)
    }
}

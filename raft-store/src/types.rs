//! The vocabulary of the store: revisions, keys, guarded transactions, changes and errors.

use bytes::Bytes;
use std::{any::Any, fmt, sync::Arc, sync::OnceLock, time::Duration};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
                 serde::Serialize, serde::Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// Position in the one history of all changes: each applied write (put or delete) has its own,
    /// those of a transaction of one revision share it. Starts at 1, grows by one, never goes back.
    Revision
}
counter! {
    /// A Raft term.
    Term
}
counter! {
    /// An index in the Raft log.
    LogIndex
}
counter! {
    /// A member of the Raft group; never reused.
    MemberId
}

/// Which cluster a state belongs to. Written once in the life of a cluster, by its first leader or by
/// a restore; members of different clusters do not talk to each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Cluster {
    /// Random, never used again: 32 hexadecimal digits.
    pub id: Arc<str>,
    /// 1 for a cluster that was never restored, one more for every restore since.
    pub epoch: u64,
}

impl Cluster {
    /// A new one, in `epoch`.
    pub(crate) fn new(epoch: u64) -> Cluster {
        Cluster { id: format!("{:032x}", rand::random::<u128>()).into(), epoch }
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (epoch {})", self.id, self.epoch)
    }
}

/// Where a value lives: a space (one resource, such as `apps/deployments`) and a path in it
/// (`namespace/name` or `name`). Ordered by space, then by the bytes of the path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub space: Arc<str>,
    pub path: Arc<str>,
}

impl Key {
    pub fn new(space: impl Into<Arc<str>>, path: impl Into<Arc<str>>) -> Key {
        Key { space: space.into(), path: path.into() }
    }
}

/// What must hold for a write to happen; checked when applied, the same on every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Absent,
    Exists,
    At(Revision),
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put(Bytes),
    /// Deleting what is absent changes nothing and costs no revision.
    Delete,
    /// Deletes every key from this path up to, but not including, the one given; `None`: to the end
    /// of the space. The guard is that of the first path.
    DeleteUntil(Option<Arc<str>>),
    /// Only the guard: makes the transaction depend on a key it does not write.
    Check,
    /// Makes the transaction depend on all keys from this path up to, but not including, `until`.
    CheckUntil(SpanCheck),
}

impl Op {
    /// Whether it is about a span of keys, of which nothing says how many there are.
    pub(crate) fn is_of_span(&self) -> bool {
        matches!(self, Op::DeleteUntil(_) | Op::CheckUntil(_))
    }
}

/// What must hold of a span of keys: it has this many, none of them written after `newest`. Read both
/// in one look, and this says that nothing in the span was written or deleted since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanCheck {
    /// `None`: to the end of the space.
    pub until: Option<Arc<str>>,
    pub keys: u64,
    pub newest: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: Key,
    pub guard: Guard,
    pub op: Op,
}

/// All writes or none: the guards are checked first, against the state before the transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub writes: Vec<Write>,
    /// Applied only in this term (P5): a leader's scheduler and controllers set it.
    pub fence: Option<Term>,
    /// All its changes have the same revision, and who sees one of them sees all. Members before
    /// version 2 of log entries cannot read it.
    pub one_revision: bool,
}

impl Txn {
    pub fn one(key: Key, guard: Guard, op: Op) -> Txn {
        Txn { writes: vec![Write { key, guard, op }], ..Txn::default() }
    }
}

/// A transaction that is on a quorum's disks and applied on the member that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Of the last write in the transaction; of the state if it wrote nothing.
    pub revision: Revision,
    /// One per write, in order; `None` where nothing changed (a check, or a delete of nothing); of
    /// the last deletion for a span.
    pub revisions: Vec<Option<Revision>>,
}

/// One immutable version of a value, shared by state, history and every reader.
pub struct Stored {
    pub key: Key,
    /// Of the write that made this version.
    pub revision: Revision,
    /// Of the write that first made the key.
    pub created: Revision,
    /// How often the key was put since then, with this one: 1, 2, …
    pub version: u64,
    /// Where the write is among those of its revision: 0, 1, …
    pub place: u32,
    pub body: Bytes,
    /// What the embedding program derived from `body`, once per version; the store parses nothing.
    memo: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Stored {
    pub fn new(key: Key, revision: Revision, created: Revision, body: Bytes) -> Stored {
        Stored { key, revision, created, version: 1, place: 0, body, memo: OnceLock::new() }
    }

    pub(crate) fn numbered(self, version: u64, place: u32) -> Stored {
        Stored { version, place, ..self }
    }

    /// What `derive` made of this version, made at most once. Always ask with the same `T`.
    // Lent and not shared: to count users of 10,000 of them costs more than to read them.
    pub fn memo<T: Send + Sync + 'static>(&self, derive: impl FnOnce(&Stored) -> T) -> &T {
        let memo = self.memo.get_or_init(|| Box::new(derive(self)));
        (**memo).downcast_ref::<T>().expect("one memo type per embedding program")
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.key.space, self.key.path, self.revision)
    }
}

/// One applied write. `old` is the version it replaced, `new` is `None` for a deletion.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: Revision,
    /// Where it is among the changes of its revision: 0, 1, … in order. Above 0 only in transactions of
    /// one revision.
    pub place: u32,
    pub old: Option<Arc<Stored>>,
    pub new: Option<Arc<Stored>>,
}

impl Change {
    pub fn key(&self) -> &Key {
        let stored = self.new.as_ref().or(self.old.as_ref());
        &stored.expect("a change has an old or a new version").key
    }
}

/// A part of a space in path order, all at one revision.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The state this page was read at.
    pub revision: Revision,
    pub items: Vec<Arc<Stored>>,
    /// How many more there are after the last item.
    pub remaining: u64,
}

/// Why the store refused, named by what the caller does next.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A guard did not hold: read `current` (the version in the way, `None` if absent; for a span,
    /// whatever is at its first path), decide anew.
    #[error("write {write} of the transaction: its guard does not hold")]
    GuardFailed { write: usize, current: Option<Arc<Stored>> },
    /// The fence names another term than the leader's: stop acting as leader.
    #[error("fenced: the write is of term {fence}, the cluster is in term {current}")]
    Fenced { fence: Term, current: Term },
    /// History before `oldest` is gone: list again.
    #[error("revision compacted; the oldest kept is {oldest}")]
    Compacted { oldest: Revision },
    /// The revision asked for has not been issued: wait or correct it.
    #[error("revision {asked} is in the future; the state is at {current}")]
    Future { asked: Revision, current: Revision },
    /// Too much is waiting: retry after the time given; nothing was proposed.
    #[error("overloaded")]
    Overloaded { retry_after: Duration },
    /// These masters' disks have less room than their reserve: make some. Nothing was proposed; what
    /// takes no room is still taken.
    #[error(
        "no room on the disk of {members}; what would need more is refused until there is some"
    )]
    DiskFull { members: String },
    /// No leader or no quorum within the deadline. `unknown`: the write may yet be applied.
    #[error("no quorum within the deadline")]
    Unavailable { unknown: bool },
    /// Masters of an earlier version could not read it: upgrade every master, then ask again. Nothing was
    /// proposed.
    #[error(
        "not before all masters read commands of version {version} (all read version {level} now): upgrade \
         those of an earlier version, or remove what does not answer"
    )]
    NotYet { version: u32, level: u32 },
    /// One entry may not be larger: make it smaller.
    #[error("transaction of {bytes} bytes is over the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// This member is stopping, or its disk failed: ask another.
    #[error("this member has stopped: {0}")]
    Stopped(String),
}

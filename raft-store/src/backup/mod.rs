//! Backups: a whole state with its history window as one stream of bytes, taken from a running
//! member, checked without being restored, and made into the first member of a new cluster.
//!
//! The format is described in `docs/backup.md`. Bodies stay as the disk has them: what is sealed
//! there is sealed here.

mod chain;
mod create;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod restore;

pub use chain::{Chain, Found, check};
pub use create::{Stream, Taken};
pub use format::{FORMAT, Reader};
pub use restore::{Restored, Restoring, restore};

pub(crate) use create::{Facts, take};
use format::Unit;
#[cfg(test)]
pub(crate) use restore::restore_on;

use crate::{
    config::Peer,
    types::{Cluster, MemberId, Revision},
};
use std::io;

/// The first thing in a backup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Random; names this backup.
    pub id: String,
    /// Which cluster it is of.
    pub cluster: Cluster,
    /// The version of the program that made it.
    pub program: String,
    /// Entries of the log up to this version were known to the program that made it.
    pub feature_level: u32,
    /// When it was begun, in seconds since 1970 by the clock of the member.
    pub taken_at: u64,
    /// The member it was taken from.
    pub member: MemberId,
    /// True if that member had everything acknowledged before the backup was asked for; false if it
    /// could not ask a quorum: then some of it may be missing.
    pub confirmed: bool,
    /// What it continues; `None` in a full backup.
    pub base: Option<Base>,
    /// The oldest revision whose state can be restored from it, together with what it continues.
    pub oldest: Revision,
    /// The newest: all revisions up to here were issued, none above it was applied on the member.
    pub revision: Revision,
    /// The members of the cluster, for information.
    pub members: Vec<Member>,
    /// Which keys open what is sealed in it, as the embedding program names them: any one is enough
    /// for what it sealed, all together are enough for everything.
    pub keys: Vec<String>,
}

/// A member, as a backup remembers it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    pub id: MemberId,
    pub voter: bool,
    #[serde(flatten)]
    pub peer: Peer,
}

/// The backup that another continues.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Base {
    pub id: String,
    /// Where it ends.
    pub revision: Revision,
}

/// What a backup must know of the one that it is to continue.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Since {
    pub id: String,
    pub cluster: Cluster,
    pub revision: Revision,
    pub oldest: Revision,
}

impl From<&Header> for Since {
    fn from(header: &Header) -> Since {
        let Header { id, cluster, revision, oldest, .. } = header.clone();
        Since { id, cluster, revision, oldest }
    }
}

/// The last thing in a backup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    pub records: u64,
    /// Of records, before compression.
    pub bytes: u64,
    /// Of all bytes before the chunk with this, in hexadecimal digits.
    pub sha256: String,
}

/// Why there is no backup, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not what was written: take another backup.
    #[error("{what}: {why}")]
    Damaged { what: String, why: String },
    /// It was made by a newer program: use that one.
    #[error("the backup has format {found}; this program reads up to {known}")]
    Newer { found: u32, known: u32 },
    /// The history in between is gone: make a full backup.
    #[error(
        "the changes after revision {after} are compacted, the oldest kept is {oldest}: make a full backup"
    )]
    Compacted { after: Revision, oldest: Revision },
    /// It is of another cluster, or continues another backup: give the right one.
    #[error("{0}")]
    Mismatch(String),
    /// Correct the call.
    #[error("{0}")]
    Refused(String),
    /// Wait: nobody could tell later which cluster the backup is of.
    #[error(
        "the cluster has no name yet: its leader gives it one when all members that are up can read it"
    )]
    Unnamed,
    /// The member cannot give one now: ask another.
    #[error(transparent)]
    Member(#[from] crate::Error),
    #[error("{what}")]
    Io { what: String, source: io::Error },
}

impl Error {
    fn damaged(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Damaged { what: what.into(), why: why.into() }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

#[cfg(test)]
mod tests;

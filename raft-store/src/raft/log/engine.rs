//! Where the log lies on disk: what an engine promises, and the one in RocksDB, in which logs of earlier
//! versions are carried on. An engine orders and persists; it knows nothing of Raft.

use super::{
    mark::Mark,
    record::{self, BadRecord, Chain},
    wal,
};
use crate::{
    config::OpenError,
    raft::{LogId, Vote},
};
use bytes::Bytes;
use rocksdb::{
    DB, DBCompressionType, DBRecoveryMode, DEFAULT_COLUMN_FAMILY_NAME, IteratorMode, Options,
    WriteBatch, WriteOptions,
};
use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

/// One change of the log; a list of them is applied in order and as one.
#[derive(Clone, Debug)]
pub(crate) enum LogOp {
    Put {
        index: u64,
        record: Bytes,
    },
    Vote(Vote),
    Committed(Option<LogId>),
    /// Entries from this index on go.
    CutFrom(u64),
    /// Entries up to and including this one go.
    PurgeTo(LogId),
}

/// A durable log. Calls block.
pub(crate) trait RaftLogEngine: Send + Sync + 'static {
    /// All operations or none; on disk when it returns, if `sync`.
    fn write(&self, ops: &[LogOp], sync: bool) -> io::Result<()>;
    /// Records in order, at most about `bytes_max` of them, but at least one if there is one.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>>;
}

/// What a restart finds.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// The last entry and the chain up to it.
    pub(crate) last: Option<(LogId, Chain)>,
}

/// The log in a RocksDB of its own: written by one thread, synced through its write-ahead file.
///
/// The entries have a family of keys to themselves. Each of its files follows the one before, so none is
/// ever merged with another: it is written once, and goes as a whole when its entries are purged.
pub(crate) struct RocksLog {
    db: DB,
}

/// The family of all else. Logs of earlier versions have it among the entries.
const META: &str = "meta";
const VOTE: &[u8] = b"m-vote";
const COMMITTED: &[u8] = b"m-committed";
const PURGED: &[u8] = b"m-purged";

fn entry_key(index: u64) -> [u8; 9] {
    let mut key = [b'e'; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    // The default mode drops everything after a flipped bit, silently. This one forgives only a
    // last record that was never completed.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_compression_type(DBCompressionType::None);
    // What is purged before this much was written is never written a second time.
    options.set_write_buffer_size(16 << 20);
    options.set_keep_log_file_num(2);
    options.create_missing_column_families(true);
    // Otherwise the little that is in the other family would keep write-ahead files from going.
    options.set_atomic_flush(true);
    options
}

/// `InvalidData`: what is there is not what was written.
pub(crate) fn io_error(error: rocksdb::Error) -> io::Error {
    let kind = match error.kind() {
        rocksdb::ErrorKind::Corruption => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.into_string())
}

impl RocksLog {
    /// Whether there is such a log in a directory.
    pub(crate) fn is_in(dir: &Path) -> bool {
        dir.join("CURRENT").exists()
    }

    /// Opens the log and verifies every entry against its chain and against the mark. Refusing
    /// changes nothing on disk.
    pub(crate) fn open(dir: &Path, mark: &Mark) -> Result<(RocksLog, Recovered), OpenError> {
        let explained = |error| explain(dir, error);
        if RocksLog::is_in(dir) {
            // An open for writing replaces the write-ahead files: look first.
            let families = DB::list_cf(&options(), dir).map_err(explained)?;
            let db = DB::open_cf_for_read_only(&options(), dir, families, false);
            let db = db.map_err(explained)?;
            RocksLog { db }.recover(dir, mark)?;
        }
        let families = [DEFAULT_COLUMN_FAMILY_NAME, META].map(|name| (name, options()));
        let db = DB::open_cf_with_opts(&options(), dir, families).map_err(explained)?;
        let log = RocksLog { db };
        let recovered = log.recover(dir, mark)?;
        Ok((log, recovered))
    }

    fn recover(&self, dir: &Path, mark: &Mark) -> Result<Recovered, OpenError> {
        let disk = |source| OpenError::Disk { path: dir.into(), source };
        let mut found = Recovered {
            vote: self.meta(VOTE).map_err(disk)?,
            committed: self.meta(COMMITTED).map_err(disk)?.flatten(),
            purged: self.meta(PURGED).map_err(disk)?,
            last: None,
        };
        let damaged = |detail: String| {
            let (file, offset) = place_of_damage(dir);
            OpenError::Damaged { file, offset, detail }
        };
        let from = entry_key(found.purged.map_or(0, |purged| purged.index + 1));
        let items = self.db.iterator(IteratorMode::From(&from, rocksdb::Direction::Forward));
        let records = items.map(|item| {
            let (key, value) = item.map_err(|error| explain(dir, error))?;
            Ok(key_index(&key).map(|index| (index, Bytes::from(value.into_vec()))))
        });
        found.last = verify(records.map_while(Result::transpose), found.purged, mark, damaged)?;
        Ok(found)
    }

    #[cfg(test)]
    pub(super) fn flush(&self) {
        self.db.flush().expect("flushed");
        // Only files below the first level go as a whole.
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
    }

    fn meta<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        let value = match self.db.cf_handle(META) {
            Some(family) => self.db.get_cf(family, key).map_err(io_error)?,
            None => None,
        };
        let value = match value {
            Some(value) => Some(value),
            None => self.db.get(key).map_err(io_error)?,
        };
        value.map(|value| serde_json::from_slice(&value).map_err(io::Error::other)).transpose()
    }
}

/// Whether the records after what was purged follow each other and are all that was on disk; the
/// last of them.
pub(crate) fn verify(
    records: impl Iterator<Item = Result<(u64, Bytes), OpenError>>,
    purged: Option<LogId>,
    mark: &Mark,
    damaged: impl Fn(String) -> OpenError,
) -> Result<Option<(LogId, Chain)>, OpenError> {
    let mut verifier = Verifier::new(mark);
    for item in records {
        let (index, record) = item?;
        verifier.put(index, record, &damaged)?;
    }
    verifier.end(purged, damaged)
}

/// Sees the records of a log as they were written, one after the other.
pub(crate) struct Verifier<'a> {
    mark: &'a Mark,
    /// The first that counts.
    first: Option<u64>,
    last: Option<(LogId, Chain)>,
    /// What the one ends with of which the mark knows that it was on disk.
    marked: Option<Chain>,
}

impl Verifier<'_> {
    pub(crate) fn new(mark: &Mark) -> Verifier<'_> {
        Verifier { mark, first: None, last: None, marked: None }
    }

    /// It follows the one before it.
    pub(crate) fn put(
        &mut self,
        index: u64,
        record: Bytes,
        damaged: impl Fn(String) -> OpenError,
    ) -> Result<(), OpenError> {
        if let Some((last, _)) = self.last
            && index != last.index + 1
        {
            let missing = last.index + 1;
            return Err(damaged(format!("entry {missing} is missing, {index} is there")));
        }
        let before = self.last.map(|(_, chain)| chain);
        let (entry, chain) = record::decode(index, before, record).map_err(|bad| match bad {
            BadRecord::Newer(..) => {
                OpenError::Unreadable { path: self.mark.path().into(), why: bad.to_string() }
            }
            _ => damaged(bad.to_string()),
        })?;
        if index == self.mark.current().index {
            self.marked = Some(chain);
        }
        self.first.get_or_insert(index);
        self.last = Some((entry.log_id, chain));
        Ok(())
    }

    /// Those from an index on are gone; `newest` is the last that is left.
    pub(crate) fn cut(
        &mut self,
        from: u64,
        newest: Option<(u64, Bytes)>,
        damaged: impl Fn(String) -> OpenError,
    ) -> Result<(), OpenError> {
        if self.mark.current().index >= from {
            self.marked = None;
        }
        (self.first, self.last) = (self.first.filter(|_| newest.is_some()), None);
        let Some((index, record)) = newest else { return Ok(()) };
        // It was seen before, after the one before it.
        let (entry, chain) =
            record::decode(index, None, record).map_err(|bad| damaged(bad.to_string()))?;
        self.last = Some((entry.log_id, chain));
        Ok(())
    }

    /// Those up to this one are gone.
    pub(crate) fn purge(&mut self, to: LogId) {
        if self.mark.current().index <= to.index {
            self.marked = None;
        }
        match self.last {
            Some((last, _)) if last.index > to.index => {
                self.first = self.first.max(Some(to.index + 1));
            }
            _ => (self.first, self.last) = (None, None),
        }
    }

    /// The last, if what was seen is all there must be.
    pub(crate) fn end(
        self,
        purged: Option<LogId>,
        damaged: impl Fn(String) -> OpenError,
    ) -> Result<Option<(LogId, Chain)>, OpenError> {
        let (flushed, begin) = (self.mark.current(), purged.map_or(0, |purged| purged.index + 1));
        if let Some(first) = self.first.filter(|first| *first != begin) {
            return Err(damaged(format!("entry {begin} is missing, {first} is there")));
        }
        let index = flushed.index;
        if index > 0 && self.marked.is_some_and(|chain| chain != flushed.chain) {
            return Err(damaged(format!("entry {index} is not the one that was written")));
        }
        let end = self.last.map(|(id, _)| id).max(purged).map_or(0, |id| id.index);
        if end < index {
            let mark = self.mark.path().display();
            let detail = format!("the log ends at entry {end}, {index} was on disk ({mark})");
            return Err(damaged(detail));
        }
        Ok(self.last)
    }
}

fn key_index(key: &[u8]) -> Option<u64> {
    let index = key.strip_prefix(b"e")?;
    Some(u64::from_be_bytes(index.try_into().ok()?))
}

/// RocksDB's refusal with the file and offset it does not name.
fn explain(dir: &Path, error: rocksdb::Error) -> OpenError {
    if error.kind() != rocksdb::ErrorKind::Corruption {
        return OpenError::Disk { path: dir.into(), source: io_error(error) };
    }
    let (file, offset) = place_of_damage(dir);
    OpenError::Damaged { file, offset, detail: error.into_string() }
}

/// A flipped bit in a record's length looks to RocksDB like a last record that was never completed: it opens,
/// without what follows. The damage is still found where it is.
fn place_of_damage(dir: &Path) -> (PathBuf, u64) {
    wal::first_damage(dir).ok().flatten().unwrap_or_else(|| tail(dir))
}

/// The newest write-ahead file and its length: where a log that is too short ends.
fn tail(dir: &Path) -> (PathBuf, u64) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let logs = entries.filter(|e| e.path().extension().is_some_and(|extension| extension == "log"));
    let newest = logs.max_by_key(|entry| entry.file_name());
    match newest {
        Some(entry) => (entry.path(), entry.metadata().map_or(0, |metadata| metadata.len())),
        None => (dir.into(), 0),
    }
}

impl RaftLogEngine for RocksLog {
    fn write(&self, ops: &[LogOp], sync: bool) -> io::Result<()> {
        let meta = self.db.cf_handle(META).expect("opened with it");
        let (mut batch, mut purged) = (WriteBatch::default(), None);
        for op in ops {
            match op {
                LogOp::Put { index, record } => batch.put(entry_key(*index), record),
                LogOp::Vote(vote) => batch.put_cf(meta, VOTE, json(vote)),
                LogOp::Committed(committed) => batch.put_cf(meta, COMMITTED, json(committed)),
                LogOp::CutFrom(index) => batch.delete_range(entry_key(*index), entry_key(u64::MAX)),
                LogOp::PurgeTo(id) => {
                    batch.put_cf(meta, PURGED, json(id));
                    purged = Some(id.index);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(io_error)?;
        match purged {
            // What is left in a file that has later entries too is not looked at any more.
            Some(index) => self.db.delete_file_in_range(entry_key(0), entry_key(index)),
            None => Ok(()),
        }
        .map_err(io_error)
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let from = entry_key(range.start);
        for item in self.db.iterator(IteratorMode::From(&from, rocksdb::Direction::Forward)) {
            let (key, value) = item.map_err(io_error)?;
            let Some(index) = key_index(&key).filter(|index| *index < range.end) else { break };
            bytes += value.len();
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.push((index, Bytes::from(value.into_vec())));
        }
        Ok(records)
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("votes and log ids are plain data")
}

//! Where the state's rows lie: a small seam under `disk`, so that a simulation can bring a disk that
//! fails and forgets. An engine keeps rows in order; it knows nothing of what they mean.

use crate::{raft::log::engine::io_error, time::block_here};
use bytes::Bytes;
use rocksdb::{
    ColumnFamily, DB, DBCompressionType, DBIterator, DEFAULT_COLUMN_FAMILY_NAME, Direction,
    ErrorKind, FlushOptions, IteratorMode, Options, ReadOptions, Snapshot, WriteBatch,
    WriteOptions, checkpoint::Checkpoint,
};
use std::{fmt, io, path::Path, sync::Arc};

/// The family of keys of all that is not history. History has the other one to itself: its files follow each
/// other, and only what is swept makes RocksDB write them again.
const BOOKS: &str = "books";

/// Rows of one kind, ordered by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    History,
    Books,
}

/// One change; a list of them is applied in order and as one.
#[derive(Clone, Debug)]
pub(crate) enum RowOp {
    Put(Family, Vec<u8>, Bytes),
    Delete(Family, Vec<u8>),
    /// From the first key up to, but not including, the second.
    DeleteRange(Family, Vec<u8>, Vec<u8>),
}

pub(crate) type Row = (Box<[u8]>, Box<[u8]>);
pub(crate) type Rows<'a> = Box<dyn Iterator<Item = io::Result<Row>> + 'a>;

/// Rows to look at.
pub(crate) trait Reading {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Bytes>>;
    /// From a key on, in order.
    fn rows(&self, family: Family, from: &[u8]) -> Rows<'_>;
}

/// Rows that change. Calls block.
pub(crate) trait StateEngine: Reading + Send + Sync {
    /// All operations or none. Readers see them at once, a restart after `flush`; one that comes
    /// before it finds everything up to some write, and nothing after that one.
    fn write(&self, ops: Vec<RowOp>) -> io::Result<()>;
    fn flush(&self) -> io::Result<()>;
    /// A copy as of some moment after the call began, all on disk.
    fn checkpoint(&self, to: &Path) -> io::Result<()>;
    /// The rows as they are now.
    fn freeze(&self) -> Box<dyn Reading + '_>;
}

/// Opens what lies in directories.
pub(crate) trait Engines: fmt::Debug + Send + Sync {
    /// For one user at a time; made if it is not there.
    fn open(&self, dir: &Path) -> io::Result<Box<dyn StateEngine>>;
    /// To look at a checkpoint without changing it.
    fn open_read_only(&self, dir: &Path) -> io::Result<Box<dyn StateEngine>>;
}

/// A RocksDB per directory, without a write-ahead file.
#[derive(Debug)]
pub(crate) struct Rocks;

pub(crate) fn rocks() -> Arc<dyn Engines> {
    Arc::new(Rocks)
}

impl Engines for Rocks {
    fn open(&self, dir: &Path) -> io::Result<Box<dyn StateEngine>> {
        let families = [DEFAULT_COLUMN_FAMILY_NAME, BOOKS].map(|name| (name, options()));
        let db = DB::open_cf_with_opts(&options(), dir, families).map_err(io_error)?;
        let state = RocksState { db };
        state.separate()?;
        Ok(Box::new(state))
    }

    fn open_read_only(&self, dir: &Path) -> io::Result<Box<dyn StateEngine>> {
        let families = DB::list_cf(&Options::default(), dir).map_err(io_error)?;
        let db = DB::open_cf_for_read_only(&Options::default(), dir, families, false);
        Ok(Box::new(RocksState { db: db.map_err(io_error)? }))
    }
}

struct RocksState {
    db: DB,
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // There is no write-ahead file: the families are consistent only if they are written out together.
    options.set_atomic_flush(true);
    options.set_compression_type(DBCompressionType::Lz4);
    // Twice that in memory at worst; it is written out every `Retention::flush` in any case.
    options.set_write_buffer_size(8 << 20);
    options.set_paranoid_checks(true);
    options.set_keep_log_file_num(2);
    options
}

fn rows(iterator: DBIterator<'_>) -> Rows<'_> {
    Box::new(iterator.map(|item| item.map_err(io_error)))
}

impl RocksState {
    /// Earlier versions had everything in one family.
    fn separate(&self) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        for item in self.db.iterator(IteratorMode::From(b"i", Direction::Forward)) {
            let (key, value) = item.map_err(io_error)?;
            batch.put_cf(self.family(Family::Books), &key, value);
            batch.delete(key);
        }
        match batch.is_empty() {
            true => Ok(()),
            false => self.write_now(batch),
        }
    }

    /// In a checkpoint of an earlier version the books are in the other family.
    fn family(&self, family: Family) -> &ColumnFamily {
        let books = self.db.cf_handle(BOOKS).filter(|_| family == Family::Books);
        let history = || self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME);
        books.or_else(history).expect("every database has the default family")
    }

    fn write_now(&self, batch: WriteBatch) -> io::Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        // In memory it is done at once, unless RocksDB wants to be waited for: then nobody else is to wait.
        options.set_no_slowdown(true);
        match self.db.write_opt(WriteBatch::from_data(batch.data()), &options) {
            Err(error) if error.kind() == ErrorKind::Incomplete => {
                options.set_no_slowdown(false);
                block_here(|| self.db.write_opt(batch, &options)).map_err(io_error)
            }
            written => written.map_err(io_error),
        }
    }
}

impl Reading for RocksState {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Bytes>> {
        let value = self.db.get_cf(self.family(family), key).map_err(io_error)?;
        Ok(value.map(Bytes::from))
    }

    fn rows(&self, family: Family, from: &[u8]) -> Rows<'_> {
        let mode = IteratorMode::From(from, Direction::Forward);
        rows(self.db.iterator_cf(self.family(family), mode))
    }
}

impl StateEngine for RocksState {
    fn write(&self, ops: Vec<RowOp>) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        for op in ops {
            match op {
                RowOp::Put(family, key, value) => batch.put_cf(self.family(family), key, value),
                RowOp::Delete(family, key) => batch.delete_cf(self.family(family), key),
                RowOp::DeleteRange(family, from, to) => {
                    batch.delete_range_cf(self.family(family), from, to);
                }
            }
        }
        self.write_now(batch)
    }

    fn flush(&self) -> io::Result<()> {
        let families = [DEFAULT_COLUMN_FAMILY_NAME, BOOKS];
        let families: Vec<_> = families.iter().filter_map(|name| self.db.cf_handle(name)).collect();
        self.db.flush_cfs_opt(&families, &FlushOptions::default()).map_err(io_error)
    }

    /// Hard links, so cheap.
    fn checkpoint(&self, to: &Path) -> io::Result<()> {
        Checkpoint::new(&self.db).and_then(|c| c.create_checkpoint(to)).map_err(io_error)
    }

    /// What is deleted meanwhile takes its room until the value goes.
    fn freeze(&self) -> Box<dyn Reading + '_> {
        Box::new(RocksFrozen { state: self, snapshot: self.db.snapshot() })
    }
}

struct RocksFrozen<'a> {
    state: &'a RocksState,
    snapshot: Snapshot<'a>,
}

impl Reading for RocksFrozen<'_> {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Bytes>> {
        let value = self.snapshot.get_cf(self.state.family(family), key).map_err(io_error)?;
        Ok(value.map(Bytes::from))
    }

    fn rows(&self, family: Family, from: &[u8]) -> Rows<'_> {
        let mut options = ReadOptions::default();
        // Read once, and not to push out what readers and watchers need.
        options.fill_cache(false);
        let mode = IteratorMode::From(from, Direction::Forward);
        rows(self.snapshot.iterator_cf_opt(self.state.family(family), options, mode))
    }
}

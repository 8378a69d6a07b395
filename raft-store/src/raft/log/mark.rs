//! The flushed-up-to mark: a second place that knows how far the log was on disk. The log itself
//! cannot tell that its own tail is missing.
//!
//! It is written after each sync of the log and synced itself at most `SYNC_EVERY` later, so it
//! outlives a killed process exactly and a power cut up to that much behind: it never claims more
//! than the log has.

use super::record::Chain;
use crate::time::{Ticks, blocking};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

// A second sync per write would halve the log's rate; what is lost with the mark is only the
// notice of a power cut *and* a damaged tail within this time.
const SYNC_EVERY: Duration = Duration::from_millis(200);
/// Two slots, written in turn: a torn write leaves the other.
const SLOT: u64 = 512;
const LENGTH: usize = 8 + 8 + 4 + 4;

/// At least up to `index`, with this chain, the log was on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    pub(crate) index: u64,
    pub(crate) chain: Chain,
}

/// The open file.
pub(crate) struct Mark {
    file: Arc<MarkFile>,
    sequence: u64,
    current: Flushed,
}

/// Keeps the file on disk at most `SYNC_EVERY` behind, beside whoever writes it.
#[derive(Clone)]
pub(crate) struct MarkSync(Arc<MarkFile>);

struct MarkFile {
    path: PathBuf,
    file: File,
    /// It was written since it was last synced.
    behind: AtomicBool,
}

impl MarkFile {
    fn sync(&self) -> io::Result<()> {
        // First: what is written meanwhile is behind again.
        self.behind.store(false, Ordering::SeqCst);
        self.file.sync_data()?;
        #[cfg(test)]
        crate::sim::mark_synced(&self.path);
        Ok(())
    }
}

impl MarkSync {
    /// Until a sync fails. Cancel-safe.
    pub(crate) async fn run(self) -> io::Error {
        let mut turn = Ticks::every(SYNC_EVERY);
        loop {
            turn.tick().await;
            if self.0.behind.load(Ordering::SeqCst) {
                let file = self.0.clone();
                let synced = blocking(move || file.sync()).await.flatten();
                if let Err(error) = synced {
                    return error;
                }
            }
        }
    }
}

impl Mark {
    /// Opens or creates it. A file in which no slot is whole is damaged.
    pub(crate) fn open(path: &Path) -> io::Result<Mark> {
        let new = !path.exists();
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let file = MarkFile { path: path.into(), file, behind: false.into() };
        let mut mark = Mark { file: Arc::new(file), sequence: 0, current: Flushed::default() };
        if new {
            mark.set(Flushed::default())?;
            mark.file.sync()?;
            if let Some(dir) = path.parent() {
                File::open(dir)?.sync_all()?;
            }
            return Ok(mark);
        }
        let slots = [mark.slot(0), mark.slot(1)];
        let newest = slots.into_iter().flatten().max_by_key(|(sequence, _)| *sequence);
        let Some((sequence, current)) = newest else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no slot is whole"));
        };
        (mark.sequence, mark.current) = (sequence, current);
        Ok(mark)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    pub(crate) fn syncing(&self) -> MarkSync {
        MarkSync(self.file.clone())
    }

    pub(crate) fn current(&self) -> Flushed {
        self.current
    }

    fn slot(&self, n: u64) -> Option<(u64, Flushed)> {
        let mut bytes = [0; LENGTH];
        self.file.file.read_exact_at(&mut bytes, n * SLOT).ok()?;
        let (covered, checksum) = bytes.split_at(LENGTH - 4);
        if crc32c::crc32c(covered).to_be_bytes() != checksum {
            return None;
        }
        let number = |at: usize| covered[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        let chain = covered[16..20].try_into().map(u32::from_be_bytes).ok()?;
        Some((number(0)?, Flushed { index: number(8)?, chain: Chain(chain) }))
    }

    fn set(&mut self, flushed: Flushed) -> io::Result<()> {
        self.sequence += 1;
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(flushed.index.to_be_bytes());
        bytes.extend(flushed.chain.0.to_be_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        self.file.file.write_all_at(&bytes, self.sequence % 2 * SLOT)?;
        self.file.behind.store(true, Ordering::SeqCst);
        self.current = flushed;
        Ok(())
    }

    /// The log has been synced up to here.
    pub(crate) fn raise(&mut self, flushed: Flushed) -> io::Result<()> {
        self.set(flushed)
    }

    /// The log was opened, synced and verified up to here: on disk at once.
    pub(crate) fn verified(&mut self, flushed: Flushed) -> io::Result<()> {
        if flushed.index <= self.current.index {
            return Ok(());
        }
        self.set(flushed)?;
        self.file.sync()
    }

    /// The log is about to be cut back to here: on disk before the cut.
    pub(crate) fn lower(&mut self, flushed: Flushed) -> io::Result<()> {
        self.set(flushed)?;
        self.set(flushed)?;
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_slot_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("flushed");
        let at = |index| Flushed { index, chain: Chain(index as u32 * 3) };
        let mut mark = Mark::open(&path).expect("a mark");
        mark.raise(at(1)).expect("raised");
        mark.raise(at(2)).expect("raised");
        assert_eq!(Mark::open(&path).expect("a mark").current(), at(2));
        // A torn write of the newest slot.
        let file = OpenOptions::new().write(true).open(&path).expect("the file");
        file.write_all_at(b"xx", mark.sequence % 2 * SLOT + 9).expect("damaged");
        assert_eq!(Mark::open(&path).expect("a mark").current(), at(1));
        file.write_all_at(b"xx", (mark.sequence + 1) % 2 * SLOT + 9).expect("damaged");
        assert!(Mark::open(&path).is_err());
    }

    #[test]
    fn a_mark_is_on_disk_soon_although_nothing_more_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut mark = Mark::open(&dir.path().join("log.flushed")).expect("a mark");
        let on_disk = dir.path().join("log.flushed.synced");
        crate::sim::simulated(async move {
            let syncing = mark.syncing().run();
            mark.raise(Flushed { index: 7, chain: Chain(21) }).expect("raised");
            let _ = crate::time::timeout(SYNC_EVERY * 2, syncing).await;
            assert_eq!(Mark::open(&on_disk).expect("a mark").current().index, 7);
        });
    }
}

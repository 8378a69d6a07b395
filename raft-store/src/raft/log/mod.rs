//! The Raft log as openraft sees it: appended in memory at once, on disk when the writer says so.
//! Nothing here blocks: openraft runs all of Raft in the task that calls it.

pub(crate) mod engine;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
pub(crate) mod mark;
mod record;
pub(crate) mod segments;
mod wal;
pub(crate) mod writer;

use super::{Entry, LogId, Types, Vote};
use crate::{config::OpenError, metrics::Metrics, time::blocking};
use engine::{LogOp, RaftLogEngine, Recovered, RocksLog};
use mark::{Flushed, Mark, MarkSync};
use openraft::{
    EntryPayload, OptionalSend,
    storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage},
};
use record::Chain;
use segments::Segments;
use std::{
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};
use tokio::sync::{mpsc, oneshot};
use writer::{Done, Job, Observer, Writer};

/// How much of the newest log stays in memory, so that replication and apply read no disk.
// Four messages of `READ_BYTES_MAX`, a quarter of a second of the most that can be written: who lags
// by more waits for other things than our disk. What is not written yet stays in any case.
const CACHE_BYTES: usize = 8 << 20;
/// One replication message carries about this much.
const READ_BYTES_MAX: usize = 2 << 20;

/// In the data directory: how far the log was on disk.
pub(crate) const FLUSHED: &str = "log.flushed";

struct Cached {
    entry: Entry,
    chain: Chain,
    bytes: usize,
    /// The job that writes it.
    job: u64,
}

/// The log as it will be once everything queued is written.
#[derive(Default)]
struct View {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<(LogId, Chain)>,
    /// The newest entry about the members that this process took, if it is still there.
    membership: Option<u64>,
    /// The newest entries, without gaps, ending with `last`.
    cache: VecDeque<Cached>,
    bytes: usize,
    /// The number of the last job queued.
    jobs: u64,
}

/// A handle to the log; clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    view: Arc<Mutex<View>>,
    engine: Arc<dyn RaftLogEngine>,
    queue: mpsc::Sender<Job>,
    /// The number of the last job written: its entries can be read from the engine.
    written: Arc<AtomicU64>,
    mark: MarkSync,
}

/// What this member has promised, without waiting for Raft.
#[derive(Clone)]
pub(crate) struct Promises(Arc<Mutex<View>>);

/// At one moment. Never older than any vote or answer that this member gave: it is here before it is on disk, and
/// on disk before it is given.
pub(crate) struct Promised {
    pub(crate) vote: Option<Vote>,
    /// Where the newest membership is in the log; `None` if that is not from this process.
    pub(crate) membership: Option<u64>,
}

impl Promises {
    pub(crate) fn given(&self) -> Promised {
        let view = self.0.lock().expect("nothing panics while holding the view");
        Promised { vote: view.vote, membership: view.membership }
    }
}

impl Log {
    /// Opens the log in `dir`, verified. `failed` is called when it can no longer be written.
    pub(crate) fn open(
        dir: &Path,
        metrics: &Metrics,
        failed: Box<dyn Fn(&io::Error) + Send>,
    ) -> Result<(Log, JoinHandle<()>), OpenError> {
        let path = dir.join(FLUSHED);
        let mark = Mark::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => {
                OpenError::Damaged { file: path.clone(), offset: 0, detail: error.to_string() }
            }
            _ => OpenError::Disk { path: path.clone(), source: error },
        })?;
        let (engine, recovered) = open_engine(&dir.join("log"), &mark)?;
        let (log, writer, jobs) = Log::on(engine, recovered, mark, metrics, failed)
            .map_err(|source| OpenError::Disk { path, source })?;
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || writer.run(jobs))
            .map_err(|source| OpenError::Disk { path: dir.into(), source })?;
        Ok((log, thread))
    }

    /// A log on an engine, as recovered from it and synced; the writer is to be given what is queued.
    pub(crate) fn on(
        engine: Arc<dyn RaftLogEngine>,
        recovered: Recovered,
        mut mark: Mark,
        metrics: &Metrics,
        failed: Box<dyn Fn(&io::Error) + Send>,
    ) -> io::Result<(Log, Writer, mpsc::Receiver<Job>)> {
        if let Some((id, chain)) = recovered.last {
            mark.verified(Flushed { index: id.index, chain })?;
        }
        let syncing = mark.syncing();
        let written = Arc::new(AtomicU64::new(0));
        let observer = Observer {
            failed,
            fsync_seconds: metrics.fsync_seconds.clone(),
            entries: metrics.log_batch_entries.clone(),
            written: written.clone(),
        };
        let (queue, jobs) = mpsc::channel(writer::QUEUE);
        let writer = Writer::new(engine.clone(), mark, observer);
        let Recovered { vote, committed, purged, last } = recovered;
        let view = View { vote, committed, purged, last, ..View::default() };
        let view = Arc::new(Mutex::new(view));
        Ok((Log { view, engine, queue, written, mark: syncing }, writer, jobs))
    }

    /// Cuts all of a log that ends with what was committed otherwise. The state on disk may be ahead of
    /// it when the power goes: it then still holds entries of an earlier leader, which were to be
    /// replaced. Whatever else it has is in the state too.
    pub(crate) async fn cut_superseded(&mut self, applied: Option<LogId>) -> io::Result<()> {
        let (last, purged) = {
            let view = self.view();
            (view.last.map(|(id, _)| id), view.purged)
        };
        let index = |id: &LogId| id.index;
        if last >= applied || last.as_ref().map(index) < applied.as_ref().map(index) {
            return Ok(());
        }
        tracing::info!(
            ?last,
            ?applied,
            "the log ends with what was committed otherwise: it is cut"
        );
        self.truncate_after(purged).await
    }

    pub(crate) fn promises(&self) -> Promises {
        Promises(self.view.clone())
    }

    /// What keeps the mark on disk.
    pub(crate) fn mark(&self) -> MarkSync {
        self.mark.clone()
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().expect("nothing panics while holding the view")
    }

    /// Jobs are made and queued by one task, in order.
    fn job(view: &mut View, ops: Vec<LogOp>, done: Done) -> Job {
        view.jobs += 1;
        let size = |op: &LogOp| match op {
            LogOp::Put { record, .. } => record.len(),
            _ => 64,
        };
        let bytes = ops.iter().map(size).sum();
        Job { number: view.jobs, ops, bytes, end: None, cut: None, sync: true, done }
    }

    async fn send(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).await.map_err(|_| io::Error::other("the log writer has stopped"))
    }

    /// The chain up to `index`, which must be in the log.
    async fn chain_at(&self, index: u64) -> io::Result<Chain> {
        if let Some(cached) = self.view().cached(index) {
            return Ok(cached.chain);
        }
        let engine = self.engine.clone();
        let records = blocking(move || engine.read(index..index + 1, usize::MAX)).await??;
        let missing = || io::Error::other(format!("entry {index} is not in the log"));
        let (index, bytes) = records.into_iter().next().ok_or_else(missing)?;
        let (_, chain) = record::decode(index, None, bytes).map_err(io::Error::other)?;
        Ok(chain)
    }

    /// Entries of the range that are in the log; limited, the first of them.
    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut entries = self.read_some(start, end, bytes_max).await?;
        while bytes_max == usize::MAX
            && let Some(next) = entries.last().map(|entry| entry.log_id.index + 1)
        {
            let more = self.read_some(next, end, bytes_max).await?;
            if more.is_empty() {
                break;
            }
            entries.extend(more);
        }
        Ok(entries)
    }

    /// From memory, or the part before it from disk.
    async fn read_some(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let on_disk = {
            let view = self.view();
            let (start, end) = view.clamp(start, end);
            if start >= end {
                return Ok(Vec::new());
            }
            if let Some(entries) = view.read(start, end, bytes_max) {
                return Ok(entries);
            }
            // The engine may still hold what was cut or replaced; before the cache it does not.
            start..view.cache_begin().map_or(end, |begin| begin.min(end))
        };
        let engine = self.engine.clone();
        blocking(move || read_engine(&*engine, on_disk, bytes_max)).await?
    }
}

/// A log stays in the engine that it was begun in.
fn open_engine(dir: &Path, mark: &Mark) -> Result<(Arc<dyn RaftLogEngine>, Recovered), OpenError> {
    if RocksLog::is_in(dir) {
        let (engine, recovered) = RocksLog::open(dir, mark)?;
        return Ok((Arc::new(engine), recovered));
    }
    let (engine, recovered) = Segments::open(dir, mark)?;
    Ok((Arc::new(engine), recovered))
}

fn read_engine(
    engine: &dyn RaftLogEngine,
    range: Range<u64>,
    bytes_max: usize,
) -> io::Result<Vec<Entry>> {
    let records = engine.read(range, bytes_max)?;
    let (mut entries, mut before) = (Vec::with_capacity(records.len()), None);
    for (index, bytes) in records {
        let (entry, chain) = record::decode(index, before, bytes).map_err(io::Error::other)?;
        before = Some(chain);
        entries.push(entry);
    }
    Ok(entries)
}

impl View {
    fn cached(&self, index: u64) -> Option<&Cached> {
        let first = self.cache_begin()?;
        self.cache.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    fn cache_begin(&self) -> Option<u64> {
        self.cache.front().map(|oldest| oldest.entry.log_id.index)
    }

    /// The part of a range that is in the log.
    fn clamp(&self, start: u64, end: u64) -> (u64, u64) {
        let first = self.purged.map_or(0, |purged| purged.index + 1);
        (start.max(first), end.min(self.last.map_or(0, |(last, _)| last.index + 1)))
    }

    /// Entries from the cache; `None` if it begins only after `start`.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.cache_begin()?;
        let skip = usize::try_from(start.checked_sub(first)?).ok()?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for cached in self.cache.iter().skip(skip).take((end - start) as usize) {
            bytes += cached.bytes;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(cached.entry.clone());
        }
        Some(entries)
    }

    /// Takes an entry that the next job will write.
    fn push(&mut self, entry: Entry) -> LogOp {
        let before = self.last.map_or(Chain::default(), |(_, chain)| chain);
        let expected = self.last.map(|(id, _)| id).max(self.purged).map_or(0, |id| id.index + 1);
        assert_eq!(entry.log_id.index, expected, "the log has no gaps");
        let (record, chain) = record::encode(before, &entry);
        let index = entry.log_id.index;
        self.last = Some((entry.log_id, chain));
        if matches!(entry.payload, EntryPayload::Membership(_)) {
            self.membership = Some(index);
        }
        self.bytes += record.len();
        let job = self.jobs + 1;
        self.cache.push_back(Cached { entry, chain, bytes: record.len(), job });
        LogOp::Put { index, record }
    }

    fn evict(&mut self, written: u64) {
        while self.bytes > CACHE_BYTES
            && self.cache.front().is_some_and(|oldest| oldest.job <= written)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.cache.pop_front() {
            self.bytes -= oldest.bytes;
        }
    }

    fn purge(&mut self, to: LogId) {
        self.purged = self.purged.max(Some(to));
        while self.cache.front().is_some_and(|oldest| oldest.entry.log_id.index <= to.index) {
            self.drop_oldest();
        }
        if self.last.is_some_and(|(last, _)| last.index <= to.index) {
            // The next entry starts a new chain.
            self.last = None;
        }
    }

    fn cut(&mut self, keep: Option<(LogId, Chain)>) {
        let first_gone = keep.map_or(0, |(id, _)| id.index + 1);
        self.membership = self.membership.filter(|index| *index < first_gone);
        while self.cache.back().is_some_and(|newest| newest.entry.log_id.index >= first_gone) {
            if let Some(newest) = self.cache.pop_back() {
                self.bytes -= newest.bytes;
            }
        }
        self.last = keep;
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.view().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES_MAX).await
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let view = self.view();
        let last_log_id = view.last.map(|(id, _)| id).max(view.purged);
        Ok(LogState { last_purged_log_id: view.purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (sender, written) = oneshot::channel();
        let job = {
            let mut view = self.view();
            view.vote = Some(*vote);
            Self::job(&mut view, vec![LogOp::Vote(*vote)], Done::Waiter(sender))
        };
        self.send(job).await?;
        #[cfg(test)]
        if crate::mutants::on(crate::mutants::Mutant::VoteUnsynced) {
            return Ok(());
        }
        written.await.map_err(|_| io::Error::other("the log writer has stopped"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let job = {
            let mut view = self.view();
            view.committed = committed;
            Self::job(&mut view, vec![LogOp::Committed(committed)], Done::Nobody)
        };
        // Not synced: a restart that knows an older one learns the rest from the leader.
        self.send(Job { sync: false, ..job }).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let view = self.view();
        // Of an entry that is not here it says nothing: those that are may be the ones it replaces.
        let last = view.last.map(|(id, _)| id).max(view.purged);
        Ok(view.committed.filter(|committed| Some(*committed) <= last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let job = {
            let mut view = self.view();
            let ops: Vec<LogOp> = entries.into_iter().map(|entry| view.push(entry)).collect();
            view.evict(self.written.load(Ordering::Acquire));
            let end = view.last.map(|(id, chain)| Flushed { index: id.index, chain });
            Job { end, ..Self::job(&mut view, ops, Done::Raft(callback)) }
        };
        self.send(job).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let keep = match last {
            None => None,
            Some(id) if Some(id) == self.view().purged => None,
            Some(id) => Some((id, self.chain_at(id.index).await?)),
        };
        let from = last.map_or(0, |id| id.index + 1);
        let cut = keep.map_or(Flushed::default(), |(id, chain)| Flushed { index: id.index, chain });
        let job = {
            let mut view = self.view();
            view.cut(keep);
            Self::job(&mut view, vec![LogOp::CutFrom(from)], Done::Nobody)
        };
        self.send(Job { end: Some(cut), cut: Some(cut), ..job }).await
    }

    async fn purge(&mut self, to: LogId) -> Result<(), io::Error> {
        let job = {
            let mut view = self.view();
            view.purge(to);
            Self::job(&mut view, vec![LogOp::PurgeTo(to)], Done::Nobody)
        };
        // Synced: the files go with it, and a restart that did not know why would miss them.
        #[cfg(test)]
        let job = Job { sync: !crate::mutants::on(crate::mutants::Mutant::PurgeUnsynced), ..job };
        self.send(job).await
    }
}

#[cfg(test)]
pub(crate) use frame::torn as torn_frame;
#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;

//! The one thread that writes the log: it takes everything queued, writes and syncs it once, and
//! reports each part. After the first error it writes nothing more: an fsync is never retried.

use super::{
    engine::{LogOp, RaftLogEngine},
    mark::{Flushed, Mark},
};
use crate::{raft::Types, time::Instant};
use openraft::storage::IOFlushed;
use std::{
    io,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
};
use tokio::sync::{mpsc, oneshot};

/// Enough to keep the disk busy; openraft itself batches what waits longer.
pub(crate) const QUEUE: usize = 1024;
/// One synced write takes at most about this much.
const WRITE_BYTES_MAX: usize = 4 << 20;

/// Who hears that a job is on disk.
pub(crate) enum Done {
    Raft(IOFlushed<Types>),
    Waiter(oneshot::Sender<io::Result<()>>),
    Nobody,
}

/// Changes of the log, in order.
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) ops: Vec<LogOp>,
    pub(crate) bytes: usize,
    /// The end of the log after this job, if the job moves it.
    pub(crate) end: Option<Flushed>,
    /// The log is cut back to here first.
    pub(crate) cut: Option<Flushed>,
    pub(crate) sync: bool,
    pub(crate) done: Done,
}

/// What the writer tells others.
pub(crate) struct Observer {
    /// Called once, with the first error.
    pub(crate) failed: Box<dyn Fn(&io::Error) + Send>,
    pub(crate) fsync_seconds: prometheus::Histogram,
    pub(crate) entries: prometheus::Histogram,
    /// The number of the last job written.
    pub(crate) written: Arc<AtomicU64>,
}

/// Writes the log, in turns.
pub(crate) struct Writer {
    engine: Arc<dyn RaftLogEngine>,
    mark: Mark,
    observer: Observer,
    failed: Option<io::Error>,
}

/// What is queued, up to what one turn takes.
pub(crate) fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.bytes;
    let mut jobs = vec![first];
    while bytes < WRITE_BYTES_MAX
        && let Ok(job) = queue.try_recv()
    {
        bytes += job.bytes;
        jobs.push(job);
    }
    jobs
}

impl Writer {
    pub(crate) fn new(engine: Arc<dyn RaftLogEngine>, mark: Mark, observer: Observer) -> Writer {
        Writer { engine, mark, observer, failed: None }
    }

    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let jobs = gather(first, &mut queue);
            self.turn(jobs);
        }
    }

    /// Writes these jobs, as one, and reports each.
    pub(crate) fn turn(&mut self, mut jobs: Vec<Job>) {
        if self.failed.is_none()
            && let Err(error) = self.write(&mut jobs)
        {
            tracing::error!(%error, "the log cannot be written; this member stops");
            (self.observer.failed)(&error);
            self.failed = Some(error);
        }
        for job in jobs {
            let result = match &self.failed {
                None => Ok(()),
                Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            match job.done {
                Done::Raft(flushed) => flushed.io_completed(result),
                // The caller may be gone.
                Done::Waiter(waiter) => drop(waiter.send(result)),
                Done::Nobody => {}
            }
        }
    }

    fn write(&mut self, jobs: &mut [Job]) -> io::Result<()> {
        if let Some(cut) = jobs.iter().filter_map(|job| job.cut).min_by_key(|cut| cut.index)
            && cut.index < self.mark.current().index
        {
            self.mark.lower(cut)?;
        }
        let sync = jobs.iter().any(|job| job.sync);
        let ops: Vec<LogOp> =
            jobs.iter_mut().flat_map(|job| std::mem::take(&mut job.ops)).collect();
        let started = Instant::now();
        self.engine.write(&ops, sync)?;
        let observer = &self.observer;
        if sync {
            observer.fsync_seconds.observe(started.elapsed().as_secs_f64());
            let entries = ops.iter().filter(|op| matches!(op, LogOp::Put { .. })).count();
            if entries > 0 {
                observer.entries.observe(entries as f64);
            }
        }
        if let Some(end) = jobs.iter().rev().find_map(|job| job.end) {
            self.mark.raise(end)?;
        }
        if let Some(last) = jobs.last() {
            observer.written.store(last.number, Ordering::Release);
        }
        Ok(())
    }
}

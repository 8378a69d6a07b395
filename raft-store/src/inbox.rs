//! The leader's inbox: requests from all members, made into as few log entries as possible.

use crate::{
    codec,
    metrics::Metrics,
    raft::{Payload, Raft, Types},
};
use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{impls::ProgressResponder, raft::ClientWriteResult};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};
use tokio::sync::Notify;
use wire::peer::Batch;

/// Bytes waiting for a log entry; beyond that members are told to wait.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// One entry carries about this much.
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Entries proposed and not yet applied: enough to cover a sync and a round trip, few enough that requests
/// gather into large entries meanwhile.
const ENTRIES_IN_FLIGHT: usize = 4;

/// Clones share one inbox.
#[derive(Clone, Default)]
pub(crate) struct Inbox {
    shared: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<(Batch, usize)>,
    bytes: usize,
}

/// About how many bytes a batch takes in an entry.
pub(crate) fn batch_bytes(batch: &Batch) -> usize {
    batch.requests.iter().map(request_bytes).sum()
}

pub(crate) fn request_bytes(request: &wire::peer::Request) -> usize {
    let body = |write: &wire::peer::Write| match &write.op {
        Some(wire::peer::write::Op::Put(body)) => body.len(),
        _ => 0,
    };
    let write = |write: &wire::peer::Write| 24 + write.space.len() + write.path.len() + body(write);
    24 + request.writes.iter().map(write).sum::<usize>()
}

impl Inbox {
    /// Takes a batch, unless too much is waiting already.
    pub(crate) fn offer(&self, batch: Batch) -> bool {
        let bytes = batch_bytes(&batch);
        {
            let mut queue = self.queue();
            if queue.bytes > WAITING_BYTES_MAX {
                return false;
            }
            queue.bytes += bytes;
            queue.batches.push_back((batch, bytes));
        }
        self.shared.arrived.notify_one();
        true
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.shared.queue.lock().expect("only pushed and popped")
    }

    pub(crate) fn take_entry(&self) -> Vec<Batch> {
        let mut queue = self.queue();
        let (mut entry, mut bytes) = (Vec::new(), 0);
        while bytes < ENTRY_BYTES_MAX
            && let Some((batch, size)) = queue.batches.pop_front()
        {
            queue.bytes -= size;
            bytes += size;
            entry.push(batch);
        }
        entry
    }

    /// Proposes what arrives, for ever. What is proposed on a member that no longer leads is
    /// lost here; its proposers see the leader change and propose it again.
    pub(crate) async fn run(self, raft: Raft, metrics: Metrics) {
        let mut entries = FuturesUnordered::new();
        loop {
            let room = entries.len() < ENTRIES_IN_FLIGHT;
            let batches = if room { self.take_entry() } else { Vec::new() };
            if batches.is_empty() {
                tokio::select! {
                    biased;
                    Some(()) = entries.next() => {}
                    () = self.shared.arrived.notified(), if room => {}
                }
                continue;
            }
            let requests: usize = batches.iter().map(|batch| batch.requests.len()).sum();
            metrics.entry_txns.observe(requests as f64);
            let payload = Payload(codec::encode_batches(batches));
            let (responder, applied) =
                ProgressResponder::<Types, ClientWriteResult<Types>>::complete_only();
            if let Err(fatal) = raft.client_write_ff(payload, Some(responder)).await {
                tracing::warn!(%fatal, "Raft has stopped");
                return;
            }
            entries.push(async move {
                if let Ok(Err(error)) = applied.await {
                    tracing::debug!(%error, "an entry was not written; it will be proposed again");
                }
            });
        }
    }
}

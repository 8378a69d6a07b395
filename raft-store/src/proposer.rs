//! This member's own requests on their way into the log: queued, sent to whoever leads, sent again
//! when a leader is lost, answered when this member applies them.
//!
//! A request may be proposed several times; the state knows its number and applies it once.

#[cfg(test)]
use crate::mutants::{self, Mutant};
use crate::{
    codec,
    config::Timers,
    inbox::{Inbox, request_bytes},
    members::Leadership,
    metrics::Metrics,
    raft::network::Link,
    seal::Seal,
    shared::Shared,
    succession::Signs,
    time::{Instant, Ticks, sleep, timeout},
    types::{Committed, Error, MemberId, Term, Txn},
};
use futures::StreamExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use wire::peer::{Batch, ForwardRequest, Request, forward_response::Refusal};

/// Bytes of requests waiting to be applied; beyond that callers are refused.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// One message to the leader carries about this much, at most this many requests.
const BATCH_BYTES_MAX: usize = 1 << 20;
const BATCH_REQUESTS_MAX: usize = 1024;
/// Messages on their way to the leader.
const BATCHES_AHEAD: usize = 16;

struct Pending {
    request: Request,
    bytes: usize,
    /// When it was last sent; `None`: it was not, or to a leader that is gone.
    sent: Option<Instant>,
    times_sent: u32,
}

#[derive(Default)]
struct Queue {
    next: u64,
    pending: BTreeMap<u64, Pending>,
    unsent: BTreeSet<u64>,
    bytes: usize,
}

/// The requests of this member.
pub(crate) struct Proposer {
    seal: Arc<dyn Seal>,
    shared: Arc<Shared>,
    metrics: Metrics,
    leadership: watch::Receiver<Leadership>,
    queue: Mutex<Queue>,
    work: Notify,
    /// Told when the connection to the leader breaks.
    signs: Signs,
    deadline: Duration,
    /// A request is proposed again after this long without being applied, whatever the cause.
    resend_after: Duration,
    /// Between two attempts at a leader that refuses or cannot be reached.
    pause: Duration,
}

/// Forgets a request when its caller is answered or goes away.
struct Entered<'a> {
    proposer: &'a Proposer,
    serial: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.proposer.shared.give_up(self.serial);
        let mut queue = self.proposer.queue();
        if let Some(pending) = queue.pending.remove(&self.serial) {
            queue.bytes -= pending.bytes;
        }
        queue.unsent.remove(&self.serial);
        self.proposer.metrics.pending_bytes.set(queue.bytes as i64);
    }
}

impl Proposer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        metrics: Metrics,
        leadership: watch::Receiver<Leadership>,
        timers: &Timers,
        signs: Signs,
        seal: Arc<dyn Seal>,
    ) -> Proposer {
        Proposer {
            seal,
            shared,
            metrics,
            leadership,
            queue: Mutex::default(),
            work: Notify::new(),
            signs,
            deadline: timers.request,
            // No failover takes longer; what is not applied by then was lost on the way.
            resend_after: (timers.election_max * 4).max(Duration::from_secs(1)),
            pause: timers.heartbeat / 2,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("only inserted into and removed from")
    }

    /// Has a transaction applied, or says why not.
    pub(crate) async fn propose(&self, txn: Txn) -> Result<Committed, Error> {
        let current = self.leadership.borrow().term;
        if let Some(fence) = txn.fence.filter(|fence| *fence < current) {
            return Err(Error::Fenced { fence, current });
        }
        let (entered, answer) = self.enter(txn)?;
        self.work.notify_one();
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(answer) => answer,
                Err(_) => Err(Error::Stopped(self.shared.stopped().unwrap_or_default())),
            },
            () = sleep(self.deadline) => {
                let pending = self.queue().pending.get(&entered.serial).map(|p| p.times_sent > 0);
                let unknown = pending.unwrap_or(true);
                #[cfg(test)]
                let unknown = unknown && !mutants::on(Mutant::SentIsRefused);
                Err(Error::Unavailable { unknown })
            }
        }
    }

    fn enter(
        &self,
        txn: Txn,
    ) -> Result<(Entered<'_>, tokio::sync::oneshot::Receiver<Result<Committed, Error>>), Error>
    {
        let mut queue = self.queue();
        if queue.bytes > PENDING_BYTES_MAX {
            return Err(Error::Overloaded { retry_after: Duration::from_secs(1) });
        }
        queue.next += 1;
        let serial = queue.next;
        let request = codec::encode_request(serial, txn, &*self.seal);
        let bytes = request_bytes(&request);
        queue.bytes += bytes;
        queue.unsent.insert(serial);
        let pending = Pending { request, bytes, sent: None, times_sent: 0 };
        queue.pending.insert(serial, pending);
        self.metrics.pending_bytes.set(queue.bytes as i64);
        let answer = self.shared.wait_for_outcome(serial);
        Ok((Entered { proposer: self, serial }, answer))
    }

    /// The oldest unsent requests as one batch.
    fn take_batch(&self) -> Option<Batch> {
        let now = Instant::now();
        let mut queue = self.queue();
        let queue = &mut *queue;
        let (mut requests, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES_MAX
            && requests.len() < BATCH_REQUESTS_MAX
            && let Some(serial) = queue.unsent.pop_first()
        {
            let Some(pending) = queue.pending.get_mut(&serial) else { continue };
            if pending.times_sent > 0 {
                self.metrics.retried.inc();
            }
            (pending.sent, pending.times_sent) = (Some(now), pending.times_sent + 1);
            bytes += pending.bytes;
            requests.push(pending.request.clone());
        }
        let settled = queue.pending.first_key_value().map_or(queue.next + 1, |(serial, _)| *serial);
        let session = self.shared.session().0;
        (!requests.is_empty()).then_some(Batch { session, settled, requests })
    }

    /// Everything pending is to be sent again.
    fn forget_sent(&self) {
        let mut queue = self.queue();
        let queue = &mut *queue;
        for (serial, pending) in &mut queue.pending {
            pending.sent = None;
            queue.unsent.insert(*serial);
        }
        self.work.notify_one();
    }

    /// What was sent long ago is sent again; each time the patience doubles, so that a slow
    /// cluster is not given more to do.
    fn forget_long_sent(&self, now: Instant) {
        let mut queue = self.queue();
        let queue = &mut *queue;
        for (serial, pending) in &mut queue.pending {
            let patience = self.resend_after * (1 << (pending.times_sent.max(1) - 1).min(5));
            if pending.sent.is_some_and(|sent| now - sent > patience) {
                pending.sent = None;
                queue.unsent.insert(*serial);
            }
        }
        self.work.notify_one();
    }

    /// Sends requests to whoever leads, for ever.
    pub(crate) async fn run(
        self: Arc<Self>,
        me: MemberId,
        inbox: Inbox,
        link_to: impl Fn(MemberId) -> Option<Link>,
    ) {
        let mut leadership = self.leadership.clone();
        loop {
            let now = *leadership.borrow_and_update();
            self.forget_sent();
            let changed = async {
                let before = (now.term, now.leader, now.leading);
                let moved = |l: &Leadership| (l.term, l.leader, l.leading) != before;
                leadership.wait_for(moved).await.is_ok()
            };
            let sending = self.send_while_led(now, me, &inbox, &link_to);
            tokio::select! {
                biased;
                alive = changed => if !alive { return },
                () = sending => {}
            }
        }
    }

    /// Returns when the connection to the leader is lost or it says that it does not lead.
    async fn send_while_led(
        &self,
        now: Leadership,
        me: MemberId,
        inbox: &Inbox,
        link_to: &impl Fn(MemberId) -> Option<Link>,
    ) {
        match now.leader {
            None => std::future::pending().await,
            Some(leader) if leader == me && now.leading.is_some() => {
                self.send_to_inbox(inbox).await
            }
            Some(leader) if leader == me => std::future::pending().await,
            Some(leader) => {
                if let Some(link) = link_to(leader) {
                    self.send_to_leader(link, now.term).await;
                }
                // Not at once again: the leader may be about to know that it leads, or be gone.
                sleep(self.pause).await;
            }
        }
    }

    /// Waits for something to send. What was lost on the way is looked for in `rounds`, however much
    /// there is to do meanwhile.
    async fn more(&self, rounds: &mut Ticks) {
        #[cfg(test)]
        if mutants::on(Mutant::LostWhileBusy) {
            *rounds = Ticks::after(self.resend_after);
        }
        tokio::select! {
            biased;
            () = rounds.tick() => self.forget_long_sent(Instant::now()),
            () = self.work.notified() => {}
        }
    }

    async fn send_to_inbox(&self, inbox: &Inbox) {
        let mut rounds = Ticks::every(self.resend_after);
        loop {
            while let Some(batch) = self.take_batch() {
                if !inbox.offer(batch) {
                    sleep(self.pause).await;
                    return;
                }
            }
            self.more(&mut rounds).await;
        }
    }

    async fn send_to_leader(&self, link: Link, term: Term) {
        let (sender, requests) = mpsc::channel(BATCHES_AHEAD);
        let opened = link.data.forward(ReceiverStream::new(requests).boxed());
        let mut answers = match timeout(self.resend_after, opened).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(status)) => {
                tracing::debug!(?link, %status, "the leader cannot be reached");
                return self.signs.connection_lost();
            }
            Err(_) => return,
        };
        let sending = async {
            let (mut number, mut rounds) = (0, Ticks::every(self.resend_after));
            loop {
                while let Some(batch) = self.take_batch() {
                    number += 1;
                    self.metrics.forwarded.inc_by(batch.requests.len() as u64);
                    let version = codec::version_of(&batch);
                    let request = ForwardRequest { number, batch: Some(batch), version };
                    if sender.send(request).await.is_err() {
                        return;
                    }
                }
                self.more(&mut rounds).await;
            }
        };
        let refused = async {
            while let Some(Ok(answer)) = answers.next().await {
                if answer.refusal() != Refusal::Taken {
                    tracing::debug!(?link, %term, refusal = ?answer.refusal(), "requests refused");
                    return;
                }
            }
            self.signs.connection_lost();
        };
        tokio::select! {
            biased;
            () = refused => {}
            () = sending => {}
        }
    }
}

#[cfg(test)]
#[path = "proposer_tests.rs"]
mod tests;

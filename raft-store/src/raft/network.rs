//! The sending side between members: openraft's calls as messages to a peer.
//!
//! Three connections per peer: appends and forwarded requests on one, heartbeats and votes on another, so that no
//! heartbeat waits behind data, and what reads wait for on a third. A snapshot gets its own.

use super::{
    LogId, Raft, Types, Vote, convert,
    machine::{Snapshot, SnapshotDir},
    wire::{Answers, BadPeer, Dial, Wire},
};
use crate::{
    config::{Peer, Timers},
    membership,
    metrics::Metrics,
    snapshot_stream, steward,
    time::{Instant, timeout},
    types::MemberId,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    async_runtime::WatchReceiver as _,
    base::{BoxFuture, BoxStream},
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, stream_append_sequential},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tonic::{Code, Status};
use wire::peer;

/// Connections to one peer; they connect when first used and again after a failure.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) control: Arc<dyn Wire>,
    pub(crate) data: Arc<dyn Wire>,
    address: String,
    dial: Arc<dyn Dial>,
    /// Which certificate of this member it shows.
    shown: u64,
    /// It was said that the peer refuses this member.
    said: Arc<AtomicBool>,
}

/// All connections of this member, made on first use.
#[derive(Clone)]
pub(crate) struct Links {
    dial: Arc<dyn Dial>,
    timers: Timers,
    book: Arc<Mutex<Book>>,
    links: Arc<Mutex<BTreeMap<u64, Link>>>,
    /// Who was the last to vouch, or 0.
    quickest: Arc<AtomicU64>,
    /// How far others may have heard from this member that the log is committed.
    told: Arc<AtomicU64>,
    metrics: Metrics,
}

/// Where the members are. An address is only where one is looked for: who answers there is proved
/// by its certificate.
#[derive(Default)]
struct Book {
    /// By the newest membership.
    peers: BTreeMap<u64, Peer>,
    /// Where one was found that did not answer where the membership says.
    found: BTreeMap<u64, String>,
}

impl Book {
    fn address(&self, id: u64) -> Option<&String> {
        let peer = self.peers.get(&id)?;
        Some(self.found.get(&id).unwrap_or(&peer.peer_address))
    }
}

impl Links {
    pub(crate) fn new(dial: Arc<dyn Dial>, timers: Timers, metrics: Metrics) -> Links {
        let (book, links, quickest, told) = Default::default();
        Links { dial, timers, book, links, quickest, told, metrics }
    }

    /// The same, with connections of their own: what drives those runs where they are first used, and whoever
    /// waits for an answer elsewhere is woken from there.
    pub(crate) fn elsewhere(&self) -> Links {
        Links { links: Arc::default(), ..self.clone() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("only looked up and inserted")
    }

    /// What the newest membership says of a peer. Connections to another address are given up.
    pub(crate) fn know(&self, id: u64, peer: &Peer) {
        let mut book = self.book();
        if book.peers.get(&id) != Some(peer) {
            book.peers.insert(id, peer.clone());
            book.found.remove(&id);
        }
    }

    /// A peer was found to answer at `address`, whatever the membership says.
    pub(crate) fn found(&self, id: u64, address: &str) {
        let mut book = self.book();
        let known = book.peers.get(&id).is_some_and(|peer| peer.peer_address == address);
        match known {
            true => book.found.remove(&id),
            false => book.found.insert(id, address.to_owned()),
        };
    }

    /// Where a peer is dialled at the moment.
    pub(crate) fn address(&self, id: u64) -> Option<String> {
        self.book().address(id).cloned()
    }

    /// The connections to a peer, new ones if its address or this member's certificate changed.
    fn to(&self, id: u64) -> Result<Link, BadPeer> {
        let known = {
            let book = self.book();
            book.peers.get(&id).cloned().zip(book.address(id).cloned())
        };
        let Some((peer, address)) = known else { return Err(BadPeer::Unknown(id)) };
        let shown = self.dial.shown();
        let same = |link: &&Link| link.address == address && link.shown == shown;
        let mut links = self.links.lock().expect("only looked up and inserted");
        if let Some(link) = links.get(&id).filter(same) {
            return Ok(link.clone());
        }
        let link = self.link(Peer { peer_address: address, ..peer })?;
        links.insert(id, link.clone());
        Ok(link)
    }

    /// Connections of their own, to look whether `peer` is there.
    pub(crate) fn link(&self, peer: Peer) -> Result<Link, BadPeer> {
        let shown = self.dial.shown();
        Ok(Link {
            control: self.dial.dial(&peer)?,
            data: self.dial.dial(&peer)?,
            address: peer.peer_address,
            dial: self.dial.clone(),
            shown,
            said: Arc::default(),
        })
    }

    /// In this order they are asked to vouch.
    pub(crate) fn quickest_first(&self, voters: impl Iterator<Item = u64>) -> Vec<u64> {
        let quickest = self.quickest.load(Ordering::Relaxed);
        let mut voters: Vec<u64> = voters.collect();
        voters.sort_by_key(|id| *id != quickest);
        voters
    }

    /// A member vouched.
    pub(crate) fn was_quick(&self, id: u64) {
        self.quickest.store(id, Ordering::Relaxed);
    }

    /// Before they can hear that the log is committed up to there.
    fn tell(&self, committed: Option<LogId>) {
        let index = committed.map_or(0, |id| id.index);
        self.told.fetch_max(index, Ordering::SeqCst);
    }

    /// Nobody has heard of more from this member; 0 before it led.
    pub(crate) fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    /// The connections to a member of the group.
    pub(crate) fn to_member(&self, raft: &Raft, id: u64) -> Option<Link> {
        self.know(id, raft.metrics().borrow_watched().membership_config.get_node(&id)?);
        match self.to(id) {
            Ok(link) => Some(link),
            Err(error) => {
                tracing::error!(%error, id, "no connection can be made");
                None
            }
        }
    }
}

/// What openraft uses to reach one peer for one purpose.
pub(crate) struct Sender {
    links: Links,
    target: u64,
    /// Heartbeats: one unary call each on the control connection, instead of a stream.
    heartbeats: bool,
    idle_max: Duration,
    metrics: Metrics,
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Sender;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> Sender {
        self.know(target, peer);
        let (links, idle_max) = (self.clone(), self.timers.election_max * 2);
        Sender { links, target, heartbeats: false, idle_max, metrics: self.metrics.clone() }
    }

    async fn new_heartbeat_client(&mut self, target: u64, peer: &Peer) -> Sender {
        Sender { heartbeats: true, ..self.new_client(target, peer).await }
    }
}

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error(transparent)]
    Peer(#[from] BadPeer),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    #[error("member {0} answers there")]
    Another(u64),
    #[error(transparent)]
    Malformed(#[from] convert::Malformed),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl From<Status> for NoAnswer {
    fn from(status: Status) -> NoAnswer {
        NoAnswer::Status(Box::new(status))
    }
}

impl From<NoAnswer> for RPCError<Types> {
    fn from(error: NoAnswer) -> RPCError<Types> {
        RPCError::Unreachable(Unreachable::new(&error))
    }
}

impl From<NoAnswer> for StreamingError<Types> {
    fn from(error: NoAnswer) -> StreamingError<Types> {
        StreamingError::Unreachable(Unreachable::new(&error))
    }
}

/// `call`, but not longer than `deadline`.
async fn within<T, E: Into<NoAnswer>>(
    deadline: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, NoAnswer> {
    match timeout(deadline, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(NoAnswer::Deadline(deadline)),
    }
}

/// How many requests of a stream are unanswered, and since when nothing moved.
struct Outstanding {
    requests: usize,
    since: Instant,
}

impl Sender {
    /// Asked for each time: openraft keeps a sender when the member's address changes.
    fn link(&self) -> Result<Link, NoAnswer> {
        Ok(self.links.to(self.target)?)
    }

    async fn append_once(
        &self,
        request: &AppendEntriesRequest<Types>,
        deadline: Duration,
    ) -> Result<AppendEntriesResponse<Types>, NoAnswer> {
        let wire = self.link()?.control;
        self.links.tell(request.leader_commit);
        let answer = within(deadline, wire.heartbeat(convert::to_append(request))).await?;
        Ok(convert::from_append_response(answer)?)
    }

    async fn append_stream<S>(
        &self,
        input: S,
    ) -> Result<BoxStream<'static, Result<StreamAppendResult<Types>, RPCError<Types>>>, NoAnswer>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let idle_max = self.idle_max;
        let outstanding = Outstanding { requests: 0, since: Instant::now() };
        let outstanding = Arc::new(Mutex::new(outstanding));
        let (sent, links) = (outstanding.clone(), self.links.clone());
        // openraft may read on in a log that is purged at the moment. Ending the stream has it look
        // again at what this member needs: a snapshot.
        let target = self.target;
        let whole = input.take_while(move |request| {
            let gap = has_gap(request);
            if gap {
                tracing::info!(
                    target,
                    "what comes next was purged; looking again at what it needs"
                );
            }
            std::future::ready(!gap)
        });
        let requests = whole.map(move |request| {
            let mut sent = sent.lock().expect("counted only");
            if sent.requests == 0 {
                sent.since = Instant::now();
            }
            sent.requests += 1;
            links.tell(request.leader_commit);
            convert::to_append(&request)
        });
        let wire = self.link()?.data;
        let answers = within(idle_max, wire.append(requests.boxed())).await?;
        let answers = futures::stream::unfold(Some(answers), move |answers| {
            let outstanding = outstanding.clone();
            async move {
                let mut answers = answers?;
                match next_answer(&mut answers, &outstanding, idle_max).await {
                    Ok(Some(answer)) => Some((Ok(answer), Some(answers))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error.into()), None)),
                }
            }
        });
        Ok(Box::pin(answers))
    }
}

/// The entries do not follow what they say they follow: those between are gone from the log.
fn has_gap(request: &AppendEntriesRequest<Types>) -> bool {
    let next = request.prev_log_id.map_or(0, |id| id.index + 1);
    request.entries.first().is_some_and(|first| first.log_id.index != next)
}

/// The next answer of a stream; fails if requests wait for one and none comes.
async fn next_answer(
    answers: &mut Answers<peer::AppendResponse>,
    outstanding: &Mutex<Outstanding>,
    idle_max: Duration,
) -> Result<Option<StreamAppendResult<Types>>, NoAnswer> {
    loop {
        match timeout(idle_max / 2, answers.next()).await {
            Err(_) => {
                let outstanding = outstanding.lock().expect("counted only");
                if outstanding.requests > 0 && outstanding.since.elapsed() > idle_max {
                    return Err(NoAnswer::Deadline(idle_max));
                }
            }
            Ok(answer) => {
                let Some(answer) = answer.transpose()? else { return Ok(None) };
                let mut outstanding = outstanding.lock().expect("counted only");
                outstanding.requests = outstanding.requests.saturating_sub(1);
                outstanding.since = Instant::now();
                return Ok(Some(convert::from_stream_result(answer)?));
            }
        }
    }
}

impl RaftNetworkV2<Types> for Sender {
    type SnapshotData = Arc<SnapshotDir>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Ok(self.append_once(&request, option.soft_ttl()).await?)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        if self.heartbeats {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let mut input = input;
            // openraft puts its pause after a failure into the stream of requests: dialling before
            // the first has come would try a dead member thousands of times a second.
            let Some(first) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            let input = futures::stream::iter([first]).chain(input);
            Ok(self.append_stream(input).await? as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let wire = self.link()?.control;
        let call = wire.vote(convert::to_vote_request(&request));
        let answer = within(option.soft_ttl(), call).await?;
        Ok(convert::from_vote_response(answer).map_err(NoAnswer::from)?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let wire = self.link()?.control;
        let call = wire.pre_vote(convert::to_vote_request(&request));
        let answer = within(option.soft_ttl(), call).await?;
        Ok(convert::from_vote_response(answer).map_err(NoAnswer::from)?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let wire = self.link()?.data;
        self.metrics.snapshots_sent.inc();
        self.links.tell(snapshot.meta.last_log_id);
        let header = peer::SnapshotHeader {
            vote: Some(convert::to_vote(&vote)),
            last: snapshot.meta.last_log_id.as_ref().map(convert::to_log_id),
            membership: convert::to_membership(&snapshot.meta.last_membership),
        };
        let send = async move {
            let pieces = snapshot_stream::send(header, snapshot.snapshot);
            let answer = wire.install_snapshot(pieces).await?;
            Ok::<_, NoAnswer>(convert::from_vote(answer.vote)?)
        };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            vote = within(option.hard_ttl(), send) => Ok(SnapshotResponse::new(vote?)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let request = serde_json::to_vec(&request).map_err(NoAnswer::from)?.into();
        let wire = self.link()?.control;
        let call = wire.transfer_leader(peer::TransferLeaderRequest { request });
        let answer = within(option.soft_ttl(), call).await?;
        Ok(serde_json::from_slice(&answer.response).map_err(NoAnswer::from)?)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The index up to which a read that starts now must see the log, from the leader `link` leads to.
/// `member` asks, whose vote is `vote`.
pub(crate) async fn read_index(
    link: &Link,
    member: MemberId,
    vote: &Vote,
    deadline: Duration,
) -> Option<u64> {
    let vote = Some(convert::to_vote(vote));
    let call = link.control.read_index(peer::ReadIndexRequest { member: member.0, vote });
    within(deadline, call).await.ok().and_then(|answer| answer.index)
}

/// The peer's vote at a moment after the call.
pub(crate) async fn vouch(link: &Link, deadline: Duration) -> Option<Vote> {
    let call = link.control.vouch(peer::VouchRequest {});
    let vote = within(deadline, call).await.ok()?.vote;
    convert::from_vote(vote).ok()
}

/// True if nobody listens at the peer's address any more: its process has ended.
pub(crate) async fn refuses(link: &Link, deadline: Duration) -> bool {
    timeout(deadline, link.dial.refuses(&link.address)).await.unwrap_or(false)
}

/// How a peer is doing.
pub(crate) async fn status(link: &Link, deadline: Duration) -> Option<peer::StatusResponse> {
    ask_status(link, peer::StatusRequest::default(), deadline).await.ok()
}

/// The same, and the peer learns who asks and where that one is.
pub(crate) async fn ask_status(
    link: &Link,
    request: peer::StatusRequest,
    deadline: Duration,
) -> Result<peer::StatusResponse, NoAnswer> {
    let asked = within(deadline, link.control.status(request)).await;
    if let Err(NoAnswer::Status(refusal)) = &asked
        && refusal.code() == Code::FailedPrecondition
        && !link.said.swap(true, Ordering::Relaxed)
    {
        tracing::error!(?link, why = refusal.message(), "a peer refuses this member");
    }
    asked
}

/// What the leader makes of a request about the members; `None` if it did not say.
pub(crate) async fn ask_members(
    link: &Link,
    request: &membership::Request,
    deadline: Duration,
) -> Option<steward::Answer> {
    let request = serde_json::to_vec(request).ok()?.into();
    let call = link.control.members(peer::MembersRequest { request });
    let answer = within(deadline, call).await.ok()?.answer;
    serde_json::from_slice(&answer).ok()
}

/// A peer's answer to a question, on the connection that heartbeats do not share.
pub(crate) async fn ask(
    link: &Link,
    topic: &str,
    question: Bytes,
    deadline: Duration,
) -> Option<Bytes> {
    let call = link.data.ask(peer::AskRequest { topic: topic.to_string(), question });
    within(deadline, call).await.ok().map(|answer| answer.answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster_tests::Cluster,
        founding::Introduce,
        raft::{Entry, log_id, wire::Grpc},
    };
    use futures::FutureExt as _;
    use openraft::EntryPayload;

    /// openraft pauses after a failure by holding back the stream of requests.
    #[tokio::test]
    async fn a_dead_member_is_not_dialled_again_during_the_pause() {
        let metrics = Metrics::new(&prometheus::Registry::new()).expect("a new registry");
        let config = Cluster::new(1).config(1);
        let dial = Arc::new(Grpc::new(&config, Introduce::default()));
        let links = Links::new(dial, config.timers, metrics.clone());
        let idle_max = Duration::from_secs(1);
        let mut sender = Sender { links, target: 2, heartbeats: false, idle_max, metrics };
        let paused = futures::stream::pending::<AppendEntriesRequest<Types>>();
        let dialling = sender.stream_append(paused, RPCOption::new(Duration::from_secs(1)));
        assert!(dialling.now_or_never().is_none(), "dialled before there was a request");
    }

    #[test]
    fn entries_after_a_gap_are_told_from_those_that_follow() {
        let blank = |index| Entry { log_id: log_id(2, index), payload: EntryPayload::Blank };
        let request = |prev: Option<u64>, entries: &[u64]| AppendEntriesRequest::<Types> {
            vote: Vote::new(2, 1),
            prev_log_id: prev.map(|index| log_id(2, index)),
            entries: entries.iter().map(|index| blank(*index)).collect(),
            leader_commit: None,
        };
        assert!(has_gap(&request(Some(354), &[469, 470])));
        assert!(has_gap(&request(None, &[1])));
        assert!(!has_gap(&request(Some(354), &[355, 356])));
        assert!(!has_gap(&request(None, &[0])) && !has_gap(&request(Some(7), &[])));
    }
}

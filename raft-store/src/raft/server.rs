//! The receiving side between members: gRPC calls into openraft, the leader's inbox and the
//! member's status. Only holders of a certificate of the peers' CA get here.

use super::{
    Raft, Vote, accept,
    connection::Http2,
    convert,
    log::Promises,
    machine::{Dirs, Snapshot, SnapshotMeta},
    network::{self, Links},
    term_of,
    wire::{Answers, Incoming, MESSAGE_BYTES_MAX},
};
use crate::{
    config::{OpenError, OwnTls},
    founding::Doorkeeper,
    inbox::Inbox,
    members::Leadership,
    peers::Hints,
    questions::Answers as Answerers,
    shared::Shared,
    snapshot_stream::Receiver,
    steward::Steward,
    succession::Signs,
    time::{blocking, sleep},
    types::{MemberId, Term},
};
use futures::{Stream, StreamExt, stream::FuturesUnordered};
use openraft::async_runtime::WatchReceiver as _;
use std::{collections::BTreeSet, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::interceptor::InterceptedService};
use tower::Service as _;
use wire::peer::{
    self, AppendRequest, AppendResponse, ForwardRequest, ForwardResponse, SnapshotPiece,
    forward_response::Refusal, peer_server::PeerServer, snapshot_piece::Piece,
};

const HTTP2: Http2 = Http2 {
    stream_window: 4 << 20,
    connection_window: 16 << 20,
    keep_alive: Duration::from_secs(5),
};

/// A voter that has not vouched by then may be slow or gone: the others are asked too.
const HEDGE: Duration = Duration::from_millis(5);

/// Handlers for one member.
pub(crate) struct Service {
    pub(crate) raft: Raft,
    pub(crate) inbox: Inbox,
    pub(crate) shared: Arc<Shared>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) dirs: Dirs,
    pub(crate) steward: Steward,
    pub(crate) hints: Hints,
    pub(crate) signs: Signs,
    pub(crate) answers: Answerers,
    pub(crate) promises: Promises,
    /// Ends all streams.
    pub(crate) stopping: CancellationToken,
    /// A ReadIndex that takes longer has no quorum.
    pub(crate) read_index_max: Duration,
}

fn malformed(error: convert::Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl Service {
    fn until_stopped<T: Send + 'static>(
        &self,
        answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Answers<T> {
        let stopping = self.stopping.clone();
        answers.take_until(stopping.cancelled_owned()).boxed()
    }

    fn read_snapshot_piece(piece: Option<SnapshotPiece>) -> Result<SnapshotPiece, Status> {
        piece.ok_or_else(|| Status::invalid_argument("snapshot: it ends early"))
    }

    /// A stream of appends, and the answer to each.
    pub(crate) fn take_appends(
        &self,
        requests: impl Incoming<AppendRequest>,
    ) -> Answers<AppendResponse> {
        // A request that cannot be read, or that there is no room for, ends the stream; the leader
        // begins a new one.
        let room = self.steward.room.clone();
        let requests = requests
            .map(move |request| convert::from_append(request.ok().filter(|_| !room.spent())?).ok())
            .take_while(|request| futures::future::ready(request.is_some()))
            .filter_map(futures::future::ready);
        // The leader ended it, or ended itself: with its connection this may just be dropped.
        let ended = Ended(self.signs.clone());
        let requests = requests.chain(
            futures::stream::once(async move { drop(ended) })
                .filter_map(|()| futures::future::ready(None)),
        );
        let answers = self.raft.stream_append(Box::pin(requests)).map(|answer| match answer {
            Ok(result) => Ok(convert::to_stream_result(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        self.until_stopped(answers)
    }

    /// The pieces of a snapshot; answers when it is installed.
    pub(crate) async fn take_snapshot(
        &self,
        mut pieces: impl Incoming<SnapshotPiece>,
    ) -> Result<peer::SnapshotResponse, Status> {
        if self.steward.room.spent() {
            return Err(Status::resource_exhausted("no room on the disk"));
        }
        let first = Self::read_snapshot_piece(pieces.next().await.transpose()?)?;
        let Some(Piece::Header(header)) = first.piece else {
            return Err(Status::invalid_argument("snapshot: no header"));
        };
        let vote = convert::from_vote(header.vote).map_err(malformed)?;
        let last_log_id = convert::from_log_ids(header.last).map_err(malformed)?;
        let last_membership = convert::from_membership(&header.membership).map_err(malformed)?;
        let index = last_log_id.map_or(0, |id| id.index);
        let mut receiver = Receiver::new(self.dirs.fresh("incoming", index)).map_err(stopped)?;
        while let Some(piece) = pieces.next().await.transpose()? {
            let taken = blocking(move || receiver.take(piece).map(|()| receiver)).await;
            receiver = taken.flatten().map_err(stopped)?;
        }
        let snapshot = receiver.finish().map_err(stopped)?;
        let meta = SnapshotMeta { last_log_id, last_membership };
        let snapshot = Snapshot { meta, snapshot };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        let vote = Some(convert::to_vote(&answer.vote));
        Ok(peer::SnapshotResponse { vote })
    }

    /// Requests that other members make through this one, if it leads.
    pub(crate) fn take_forwarded(
        &self,
        requests: impl Incoming<ForwardRequest>,
    ) -> Answers<ForwardResponse> {
        let inbox = self.inbox.clone();
        let (leadership, knows) = (self.leadership.clone(), self.shared.knows());
        let answers = requests.map(move |request| {
            let ForwardRequest { number, batch, version } = request?;
            let batch = batch.ok_or_else(|| Status::invalid_argument("no batch"))?;
            let leads = leadership.borrow().leading.is_some();
            let refusal = judge(leads, version, knows, || inbox.offer(batch));
            Ok(ForwardResponse { number, refusal: refusal.into() })
        });
        self.until_stopped(answers)
    }
}

/// What becomes of a forwarded batch that needs a version of commands, at a member that `knows` so many; `offer`
/// takes it if there is room.
fn judge(leads: bool, version: u32, knows: u32, offer: impl FnOnce() -> bool) -> Refusal {
    match leads {
        false => Refusal::NotLeader,
        true if version > knows => Refusal::Newer,
        true if offer() => Refusal::Taken,
        true => Refusal::Overloaded,
    }
}

/// Gives a sign when the stream that holds it is over.
struct Ended(Signs);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.connection_lost();
    }
}

#[tonic::async_trait]
impl peer::peer_server::Peer for Service {
    type AppendStream = Answers<AppendResponse>;
    type ForwardStream = Answers<ForwardResponse>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        Ok(Response::new(self.take_appends(request.into_inner())))
    }

    async fn heartbeat(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        let request = convert::from_append(request.into_inner()).map_err(malformed)?;
        let answer = self.raft.append_entries(request).await.map_err(stopped)?;
        Ok(Response::new(convert::to_append_response(&answer)))
    }

    async fn vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let request = convert::from_vote_request(request.into_inner()).map_err(malformed)?;
        let answer = self.raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(convert::to_vote_response(&answer)))
    }

    async fn pre_vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let request = convert::from_vote_request(request.into_inner()).map_err(malformed)?;
        let answer = self.raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(convert::to_vote_response(&answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<peer::TransferLeaderRequest>,
    ) -> Result<Response<peer::TransferLeaderResponse>, Status> {
        let request = serde_json::from_slice(&request.into_inner().request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        let response = serde_json::to_vec(&answer).map_err(stopped)?.into();
        Ok(Response::new(peer::TransferLeaderResponse { response }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<peer::SnapshotResponse>, Status> {
        self.take_snapshot(request.into_inner()).await.map(Response::new)
    }

    async fn forward(
        &self,
        request: Request<Streaming<ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        Ok(Response::new(self.take_forwarded(request.into_inner())))
    }

    async fn read_index(
        &self,
        request: Request<peer::ReadIndexRequest>,
    ) -> Result<Response<peer::ReadIndexResponse>, Status> {
        let peer::ReadIndexRequest { member, vote } = request.into_inner();
        let votes = convert::from_vote(vote).map(|vote| (MemberId(member), vote));
        let (own, links) = (self.steward.id, &self.steward.links);
        let votes = votes.into_iter().collect();
        let index = read_index(&self.raft, links, own, votes, self.read_index_max).await;
        Ok(Response::new(peer::ReadIndexResponse { index }))
    }

    async fn vouch(
        &self,
        _: Request<peer::VouchRequest>,
    ) -> Result<Response<peer::VouchResponse>, Status> {
        let vote = self.promises.vote().as_ref().map(convert::to_vote);
        Ok(Response::new(peer::VouchResponse { vote }))
    }

    async fn members(
        &self,
        request: Request<peer::MembersRequest>,
    ) -> Result<Response<peer::MembersResponse>, Status> {
        let request = serde_json::from_slice(&request.into_inner().request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = self.steward.execute(&request).await;
        let answer = serde_json::to_vec(&answer).map_err(stopped)?.into();
        Ok(Response::new(peer::MembersResponse { answer }))
    }

    async fn status(
        &self,
        request: Request<peer::StatusRequest>,
    ) -> Result<Response<peer::StatusResponse>, Status> {
        let asking = request.into_inner();
        self.hints.announced(asking.member, &asking.peer_address);
        let position = self.shared.position();
        let leadership = *self.leadership.borrow();
        let Term(term) = leadership.term;
        let raft = self.raft.metrics().borrow_watched().clone();
        Ok(Response::new(peer::StatusResponse {
            member: self.steward.id.0,
            name: self.steward.own.name.clone(),
            peer_address: self.steward.own.peer_address.clone(),
            api_address: self.steward.own.api_address.clone(),
            removed: self.steward.is_removed(MemberId(asking.member)),
            term,
            applied_revision: position.revision.0,
            applied_index: position.index.0,
            leading: leadership.leading.is_some(),
            is_leader: raft.state.is_leader(),
            last_log_index: raft.last_log_index.unwrap_or(0),
            gone_term: self.signs.gone(),
            notes: self.shared.read().notes.all().iter().map(convert::to_note).collect(),
            reads: self.shared.knows(),
            cluster: self.shared.cluster().get().map(convert::to_cluster),
            disk_full: self.steward.room.full(),
        }))
    }

    async fn ask(
        &self,
        request: Request<peer::AskRequest>,
    ) -> Result<Response<peer::AskResponse>, Status> {
        let peer::AskRequest { topic, question } = request.into_inner();
        let answer = self.answers.answer(&topic, &question);
        let answer = answer.ok_or_else(|| Status::unavailable(format!("no answers on {topic}")))?;
        Ok(Response::new(peer::AskResponse { answer }))
    }
}

/// The log index that a read must wait for which begins now, if this member leads; `votes` are of members who
/// ask, looked at after their reads began. If they are not enough other voters are asked for theirs: first as
/// many as it takes, and the rest if those do not answer soon, or not as hoped.
///
/// openraft's own ReadIndex is not used: it takes a late answer to an old append for one to every append up
/// to the same entry, so that a leader that was cut off can believe that it still leads.
pub(crate) async fn read_index(
    raft: &Raft,
    links: &Links,
    own: MemberId,
    mut votes: Vec<(MemberId, Vote)>,
    deadline: Duration,
) -> Option<u64> {
    let membership = raft.metrics().borrow_watched().membership_config.clone();
    let given = votes.iter().map(|(member, _)| member.0).chain([own.0]).collect();
    let voters = links.quickest_first(membership.voter_ids());
    let groups = membership.membership().get_joint_config();
    let (first, mut rest) = as_many_as_it_takes(groups, given, voters);
    let ask = |id: u64| async move {
        let vote = network::vouch(&links.to_member(raft, id)?, deadline).await?;
        links.was_quick(id);
        Some((MemberId(id), vote))
    };
    let mut asked: FuturesUnordered<_> = first.into_iter().map(ask).collect();
    let mut late = pin!(sleep(HEDGE));
    loop {
        // While somebody is asked, nobody's vote is not enough.
        let perhaps = asked.is_empty() || !votes.is_empty();
        if perhaps && let Some(index) = vouched_read_index(raft, own, votes.clone()).await {
            return Some(index);
        }
        if asked.is_empty() {
            asked.extend(rest.drain(..).map(ask));
        }
        tokio::select! {
            biased;
            Some(answer) = asked.next() => votes.extend(answer),
            () = &mut late, if !rest.is_empty() => asked.extend(rest.drain(..).map(ask)),
            else => return None,
        }
    }
}

/// Of `voters`, in this order, the first who make those whose votes are `given` a quorum, and the others.
fn as_many_as_it_takes(
    groups: &[BTreeSet<u64>],
    mut given: BTreeSet<u64>,
    voters: Vec<u64>,
) -> (Vec<u64>, Vec<u64>) {
    let mut missing = voters.into_iter().filter(|id| !given.contains(id)).collect::<Vec<_>>();
    let enough = missing.iter().position(|id| {
        let enough = is_quorum(groups, &given);
        given.insert(*id);
        enough
    });
    let rest = missing.split_off(enough.unwrap_or(missing.len()));
    (missing, rest)
}

/// What these votes are enough for; each was looked at after the read began.
///
/// If this member leads, and with it those whose votes are for it in its term are a quorum, then no later
/// leader had been elected when the read began: whatever was acknowledged until then is committed here.
async fn vouched_read_index(
    raft: &Raft,
    own: MemberId,
    votes: Vec<(MemberId, Vote)>,
) -> Option<u64> {
    let index = raft.with_raft_state(move |state| {
        // After a restart Raft holds it as not committed: who led before does not lead by that.
        let vote = *state.vote_ref();
        let leads = vote.committed && vote.leader_id.voted_for == own.0;
        let vouching = votes.iter().filter(|(_, other)| *other == vote).map(|(member, _)| member.0);
        let vouching = vouching.chain([own.0]).collect();
        let voters = state.membership_state.effective();
        if !leads || !is_quorum(voters.get_joint_config(), &vouching) {
            return None;
        }
        // Before an entry of its term is, a leader does not know what was committed before it.
        let committed = state.local_committed().copied()?;
        (term_of(&committed) == vote.leader_id.term).then_some(committed.index)
    });
    index.await.ok()?
}

/// Whether they are most of the voters, of both groups while one takes over from the other.
fn is_quorum(groups: &[BTreeSet<u64>], members: &BTreeSet<u64>) -> bool {
    !groups.is_empty()
        && groups.iter().all(|voters| members.intersection(voters).count() > voters.len() / 2)
}

/// Listens at once, so that a taken port is an error of the start; serves until stopped.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, OpenError> {
    TcpListener::bind(address).await.map_err(|source| OpenError::Listen { address, source })
}

/// Serves peers until the service's token is cancelled and all calls have ended.
pub(crate) async fn serve(listener: TcpListener, tls: OwnTls, service: Service) -> io::Result<()> {
    let stopping = service.stopping.clone();
    let incoming = accept::connections(listener, tls)?;
    let doorkeeper = Doorkeeper::new(&service.shared, &service.steward.own.name);
    let service = PeerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let service = InterceptedService::new(service, doorkeeper);
    let greet = |_: &_| {
        let service = service.clone();
        move |request| service.clone().call(request)
    };
    HTTP2.serve(incoming, greet, stopping).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_tests::{Cluster, put};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_follower_vouches_for_its_leader_in_this_term_only() {
        let cluster = Cluster::started(3).await;
        let leader = cluster.leader().await;
        let written = cluster.store(leader).txn(put("a", "1")).await.expect("written");
        let follower = leader % 3 + 1;
        cluster.store(follower).barrier().await.expect("it follows");
        let raft_of = |id| cluster.store(id).inside().raft();
        let metrics = cluster.store(follower).inside().raft_metrics();
        let vote = metrics.vote;
        let ask = |of, votes| vouched_read_index(raft_of(of), MemberId(of), votes);
        let index = ask(leader, vec![(MemberId(follower), vote)]).await;
        assert!(index >= Some(written.revision.0), "each revision is an entry here");
        let other_term = Vote::new_committed(vote.leader_id.term + 1, leader);
        assert_eq!(ask(leader, vec![(MemberId(follower), other_term)]).await, None);
        let candidate = Vote::new(vote.leader_id.term, leader);
        assert_eq!(ask(leader, vec![(MemberId(follower), candidate)]).await, None);
        let there = ask(follower, vec![(MemberId(leader), vote)]).await;
        assert_eq!(there, None, "only a leader knows");
        assert_eq!(ask(leader, vec![]).await, None, "alone");
        cluster.shutdown().await;
    }

    #[test]
    fn a_leader_takes_nothing_of_which_it_would_leave_out_a_part() {
        assert_eq!(judge(true, 3, 3, || true), Refusal::Taken);
        assert_eq!(judge(true, 3, 3, || false), Refusal::Overloaded);
        assert_eq!(judge(true, 4, 3, || panic!("taken")), Refusal::Newer);
        assert_eq!(judge(false, 3, 3, || panic!("taken")), Refusal::NotLeader);
    }

    #[test]
    fn no_more_voters_are_asked_than_a_quorum_needs() {
        let voters = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let three = [voters(&[1, 2, 3])];
        assert_eq!(as_many_as_it_takes(&three, voters(&[1]), vec![3, 2]), (vec![3], vec![2]));
        assert_eq!(as_many_as_it_takes(&three, voters(&[1, 2]), vec![2, 3]), (vec![], vec![3]));
        let alone = [voters(&[1])];
        assert_eq!(as_many_as_it_takes(&alone, voters(&[1]), vec![1]), (vec![], vec![]));
        let joint = [voters(&[1, 2, 3]), voters(&[3, 4, 5])];
        let (first, rest) = as_many_as_it_takes(&joint, voters(&[1]), vec![2, 3, 4, 5]);
        assert_eq!((first, rest), (vec![2, 3, 4], vec![5]), "of both groups");
        let not_one = as_many_as_it_takes(&[voters(&[2, 3])], voters(&[1]), vec![2, 3]);
        assert_eq!(not_one, (vec![2, 3], vec![]), "a leader that is no voter");
    }

    #[test]
    fn two_members_are_most_of_three_voters_but_not_of_four() {
        let voters = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let two = &voters(&[1, 2]);
        assert!(is_quorum(&[voters(&[1, 2, 3])], two));
        assert!(is_quorum(&[voters(&[1, 2])], two));
        assert!(!is_quorum(&[voters(&[1, 2, 3, 4])], two));
        assert!(!is_quorum(&[voters(&[1, 3, 4])], two), "a learner's word counts for nothing");
        assert!(!is_quorum(&[voters(&[1, 2, 3])], &voters(&[1])), "alone");
        assert!(!is_quorum(&[voters(&[1, 2, 3]), voters(&[1, 2, 3, 4, 5])], two), "joint");
        assert!(!is_quorum(&[], two));
    }
}

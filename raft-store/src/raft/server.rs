//! The receiving side between members: gRPC calls into openraft, the leader's inbox and the
//! member's status. Only holders of a certificate of the peers' CA get here.

use super::{
    Raft, accept,
    connection::Http2,
    convert,
    machine::{Dirs, Snapshot, SnapshotMeta},
    read_index::ReadIndex,
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
    time::{Alarm, blocking},
    types::{MemberId, Term},
};
use futures::{Stream, StreamExt};
use openraft::async_runtime::WatchReceiver as _;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
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
    /// Ends all streams.
    pub(crate) stopping: CancellationToken,
    pub(crate) read_index: ReadIndex,
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
        let index = self.read_index.here(votes.into_iter().collect(), &Alarm::default()).await;
        Ok(Response::new(peer::ReadIndexResponse { index }))
    }

    async fn vouch(
        &self,
        _: Request<peer::VouchRequest>,
    ) -> Result<Response<peer::VouchResponse>, Status> {
        let vote = self.read_index.promises.given().vote.as_ref().map(convert::to_vote);
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

    #[test]
    fn a_leader_takes_nothing_of_which_it_would_leave_out_a_part() {
        assert_eq!(judge(true, 3, 3, || true), Refusal::Taken);
        assert_eq!(judge(true, 3, 3, || false), Refusal::Overloaded);
        assert_eq!(judge(true, 4, 3, || panic!("taken")), Refusal::Newer);
        assert_eq!(judge(false, 3, 3, || panic!("taken")), Refusal::NotLeader);
    }
}

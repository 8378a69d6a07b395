//! Wires between members: calls and streams that are late, lost, repeated, cut off, or that end
//! because the other side did. What they carry is what gRPC carries; the other end is the real one.

use super::{
    scheduler::{Node, Sleep, WORLD, now_ns, one_in, random, spawn_on},
    world::World,
};
use crate::{
    config::Peer,
    founding::{Doorkeeper, Introduce},
    raft::{
        server::Service,
        wire::{Answers, BadPeer, Dial, Wire},
    },
    time::timeout,
};
use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use rand::Rng;
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Interceptor};
use wire::peer::{self, peer_server::Peer as Door};

/// What is the matter with the network.
#[derive(Default)]
pub(super) struct Weather {
    /// Nothing gets from the first to the second.
    pub(super) cut: BTreeSet<(Node, Node)>,
    /// Of a hundred messages.
    pub(super) lost: u32,
    pub(super) slow: bool,
    pub(super) repeated: u32,
}

/// One stream's connection.
#[derive(Clone, Default)]
struct Connection {
    /// Who made it is no longer interested.
    over: CancellationToken,
    broken: CancellationToken,
}

/// What answers at a node's address.
#[derive(Clone)]
pub(super) struct Listening {
    pub(super) service: Arc<Service>,
    pub(super) door: Doorkeeper,
}

pub(super) fn address(node: Node) -> String {
    format!("node-{node}:2380")
}

fn node_at(address: &str) -> Option<Node> {
    address.strip_prefix("node-")?.strip_suffix(":2380")?.parse().ok()
}

/// Messages of a stream that are on their way.
const AHEAD: usize = 64;

impl World {
    fn is_cut(&self, from: Node, to: Node) -> bool {
        self.weather().cut.contains(&(from, to))
    }

    fn latency_ns(&self) -> u64 {
        let slow = self.weather().slow;
        let micros = random(|random| match slow && random.random_ratio(1, 4) {
            true => random.random_range(20_000..300_000),
            false => random.random_range(100..3_000),
        });
        micros * 1_000
    }

    /// One way; false: it never arrives.
    async fn hop(&self, from: Node, to: Node) -> bool {
        let lost = self.weather().lost;
        if self.is_cut(from, to) || random(|random| random.random_range(0..100)) < lost {
            return false;
        }
        Sleep::until_ns(now_ns() + self.latency_ns()).await;
        !self.is_cut(from, to)
    }

    /// What listens at the other end, after a connection was made. Silence is not waited for.
    async fn reach(&self, from: Node, to: Node) -> Result<Listening, Status> {
        let connecting = async {
            if !self.hop(from, to).await {
                std::future::pending::<()>().await;
            }
            match self.listening(to) {
                Some(listening) => Ok(listening),
                None if self.is_dark(to) => std::future::pending().await,
                None if self.hop(to, from).await => Err(Status::unavailable("connection refused")),
                None => std::future::pending().await,
            }
        };
        let connected = timeout(self.setup.timers.election_max, connecting).await;
        connected.unwrap_or_else(|_| Err(Status::unavailable("connect: no answer")))
    }

    /// Carries a stream in order until one end is gone, or the connection breaks.
    fn carry<T: Send + 'static>(
        self: &Arc<Self>,
        (from, to): (Node, Node),
        mut source: BoxStream<'static, T>,
        connection: &Connection,
    ) -> BoxStream<'static, Result<T, Status>> {
        let (sender, mut wire) = mpsc::channel::<(u64, T)>(AHEAD);
        let (deliver, receiver) = mpsc::channel(AHEAD);
        let Connection { over, broken } = connection.clone();
        let world = self.clone();
        spawn_on(from, async move {
            let sending = async {
                while let Some(item) = source.next().await {
                    let due = now_ns() + world.latency_ns();
                    if sender.send((due, item)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = over.cancelled() => {}
                () = sending => {}
            }
        });
        let world = self.clone();
        spawn_on(WORLD, async move {
            let carrying = async {
                while let Some((due, item)) = wire.recv().await {
                    Sleep::until_ns(due).await;
                    let lost = world.weather().lost;
                    if random(|random| random.random_range(0..100)) < lost {
                        // Sent again and again, until the connection is given up.
                        Sleep::ms(random(|random| random.random_range(50..800))).await;
                        if one_in(4) {
                            broken.cancel();
                        }
                    }
                    while world.is_cut(from, to) {
                        Sleep::ms(10).await;
                    }
                    if deliver.send(Ok(item)).await.is_err() {
                        return;
                    }
                }
                // Nobody there to say that it is over, until the machine is up again.
                while world.is_dark(from) && !deliver.is_closed() {
                    Sleep::ms(20).await;
                }
            };
            tokio::select! {
                biased;
                () = broken.cancelled() => {}
                () = carrying => return,
            }
            let _ = deliver.send(Err(Status::unavailable("connection reset"))).await;
        });
        ReceiverStream::new(receiver).boxed()
    }

    /// Both ends ask each other whether they are there, as HTTP/2 does; one that hears nothing
    /// for long gives the connection up.
    fn keep_alive(self: &Arc<Self>, (from, to): (Node, Node), connection: &Connection) {
        let (world, Connection { over, broken }) = (self.clone(), connection.clone());
        let patience = self.setup.timers.election_max.as_millis() as u64 * 4;
        spawn_on(WORLD, async move {
            let watching = async {
                let mut silent = 0;
                while silent < patience {
                    let step = patience / 8;
                    Sleep::ms(step).await;
                    let cut = world.is_cut(from, to) || world.is_cut(to, from);
                    let alone = cut || world.is_dark(to) || world.is_dark(from);
                    silent = if alone { silent + step } else { 0 };
                }
                broken.cancel();
            };
            tokio::select! {
                biased;
                () = over.cancelled() => {}
                () = watching => {}
            }
        });
    }
}

/// Dials from one node.
pub(super) struct Cable {
    pub(super) world: Arc<World>,
    pub(super) from: Node,
    pub(super) introduce: Introduce,
}

#[tonic::async_trait]
impl Dial for Cable {
    fn dial(&self, peer: &Peer) -> Result<Arc<dyn Wire>, BadPeer> {
        let to = node_at(&peer.peer_address).ok_or(BadPeer::Unknown(0))?;
        let (world, introduce) = (self.world.clone(), self.introduce.clone());
        Ok(Arc::new(Line { world, from: self.from, to, introduce }))
    }

    async fn refuses(&self, address: &str) -> bool {
        let Some(to) = node_at(address) else { return true };
        let refused = self.world.reach(self.from, to).await.map(|_| ());
        refused.is_err_and(|status| status.message() == "connection refused")
    }
}

struct Line {
    world: Arc<World>,
    from: Node,
    to: Node,
    introduce: Introduce,
}

type Answering<A> = BoxFuture<'static, Result<Response<A>, Status>>;

impl Line {
    /// The request as the other side's handlers get it.
    fn introduced<Q>(&self, door: &Doorkeeper, message: Q) -> Result<Request<Q>, Status> {
        let introduced = self.introduce.clone().call(Request::new(()))?;
        let (metadata, extensions, ()) = door.clone().call(introduced)?.into_parts();
        Ok(Request::from_parts(metadata, extensions, message))
    }

    async fn call<Q: Clone + Send + 'static, A: Send + 'static>(
        &self,
        message: Q,
        handle: impl Fn(Arc<Service>, Request<Q>) -> Answering<A> + Send + Sync,
    ) -> Result<A, Status> {
        let Listening { service, door } = self.world.reach(self.from, self.to).await?;
        let request = self.introduced(&door, message.clone())?;
        let (sender, answer) = oneshot::channel();
        let handling = handle(service.clone(), request);
        spawn_on(self.to, async move {
            let _ = sender.send(handling.await);
        });
        let repeated = self.world.weather().repeated;
        if random(|random| random.random_range(0..100)) < repeated {
            let again = handle(service, self.introduced(&door, message)?);
            spawn_on(self.to, async move {
                Sleep::ms(random(|random| random.random_range(1..80))).await;
                let _ = again.await;
            });
        }
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(_) if self.world.is_dark(self.to) => std::future::pending().await,
            Err(_) => return Err(Status::unavailable("connection reset")),
        };
        self.world.said_something(self.to);
        if !self.world.hop(self.to, self.from).await {
            std::future::pending::<()>().await;
        }
        answer.map(Response::into_inner)
    }

    /// A stream there and one back, the other end of which `serve` holds.
    async fn stream<Q: Send + 'static, A: Send + 'static>(
        &self,
        requests: BoxStream<'static, Q>,
        serve: impl FnOnce(Arc<Service>, BoxStream<'static, Result<Q, Status>>) -> Answers<A>
        + Send
        + 'static,
    ) -> Result<Answers<A>, Status> {
        let Listening { service, door } = self.world.reach(self.from, self.to).await?;
        self.introduced(&door, ())?;
        let connection = Connection::default();
        self.world.keep_alive((self.from, self.to), &connection);
        let up = self.world.carry((self.from, self.to), requests, &connection);
        let (sender, answers) = mpsc::channel(1);
        spawn_on(self.to, async move {
            let mut answers = serve(service, up);
            while let Some(answer) = answers.next().await {
                if sender.send(answer).await.is_err() {
                    return;
                }
            }
        });
        let answers = ReceiverStream::new(answers).boxed();
        let down = self.world.carry((self.to, self.from), answers, &connection);
        // Who asked has gone: nothing more is sent.
        let ended = connection.over.drop_guard();
        Ok(down.map(move |answer| (answer.flatten(), &ended).0).boxed())
    }
}

#[tonic::async_trait]
impl Wire for Line {
    async fn append(
        &self,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> Result<Answers<peer::AppendResponse>, Status> {
        self.stream(requests, |service, requests| service.take_appends(requests)).await
    }

    async fn forward(
        &self,
        requests: BoxStream<'static, peer::ForwardRequest>,
    ) -> Result<Answers<peer::ForwardResponse>, Status> {
        self.stream(requests, |service, requests| service.take_forwarded(requests)).await
    }

    async fn install_snapshot(
        &self,
        pieces: BoxStream<'static, peer::SnapshotPiece>,
    ) -> Result<peer::SnapshotResponse, Status> {
        let mut answers = self
            .stream(pieces, |service, pieces| {
                let installed = async move { service.take_snapshot(pieces).await };
                futures::stream::once(installed).boxed()
            })
            .await?;
        answers.next().await.unwrap_or_else(|| Err(Status::unavailable("connection closed")))
    }

    async fn heartbeat(
        &self,
        message: peer::AppendRequest,
    ) -> Result<peer::AppendResponse, Status> {
        self.call(message, |door, m| Box::pin(async move { door.heartbeat(m).await })).await
    }

    async fn vote(&self, message: peer::VoteRequest) -> Result<peer::VoteResponse, Status> {
        let call = self.call(message, |door, m| Box::pin(async move { door.vote(m).await }));
        let answer = call.await?;
        if answer.granted {
            self.world.voted(self.to, self.from);
        }
        Ok(answer)
    }

    async fn pre_vote(&self, message: peer::VoteRequest) -> Result<peer::VoteResponse, Status> {
        self.call(message, |door, m| Box::pin(async move { door.pre_vote(m).await })).await
    }

    async fn transfer_leader(
        &self,
        message: peer::TransferLeaderRequest,
    ) -> Result<peer::TransferLeaderResponse, Status> {
        self.call(message, |door, m| Box::pin(async move { door.transfer_leader(m).await })).await
    }

    async fn vouch(&self, message: peer::VouchRequest) -> Result<peer::VouchResponse, Status> {
        self.call(message, |door, m| Box::pin(async move { door.vouch(m).await })).await
    }

    async fn read_index(
        &self,
        message: peer::ReadIndexRequest,
    ) -> Result<peer::ReadIndexResponse, Status> {
        self.call(message, |door, m| Box::pin(async move { door.read_index(m).await })).await
    }

    async fn members(
        &self,
        message: peer::MembersRequest,
    ) -> Result<peer::MembersResponse, Status> {
        self.call(message, |door, m| Box::pin(async move { door.members(m).await })).await
    }

    async fn status(&self, message: peer::StatusRequest) -> Result<peer::StatusResponse, Status> {
        self.call(message, |door, m| Box::pin(async move { door.status(m).await })).await
    }

    async fn ask(&self, message: peer::AskRequest) -> Result<peer::AskResponse, Status> {
        self.call(message, |door, m| Box::pin(async move { door.ask(m).await })).await
    }
}

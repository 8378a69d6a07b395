//! The calls of one member to another as values: messages in, messages out. What carries them is
//! gRPC over mutual TLS; nothing above this file knows that.

use super::{accept::connector, unary::Unary};
use crate::{
    config::{Config, OwnTls, Peer, Timers, Tls},
    founding::Introduce,
};
use futures::{
    StreamExt,
    stream::{BoxStream, Stream},
};
use prost::Message;
use rustls::pki_types::ServerName;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::net::TcpStream;
use tonic::{
    Response, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use wire::peer::{self, peer_client::PeerClient};

/// A message is never larger: a transaction, or an append of about `READ_BYTES_MAX`.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// What comes back on a stream.
pub(crate) type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// One connection to one peer; it connects when first used and again after a failure. No call has a
/// deadline of its own.
#[tonic::async_trait]
pub(crate) trait Wire: Send + Sync {
    async fn append(
        &self,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> Result<Answers<peer::AppendResponse>, Status>;

    async fn forward(
        &self,
        requests: BoxStream<'static, peer::ForwardRequest>,
    ) -> Result<Answers<peer::ForwardResponse>, Status>;

    /// On a connection of its own.
    async fn install_snapshot(
        &self,
        pieces: BoxStream<'static, peer::SnapshotPiece>,
    ) -> Result<peer::SnapshotResponse, Status>;

    async fn heartbeat(&self, request: peer::AppendRequest)
    -> Result<peer::AppendResponse, Status>;

    async fn vote(&self, request: peer::VoteRequest) -> Result<peer::VoteResponse, Status>;

    async fn pre_vote(&self, request: peer::VoteRequest) -> Result<peer::VoteResponse, Status>;

    async fn transfer_leader(
        &self,
        request: peer::TransferLeaderRequest,
    ) -> Result<peer::TransferLeaderResponse, Status>;

    async fn read_index(
        &self,
        request: peer::ReadIndexRequest,
    ) -> Result<peer::ReadIndexResponse, Status>;

    async fn vouch(&self, request: peer::VouchRequest) -> Result<peer::VouchResponse, Status>;

    async fn members(&self, request: peer::MembersRequest)
    -> Result<peer::MembersResponse, Status>;

    async fn status(&self, request: peer::StatusRequest) -> Result<peer::StatusResponse, Status>;

    async fn ask(&self, request: peer::AskRequest) -> Result<peer::AskResponse, Status>;
}

/// No connection can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadPeer {
    #[error("peer {0}")]
    Address(String, #[source] tonic::transport::Error),
    #[error("no membership names member {0}")]
    Unknown(u64),
}

/// Makes connections.
#[tonic::async_trait]
pub(crate) trait Dial: Send + Sync {
    fn dial(&self, peer: &Peer) -> Result<Arc<dyn Wire>, BadPeer>;

    /// Grows when this member has something new to prove itself with: connections made before show the old.
    fn shown(&self) -> u64 {
        0
    }

    /// True if nobody listens at the address any more: its process has ended.
    async fn refuses(&self, address: &str) -> bool;
}

/// Dials with this member's certificate.
pub(crate) struct Grpc {
    tls: OwnTls,
    timers: Timers,
    introduce: Introduce,
}

impl Grpc {
    pub(crate) fn new(config: &Config, introduce: Introduce) -> Grpc {
        Grpc { tls: config.tls.clone(), timers: config.timers, introduce }
    }

    fn endpoint(&self, peer: &Peer) -> Result<Endpoint, tonic::transport::Error> {
        let shown = self.tls.current();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&shown.ca))
            .identity(Identity::from_pem(&shown.cert, &shown.key))
            .domain_name(&peer.name);
        let endpoint = Endpoint::from_shared(format!("https://{}", peer.peer_address))?
            .tls_config(tls)?
            .connect_timeout(self.timers.election_max)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(self.timers.election_max * 2)
            .keep_alive_timeout(self.timers.election_max * 2)
            .keep_alive_while_idle(true);
        Ok(endpoint)
    }
}

#[tonic::async_trait]
impl Dial for Grpc {
    fn shown(&self) -> u64 {
        self.tls.version()
    }

    fn dial(&self, peer: &Peer) -> Result<Arc<dyn Wire>, BadPeer> {
        let endpoint = self.endpoint(peer);
        let endpoint = endpoint.map_err(|error| BadPeer::Address(peer.to_string(), error))?;
        let introduce = self.introduce.clone();
        let quick = Quick {
            peer: peer.clone(),
            tls: self.tls.current(),
            timers: self.timers,
            introduce: introduce.clone(),
            open: tokio::sync::Mutex::default(),
        };
        let client = client(endpoint.connect_lazy(), introduce.clone());
        Ok(Arc::new(Connection { client, quick, endpoint, introduce }))
    }

    async fn refuses(&self, address: &str) -> bool {
        let dialled = TcpStream::connect(address).await;
        matches!(dialled, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// A connection for the calls that every read waits for.
struct Quick {
    peer: Peer,
    tls: Arc<Tls>,
    timers: Timers,
    introduce: Introduce,
    open: tokio::sync::Mutex<Option<Unary>>,
}

impl Quick {
    async fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, Status> {
        let unary = self.connected().await?;
        unary.call(method, self.introduce.headers()?, request).await
    }

    /// The open connection, or a new one if it cannot be used any more.
    async fn connected(&self) -> Result<Unary, Status> {
        let mut open = self.open.lock().await;
        if let Some(unary) = open.as_ref().filter(|unary| !unary.is_over()) {
            return Ok(unary.clone());
        }
        *open = None;
        let connecting = tokio::time::timeout(self.timers.election_max, self.connect()).await;
        let unary = connecting.map_err(|_| Status::unavailable("connect: no answer"))??;
        *open = Some(unary.clone());
        Ok(unary)
    }

    async fn connect(&self) -> Result<Unary, Status> {
        let failed = |error: io::Error| Status::unavailable(format!("connect: {error}"));
        let tcp = TcpStream::connect(&self.peer.peer_address).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let connector = connector(&self.tls).map_err(failed)?;
        let name = ServerName::try_from(self.peer.name.clone());
        let name = name.map_err(|error| failed(io::Error::other(error)))?;
        let io = connector.connect(name, tcp).await.map_err(failed)?;
        let origin = format!("https://{}", self.peer.peer_address);
        Unary::over(io, &origin, STREAM_WINDOW, self.timers.election_max * 2).await
    }
}

type Client = PeerClient<InterceptedService<Channel, Introduce>>;

struct Connection {
    client: Client,
    quick: Quick,
    endpoint: Endpoint,
    introduce: Introduce,
}

fn client(channel: Channel, introduce: Introduce) -> Client {
    PeerClient::with_interceptor(channel, introduce)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A stream by a name, which the compiler can follow through generated code.
struct Requests<T>(BoxStream<'static, T>);

impl<T> Stream for Requests<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_next_unpin(context)
    }
}

fn answers<T: Send + 'static>(response: Response<Streaming<T>>) -> Answers<T> {
    response.into_inner().boxed()
}

/// The same, as the receiving side gets them.
pub(crate) trait Incoming<T>:
    Stream<Item = Result<T, Status>> + Send + Unpin + 'static
{
}

impl<T, S: Stream<Item = Result<T, Status>> + Send + Unpin + 'static> Incoming<T> for S {}

#[tonic::async_trait]
impl Wire for Connection {
    async fn append(
        &self,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> Result<Answers<peer::AppendResponse>, Status> {
        self.client.clone().append(Requests(requests)).await.map(answers)
    }

    async fn forward(
        &self,
        requests: BoxStream<'static, peer::ForwardRequest>,
    ) -> Result<Answers<peer::ForwardResponse>, Status> {
        self.client.clone().forward(Requests(requests)).await.map(answers)
    }

    async fn install_snapshot(
        &self,
        pieces: BoxStream<'static, peer::SnapshotPiece>,
    ) -> Result<peer::SnapshotResponse, Status> {
        let connected = self.endpoint.connect().await;
        let channel = connected.map_err(|error| Status::from_error(error.into()))?;
        let mut own = client(channel, self.introduce.clone());
        own.install_snapshot(Requests(pieces)).await.map(Response::into_inner)
    }

    async fn heartbeat(
        &self,
        request: peer::AppendRequest,
    ) -> Result<peer::AppendResponse, Status> {
        self.client.clone().heartbeat(request).await.map(Response::into_inner)
    }

    async fn vote(&self, request: peer::VoteRequest) -> Result<peer::VoteResponse, Status> {
        self.client.clone().vote(request).await.map(Response::into_inner)
    }

    async fn pre_vote(&self, request: peer::VoteRequest) -> Result<peer::VoteResponse, Status> {
        self.client.clone().pre_vote(request).await.map(Response::into_inner)
    }

    async fn transfer_leader(
        &self,
        request: peer::TransferLeaderRequest,
    ) -> Result<peer::TransferLeaderResponse, Status> {
        self.client.clone().transfer_leader(request).await.map(Response::into_inner)
    }

    async fn read_index(
        &self,
        request: peer::ReadIndexRequest,
    ) -> Result<peer::ReadIndexResponse, Status> {
        self.quick.call("/coxswain.peer.v1.Peer/ReadIndex", &request).await
    }

    async fn vouch(&self, request: peer::VouchRequest) -> Result<peer::VouchResponse, Status> {
        self.quick.call("/coxswain.peer.v1.Peer/Vouch", &request).await
    }

    async fn members(
        &self,
        request: peer::MembersRequest,
    ) -> Result<peer::MembersResponse, Status> {
        self.client.clone().members(request).await.map(Response::into_inner)
    }

    async fn status(&self, request: peer::StatusRequest) -> Result<peer::StatusResponse, Status> {
        self.client.clone().status(request).await.map(Response::into_inner)
    }

    async fn ask(&self, request: peer::AskRequest) -> Result<peer::AskResponse, Status> {
        self.client.clone().ask(request).await.map(Response::into_inner)
    }
}

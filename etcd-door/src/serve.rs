//! The listener: without TLS on loopback only, otherwise for clients whose certificate carries the
//! role; and the chores that every member or the leader has.

use crate::{
    compaction,
    kv::Door as Services,
    lease,
    maintenance::About,
    proto::rpc::{
        cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
        maintenance_server::MaintenanceServer, watch_server::WatchServer,
    },
    unary::{self, MESSAGE_BYTES_MAX},
};
use futures::{
    Stream,
    stream::{BoxStream, StreamExt as _},
};
use http::{Request, Response};
use raft_store::{OwnTls, Store, connections};
use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::MissedTickBehavior,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    body::Body,
    service::Routes,
    transport::{
        Server,
        server::{Connected, TcpConnectInfo, TcpIncoming, TlsConnectInfo},
    },
};
use tower::{Service as _, service_fn};

/// The organization in the certificates of clients that may come in.
pub const ROLE: &str = "coxswain:etcd";
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// How often leases and compaction are looked at.
const TEND_EVERY: Duration = Duration::from_millis(500);

/// What the door needs.
pub struct Config {
    pub store: Store,
    /// Where to listen. Anything but loopback needs `tls`.
    pub listen: SocketAddr,
    /// The listener's certificate and the CA of clients; given, it is used on loopback too. Who connects
    /// after it was replaced is shown the newest.
    pub tls: Option<OwnTls>,
    /// Where the store keeps its files, to tell their size; `None` in memory.
    pub data_dir: Option<PathBuf>,
}

/// Why the door does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Give it certificates, or a loopback address.
    #[error("{0} is not loopback: etcd's API needs TLS there")]
    NeedsTls(SocketAddr),
    /// Correct the certificates.
    #[error("TLS of etcd's API")]
    Tls(#[source] io::Error),
    /// Choose another address.
    #[error("listen for etcd's API on {address}")]
    Listen { address: SocketAddr, source: io::Error },
}

/// A listener that is bound, and not yet served.
pub struct Door {
    incoming: Incoming,
    address: SocketAddr,
    store: Store,
    data_dir: Option<PathBuf>,
}

/// Who connects.
enum Incoming {
    Loopback(TcpIncoming),
    Tls(BoxStream<'static, io::Result<TlsStream<TcpStream>>>),
}

impl Door {
    /// Binds the address.
    pub async fn open(config: Config) -> Result<Door, OpenError> {
        let Config { store, listen, tls, data_dir } = config;
        if tls.is_none() && !listen.ip().is_loopback() {
            return Err(OpenError::NeedsTls(listen));
        }
        let failed = |source| OpenError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let incoming = match tls {
            // Without it an answer waits for the delayed acknowledgement of the one before: 40 ms.
            None => Incoming::Loopback(TcpIncoming::from(listener).with_nodelay(Some(true))),
            Some(tls) => Incoming::Tls(connections(listener, tls).map_err(OpenError::Tls)?.boxed()),
        };
        Ok(Door { incoming, address, store, data_dir })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; streams end with it.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), tonic::transport::Error> {
        let tls = matches!(self.incoming, Incoming::Tls(_));
        let scheme = if tls { "https" } else { "http" };
        let about =
            About { client_url: format!("{scheme}://{}", self.address), data_dir: self.data_dir };
        let door = Services::new(self.store, about, shutdown.child_token());
        tracing::info!(address = %self.address, tls, "serving etcd's API");
        let answers = async {
            match self.incoming {
                Incoming::Loopback(incoming) => answer_all(&door, tls, incoming, shutdown).await,
                Incoming::Tls(incoming) => answer_all(&door, tls, incoming, shutdown).await,
            }
        };
        tokio::select! {
            ended = answers => ended,
            () = tend(&door) => Ok(()),
        }
    }
}

async fn answer_all<IO>(
    door: &Services,
    tls: bool,
    incoming: impl Stream<Item = io::Result<IO>>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let kv = KvServer::new(door.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let services = Routes::new(kv)
        .add_service(WatchServer::new(door.clone()))
        .add_service(LeaseServer::new(door.clone()))
        .add_service(ClusterServer::new(door.clone()))
        .add_service(MaintenanceServer::new(door.clone()))
        .prepare();
    let inside = door.clone();
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .serve_with_incoming_shutdown(
            service_fn(move |request| answer(inside.clone(), services.clone(), tls, request)),
            incoming,
            shutdown.cancelled_owned(),
        )
        .await
}

/// Lets in whoever may come in. Without TLS the address is loopback: everybody on this machine may.
async fn answer(
    door: Services,
    mut services: Routes,
    tls: bool,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    if tls && !has_role(&request) {
        let detail = format!("etcd's API is for certificates of the organization {ROLE}");
        return Ok(Status::permission_denied(detail).into_http());
    }
    match unary::answer(&door, request).await {
        Ok(answer) => Ok(answer),
        Err(request) => services.call(request).await,
    }
}

/// The handshake has proved whose the certificate is.
fn has_role(request: &Request<Body>) -> bool {
    let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let certificates = connection.and_then(TlsConnectInfo::peer_certs);
    let Some(first) = certificates.as_deref().and_then(|it| it.first()) else { return false };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(first) else { return false };
    let mut organizations = certificate.subject().iter_organization();
    organizations.any(|name| name.as_str().is_ok_and(|name| name == ROLE))
}

/// For ever: ages of leases, and what the leader does about them.
async fn tend(door: &Services) {
    let mut tick = tokio::time::interval(TEND_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let leading = door.store().leadership().borrow().leading;
        lease::tend(door, leading).await;
        if leading.is_some() {
            compaction::tend(door.store()).await;
        }
    }
}

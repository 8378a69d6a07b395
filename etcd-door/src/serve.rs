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
use raft_store::{Http2, OwnTls, Store, connections};
use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::MissedTickBehavior,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, service::Routes, transport::server::TcpIncoming};
use tower::Service as _;

/// The organization in the certificates of clients that may come in.
pub const ROLE: &str = "coxswain:etcd";
const HTTP2: Http2 = Http2 {
    stream_window: 1 << 20,
    connection_window: 4 << 20,
    keep_alive: Duration::from_secs(10),
};
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
    /// Everybody on this machine may come in.
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
    pub async fn serve(self, shutdown: CancellationToken) {
        let tls = matches!(self.incoming, Incoming::Tls(_));
        let scheme = if tls { "https" } else { "http" };
        let about =
            About { client_url: format!("{scheme}://{}", self.address), data_dir: self.data_dir };
        let door = Services::new(self.store, about, shutdown.child_token());
        tracing::info!(address = %self.address, tls, "serving etcd's API");
        let answers = async {
            match self.incoming {
                Incoming::Loopback(incoming) => {
                    answer_all(&door, incoming, |_| true, shutdown).await;
                }
                Incoming::Tls(incoming) => answer_all(&door, incoming, has_role, shutdown).await,
            }
        };
        tokio::select! {
            () = answers => {}
            () = tend(&door) => {}
        }
    }
}

/// Meets everybody who connects, until `shutdown`, and then until all that was asked is answered.
async fn answer_all<IO>(
    door: &Services,
    incoming: impl Stream<Item = io::Result<IO>>,
    allowed: impl Fn(&IO) -> bool,
    shutdown: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let kv = KvServer::new(door.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let services = Routes::new(kv)
        .add_service(WatchServer::new(door.clone()))
        .add_service(LeaseServer::new(door.clone()))
        .add_service(ClusterServer::new(door.clone()))
        .add_service(MaintenanceServer::new(door.clone()))
        .prepare();
    let greet = |io: &IO| {
        let (allowed, door, services) = (allowed(io), door.clone(), services.clone());
        move |request| answer(door.clone(), services.clone(), allowed, request)
    };
    HTTP2.serve(incoming, greet, shutdown).await;
}

/// Lets in whoever may come in.
async fn answer(
    door: Services,
    mut services: Routes,
    allowed: bool,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Infallible> {
    if !allowed {
        let detail = format!("etcd's API is for certificates of the organization {ROLE}");
        return Ok(Status::permission_denied(detail).into_http());
    }
    match unary::answer(&door, request).await {
        Ok(answer) => Ok(answer),
        Err(request) => services.call(request.map(Body::new)).await,
    }
}

/// The handshake has proved whose the certificate is.
fn has_role(connection: &TlsStream<TcpStream>) -> bool {
    let certificates = connection.get_ref().1.peer_certificates();
    let Some(first) = certificates.and_then(|it| it.first()) else { return false };
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

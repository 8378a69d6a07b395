//! The edge: accepts connections, knows who is at the other end, and drains gracefully.

mod handler;
mod lists;
mod negotiate;
mod notes;
mod options;
mod render;
mod request_info;
mod stall;
mod transfer;
mod warnings;

pub(crate) use handler::{attributes, json, read_json};
pub(crate) use negotiate::{Format, Include, wants_aggregated};
pub(crate) use render::{bytes, object, partial};
pub(crate) use request_info::{RequestInfo, percent_decode};
pub(crate) use transfer::respond;

use crate::{Server, authn, identity::Identity, pipeline::Core};
use bytes::Bytes;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use stall::Stall;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Also bounds how long an HTTP/1 connection may idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// Pings, so that a client whose machine died is noticed (upstream: 30 s).
const PING_EVERY: Duration = Duration::from_secs(30);
/// kube-apiserver's --http2-max-streams-per-connection.
const STREAMS_MAX: u32 = 1000;
/// How long requests under way may take once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// After an accept failed (out of descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// What a request knows of the connection it came by.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Whom the client certificate names; anonymous without one.
    pub(crate) identity: Arc<Identity>,
    /// True if it came with a certificate that names somebody.
    pub(crate) certified: bool,
    /// True if its headers say whose requests it brings.
    pub(crate) front_proxy: bool,
    pub(crate) peer: SocketAddr,
    /// Set by streams that may rightly pause for long (exec, logs).
    pub(crate) may_pause: Arc<AtomicBool>,
    /// Cancelled when the server drains: long-running requests end then.
    pub(crate) draining: CancellationToken,
    /// Cancelled with it, and when this master is cut off from the others: watches would show nothing more.
    pub(crate) stale: CancellationToken,
}

impl Server {
    /// Serves HTTPS until `shutdown`, then lets requests under way finish for a few seconds.
    ///
    /// Identity is the client certificate's (CN is the user, O the groups) as far as `tls` verifies
    /// one; a client without one is `system:anonymous`. Who connects is shown what `tls` is then.
    pub async fn serve(
        &self,
        listener: TcpListener,
        mut tls: watch::Receiver<Arc<rustls::ServerConfig>>,
        shutdown: CancellationToken,
    ) {
        let mut acceptor = TlsAcceptor::from(with_alpn(tls.borrow_and_update().clone()));
        let mut connections = JoinSet::new();
        let mut stale = shutdown.child_token();
        let mut cut_off = std::pin::pin!(self.core.heartbeats.cut_off());
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((tcp, peer)) => {
                        // Its source may be gone: then it stays as it is.
                        if tls.has_changed().unwrap_or(false) {
                            let newest = tls.borrow_and_update().clone();
                            acceptor = TlsAcceptor::from(with_alpn(newest));
                        }
                        let (core, acceptor) = (self.core.clone(), acceptor.clone());
                        let ends = (shutdown.clone(), stale.clone());
                        connections.spawn(connection(core, acceptor, tcp, peer, ends));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                () = &mut cut_off => {
                    let open = connections.len();
                    tracing::warn!(open, "no contact with a quorum: watches end here, clients may go elsewhere");
                    stale.cancel();
                    stale = shutdown.child_token();
                    cut_off.set(self.core.heartbeats.cut_off());
                }
                () = shutdown.cancelled() => break,
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::info!(open = connections.len(), "closing connections that did not end");
            connections.shutdown().await;
        }
    }
}

fn with_alpn(tls: Arc<rustls::ServerConfig>) -> Arc<rustls::ServerConfig> {
    if !tls.alpn_protocols.is_empty() {
        return tls;
    }
    let mut tls = (*tls).clone();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(tls)
}

async fn connection(
    core: Arc<Core>,
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    peer: SocketAddr,
    (draining, stale): (CancellationToken, CancellationToken),
) {
    // Small frames (watch events) must not wait for an acknowledgement.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, %peer, "no TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, %peer, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake timed out"),
    };
    let may_pause = Arc::new(AtomicBool::new(false));
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let believed = core.config.believed.now();
    let front_proxy = believed.front_proxy.as_ref().is_some_and(|proxies| proxies.is_proxy(chain));
    // A proxy is nobody itself.
    let own = chain.first().filter(|_| !front_proxy);
    let own = own.and_then(|der| authn::certificate::identity(der));
    let connection = Connection {
        certified: own.is_some(),
        identity: Arc::new(own.unwrap_or_else(Identity::anonymous)),
        front_proxy,
        peer,
        may_pause: may_pause.clone(),
        draining,
        stale,
    };
    serve_connection(core, Stall::new(stream, may_pause), connection).await;
}

async fn serve_connection(
    core: Arc<Core>,
    stream: Stall<TlsStream<TcpStream>>,
    connection: Connection,
) {
    let (peer, stale) = (connection.peer, connection.stale.clone());
    let leave = Arc::new(Notify::new());
    let sends_away = leave.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (core, connection) = (core.clone(), connection.clone());
        // HTTP/1 clients open connections often enough to find other masters.
        let chance = core.config.goaway_chance;
        if request.version() == http::Version::HTTP_2 && chance > 0.0 && rand::random_bool(chance) {
            sends_away.notify_one();
        }
        async move {
            let response: Response<Body> = handler::handle(core, connection, request).await;
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .max_concurrent_streams(STREAMS_MAX);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut told = false;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, %peer, "connection ended");
                }
                return;
            }
            () = async { tokio::select! {
                () = stale.cancelled() => {}
                () = leave.notified() => {}
            }}, if !told => {
                told = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

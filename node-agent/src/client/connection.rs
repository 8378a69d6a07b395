//! One HTTP/2 connection over mutual TLS to one master; pings notice a peer that went silent.

use super::{Timings, select::Endpoint};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::{future::Future, sync::Arc};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

/// What a stream may hold unread; lists are megabytes and should not wait for window updates.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A live connection; clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) endpoint: Endpoint,
    pub(super) requests: SendRequest<Full<Bytes>>,
    /// Cancelled when the connection ended; cancelling it ends the connection and all its streams.
    pub(super) gone: CancellationToken,
}

impl Connection {
    pub(super) fn is_usable(&self) -> bool {
        !self.gone.is_cancelled() && !self.requests.is_closed()
    }
}

/// Dials `endpoint`. The second value drives the connection and must be spawned; it ends with it.
pub(super) async fn dial(
    endpoint: &Endpoint,
    server_name: Option<&str>,
    tls: Arc<rustls::ClientConfig>,
    timings: &Timings,
) -> Result<(Connection, impl Future<Output = ()> + Send + use<>), String> {
    let name = ServerName::try_from(server_name.unwrap_or(&endpoint.host).to_string())
        .map_err(|error| format!("{endpoint}: {error}"))?;
    let shaken = async {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        stream.set_nodelay(true)?;
        tokio_rustls::TlsConnector::from(tls).connect(name, stream).await
    };
    let stream = timeout(timings.connect, shaken)
        .await
        .map_err(|_| format!("dial {endpoint}: timed out"))?
        .map_err(|error| format!("dial {endpoint}: {error}"))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(format!("dial {endpoint}: the server does not speak HTTP/2"));
    }
    let handshake = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(timings.ping_interval)
        .keep_alive_timeout(timings.ping_timeout)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream));
    let (requests, driver) = timeout(timings.connect, handshake)
        .await
        .map_err(|_| format!("dial {endpoint}: timed out"))?
        .map_err(|error| format!("dial {endpoint}: {error}"))?;
    let gone = CancellationToken::new();
    let connection = Connection { endpoint: endpoint.clone(), requests, gone: gone.clone() };
    let drive = async move {
        tokio::select! {
            ended = driver => if let Err(error) = ended {
                tracing::debug!(%error, "connection to a master ended");
            },
            () = gone.cancelled() => {}
        }
        gone.cancel();
    };
    Ok((connection, drive))
}

//! One HTTP request at a time to somebody outside (an identity provider, an authorization webhook):
//! bounded in time and in what is read, verified by the authority that was named.

use crate::backend::roots;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

/// More of an answer is not read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How to reach one of them.
#[derive(Clone)]
pub(crate) struct Outbound {
    tls: Arc<ClientConfig>,
    /// For the whole of a request.
    timeout: Duration,
}

/// Why there is no answer; the text is for logs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Setup(String),
    #[error("cannot reach {0}: {1}")]
    Unreachable(String, String),
    #[error("no answer from {0} in time")]
    Timeout(String),
}

impl Outbound {
    /// Trusts the authorities in `ca_pem`; shows `own` (certificates and key as PEM), if any.
    pub(crate) fn new(
        ca_pem: &[u8],
        own: Option<(&[u8], &[u8])>,
        timeout: Duration,
    ) -> Result<Outbound, Error> {
        let setup = |error: &dyn std::fmt::Display| Error::Setup(error.to_string());
        let roots = roots(ca_pem).map_err(Error::Setup)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| setup(&error))?
            .with_root_certificates(roots);
        let tls = match own {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => {
                let certificates: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(certificates).collect();
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| setup(&error))?;
                builder
                    .with_client_auth_cert(certificates.map_err(|error| setup(&error))?, key)
                    .map_err(|error| setup(&error))?
            }
        };
        Ok(Outbound { tls: Arc::new(tls), timeout })
    }

    /// Sends one request and reads its answer whole.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Error> {
        let place = url.host_str().unwrap_or_default().to_string();
        match tokio::time::timeout(self.timeout, self.exchange(method, url, headers, body)).await {
            Ok(answer) => answer.map_err(|why| Error::Unreachable(place, why)),
            Err(_) => Err(Error::Timeout(place)),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), String> {
        let host = url.host_str().ok_or("a URL without a host")?;
        let port = url.port_or_known_default().ok_or("a URL without a port")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let tcp = TcpStream::connect((bare.as_str(), port)).await.map_err(|e| e.to_string())?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_string(),
        };
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let request = request
            .header(header::HOST, format!("{host}:{port}"))
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        if url.scheme() == "http" {
            return talk(tcp, request).await;
        }
        let name = ServerName::try_from(bare).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(self.tls.clone());
        talk(connector.connect(name, tcp).await.map_err(|error| error.to_string())?, request).await
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with this request.
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
}

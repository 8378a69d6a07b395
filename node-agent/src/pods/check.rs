//! One look at a container, for probes and hooks: HTTP, TCP, gRPC or a command inside. Runs in the
//! node's own network namespace.

use crate::runtime::{ExecSpec, Runtime};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::{
    api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
};

/// What of an answer or an output is kept for messages.
const OUTPUT_BYTES_MAX: u64 = 10 * 1024;

/// Whom to look at.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) pod_uid: String,
    pub(crate) container_id: String,
    /// The pod's address; the node's with `hostNetwork`.
    pub(crate) ip: String,
    pub(crate) container: Arc<Container>,
}

impl Target {
    /// The error text is for an event.
    pub(crate) async fn exec(&self, action: &ExecAction) -> Result<(), String> {
        let spec = ExecSpec {
            command: action.command.clone().unwrap_or_default(),
            stdout: true,
            stderr: true,
            ..ExecSpec::default()
        };
        let started = self.runtime.exec(&self.pod_uid, &self.container_id, &spec).await;
        let mut session = started.map_err(|error| error.text())?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let read = async |stream: Option<Box<dyn AsyncRead + Send + Unpin>>, to: &mut Vec<u8>| {
            if let Some(mut stream) = stream {
                let _ = (&mut stream).take(OUTPUT_BYTES_MAX).read_to_end(to).await;
                // The process may not block on what nobody keeps.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        };
        let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
        tokio::join!(read(stdout, &mut out), read(stderr, &mut err));
        let Some(exited) = session.exited.take() else { return Err("no exit".to_string()) };
        match exited.wait().await {
            Ok(0) => Ok(()),
            Ok(_) => {
                out.extend(err);
                Err(String::from_utf8_lossy(&out).trim_end().to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) async fn http(&self, action: &HTTPGetAction) -> Result<(), String> {
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.ip);
        let port = self.port(&action.port)?;
        let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        let secure = action.scheme.as_deref() == Some("HTTPS");
        let scheme = if secure { "https" } else { "http" };
        let url = format!("{scheme}://{host}:{port}{path}");
        let failed = |why: String| format!("Get {url:?}: {why}");
        let mut request = http::Request::get(&path).header("User-Agent", "kube-probe/1.36");
        let mut named_host = false;
        for header in action.http_headers.iter().flatten() {
            named_host |= header.name.eq_ignore_ascii_case("host");
            request = request.header(&header.name, &header.value);
        }
        if !named_host {
            request = request.header("Host", format!("{host}:{port}"));
        }
        let request = request
            .header("Accept", "*/*")
            .header("Connection", "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(error.to_string()))?;
        let stream = connect(host, port).await.map_err(failed)?;
        let status = if secure {
            let stream = tls(stream, host).await.map_err(failed)?;
            status_of(stream, request).await
        } else {
            status_of(stream, request).await
        };
        match status.map_err(failed)? {
            200..400 => Ok(()),
            code => Err(format!("HTTP probe failed with statuscode: {code}")),
        }
    }

    pub(crate) async fn tcp(&self, action: &TCPSocketAction) -> Result<(), String> {
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.ip);
        connect(host, self.port(&action.port)?).await.map(drop)
    }

    /// `grpc.health.v1.Health/Check`; the two messages are small enough to write by hand.
    pub(crate) async fn grpc(&self, action: &GRPCAction) -> Result<(), String> {
        let port = u16::try_from(action.port).map_err(|error| error.to_string())?;
        let stream = connect(&self.ip, port).await?;
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| text(&error))?;
        let _driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = connection.await;
        }));
        let service = action.service.as_deref().unwrap_or_default().as_bytes();
        let mut message = Vec::new();
        if !service.is_empty() {
            message.extend([0x0a, u8::try_from(service.len()).map_err(|error| text(&error))?]);
            message.extend(service);
        }
        let mut frame = vec![0];
        frame.extend((message.len() as u32).to_be_bytes());
        frame.extend(message);
        let url = format!("http://{}:{port}/grpc.health.v1.Health/Check", self.ip);
        let request = http::Request::post(url)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(frame)))
            .map_err(|error| text(&error))?;
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let body = Limited::new(response.into_body(), OUTPUT_BYTES_MAX as usize);
        let body = body.collect().await.map_err(|error| text(&error))?.to_bytes();
        // Frame header, then field 1 (status) with the value SERVING.
        match body.get(5..7) {
            Some([0x08, 1]) => Ok(()),
            Some([0x08, status]) => Err(format!("service unhealthy (responded with {status})")),
            _ => Err("service unhealthy (no status)".to_string()),
        }
    }

    /// Numbers, or the name of one of the container's ports.
    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        match port {
            IntOrString::Int(number) => {
                u16::try_from(*number).map_err(|_| format!("invalid port number: {number}"))
            }
            IntOrString::String(name) => {
                if let Ok(number) = name.parse() {
                    return Ok(number);
                }
                let ports = self.container.ports.iter().flatten();
                ports
                    .filter(|port| port.name.as_deref() == Some(name))
                    .find_map(|port| u16::try_from(port.container_port).ok())
                    .ok_or_else(|| format!("couldn't find port: {name}"))
            }
        }
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let connected = TcpStream::connect((host, port)).await;
    connected.map_err(|error| format!("dial tcp {host}:{port}: connect: {}", plain(&error)))
}

/// Without the number in parentheses, as other systems print it.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

async fn status_of<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let _driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok(response.status().as_u16())
}

/// Probes verify no certificate, as upstream's do not: they ask whether somebody answers.
async fn tls(
    stream: TcpStream,
    host: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(host.to_string())
        .map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}

#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

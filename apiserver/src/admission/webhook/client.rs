//! Calls to webhooks: HTTPS over connections that are kept and bounded in number. A service is
//! reached at one of its endpoints, through the node that it is on: a master has no cluster DNS and
//! no route to pods.

use super::config::{At, Server};
use crate::backend::{self, Io, Ways, service};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use k8s::Status;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_util::task::AbortOnDropHandle;

/// Calls of one webhook server under way at once; further ones wait within their time.
// A webhook that takes 10 ms serves 6,400 requests a second with these.
const CALLS_MAX: usize = 64;
/// Connections kept for the next call, and for how long.
const IDLE_MAX: usize = 16;
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Servers remembered at once; those that nobody calls are forgotten first.
const SERVERS_MAX: usize = 256;
/// Largest answer that is read (upstream's limit of responses is 3 MiB of patch and then some).
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Where machines keep what they trust, for webhooks without a `caBundle`.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Everybody who is called.
pub(crate) struct Clients {
    ways: Ways,
    pools: Mutex<HashMap<Server, Arc<Pool>>>,
}

struct Pool {
    server: Server,
    tls: Arc<ClientConfig>,
    calls: Arc<Semaphore>,
    idle: Mutex<Vec<(Link, Instant)>>,
}

struct Link {
    sender: SendRequest<Full<Bytes>>,
    _task: AbortOnDropHandle<()>,
}

/// Why there is no answer: what is said of it, and the code that metrics count it under.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) why: String,
    pub(super) code: u16,
}

impl Failed {
    pub(super) fn new(why: impl Into<String>) -> Failed {
        Failed { why: why.into(), code: 503 }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    pub(crate) fn new(ways: Ways) -> Clients {
        Clients { ways, pools: Mutex::default() }
    }

    /// Posts a review and returns the body of the answer, within `timeout`.
    pub(crate) async fn post(
        &self,
        server: &Server,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, Failed> {
        let url = format!("{}?timeout={}s", server.url(), timeout.as_secs());
        let named = |why: String| format!("Post {url:?}: {why}");
        let pool = self.pool(server).map_err(|why| Failed::new(named(why)))?;
        let call = async {
            let Ok(_permit) = pool.calls.clone().acquire_owned().await else {
                return Err(Failed::new("the server is stopping"));
            };
            pool.call(&self.ways, &body, timeout).await
        };
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(bytes)) => Ok(bytes),
            // An answer of its own speaks for itself.
            Ok(Err(failed)) if failed.code != 503 => Err(failed),
            Ok(Err(failed)) => Err(Failed::new(named(failed.why))),
            Err(_) => Err(Failed::new(named("context deadline exceeded".into()))),
        }
    }

    fn pool(&self, server: &Server) -> Result<Arc<Pool>, String> {
        let mut pools = locked(&self.pools);
        if let Some(pool) = pools.get(server) {
            return Ok(pool.clone());
        }
        if pools.len() >= SERVERS_MAX {
            pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        }
        let pool = Arc::new(Pool {
            server: server.clone(),
            tls: tls(&server.ca)?,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            idle: Mutex::default(),
        });
        pools.insert(server.clone(), pool.clone());
        Ok(pool)
    }
}

fn tls(ca: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = backend::roots(ca).map_err(|error| format!("caBundle: {error}"))?;
    if ca.is_empty() {
        let system = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok());
        let certificates = system.unwrap_or_default();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&certificates).flatten());
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Pool {
    async fn call(&self, ways: &Ways, body: &Bytes, timeout: Duration) -> Result<Bytes, Failed> {
        // A kept connection may have been closed meanwhile; a new one has not.
        while let Some(mut link) = self.kept() {
            if link.sender.ready().await.is_err() {
                continue;
            }
            match link.sender.try_send_request(self.request(body, timeout)?).await {
                Ok(response) => return self.read(link, response).await,
                Err(mut error) => match error.take_message() {
                    // It was not sent: the next connection may be better.
                    Some(_) => continue,
                    None => return Err(Failed::new(error.into_error().to_string())),
                },
            }
        }
        let mut link = self.dial(ways).await?;
        let response = link.sender.send_request(self.request(body, timeout)?).await;
        let response = response.map_err(|error| Failed::new(error.to_string()))?;
        self.read(link, response).await
    }

    fn kept(&self) -> Option<Link> {
        let mut idle = locked(&self.idle);
        idle.retain(|(link, since)| since.elapsed() < IDLE_TIME && !link.sender.is_closed());
        idle.pop().map(|(link, _)| link)
    }

    fn request(&self, body: &Bytes, timeout: Duration) -> Result<Request<Full<Bytes>>, Failed> {
        let server = &self.server;
        let host = match server.at.host() {
            host if host.contains(':') => format!("[{host}]:{}", server.at.port()),
            host => format!("{host}:{}", server.at.port()),
        };
        let path = if server.path.is_empty() { "/" } else { &server.path };
        Request::builder()
            .method(Method::POST)
            .uri(format!("{path}?timeout={}s", timeout.as_secs()))
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(body.clone()))
            .map_err(|error| Failed::new(error.to_string()))
    }

    async fn read(
        &self,
        link: Link,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Bytes, Failed> {
        let code = response.status();
        let collected = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = collected.map_err(|error| Failed::new(error.to_string()))?.to_bytes();
        let mut idle = locked(&self.idle);
        if idle.len() < IDLE_MAX && !link.sender.is_closed() {
            idle.push((link, Instant::now()));
        }
        drop(idle);
        if code.is_success() { Ok(bytes) } else { Err(answered(code, &bytes)) }
    }

    async fn dial(&self, ways: &Ways) -> Result<Link, Failed> {
        let io = self.reach(ways).await?;
        let host = self.server.at.host();
        let name = ServerName::try_from(host).map_err(|error| Failed::new(error.to_string()))?;
        let io = backend::secure(io, self.tls.clone(), name).await;
        let io = io.map_err(|status| Failed::new(format!("tls: {}", plain(&status))))?;
        let handshake = http1::handshake::<_, Full<Bytes>>(TokioIo::new(io)).await;
        let (sender, connection) = handshake.map_err(|error| Failed::new(error.to_string()))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a webhook ended");
            }
        });
        Ok(Link { sender, _task: AbortOnDropHandle::new(task) })
    }

    /// A connection to where the server is.
    async fn reach(&self, ways: &Ways) -> Result<Io, Failed> {
        let (host, port) = match &self.server.at {
            At::Url { host, port } => (host.clone(), *port),
            At::Service { namespace, name, port } => {
                let service = ways.view.object("services", &format!("{namespace}/{name}"));
                let external = service.filter(|it| it.str_at("/spec/type") == "ExternalName");
                let Some(external) = external else {
                    return of_service(ways, namespace, name, *port).await;
                };
                (external.str_at("/spec/externalName").to_string(), *port)
            }
        };
        let tcp = TcpStream::connect((host, port)).await;
        let tcp = tcp.map_err(|error| Failed::new(format!("dial tcp: {error}")))?;
        tcp.set_nodelay(true).map_err(|error| Failed::new(error.to_string()))?;
        Ok(Box::new(tcp))
    }
}

/// A connection to one of the pods behind a service.
async fn of_service(ways: &Ways, namespace: &str, name: &str, port: u16) -> Result<Io, Failed> {
    let reached = async {
        let found = service::endpoint(&*ways.view, namespace, name, &port.to_string())?;
        backend::dial_pod(ways, found.node.as_deref(), found.address).await
    };
    reached.await.map_err(|status| Failed::new(plain(&status)))
}

/// What went wrong, without what proxies say first.
fn plain(status: &Status) -> &str {
    let text = status.message.as_str();
    text.strip_prefix("error trying to reach service: ").unwrap_or(text)
}

/// An answer that is no success, told as client-go tells it.
fn answered(code: StatusCode, body: &[u8]) -> Failed {
    let why = match code {
        StatusCode::NOT_FOUND => "the server could not find the requested resource".to_string(),
        code if code.is_server_error() => {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
            let said = if text.is_empty() { "unknown" } else { &text };
            format!("an error on the server ({said:?}) has prevented the request from succeeding")
        }
        code => format!("the server rejected our request for an unknown reason ({code})"),
    };
    // 503 means that there was no answer.
    let code = if code == StatusCode::SERVICE_UNAVAILABLE { 500 } else { code.as_u16() };
    Failed { why, code }
}

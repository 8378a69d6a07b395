//! Calls to webhooks: HTTPS over connections that are kept and bounded in number. A service is
//! reached at one of its endpoints, for a master has no cluster DNS and need not have a service proxy.

use super::config::{At, Server};
use crate::{memo, view::View};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use k8s::Object;
use rand::Rng;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_rustls::TlsConnector;
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
pub(in crate::admission) struct Clients {
    view: Arc<dyn View>,
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
pub(super) struct Failed {
    pub(super) why: String,
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
    pub(in crate::admission) fn new(view: Arc<dyn View>) -> Clients {
        Clients { view, pools: Mutex::default() }
    }

    /// Posts a review and returns the body of the answer, within `timeout`.
    pub(super) async fn post(
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
            pool.call(&*self.view, &body, timeout).await
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
    let mut roots = RootCertStore::empty();
    if ca.is_empty() {
        let system = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok());
        let certificates = system.unwrap_or_default();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&certificates).flatten());
    }
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|error| format!("caBundle: {error}"))?;
        roots.add(certificate).map_err(|error| format!("caBundle: {error}"))?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Pool {
    async fn call(
        &self,
        view: &dyn View,
        body: &Bytes,
        timeout: Duration,
    ) -> Result<Bytes, Failed> {
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
        let mut link = self.dial(view).await?;
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

    async fn dial(&self, view: &dyn View) -> Result<Link, Failed> {
        let failed = |error: &dyn std::fmt::Display| Failed::new(error.to_string());
        let port = self.server.at.port();
        let tcp = match &self.server.at {
            At::Url { host, port } => TcpStream::connect((host.as_str(), *port)).await,
            At::Service { namespace, name, .. } => {
                let address = endpoint(view, namespace, name, port).map_err(Failed::new)?;
                match address {
                    Endpoint::Address(ip, port) => TcpStream::connect((ip, port)).await,
                    Endpoint::Name(host) => TcpStream::connect((host.as_str(), port)).await,
                }
            }
        };
        let tcp = tcp.map_err(|error| Failed::new(format!("dial tcp: {error}")))?;
        tcp.set_nodelay(true).map_err(|error| failed(&error))?;
        let host = self.server.at.host();
        let name = ServerName::try_from(host).map_err(|error| failed(&error))?;
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await;
        let tls = tls.map_err(|error| Failed::new(format!("tls: {error}")))?;
        let handshake = http1::handshake::<_, Full<Bytes>>(TokioIo::new(tls)).await;
        let (sender, connection) = handshake.map_err(|error| failed(&error))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a webhook ended");
            }
        });
        Ok(Link { sender, _task: AbortOnDropHandle::new(task) })
    }
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

enum Endpoint {
    Address(IpAddr, u16),
    /// Of a service that only stands for another name.
    Name(String),
}

/// One of the ready endpoints of a service, for its port number `port`.
fn endpoint(view: &dyn View, namespace: &str, name: &str, port: u16) -> Result<Endpoint, String> {
    let service = view.object("services", &format!("{namespace}/{name}"));
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
    if service.str_at("/spec/type") == "ExternalName" {
        return Ok(Endpoint::Name(service.str_at("/spec/externalName").to_string()));
    }
    let ports = service.at("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let mut ports = ports.filter(|one| one["port"].as_u64() == Some(u64::from(port)));
    let wanted =
        ports.next().ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = wanted.get("name").and_then(Value::as_str).unwrap_or_default();
    let slices = view.range("discovery.k8s.io/endpointslices", &format!("{namespace}/"));
    let mut found = Vec::new();
    for stored in &slices {
        let slice = memo::object(stored);
        if slice.label("kubernetes.io/service-name") == Some(name) {
            of_slice(&slice, port_name, &mut found);
        }
    }
    if found.is_empty() {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    let (ip, port) = found[rand::rng().random_range(0..found.len())];
    Ok(Endpoint::Address(ip, port))
}

fn of_slice(slice: &Object, port_name: &str, found: &mut Vec<(IpAddr, u16)>) {
    let list = |field: &str| slice.0.get(field).and_then(Value::as_array).into_iter().flatten();
    let port = list("ports")
        .find(|port| port.get("name").and_then(Value::as_str).unwrap_or_default() == port_name);
    let number = port.and_then(|port| u16::try_from(port.get("port")?.as_u64()?).ok());
    let Some(number) = number else { return };
    let ready =
        |endpoint: &&Value| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
    for endpoint in list("endpoints").filter(ready) {
        let addresses = endpoint.get("addresses").and_then(Value::as_array).into_iter().flatten();
        let ips = addresses.filter_map(|address| address.as_str()?.parse().ok());
        found.extend(ips.map(|ip| (ip, number)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::testing::World;
    use serde_json::json;

    fn world() -> World {
        let mut world = World::default();
        let meta = |name: &str| json!({ "name": name, "namespace": "n" });
        let ports = json!([{ "name": "https", "port": 443, "targetPort": 8443 }]);
        let spec = json!({ "type": "ClusterIP", "ports": ports });
        world.put("services", json!({ "metadata": meta("hook"), "spec": spec }));
        world.put("services", json!({ "metadata": meta("idle"), "spec": spec }));
        let other = json!({ "type": "ExternalName", "externalName": "hooks.example.com" });
        world.put("services", json!({ "metadata": meta("other"), "spec": other }));
        let mut slice = json!({
            "metadata": meta("hook-1"),
            "ports": [{ "name": "metrics", "port": 9090 }, { "name": "https", "port": 8443 }],
            "endpoints": [
                { "addresses": ["10.0.0.1"], "conditions": { "ready": false } },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": true } },
            ],
        });
        slice["metadata"]["labels"] = json!({ "kubernetes.io/service-name": "hook" });
        world.put("discovery.k8s.io/endpointslices", slice);
        world
    }

    #[test]
    fn a_service_is_reached_at_a_ready_endpoint() {
        let text = |name: &str, port: u16| match endpoint(&world(), "n", name, port) {
            Ok(Endpoint::Address(ip, port)) => format!("{ip}:{port}"),
            Ok(Endpoint::Name(name)) => name,
            Err(why) => why,
        };
        let found = [
            text("hook", 443),
            text("hook", 80),
            text("idle", 443),
            text("other", 443),
            text("none", 443),
        ];
        insta::assert_snapshot!(found.join("\n"));
    }
}

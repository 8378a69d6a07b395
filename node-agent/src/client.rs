//! The API over HTTPS with several masters: it sticks to a healthy one, moves when that fails, and
//! resumes watches where they were. The same trait as the server in process.

mod connection;
mod http;
mod kubeconfig;
mod select;
#[cfg(test)]
mod tests;
mod watch;

pub use kubeconfig::SERVERS_EXTENSION;
pub use select::Endpoint;

use crate::{
    authority::Authorities,
    credentials::{self, Newest, certified, roots},
};
use ::http::{Method, StatusCode, header};
use bytes::Bytes;
use connection::Connection;
use futures::{StreamExt, future::BoxFuture};
use http_body_util::{BodyExt, Full};
use hyper::{Response, body::Incoming};
use k8s::{Api, Events, Object, Request, Resource, Status, WatchEvent, WatchRequest};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use select::{Choice, Selection};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};

const ENDPOINT_SLICES: Resource = Resource::new("discovery.k8s.io", "v1", "endpointslices");
/// A connection is given up, and its watches with it, after this many failed requests in a row:
/// one may be the request's fault, two are the master's.
const FAILURES_TO_LEAVE: u32 = 2;

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no master is named")]
    NoMaster,
    #[error("master {0}")]
    Endpoint(String),
    #[error("certificates")]
    Certificates(#[from] credentials::Error),
    #[error("TLS")]
    Tls(#[from] rustls::Error),
    #[error("{path}: {why}")]
    Kubeconfig { path: PathBuf, why: String },
}

/// How long a client waits for what.
#[derive(Clone, Debug)]
pub struct Timings {
    /// For TCP and TLS to stand.
    pub connect: Duration,
    /// Between pings on every connection, busy or idle.
    pub ping_interval: Duration,
    /// For the answer to a ping; then the master counts as dead.
    pub ping_timeout: Duration,
    /// For one answer of one master.
    pub attempt: Duration,
    /// For the whole call, all masters together.
    pub call: Duration,
}

impl Default for Timings {
    /// A silent master is noticed within three seconds.
    fn default() -> Timings {
        Timings {
            connect: Duration::from_secs(1),
            ping_interval: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(2),
            attempt: Duration::from_secs(10),
            call: Duration::from_secs(30),
        }
    }
}

/// What a client is made from.
#[derive(Clone)]
pub struct Config {
    /// `https://host:port`, at least one.
    pub masters: Vec<String>,
    /// Who must have signed the masters' certificates.
    pub believed: Trust,
    /// What is shown to masters.
    pub own: Option<Identity>,
    /// Bearer token.
    pub token: Option<String>,
    /// Name to expect in the masters' certificates instead of the host dialled.
    pub server_name: Option<String>,
    pub user_agent: String,
    pub timings: Timings,
    /// Spreads clients over the masters.
    pub seed: u64,
    pub metrics: Option<Metrics>,
}

impl Config {
    /// Everything but masters and CA at its default; the seed is random.
    pub fn new(masters: Vec<String>, believed: Trust) -> Config {
        Config {
            masters,
            believed,
            own: None,
            token: None,
            server_name: None,
            user_agent: concat!("coxswain/", env!("CARGO_PKG_VERSION")).into(),
            timings: Timings::default(),
            seed: rand::random(),
            metrics: None,
        }
    }
}

/// Whose signature on a master's certificate is believed.
#[derive(Clone)]
pub enum Trust {
    /// Certificates in PEM.
    Fixed(Vec<u8>),
    /// As they are when a master is dialled.
    Newest(Arc<Authorities>),
}

/// A client certificate and its key.
#[derive(Clone)]
pub enum Identity {
    /// Both in PEM.
    Fixed { certificate: Vec<u8>, key: Vec<u8> },
    /// As they are when a master is dialled.
    Newest(Arc<Newest>),
}

/// What a client counts; may be shared by several clients of one process.
#[derive(Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    moves: IntCounter,
}

impl Metrics {
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let requests = Opts::new(
            "rest_client_requests_total",
            "Number of HTTP requests, partitioned by status code, method, and host.",
        );
        let durations = HistogramOpts::new(
            "rest_client_request_duration_seconds",
            "Request latency in seconds. Broken down by verb, and host.",
        );
        let metrics = Metrics {
            requests: IntCounterVec::new(requests, &["code", "method", "host"])?,
            durations: HistogramVec::new(durations, &["verb", "host"])?,
            moves: IntCounter::new(
                "coxswain_client_master_changes_total",
                "Times a request went to another master than the one before.",
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.moves.clone()))?;
        Ok(metrics)
    }
}

/// An API client; clones share connections. The connections end with the last clone and the last
/// watch.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    tls: Arc<rustls::ClientConfig>,
    config: Config,
    started: Instant,
    selection: Mutex<Selection>,
    /// One lock per master, so that requests share one dial instead of racing with their own.
    connections: Mutex<BTreeMap<Endpoint, Arc<tokio::sync::Mutex<Option<Connection>>>>>,
    tasks: Mutex<JoinSet<()>>,
}

/// How an attempt failed.
enum Failure {
    /// The master cannot have seen the request.
    Unsent(String),
    /// It may have been carried out.
    Unknown(String),
}

struct Reply {
    status: StatusCode,
    retry_after_seconds: Option<u32>,
    body: Bytes,
}

impl Client {
    pub fn new(config: Config) -> Result<Client, Error> {
        let endpoints: Result<Vec<Endpoint>, String> =
            config.masters.iter().map(|master| master.parse()).collect();
        let endpoints = endpoints.map_err(Error::Endpoint)?;
        if endpoints.is_empty() {
            return Err(Error::NoMaster);
        }
        let tls = Arc::new(tls(&config)?);
        let selection = Mutex::new(Selection::new(endpoints, config.seed));
        let inner = Inner {
            tls,
            config,
            started: Instant::now(),
            selection,
            connections: Mutex::default(),
            tasks: Mutex::default(),
        };
        Ok(Client { inner: Arc::new(inner) })
    }

    /// The client of a kubeconfig's context (its current one if `None`): client certificate or
    /// token; several masters if the cluster lists them under [`SERVERS_EXTENSION`].
    pub fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Client, Error> {
        Client::new(kubeconfig::read(path, context)?)
    }

    /// The same identity, speaking to one master only.
    pub fn only(&self, master: &Endpoint) -> Result<Client, Error> {
        let config =
            Config { masters: vec![format!("https://{master}")], ..self.inner.config.clone() };
        Client::new(config)
    }

    /// Every known master.
    pub fn masters(&self) -> Vec<Endpoint> {
        lock(&self.inner.selection).endpoints().cloned().collect()
    }

    /// The master that the next request goes to first.
    pub fn current_master(&self) -> Endpoint {
        lock(&self.inner.selection).current().clone()
    }

    /// From now on requests go over new connections, which show the newest certificate. What is on its
    /// way over the old ones is let end; watches go on where they were.
    pub fn redial(&self) {
        let old = std::mem::take(&mut *lock(&self.inner.connections));
        let longest = self.inner.config.timings.call;
        lock(&self.inner.tasks).spawn(async move {
            tokio::time::sleep(longest).await;
            for slot in old.into_values() {
                if let Some(connection) = &*slot.lock().await {
                    connection.gone.cancel();
                }
            }
        });
    }

    /// Keeps the list of masters as the cluster has it (the endpoints of service `kubernetes`);
    /// runs until dropped.
    pub async fn follow_masters(&self) -> Infallible {
        let request = WatchRequest {
            resource: ENDPOINT_SLICES,
            namespace: "default".into(),
            label_selector: Some("kubernetes.io/service-name=kubernetes".into()),
            field_selector: None,
            after: None,
        };
        loop {
            if let Ok(mut events) = self.watch(request.clone()).await {
                let mut slices = BTreeMap::new();
                while let Some(Ok(event)) = events.next().await {
                    self.note_masters(&mut slices, event);
                }
            }
            tokio::time::sleep(self.inner.config.timings.connect).await;
        }
    }

    fn note_masters(&self, slices: &mut BTreeMap<String, Vec<Endpoint>>, event: WatchEvent) {
        match event {
            WatchEvent::Added(slice) | WatchEvent::Modified(slice) => {
                slices.insert(slice.name().to_string(), slice_endpoints(&slice));
            }
            WatchEvent::Deleted(slice) => drop(slices.remove(slice.name())),
            WatchEvent::Bookmark { .. } => return,
        }
        let listed: Vec<Endpoint> = slices.values().flatten().cloned().collect();
        // An empty list says that no master is ready, not that there is none to try.
        if !listed.is_empty() {
            lock(&self.inner.selection).learn(&listed);
        }
    }

    /// A plain request for paths besides resources (`/readyz`, `/coxswain/members`); repeated on
    /// other masters if the method is GET. `Err` only if no master answered.
    pub async fn raw(
        &self,
        method: Method,
        path_and_query: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Status> {
        let content_type = if body.is_empty() { "" } else { "application/json" };
        let repeatable = method == Method::GET;
        let path_and_query = path_and_query.to_string();
        let call = http::Call { method, path_and_query, content_type, body, repeatable };
        let reply = self.exchange(&call).await?;
        Ok((reply.status, reply.body))
    }

    /// Sends until answered, or until it may not be repeated, or until the deadline.
    async fn exchange(&self, call: &http::Call) -> Result<Reply, Status> {
        let deadline = Instant::now() + self.inner.config.timings.call;
        loop {
            let connection = self.connect(deadline).await?;
            let attempt = tokio::time::timeout(self.attempt_timeout(deadline), async {
                let response = self.send(&connection, call).await?;
                let status = response.status();
                let retry_after_seconds = retry_after(&response);
                let body = response.into_body().collect().await;
                let body = body.map_err(|error| Failure::Unknown(describe(&error)))?.to_bytes();
                Ok(Reply { status, retry_after_seconds, body })
            });
            let failure = match attempt.await {
                Ok(Ok(reply)) => match self.judge(&connection, call, &reply, deadline).await {
                    true => return Ok(reply),
                    false => continue,
                },
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Unknown("timed out waiting for the answer".into()),
            };
            self.count(call, &connection.endpoint, "<error>");
            self.note_failure(&connection);
            let master = &connection.endpoint;
            match failure {
                Failure::Unsent(why) => tracing::debug!(%master, why, "request not sent"),
                Failure::Unknown(_) if call.repeatable && Instant::now() < deadline => {}
                Failure::Unknown(why) => {
                    return Err(Status::timeout(format!("{} {master}: {why}", call.method)));
                }
            }
        }
    }

    /// True if `reply` is the caller's; false if the request is to be sent again.
    async fn judge(
        &self,
        connection: &Connection,
        call: &http::Call,
        reply: &Reply,
        deadline: Instant,
    ) -> bool {
        let unavailable = reply.status == StatusCode::SERVICE_UNAVAILABLE;
        if unavailable {
            self.note_failure(connection);
        } else {
            lock(&self.inner.selection).succeeded(&connection.endpoint);
        }
        // 429 is said before anything is done; 503 may be said of a write that went through.
        let refused = reply.status == StatusCode::TOO_MANY_REQUESTS;
        let again = refused || (unavailable && call.repeatable);
        let pause = match reply.retry_after_seconds {
            Some(seconds) if refused => Duration::from_secs(seconds.into()),
            _ => Duration::ZERO,
        };
        if !again || Instant::now() + pause >= deadline {
            return true;
        }
        tokio::time::sleep(pause).await;
        false
    }

    /// Starts a watch and returns its body once the server accepted it.
    async fn open(&self, call: &http::Call) -> Result<Incoming, Status> {
        let deadline = Instant::now() + self.inner.config.timings.call;
        loop {
            let connection = self.connect(deadline).await?;
            let sent = self.send(&connection, call);
            match tokio::time::timeout(self.attempt_timeout(deadline), sent).await {
                Ok(Ok(response)) if response.status().is_success() => {
                    lock(&self.inner.selection).succeeded(&connection.endpoint);
                    return Ok(response.into_body());
                }
                Ok(Ok(response)) => {
                    let code = response.status().as_u16();
                    let seconds = retry_after(&response);
                    let body = response.into_body().collect().await;
                    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
                    if code == 503 {
                        self.note_failure(&connection);
                    } else {
                        lock(&self.inner.selection).succeeded(&connection.endpoint);
                    }
                    return Err(http::refusal(code, seconds, &body));
                }
                Ok(Err(_)) | Err(_) => {
                    self.count(call, &connection.endpoint, "<error>");
                    self.note_failure(&connection);
                }
            }
        }
    }

    fn attempt_timeout(&self, deadline: Instant) -> Duration {
        let left = deadline.saturating_duration_since(Instant::now());
        self.inner.config.timings.attempt.min(left)
    }

    async fn send(
        &self,
        connection: &Connection,
        call: &http::Call,
    ) -> Result<Response<Incoming>, Failure> {
        let request = self.request(connection, call).map_err(Failure::Unsent)?;
        let started = Instant::now();
        let mut requests = connection.requests.clone();
        let response = requests.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let why = describe(error.error());
            if unsent { Failure::Unsent(why) } else { Failure::Unknown(why) }
        })?;
        self.count(call, &connection.endpoint, response.status().as_str());
        if let Some(metrics) = &self.inner.config.metrics {
            let labels = [call.method.as_str(), &connection.endpoint.to_string()];
            metrics.durations.with_label_values(&labels).observe(started.elapsed().as_secs_f64());
        }
        Ok(response)
    }

    fn request(
        &self,
        connection: &Connection,
        call: &http::Call,
    ) -> Result<::http::Request<Full<Bytes>>, String> {
        let uri = format!("https://{}{}", connection.endpoint, call.path_and_query);
        let mut request = ::http::Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, &self.inner.config.user_agent);
        if !call.content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, call.content_type);
        }
        if let Some(token) = &self.inner.config.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::new(call.body.clone())).map_err(|error| error.to_string())
    }

    /// A usable connection to the master of choice, dialled if need be.
    async fn connect(&self, deadline: Instant) -> Result<Connection, Status> {
        let mut last = "none was tried".to_string();
        loop {
            let before = lock(&self.inner.selection).current().clone();
            let choice = lock(&self.inner.selection).pick(self.now());
            let pause = match choice {
                Choice::Use(endpoint) => {
                    self.count_move(&before, &endpoint);
                    match self.connection(&endpoint).await {
                        Ok(connection) => return Ok(connection),
                        Err(why) => last = why,
                    }
                    lock(&self.inner.selection).failed(&endpoint, self.now());
                    Duration::ZERO
                }
                Choice::Wait(pause) => pause,
            };
            if Instant::now() + pause >= deadline {
                return Err(Status::unavailable(format!("no master answers: {last}"), 1));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn connection(&self, endpoint: &Endpoint) -> Result<Connection, String> {
        let slot = lock(&self.inner.connections).entry(endpoint.clone()).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| connection.is_usable()) {
            return Ok(connection.clone());
        }
        let config = &self.inner.config;
        let name = config.server_name.as_deref();
        let dialled = connection::dial(endpoint, name, self.inner.tls.clone(), &config.timings);
        let (connection, drive) = dialled.await?;
        let mut tasks = lock(&self.inner.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(drive);
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// A master that keeps failing loses its connection, so that watches on it move too.
    fn note_failure(&self, connection: &Connection) {
        let failures = lock(&self.inner.selection).failed(&connection.endpoint, self.now());
        if failures >= FAILURES_TO_LEAVE || !connection.is_usable() {
            connection.gone.cancel();
        }
    }

    fn now(&self) -> Duration {
        self.inner.started.elapsed()
    }

    fn count(&self, call: &http::Call, endpoint: &Endpoint, code: &str) {
        if let Some(metrics) = &self.inner.config.metrics {
            let labels = [code, call.method.as_str(), &endpoint.to_string()];
            metrics.requests.with_label_values(&labels).inc();
        }
    }

    fn count_move(&self, before: &Endpoint, after: &Endpoint) {
        if before == after {
            return;
        }
        tracing::info!(from = %before, to = %after, "moving to another master");
        if let Some(metrics) = &self.inner.config.metrics {
            metrics.moves.inc();
        }
    }
}

impl Api for Client {
    /// Reads, updates, patches (but JSON patches) and deletes are repeated on another master when
    /// their fate is unknown; a create only when it surely was not sent, else it fails with
    /// `Timeout` and the caller finds out by reading or by `AlreadyExists`.
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Object, Status>> {
        Box::pin(async move {
            let reply = self.exchange(&http::call(&request)).await?;
            if reply.status.is_success() {
                http::answer(&reply.body)
            } else {
                let code = reply.status.as_u16();
                Err(http::refusal(code, reply.retry_after_seconds, &reply.body))
            }
        })
    }

    /// Resumes by itself on any master and ends only with an error the caller must see (`Expired`,
    /// `Forbidden`, …). Initial events come all at once when they are complete.
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Events, Status>> {
        Box::pin(watch::open(self.clone(), request))
    }
}

fn tls(config: &Config) -> Result<rustls::ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?;
    let builder = match &config.believed {
        // It asks what rustls would, of the roots as they are then.
        Trust::Newest(newest) => {
            builder.dangerous().with_custom_certificate_verifier(newest.clone())
        }
        Trust::Fixed(pem) => builder.with_root_certificates(roots(pem)?),
    };
    let mut tls = match &config.own {
        Some(Identity::Newest(newest)) => builder.with_client_cert_resolver(newest.clone()),
        Some(Identity::Fixed { certificate, key }) => {
            let own = certified(certificate, &[], key)?;
            builder.with_client_cert_resolver(Arc::new(Newest::new(own)))
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

/// Addresses of ready masters in a slice of service `kubernetes`.
fn slice_endpoints(slice: &Object) -> Vec<Endpoint> {
    let port = slice.at("/ports/0/port").and_then(|port| port.as_u64()).unwrap_or(6443) as u16;
    let endpoints = slice.at("/endpoints").and_then(|list| list.as_array());
    let ready = endpoints.into_iter().flatten().filter(|endpoint| {
        endpoint.pointer("/conditions/ready").and_then(|ready| ready.as_bool()).unwrap_or(true)
    });
    ready
        .filter_map(|endpoint| endpoint.pointer("/addresses/0")?.as_str())
        .map(|host| Endpoint { host: host.to_string(), port })
        .collect()
}

fn retry_after(response: &Response<Incoming>) -> Option<u32> {
    response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// An error with its causes on one line; hyper's own text names only the outermost.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

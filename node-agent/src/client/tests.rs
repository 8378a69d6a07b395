//! The client against masters that die, freeze and refuse: real sockets, TLS and HTTP/2.

use super::{Client, Config, Identity, Timings, Trust};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request as HttpRequest, Response, body::Frame, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s::{Api, Events, Object, Request, Resource, Revision, Status, WatchEvent, WatchRequest};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    net::Ipv4Addr,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};

const CONFIG_MAPS: Resource = Resource::new("", "v1", "configmaps");
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Changes up to this revision are compacted away.
const COMPACTED: u64 = 1;

/// The certificates of a cluster.
struct Pki {
    ca: String,
    server: (String, String),
    client: (String, String),
}

impl Pki {
    fn new() -> Pki {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);
        let issue = |names: Vec<String>| {
            let params = rcgen::CertificateParams::new(names).unwrap();
            let key = rcgen::KeyPair::generate().unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        Pki { ca, server: issue(vec!["127.0.0.1".into()]), client: issue(vec![]) }
    }

    /// Demands a client certificate of the same authority.
    fn server_tls(&self) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            provider.clone(),
        );
        let chain = vec![CertificateDer::from_pem_slice(self.server.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.server.1.as_bytes()).unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(tls)
    }
}

/// What all masters agree on: change N is the creation of object `oN`.
#[derive(Default)]
struct Cluster {
    revision: watch::Sender<u64>,
    creates: AtomicUsize,
}

impl Cluster {
    fn append(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }
}

/// A master on a thread of its own, so that it can be frozen as by SIGSTOP or lost as by SIGKILL.
struct Master {
    url: String,
    commands: mpsc::Sender<Command>,
    unavailable: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    Freeze(Arc<Barrier>),
    Die,
}

impl Master {
    async fn start(pki: &Pki, cluster: &Arc<Cluster>) -> Master {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (commands, mut received) = mpsc::channel(1);
        let unavailable = Arc::new(AtomicBool::new(false));
        let (tls, cluster, flag) = (pki.server_tls(), cluster.clone(), unavailable.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, tls, cluster, flag) => {}
                    () = obey(&mut received) => {}
                }
            });
        });
        Master { url, commands, unavailable, thread: Some(thread) }
    }

    async fn kill(mut self) {
        let _ = self.commands.send(Command::Die).await;
        self.thread.take().unwrap().join().unwrap();
    }

    /// Until the barrier is met.
    async fn freeze(&self) -> Arc<Barrier> {
        let barrier = Arc::new(Barrier::new(2));
        let _ = self.commands.send(Command::Freeze(barrier.clone())).await;
        barrier
    }
}

async fn obey(commands: &mut mpsc::Receiver<Command>) {
    while let Some(Command::Freeze(barrier)) = commands.recv().await {
        barrier.wait();
    }
}

async fn accept(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    cluster: Arc<Cluster>,
    unavailable: Arc<AtomicBool>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
        let (cluster, unavailable) = (cluster.clone(), unavailable.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let (cluster, unavailable) = (cluster.clone(), unavailable.clone());
                async move { Ok::<_, Infallible>(answer(request, cluster, unavailable).await) }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn json_body(code: u16, value: Value) -> Response<Body> {
    let body = http_body_util::Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder().status(code).body(body).unwrap()
}

async fn answer(
    request: HttpRequest<hyper::body::Incoming>,
    cluster: Arc<Cluster>,
    unavailable: Arc<AtomicBool>,
) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_string();
    if unavailable.load(Ordering::SeqCst) {
        return json_body(503, Status::unavailable("no leader", 1).to_value());
    }
    if request.method() == "POST" {
        cluster.creates.fetch_add(1, Ordering::SeqCst);
        return std::future::pending().await;
    }
    if !query.contains("watch=true") {
        let revision = cluster.revision.borrow().to_string();
        let meta = json!({"name": "a", "resourceVersion": revision});
        return json_body(200, json!({"kind": "ConfigMap", "metadata": meta}));
    }
    let after = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
    let after = after.map(|text| text.parse::<u64>().unwrap());
    if after.is_some_and(|after| after < COMPACTED) {
        let status = Status::expired(format!("too old resource version: 0 ({COMPACTED})"));
        return json_body(410, status.to_value());
    }
    let start = (cluster.revision.subscribe(), after);
    let lines = stream::unfold(start, |(mut revision, after)| async move {
        let now = match after {
            None => *revision.borrow_and_update(),
            Some(after) => *revision.wait_for(|now| *now > after).await.ok()?,
        };
        let events = after.unwrap_or(0) + 1..=now;
        let mut lines: String = events.map(|n| event("ADDED", n, json!({}))).collect();
        if after.is_none() {
            lines += &event("BOOKMARK", now, json!({"k8s.io/initial-events-end": "true"}));
        }
        Some((Ok(Frame::data(Bytes::from(lines))), (revision, Some(now))))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(lines)))
}

fn event(kind: &str, revision: u64, annotations: Value) -> String {
    let meta = json!({
        "name": format!("o{revision}"),
        "resourceVersion": revision.to_string(),
        "annotations": annotations,
    });
    format!("{}\n", json!({"type": kind, "object": {"metadata": meta}}))
}

struct World {
    cluster: Arc<Cluster>,
    first: Master,
    second: Master,
    client: Client,
}

/// Two masters after two changes, and a client that starts at the first.
async fn world() -> World {
    let pki = Pki::new();
    let cluster = Arc::new(Cluster::default());
    cluster.append();
    cluster.append();
    let first = Master::start(&pki, &cluster).await;
    let second = Master::start(&pki, &cluster).await;
    let masters = vec![first.url.clone(), second.url.clone()];
    let mut config = Config::new(masters, Trust::Fixed(pki.ca.into_bytes()));
    let (certificate, key) = (pki.client.0.into_bytes(), pki.client.1.into_bytes());
    config.own = Some(Identity::Fixed { certificate, key });
    config.seed = 0;
    config.timings = Timings {
        ping_interval: Duration::from_millis(100),
        ping_timeout: Duration::from_millis(200),
        ..Timings::default()
    };
    World { cluster, first, second, client: Client::new(config).unwrap() }
}

fn watch_from(after: Option<u64>) -> WatchRequest {
    WatchRequest {
        resource: CONFIG_MAPS,
        namespace: "n".into(),
        label_selector: None,
        field_selector: None,
        after: after.map(Revision),
    }
}

/// The next events' names; `=` is the end of the initial ones.
async fn take(events: &mut Events, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < count {
        match timeout(PATIENCE, events.next()).await.expect("an event").expect("no end").unwrap() {
            WatchEvent::Added(object) => names.push(object.name().to_string()),
            WatchEvent::Bookmark { initial_events_end: true, .. } => names.push("=".into()),
            other => panic!("{other:?}"),
        }
    }
    names
}

async fn get(client: &Client) -> Result<Object, Status> {
    timeout(PATIENCE, client.call(Request::get(CONFIG_MAPS, "n", "a"))).await.expect("an answer")
}

#[tokio::test]
async fn a_watch_goes_on_at_another_master_without_loss_or_repetition() {
    let World { cluster, first, second, client } = world().await;
    let mut events = client.watch(watch_from(None)).await.unwrap();
    assert_eq!(take(&mut events, 3).await, ["o1", "o2", "="]);
    cluster.append();
    assert_eq!(take(&mut events, 1).await, ["o3"]);
    first.kill().await;
    cluster.append();
    cluster.append();
    assert_eq!(take(&mut events, 2).await, ["o4", "o5"]);
    assert_eq!(format!("https://{}", client.current_master()), second.url);
    assert_eq!(get(&client).await.unwrap().revision(), Some(Revision(5)));
    second.kill().await;
}

#[tokio::test]
async fn a_master_that_fell_silent_is_left() {
    let World { cluster, first, second, client } = world().await;
    let mut events = client.watch(watch_from(Some(2))).await.unwrap();
    cluster.append();
    assert_eq!(take(&mut events, 1).await, ["o3"]);
    let thaw = first.freeze().await;
    cluster.append();
    assert_eq!(take(&mut events, 1).await, ["o4"]);
    assert_eq!(get(&client).await.unwrap().revision(), Some(Revision(4)));
    assert_eq!(format!("https://{}", client.current_master()), second.url);
    tokio::task::spawn_blocking(move || thaw.wait()).await.unwrap();
    first.kill().await;
    second.kill().await;
}

#[tokio::test]
async fn a_create_whose_fate_is_unknown_is_not_repeated() {
    let World { cluster, first, second, client } = world().await;
    let meta = json!({"metadata": {"name": "a", "namespace": "n"}});
    let create = Request::create(CONFIG_MAPS, Object::from_value(meta).unwrap());
    let caller = client.clone();
    let call = tokio::spawn(async move { caller.call(create).await });
    let arrived = async {
        while cluster.creates.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, arrived).await.expect("the create arrives");
    first.kill().await;
    let status = timeout(PATIENCE, call).await.expect("an answer").unwrap().unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (504, "Timeout"), "{status}");
    assert_eq!(cluster.creates.load(Ordering::SeqCst), 1);
    // A read is, and so is anything after.
    get(&client).await.unwrap();
    second.kill().await;
}

#[tokio::test]
async fn a_master_that_cannot_serve_sends_readers_on() {
    let World { first, second, client, .. } = world().await;
    let mut events = client.watch(watch_from(Some(1))).await.unwrap();
    assert_eq!(take(&mut events, 1).await, ["o2"]);
    first.unavailable.store(true, Ordering::SeqCst);
    get(&client).await.unwrap();
    assert_eq!(format!("https://{}", client.current_master()), second.url);
    first.kill().await;
    second.kill().await;
}

#[tokio::test]
async fn what_only_the_caller_can_mend_is_his_to_see() {
    let World { first, second, client, .. } = world().await;
    let expired = client.watch(watch_from(Some(0))).await.err().unwrap();
    assert!(expired.is_expired(), "{expired}");
    first.kill().await;
    second.kill().await;
    let mut config = client.inner.config.clone();
    config.timings.call = Duration::from_millis(300);
    let status = get(&Client::new(config).unwrap()).await.unwrap_err();
    assert_eq!(status.code, 503);
    assert!(status.message.starts_with("no master answers: dial 127.0.0.1:"), "{status}");
}

//! A server and a client that speaks plain HTTP/1.1 to it over TLS.

use apiserver::{Authorities, Authority, Config, Server, authn::FrontProxy};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use raft_store::{Revision, Store};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, net::TcpStream, sync::watch, task::JoinSet};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

pub(crate) struct Cluster {
    pub(crate) server: Server,
    pub(crate) store: Store,
    address: SocketAddr,
    admin: Arc<ClientConfig>,
    /// The authority's certificate, in PEM.
    pub(crate) ca: String,
    /// What a node serves with.
    pub(crate) node_tls: Arc<ServerConfig>,
    nobody: Arc<ClientConfig>,
    /// Of proxies, whose headers are believed.
    proxy: Arc<ClientConfig>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
}

type Pair = (Certificate, KeyPair);

fn authority() -> (Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("self-signed");
    (certificate, Issuer::new(params, key))
}

fn leaf(issuer: &Issuer<'static, KeyPair>, user: &str, group: &str) -> Pair {
    let key = KeyPair::generate().expect("a key");
    // The last is a service that a node's pods are behind.
    let names = ["127.0.0.1", "localhost", "web.default.svc"].map(str::to_string).to_vec();
    let mut params = CertificateParams::new(names).expect("valid names");
    params.distinguished_name.push(DnType::CommonName, user);
    params.distinguished_name.push(DnType::OrganizationName, group);
    (params.signed_by(&key, issuer).expect("signed"), key)
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).expect("a key")
}

/// What the server is told of its authorities.
fn trust(
    ca: &Certificate,
    issuer: &Issuer<'static, KeyPair>,
    proxy_ca: &Certificate,
    proxy_roots: RootCertStore,
) -> Authorities {
    let key = issuer.key().serialize_pem();
    let authority = Authority::from_pem(ca.pem().as_bytes(), key.as_bytes());
    let verifier = WebPkiClientVerifier::builder(Arc::new(proxy_roots)).build();
    let front_proxy = FrontProxy {
        verifier: verifier.expect("a verifier"),
        ca_pem: proxy_ca.pem(),
        allowed_names: vec!["front-proxy-client".to_string()],
    };
    Authorities {
        signer: Some(Arc::new(authority.expect("an authority"))),
        client_ca_pem: ca.pem(),
        front_proxy: Some(front_proxy),
        ..Authorities::default()
    }
}

impl Cluster {
    /// A bootstrapped server.
    pub(crate) async fn start() -> Cluster {
        Cluster::start_with(|_| ()).await
    }

    /// The same with another configuration.
    pub(crate) async fn start_with(configure: impl FnOnce(&mut Config)) -> Cluster {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (ca, issuer) = authority();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).expect("a certificate");
        let roots = Arc::new(roots);
        let (certificate, key) = leaf(&issuer, "kube-apiserver", "servers");
        let (proxy_ca, proxy_issuer) = authority();
        let mut proxy_roots = RootCertStore::empty();
        proxy_roots.add(proxy_ca.der().clone()).expect("a certificate");
        let mut both = (*roots).clone();
        both.roots.extend(proxy_roots.roots.clone());
        let verifier = WebPkiClientVerifier::builder(Arc::new(both))
            .allow_unauthenticated()
            .build()
            .expect("a verifier");
        let tls = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], private(&key))
            .expect("a certificate");
        let (admin, admin_key) = leaf(&issuer, "admin", "system:masters");
        let client = || ClientConfig::builder().with_root_certificates(roots.clone());
        let admin = client()
            .with_client_auth_cert(vec![admin.der().clone()], private(&admin_key))
            .expect("a certificate");
        let admin = Arc::new(admin);
        let (proxy, proxy_key) = leaf(&proxy_issuer, "front-proxy-client", "proxies");
        let proxy = client()
            .with_client_auth_cert(vec![proxy.der().clone()], private(&proxy_key))
            .expect("a certificate");
        let (node, node_key) = leaf(&issuer, "system:node:n1", "system:nodes");
        let node_tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![node.der().clone()], private(&node_key))
            .expect("a certificate");
        let store = Store::in_memory();
        let mut config = Config::new(store.clone());
        let authorities = trust(&ca, &issuer, &proxy_ca, proxy_roots);
        config.believed = Authorities { kubelet_tls: Some(admin.clone()), ..authorities }.into();
        configure(&mut config);
        let server = Server::new(config);
        server.bootstrap().await.expect("bootstrap");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (keeping, stop) = (server.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _ = stop.run_until_cancelled(keeping.keep_definitions()).await;
        });
        let (serving, stop) = (server.clone(), shutdown.clone());
        let (_, tls) = watch::channel(Arc::new(tls));
        tasks.spawn(async move { serving.serve(listener, tls, stop).await });
        let (working, stop) = (server.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _ = stop.run_until_cancelled(working.chores()).await;
        });
        Cluster {
            server,
            store,
            address,
            admin,
            ca: ca.pem(),
            node_tls: Arc::new(node_tls),
            nobody: Arc::new(client().with_no_client_auth()),
            proxy: Arc::new(proxy),
            shutdown,
            tasks,
        }
    }

    /// Shares heartbeats from now on, as every real master does.
    pub(crate) async fn share_heartbeats(&mut self) {
        let (server, stop) = (self.server.clone(), self.shutdown.clone());
        self.tasks.spawn(async move {
            let _ = stop.run_until_cancelled(server.share_heartbeats()).await;
        });
        self.server.heartbeats_heard_out().await;
    }

    /// Tends the aggregation layer and flow control from now on; waits until all their objects are there.
    pub(crate) async fn tend(&mut self) {
        let (server, stop) = (self.server.clone(), self.shutdown.clone());
        self.tasks.spawn(async move {
            let _ = stop.run_until_cancelled(server.tend()).await;
        });
        loop {
            let next = Revision(self.store.revision().0 + 1);
            let health = self.get("/healthz").await;
            if health.code == 200 {
                return;
            }
            let waited = self.store.wait_for(next, Duration::from_secs(20)).await;
            waited.unwrap_or_else(|_| panic!("still not healthy: {}", health.body));
        }
    }

    /// One request on a connection of its own; the response's body is still to be read.
    pub(crate) async fn send(
        &mut self,
        tls: Arc<ClientConfig>,
        request: Request<Full<Bytes>>,
    ) -> Response<Incoming> {
        let tcp = TcpStream::connect(self.address).await.expect("connected");
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(tls).connect(name, tcp).await.expect("TLS");
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        self.tasks.spawn(async move {
            // Ends with an error where the server refuses to read on.
            let _ = connection.with_upgrades().await;
        });
        sender.send_request(request).await.expect("an answer")
    }

    pub(crate) fn admin(&self) -> Arc<ClientConfig> {
        self.admin.clone()
    }

    pub(crate) fn proxy(&self) -> Arc<ClientConfig> {
        self.proxy.clone()
    }

    /// A request by whoever bears `token`, with its answer read as JSON.
    pub(crate) async fn bear(&mut self, token: &str, path: &str) -> Answer {
        let mut request = request(Method::GET, path, "", "");
        let bearer = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        let response = self.send(self.nobody(), request).await;
        read(response).await
    }

    pub(crate) fn nobody(&self) -> Arc<ClientConfig> {
        self.nobody.clone()
    }

    /// A request as admin, with its answer read as JSON.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        media: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let request = request(method, path, media, body);
        let response = self.send(self.admin(), request).await;
        read(response).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.ask(Method::GET, path, "", "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, "application/json", body.to_string()).await
    }

    pub(crate) async fn put(&mut self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path, "application/json", body.to_string()).await
    }

    pub(crate) async fn merge(&mut self, path: &str, patch: Value) -> Answer {
        self.ask(Method::PATCH, path, "application/merge-patch+json", patch.to_string()).await
    }

    pub(crate) async fn delete(&mut self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, "", "").await
    }

    /// Until `path` shows what is waited for; each look but the first follows a change of the store.
    pub(crate) async fn until(&mut self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        loop {
            let seen = self.store.revision();
            let answer = self.get(path).await;
            if done(&answer.body) {
                return answer.body;
            }
            let waited = self.store.wait_for(Revision(seen.0 + 1), Duration::from_secs(20)).await;
            waited.unwrap_or_else(|_| panic!("{path} stays as it is: {}", answer.body));
        }
    }

    /// Ends the server and waits for it.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

pub(crate) fn request(
    method: Method,
    path: &str,
    media: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut builder = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    if !media.is_empty() {
        builder = builder.header(header::CONTENT_TYPE, media);
    }
    builder.body(Full::new(body.into())).expect("a request")
}

pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let code = response.status().as_u16();
    let warnings = response.headers().get_all(header::WARNING).iter();
    let warnings = warnings.filter_map(|value| value.to_str().ok()).map(str::to_string).collect();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Answer { code, body, warnings }
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "labels": { "app": "web" } },
        "data": { "color": "blue" },
    })
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(crate) fn config_map_path(name: &str) -> String {
    format!("{CONFIG_MAPS}/{name}")
}

//! What the masters ask this node over HTTPS on port 10250: logs, exec, attach, port-forward,
//! connections to pods, pods, metrics. Only callers with a certificate of the cluster that names them master are heard.

mod client;
mod forward;
mod logs;
mod node;
mod reach;
mod socket;
mod spdystream;
mod stats;
mod streams;

pub(crate) use stats::Looks;

use crate::{pods::Table, runtime::Runtime};
use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use k8s_openapi::api::core::v1::Pod;
use prometheus::{Registry, TextEncoder};
use rustls::server::{ResolvesServerCert, danger::ClientCertVerifier};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use x509_parser::prelude::FromDer;

/// A handshake that takes longer is a peer that is not one.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Who may call: the masters' own certificate, and administrators.
const CALLER: &str = "kube-apiserver-kubelet-client";
const ADMINISTRATORS: &str = "system:masters";

/// What the answers are made from.
#[derive(Clone)]
pub(crate) struct Kubelet {
    pub(crate) table: Table,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) registry: Registry,
    pub(crate) log_root: PathBuf,
    pub(crate) node_name: String,
    pub(crate) pods_max: u32,
    pub(crate) looks: Looks,
}

/// An answer that is no success: code and text.
pub(crate) struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl Refusal {
    fn not_found(text: impl Into<String>) -> Refusal {
        Refusal(StatusCode::NOT_FOUND, text.into())
    }

    fn bad_request(text: impl Into<String>) -> Refusal {
        Refusal(StatusCode::BAD_REQUEST, text.into())
    }

    fn internal(text: impl Into<String>) -> Refusal {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, text.into())
    }
}

/// A server that asks every caller for a certificate that `callers` believes.
pub(crate) fn tls_config(
    callers: Arc<dyn ClientCertVerifier>,
    own: Arc<dyn ResolvesServerCert>,
) -> anyhow::Result<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(callers)
        .with_cert_resolver(own);
    // WebSocket upgrades need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl Kubelet {
    /// Serves until `shutdown`; connections end with it.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: CancellationToken,
    ) {
        let (acceptor, router, tracker) =
            (TlsAcceptor::from(tls), self.clone().router(), TaskTracker::new());
        let _looking = AbortOnDropHandle::new(tokio::spawn(stats::keep_looking(self)));
        loop {
            let socket = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => socket,
                    Err(error) => {
                        tracing::warn!(%error, "accept");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = shutdown.cancelled() => break,
            };
            let (acceptor, router, shutdown) = (acceptor.clone(), router.clone(), shutdown.clone());
            tracker.spawn(async move {
                tokio::select! {
                    () = connection(acceptor, router, socket) => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
        tracker.close();
        tracker.wait().await;
    }

    fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/metrics", get(metrics))
            .route("/metrics/resource", get(stats::resource_metrics))
            .route("/pods", get(pods))
            .route("/pods/", get(pods))
            .route("/runningpods/", get(node::running_pods))
            .route("/configz", get(node::configz))
            .route("/stats/summary", get(stats::summary))
            .route("/logs/", get(node::logs_root))
            .route("/logs/{*path}", get(node::logs))
            .route("/coxswain/dial/{ip}/{port}", get(reach::dial))
            .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container_logs))
            .route("/exec/{namespace}/{pod}/{container}", get(streams::exec).post(streams::exec))
            .route(
                "/attach/{namespace}/{pod}/{container}",
                get(streams::attach).post(streams::attach),
            )
            .route(
                "/portForward/{namespace}/{pod}",
                get(forward::port_forward).post(forward::port_forward),
            )
            .with_state(self)
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
        let missing = || Refusal::not_found(format!("pod {name:?} not found"));
        self.table.find(namespace, name).ok_or_else(missing)
    }

    /// The running container of that name: the pod's uid and the container's id.
    async fn running(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
    ) -> Result<(String, String), Refusal> {
        let pod = self.pod(namespace, name)?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let missing = || Refusal::not_found(format!("container not found ({container:?})"));
        let sandbox = self.runtime.sandbox(&uid).await.map_err(|_| missing())?;
        let found = sandbox.containers.into_iter().rev().find(|one| one.name == container);
        let found = found.filter(|one| one.state.is_running()).ok_or_else(missing)?;
        Ok((uid, found.id))
    }
}

async fn connection(acceptor: TlsAcceptor, router: Router, socket: TcpStream) {
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await;
    let Ok(Ok(stream)) = handshake else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let router = match certificate.is_some_and(|der| may_call(der)) {
        true => router,
        false => Router::new().fallback(|| async { (StatusCode::FORBIDDEN, "Forbidden") }),
    };
    let service = TowerToHyperService::new(router);
    let builder = auto::Builder::new(TokioExecutor::new());
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection");
    }
}

fn may_call(certificate: &[u8]) -> bool {
    let Ok((_, certificate)) = x509_parser::certificate::X509Certificate::from_der(certificate)
    else {
        return false;
    };
    let subject = certificate.subject();
    let named = subject.iter_common_name().filter_map(|name| name.as_str().ok());
    let groups = subject.iter_organization().filter_map(|name| name.as_str().ok());
    named.into_iter().any(|name| name == CALLER)
        || groups.into_iter().any(|group| group == ADMINISTRATORS)
}

async fn metrics(State(kubelet): State<Kubelet>) -> Result<String, Refusal> {
    let text = TextEncoder::new().encode_to_string(&kubelet.registry.gather());
    text.map_err(|error| Refusal::internal(error.to_string()))
}

async fn pods(State(kubelet): State<Kubelet>) -> Response {
    let items: Vec<Pod> = kubelet.table.all().into_iter().map(|pod| Pod::clone(&pod)).collect();
    let list =
        serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    axum::Json(list).into_response()
}

//! The node itself, as upstream's kubelet shows it to `nodes/proxy`: log files, running pods and the
//! kubelet's configuration.

use super::{Kubelet, Refusal};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::header,
    response::{Html, IntoResponse, Response},
};
use serde_json::{Value, json};
use std::path::{Path as FilePath, PathBuf};
use tokio_util::io::ReaderStream;

pub(super) async fn logs_root(State(kubelet): State<Kubelet>) -> Result<Response, Refusal> {
    show(kubelet.log_root.clone(), "").await
}

/// A file below the directory of container logs, or what is in a directory there.
pub(super) async fn logs(
    State(kubelet): State<Kubelet>,
    Path(path): Path<String>,
) -> Result<Response, Refusal> {
    show(kubelet.log_root.clone(), &path).await
}

async fn show(root: PathBuf, path: &str) -> Result<Response, Refusal> {
    let missing = || Refusal::not_found("404 page not found");
    let wanted = root.join(path.trim_start_matches('/'));
    let found = tokio::fs::canonicalize(&wanted).await.map_err(|_| missing())?;
    let root = tokio::fs::canonicalize(&root).await.map_err(|_| missing())?;
    // Neither `..` nor a link leads out.
    if !found.starts_with(&root) {
        return Err(missing());
    }
    let metadata = tokio::fs::metadata(&found).await.map_err(|_| missing())?;
    if metadata.is_dir() {
        return Ok(Html(listing(&found).await).into_response());
    }
    let file = tokio::fs::File::open(&found).await.map_err(|_| missing())?;
    let body = Body::from_stream(ReaderStream::new(file));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// As Go's file server lists a directory. Names here are pods' and containers': nothing to escape.
async fn listing(directory: &FilePath) -> String {
    let mut names = Vec::new();
    if let Ok(mut entries) = tokio::fs::read_dir(directory).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            let is_dir = entry.file_type().await.is_ok_and(|kind| kind.is_dir());
            let slash = if is_dir { "/" } else { "" };
            names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
        }
    }
    names.sort_unstable();
    let lines: String =
        names.iter().map(|name| format!("<a href=\"{name}\">{name}</a>\n")).collect();
    format!("<pre>\n{lines}</pre>\n")
}

/// `/runningpods/`: what the runtime has, whatever the API says.
pub(super) async fn running_pods(State(kubelet): State<Kubelet>) -> Result<Json<Value>, Refusal> {
    let sandboxes = kubelet.runtime.sandboxes().await;
    let sandboxes = sandboxes.map_err(|error| Refusal::internal(error.text()))?;
    let items = sandboxes.iter().filter(|sandbox| sandbox.ready).map(|sandbox| {
        let running = sandbox.containers.iter().filter(|one| one.state.is_running());
        let containers: Vec<Value> = running
            .map(|one| json!({"name": one.name, "image": one.image_id, "resources": {}}))
            .collect();
        let spec = &sandbox.spec;
        json!({
            "metadata": {"name": spec.name, "namespace": spec.namespace, "uid": spec.uid},
            "spec": {"containers": containers},
            "status": {},
        })
    });
    let items: Vec<Value> = items.collect();
    Ok(Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
}

/// `/configz`: of upstream's many settings those that mean something here.
pub(super) async fn configz(State(kubelet): State<Kubelet>) -> Json<Value> {
    Json(json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": true,
        "authentication": {
            "x509": {},
            "webhook": {"enabled": false},
            "anonymous": {"enabled": false},
        },
        "authorization": {"mode": "AlwaysDeny"},
        "containerLogMaxFiles": 5,
        "maxPods": kubelet.pods_max,
        "podPidsLimit": -1,
    }}))
}

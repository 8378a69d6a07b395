//! `metrics.k8s.io/v1beta1`: what nodes and pods use, asked of the nodes' agents when somebody asks
//! (`/stats/summary`), so that `kubectl top` and autoscalers need no add-on. An APIService with a
//! service of its own (metrics-server) takes the group over.

use crate::{
    backend::{self, Trust, pass},
    memo,
    pipeline::{Core, Selection},
    server::{Body, RequestInfo, json as answer_json},
};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use k8s::{Object, Options, Resource, Status};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::task::{JoinError, JoinSet};

pub(crate) const GROUP: &str = "metrics.k8s.io";
pub(crate) const VERSION: &str = "v1beta1";
/// How long a node may take; one that takes longer has no metrics this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nodes asked at once.
const AT_ONCE: usize = 32;
/// A summary of 500 pods is some 300 KB.
const SUMMARY_BYTES_MAX: usize = 8 << 20;
/// What the rates are over: the agents look every ten seconds.
const WINDOW: &str = "10s";

pub(crate) fn resource_list() -> Value {
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [
            { "name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics",
              "verbs": ["get", "list"] },
            { "name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics",
              "verbs": ["get", "list"] },
        ],
    })
}

/// Answers a read of the group; anything else is not served.
pub(crate) async fn answer(
    core: &Arc<Core>,
    info: &RequestInfo,
    options: &Options,
) -> Result<Response<Body>, Status> {
    let resource =
        Resource::new(GROUP, VERSION, if info.resource == "nodes" { "nodes" } else { "pods" });
    if !matches!(info.resource.as_str(), "nodes" | "pods") || !info.subresource.is_empty() {
        let why = "the server could not find the requested resource";
        return Err(Status::new(404, "NotFound", why));
    }
    if !matches!(info.verb.as_str(), "get" | "list") {
        return Err(Status::method_not_allowed(&resource, &info.verb));
    }
    core.barrier().await?;
    let mut items = match info.resource.as_str() {
        "nodes" => nodes(core, info, options).await?,
        _ => pods(core, info, options).await?,
    };
    let kind = if info.resource == "nodes" { "NodeMetrics" } else { "PodMetrics" };
    let api_version = format!("{GROUP}/{VERSION}");
    if info.verb == "get" {
        let mut item = items.pop().ok_or_else(|| Status::not_found(&resource, &info.name))?;
        item["kind"] = kind.into();
        item["apiVersion"] = api_version.into();
        return Ok(answer_json(&item));
    }
    Ok(answer_json(&json!({
        "kind": format!("{kind}List"),
        "apiVersion": api_version,
        "metadata": {},
        "items": items,
    })))
}

/// The objects that were asked for, by namespace, name and selectors.
fn chosen(
    core: &Core,
    plural: &'static str,
    info: &RequestInfo,
    options: &Options,
) -> Result<Vec<Arc<Object>>, Status> {
    let kind = crate::catalog::by_space(plural)
        .ok_or_else(|| Status::internal(format!("{plural} are not served")))?;
    let selection = Selection::new(&kind.into(), options)?;
    let prefix =
        if info.namespace.is_empty() { String::new() } else { format!("{}/", info.namespace) };
    let all = core.view.range(plural, &prefix);
    let matching = all.iter().filter(|stored| selection.matches(stored));
    let objects = matching.map(|stored| memo::object(stored));
    Ok(objects.filter(|object| info.name.is_empty() || object.name() == info.name).collect())
}

async fn nodes(
    core: &Arc<Core>,
    info: &RequestInfo,
    options: &Options,
) -> Result<Vec<Value>, Status> {
    let nodes = chosen(core, "nodes", info, options)?;
    let summaries = summaries(core, nodes.clone()).await;
    let metrics = nodes.iter().filter_map(|node| {
        let figures = &summaries.get(node.name())?["node"];
        let usage = usage(figures)?;
        Some(json!({
            "metadata": metadata(node),
            "timestamp": figures["cpu"]["time"],
            "window": WINDOW,
            "usage": usage,
        }))
    });
    Ok(metrics.collect())
}

async fn pods(
    core: &Arc<Core>,
    info: &RequestInfo,
    options: &Options,
) -> Result<Vec<Value>, Status> {
    let mut pods = chosen(core, "pods", info, options)?;
    pods.retain(|pod| pod.str_at("/status/phase") == "Running");
    let mut names: Vec<&str> = pods.iter().map(|pod| pod.str_at("/spec/nodeName")).collect();
    names.sort_unstable();
    names.dedup();
    let nodes = names.iter().filter_map(|name| core.view.object("nodes", name)).collect();
    let summaries = summaries(core, nodes).await;
    let mut by_uid: BTreeMap<&str, &Value> = BTreeMap::new();
    for summary in summaries.values() {
        for entry in summary["pods"].as_array().into_iter().flatten() {
            by_uid.insert(entry["podRef"]["uid"].as_str().unwrap_or_default(), entry);
        }
    }
    let metrics = pods.iter().filter_map(|pod| {
        let entry = by_uid.get(pod.uid())?;
        let containers: Vec<Value> = entry["containers"]
            .as_array()?
            .iter()
            .filter_map(|one| Some(json!({ "name": one["name"], "usage": usage(one)? })))
            .collect();
        if containers.is_empty() {
            return None;
        }
        Some(json!({
            "metadata": metadata(pod),
            "timestamp": entry["cpu"]["time"],
            "window": WINDOW,
            "containers": containers,
        }))
    });
    Ok(metrics.collect())
}

/// `None` until two looks make a rate.
fn usage(figures: &Value) -> Option<Value> {
    let nanocores = figures["cpu"]["usageNanoCores"].as_u64()?;
    let kibibytes = figures["memory"]["workingSetBytes"].as_u64()? / 1024;
    Some(json!({ "cpu": format!("{nanocores}n"), "memory": format!("{kibibytes}Ki") }))
}

fn metadata(object: &Object) -> Value {
    let mut metadata = json!({
        "name": object.name(),
        "creationTimestamp": crate::pipeline::meta::now(),
    });
    if !object.namespace().is_empty() {
        metadata["namespace"] = object.namespace().into();
    }
    if let Some(labels) = object.at("/metadata/labels") {
        metadata["labels"] = labels.clone();
    }
    metadata
}

/// The summaries of those nodes that answer, by name.
async fn summaries(core: &Arc<Core>, nodes: Vec<Arc<Object>>) -> BTreeMap<String, Value> {
    let mut answers = BTreeMap::new();
    let mut asking = JoinSet::new();
    let mut take = |answer: Option<Result<Option<(String, Value)>, JoinError>>| {
        if let Some(Ok(Some((name, summary)))) = answer {
            answers.insert(name, summary);
        }
    };
    for node in nodes {
        if asking.len() >= AT_ONCE {
            take(asking.join_next().await);
        }
        let core = core.clone();
        asking.spawn(async move { asked(&core, node).await });
    }
    while !asking.is_empty() {
        take(asking.join_next().await);
    }
    answers
}

/// `None`: it does not answer, or not in time.
async fn asked(core: &Core, node: Arc<Object>) -> Option<(String, Value)> {
    match tokio::time::timeout(PATIENCE, summary(core, &node)).await {
        Ok(Ok(summary)) => Some((node.name().to_string(), summary)),
        Ok(Err(error)) => {
            tracing::debug!(node = node.name(), %error, "a node has no metrics");
            None
        }
        Err(_) => None,
    }
}

async fn summary(core: &Core, node: &Object) -> Result<Value, Status> {
    let address = backend::kubelet_address(node)?;
    let io = backend::dial_kubelet(&core.ways, address, Trust::Cluster).await?;
    let (mut sender, _link) = backend::http(io).await?;
    let request = Request::get("/stats/summary")
        .header(header::HOST, address.to_string())
        .body(pass::empty())
        .map_err(Status::internal)?;
    let answer = sender.send_request(request).await.map_err(Status::internal)?;
    if answer.status() != StatusCode::OK {
        return Err(Status::internal(format!("its answer was {}", answer.status())));
    }
    let body = Limited::new(answer.into_body(), SUMMARY_BYTES_MAX).collect().await;
    let bytes = body.map_err(Status::internal)?.to_bytes();
    serde_json::from_slice(&bytes).map_err(Status::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_quantities() {
        let figures = json!({
            "cpu": { "usageNanoCores": 1_500_000 }, "memory": { "workingSetBytes": 4096 },
        });
        assert_eq!(usage(&figures), Some(json!({ "cpu": "1500000n", "memory": "4Ki" })));
        assert_eq!(usage(&json!({ "memory": { "workingSetBytes": 1 } })), None);
    }
}

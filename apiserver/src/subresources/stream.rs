//! Logs, exec, attach and port-forward: bytes between the client and a node. What the client speaks
//! (WebSocket, SPDY) ends in the node; here bytes only pass.

use super::connect::{self, Asker};
use crate::{
    backend::{self, Pass, Trust, pass::Outgoing},
    kinds::KindDef,
    memo,
    pipeline::{Core, key},
    server::{Body, Connection, RequestInfo},
};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use k8s::{FieldError, Object, Status};
use serde_json::Value;
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

/// What a client may ask of logs, handed on as it came.
const LOG_OPTIONS: &[&str] = &[
    "follow",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "stream",
    "tailLines",
    "timestamps",
];

/// Of a node's refusal, as much as is told (upstream's `maxReadLength`).
const REFUSAL_BYTES_MAX: usize = 50_000;

/// True if this subresource is a conversation with a node.
pub(crate) fn is_stream(kind: &KindDef, subresource: &str) -> bool {
    kind.plural == "pods" && matches!(subresource, "log" | "exec" | "attach" | "portforward")
}

/// Where a conversation goes.
struct Target {
    address: SocketAddr,
    trust: Trust,
    /// With its query.
    path: String,
}

/// Connects the client with the node and passes bytes until either ends.
pub(crate) async fn proxy(
    core: &Arc<Core>,
    connection: Connection,
    info: &RequestInfo,
    asker: Asker<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if info.subresource != "log" && *request.method() == Method::GET {
        // A WebSocket is opened by a GET, but what it does is no reading.
        let create = RequestInfo { verb: "create".into(), ..info.clone() };
        core.authorize(&crate::server::attributes(asker.identity, &create))?;
    }
    let query = request.uri().query().unwrap_or_default().to_string();
    let Some(target) = pod_target(core, info, asker, &query).await? else {
        // As upstream: the logs of a pod that is nowhere yet are empty.
        return Ok(crate::server::bytes(StatusCode::OK, "text/plain", ""));
    };
    if info.subresource != "log" && !request.headers().contains_key(header::UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    connection.may_pause.store(true, Ordering::Relaxed);
    let running = core.metrics.longrunning(info);
    let io = backend::dial_kubelet(&core.ways, target.address, target.trust).await?;
    let (sender, link) = backend::http(io).await?;
    let pass = Pass { core: core.clone(), draining: connection.draining, running, link };
    let outgoing = Outgoing {
        uri: target.path,
        host: target.address.to_string(),
        headers: Vec::new(),
        client: connection.peer.ip(),
    };
    let answer = pass.on(sender, outgoing, request).await?;
    match (info.subresource.as_str(), answer.status().as_u16()) {
        // A client that streams gets the node's refusal as it is.
        ("log", 200..=206) | ("exec" | "attach" | "portforward", _) => Ok(answer),
        (_, code) => {
            let text = beginning(answer.into_body()).await;
            Err(refused_log(code, &info.name, &text))
        }
    }
}

/// Of a body as much as is told; what cannot be read is not.
async fn beginning(mut body: Body) -> String {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await
        && text.len() < REFUSAL_BYTES_MAX
    {
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes));
    }
    text.truncate(REFUSAL_BYTES_MAX);
    String::from_utf8_lossy(&text).into_owned()
}

/// A node's refusal of a log in the words of upstream's `GenericHttpResponseChecker`.
fn refused_log(code: u16, pod: &str, text: &str) -> Status {
    let (reason, message) = match code {
        400 => return Status::bad_request(text),
        500 => return Status::internal(text),
        404 => ("NotFound", "the server could not find the requested resource".to_string()),
        403 => ("Forbidden", text.to_string()),
        code if code > 500 => {
            let text = k8s::text::go_quote(text);
            let message = format!(
                "an error on the server ({text}) has prevented the request from succeeding"
            );
            ("InternalError", message)
        }
        code => {
            let message = format!(
                "the server responded with the status code {code} but did not return more information"
            );
            ("", message)
        }
    };
    let mut status = Status::new(code, reason, format!("{message} ( pods/log {pod})"));
    status.kind = "pods/log".to_string();
    status.name = pod.to_string();
    status
}

/// `None`: a pod without a node, whose logs are asked for.
async fn pod_target(
    core: &Core,
    info: &RequestInfo,
    asker: Asker<'_>,
    query: &str,
) -> Result<Option<Target>, Status> {
    core.barrier().await?;
    let stored = core.store.get(&key(asker.kind, &info.namespace, &info.name));
    let stored = stored
        .ok_or_else(|| Status::not_found(&k8s::Resource::new("", "v1", "pods"), &info.name))?;
    let pod = memo::object(&stored);
    // Logs are read, not connected to.
    let query = match info.subresource.as_str() {
        "log" => query.to_string(),
        _ => {
            connect::refuse_dry_run(query)?;
            let asked = connect::options(query);
            let wanted = connect::admit(core, info, asker, asked.clone()).await?;
            if wanted == asked { query.to_string() } else { connect::query(&wanted) }
        }
    };
    let query = query.as_str();
    let node_name = pod.str_at("/spec/nodeName");
    if node_name.is_empty() {
        if info.subresource == "log" {
            return Ok(None);
        }
        let why = format!("pod {} does not have a host assigned", info.name);
        return Err(Status::bad_request(why));
    }
    let path = kubelet_path(&pod, info, query)?;
    let insecure = info.subresource == "log"
        && query.split('&').any(|pair| pair == "insecureSkipTLSVerifyBackend=true");
    let trust = if insecure { Trust::Anybody } else { Trust::Cluster };
    let address = backend::kubelet_address(&*backend::node(core, node_name).await?)?;
    Ok(Some(Target { address, trust, path }))
}

/// The path on the node for what is asked of a pod.
fn kubelet_path(pod: &Object, info: &RequestInfo, query: &str) -> Result<String, Status> {
    let place = format!("{}/{}", info.namespace, info.name);
    let pairs = || query.split('&').filter(|pair| !pair.is_empty());
    let key = |pair: &str| pair.split('=').next().unwrap_or_default().to_string();
    let truth = |pair: &str| matches!(pair.split_once('='), Some((_, "true" | "1")));
    let asked = pairs().find_map(|pair| pair.strip_prefix("container="));
    match info.subresource.as_str() {
        "portforward" => Ok(format!("/portForward/{place}?{query}")),
        "log" => {
            let container = container(pod, asked)?;
            let errors = log_errors(&pairs().collect::<Vec<_>>());
            if !errors.is_empty() {
                return Err(Status::invalid("", "PodLogOptions", pod.name(), &errors));
            }
            let options: Vec<&str> =
                pairs().filter(|pair| LOG_OPTIONS.contains(&key(pair).as_str())).collect();
            Ok(format!("/containerLogs/{place}/{container}?{}", options.join("&")))
        }
        "exec" | "attach" => {
            let container = container(pod, asked)?;
            let mut options = Vec::new();
            for pair in pairs() {
                match key(pair).as_str() {
                    "command" => options.push(pair.to_string()),
                    "stdin" if truth(pair) => options.push("input=1".into()),
                    "stdout" if truth(pair) => options.push("output=1".into()),
                    "stderr" if truth(pair) => options.push("error=1".into()),
                    "tty" if truth(pair) => options.push("tty=1".into()),
                    _ => {}
                }
            }
            let verb = &info.subresource;
            Ok(format!("/{verb}/{place}/{container}?{}", options.join("&")))
        }
        other => Err(Status::not_implemented(format!("pods/{other} is not implemented yet"))),
    }
}

/// What is wrong with the options of a log (upstream's `ValidatePodLogOptions`).
fn log_errors(pairs: &[&str]) -> Vec<FieldError> {
    let value =
        |wanted: &str| pairs.iter().find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix('='));
    let number = |name: &str| value(name).and_then(|text| text.parse::<i64>().ok());
    let mut errors = Vec::new();
    for (name, least, detail) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ] {
        if let Some(number) = number(name).filter(|number| *number < least) {
            errors.push(FieldError::invalid(name, number.into(), detail));
        }
    }
    match (number("sinceSeconds"), value("sinceTime")) {
        (Some(_), Some(_)) => {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("", detail));
        }
        (Some(seconds), None) if seconds < 1 => {
            let detail = "must be greater than 0";
            errors.push(FieldError::invalid("sinceSeconds", seconds.into(), detail));
        }
        _ => {}
    }
    errors
}

/// The container asked for, or the only one.
fn container(pod: &Object, asked: Option<&str>) -> Result<String, Status> {
    let names = |field: &str| -> Vec<String> {
        let list = pod.at(&format!("/spec/{field}")).and_then(Value::as_array);
        let names = list.into_iter().flatten().filter_map(|one| one["name"].as_str());
        names.map(str::to_string).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    match (asked.filter(|asked| !asked.is_empty()), main.as_slice()) {
        (Some(asked), _) => {
            let ephemeral = names("ephemeralContainers");
            if main.iter().chain(&init).chain(&ephemeral).any(|name| name == asked) {
                return Ok(asked.to_string());
            }
            let why = format!("container {asked} is not valid for pod {}", pod.name());
            Err(Status::bad_request(why))
        }
        (None, [only]) => Ok(only.clone()),
        (None, _) => {
            let mut why = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name(),
                main.join(" ")
            );
            if !init.is_empty() {
                why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: &[&str]) -> Object {
        let containers: Vec<Value> =
            containers.iter().map(|name| json!({ "name": name })).collect();
        let pod = json!({ "metadata": { "name": "web" }, "spec": { "containers": containers } });
        Object::from_value(pod).expect("an object")
    }

    fn path(subresource: &str, query: &str) -> Result<String, String> {
        let info = RequestInfo {
            namespace: "default".into(),
            name: "web".into(),
            subresource: subresource.into(),
            ..RequestInfo::default()
        };
        kubelet_path(&pod(&["a"]), &info, query).map_err(|status| status.message)
    }

    #[test]
    fn a_request_for_a_pod_becomes_a_path_on_its_node() {
        assert_eq!(
            path("log", "follow=true&container=a&pretty=1"),
            Ok("/containerLogs/default/web/a?follow=true".into())
        );
        assert_eq!(
            path("exec", "command=sh&command=-c&stdin=true&stdout=true&tty=false"),
            Ok("/exec/default/web/a?command=sh&command=-c&input=1&output=1".into())
        );
        assert_eq!(path("log", "container=b"), Err("container b is not valid for pod web".into()));
    }

    #[test]
    fn a_nodes_refusal_of_a_log_is_a_status() {
        let told = |code| {
            let status = refused_log(code, "web", "why");
            (status.code, status.reason, status.message)
        };
        assert_eq!(told(400), (400, "BadRequest".into(), "why".into()));
        assert_eq!(told(500), (500, "InternalError".into(), "Internal error occurred: why".into()));
        let missing = "the server could not find the requested resource ( pods/log web)";
        assert_eq!(told(404), (404, "NotFound".into(), missing.into()));
        let failed = "an error on the server (\"why\") has prevented the request from succeeding \
                      ( pods/log web)";
        assert_eq!(told(502), (502, "InternalError".into(), failed.into()));
    }

    #[test]
    fn one_of_several_containers_must_be_named() {
        let refused = container(&pod(&["a", "b"]), None).map_err(|status| status.message);
        let why = "a container name must be specified for pod web, choose one of: [a b]";
        assert_eq!(refused, Err(why.to_string()));
    }
}

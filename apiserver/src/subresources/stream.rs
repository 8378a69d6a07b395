//! Logs, exec, attach, port-forward and node proxies: bytes between the client and a node. What the
//! client speaks (WebSocket, SPDY) ends in the node; here bytes only pass.

use crate::{
    admission,
    identity::Identity,
    kinds::KindDef,
    memo,
    pipeline::{Core, key},
    server::{Body, Connection, RequestInfo},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use k8s::{Object, Status};
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// To reach a node and agree on TLS.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
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

/// True if this subresource is a conversation with a node.
pub(crate) fn is_stream(kind: &KindDef, subresource: &str) -> bool {
    match kind.plural {
        "pods" => matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy"),
        "nodes" => subresource == "proxy",
        _ => false,
    }
}

/// Where a conversation goes.
struct Target {
    address: IpAddr,
    port: u16,
    /// With its query.
    path: String,
}

/// Connects the client with the node and passes bytes until either ends.
pub(crate) async fn proxy(
    core: &Arc<Core>,
    connection: Connection,
    info: &RequestInfo,
    identity: Arc<Identity>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let query = request.uri().query().unwrap_or_default().to_string();
    let target = match info.resource.as_str() {
        "nodes" => {
            let node = node(core, &info.name).await?;
            let path = if info.rest.is_empty() { "/" } else { &info.rest };
            let mark = if query.is_empty() { "" } else { "?" };
            target(&node, format!("{path}{mark}{query}"))?
        }
        _ => match pod_target(core, info, &identity, &query).await? {
            Some(target) => target,
            // As upstream: the logs of a pod that is nowhere yet are empty.
            None => return Ok(plain_text("")),
        },
    };
    connection.may_pause.store(true, Ordering::Relaxed);
    let running = core.metrics.longrunning(info);
    let (sender, link) = dial(core, &target).await?;
    let pass = Pass { core: core.clone(), draining: connection.draining, running, link };
    pass.on(sender, target, request).await
}

fn plain_text(text: &'static str) -> Response<Body> {
    crate::server::bytes(StatusCode::OK, "text/plain", text)
}

async fn node(core: &Core, name: &str) -> Result<Arc<Object>, Status> {
    core.barrier().await?;
    let stored = core.view.stored("nodes", name);
    let missing = || Status::not_found(&k8s::Resource::new("", "v1", "nodes"), name);
    stored.map(|stored| memo::object(&stored)).ok_or_else(missing)
}

/// The node's own port, on its internal address.
fn target(node: &Object, path: String) -> Result<Target, Status> {
    let addresses = node.at("/status/addresses").and_then(Value::as_array);
    let internal = addresses.into_iter().flatten().find(|entry| entry["type"] == "InternalIP");
    let address = internal.and_then(|entry| entry["address"].as_str()?.parse().ok());
    let port = node.int_at("/status/daemonEndpoints/kubeletEndpoint/Port");
    match (address, port.and_then(|port| u16::try_from(port).ok())) {
        (Some(address), port) => Ok(Target { address, port: port.unwrap_or(10250), path }),
        (None, _) => {
            let why = format!("no preferred addresses found; known addresses: {}", node.name());
            Err(Status::internal(why))
        }
    }
}

/// `None`: a pod without a node, whose logs are asked for.
async fn pod_target(
    core: &Core,
    info: &RequestInfo,
    identity: &Identity,
    query: &str,
) -> Result<Option<Target>, Status> {
    core.barrier().await?;
    let kind =
        crate::kinds::find("", "pods").ok_or_else(|| Status::internal("pods are not served"))?;
    let stored = core.store.get(&key(kind, &info.namespace, &info.name));
    let stored = stored
        .ok_or_else(|| Status::not_found(&k8s::Resource::new("", "v1", "pods"), &info.name))?;
    let pod = memo::object(&stored);
    admission::validate(
        &admission::Cx {
            operation: admission::Operation::Connect,
            kind,
            namespace: &info.namespace,
            name: &info.name,
            subresource: &info.subresource,
            identity,
            old: Some(&pod),
            view: &*core.view,
            config: &core.config.admission,
            dry_run: false,
        },
        &pod,
    )?;
    let node_name = pod.str_at("/spec/nodeName");
    if node_name.is_empty() {
        if info.subresource == "log" {
            return Ok(None);
        }
        let why = format!("pod {} does not have a host assigned", info.name);
        return Err(Status::bad_request(why));
    }
    let path = kubelet_path(&pod, info, query)?;
    target(&*node(core, node_name).await?, path).map(Some)
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

type Sender = http1::SendRequest<Body>;

/// A connection to the node; it ends when the handle is dropped.
async fn dial(core: &Core, target: &Target) -> Result<(Sender, AbortOnDropHandle<()>), Status> {
    let Some(tls) = core.config.kubelet_tls.clone() else {
        return Err(Status::not_implemented("this server has no credentials for nodes"));
    };
    let failed = |error: &dyn std::fmt::Display| {
        let why = format!("error dialing backend: {error}");
        Status::new(500, "InternalError", why)
    };
    let connect = async {
        let tcp = TcpStream::connect((target.address, target.port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(target.address.into());
        TlsConnector::from(tls).connect(name, tcp).await
    };
    let stream = match tokio::time::timeout(DIAL_TIMEOUT, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => return Err(failed(&"i/o timeout")),
    };
    let handshake = http1::handshake::<_, Body>(TokioIo::new(stream)).await;
    let (sender, link) = handshake.map_err(|error| failed(&error))?;
    let link = tokio::spawn(async move {
        if let Err(error) = link.with_upgrades().await {
            tracing::debug!(%error, "a connection to a node ended");
        }
    });
    Ok((sender, AbortOnDropHandle::new(link)))
}

/// What must live as long as the conversation.
struct Pass {
    core: Arc<Core>,
    draining: CancellationToken,
    running: crate::metrics::Running,
    link: AbortOnDropHandle<()>,
}

impl Pass {
    async fn on(
        self,
        mut sender: Sender,
        target: Target,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let upgrade = request.headers().contains_key(header::UPGRADE);
        let client = upgrade.then(|| hyper::upgrade::on(&mut request));
        let asked = outgoing(&target, request)?;
        let answer = sender.send_request(asked).await;
        let mut answer = answer.map_err(|error| {
            Status::new(500, "InternalError", format!("error dialing backend: {error}"))
        })?;
        if let Some(client) = client
            && answer.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            let node = hyper::upgrade::on(&mut answer);
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            copy_headers(answer.headers(), response.headers_mut(), true);
            let tasks = self.core.tasks.clone();
            tasks.spawn(self.splice(client, node));
            return Ok(response);
        }
        let (parts, body) = answer.into_parts();
        let mut response = Response::new(
            body.map_frame(move |frame| {
                let _alive = (&self.link, &self.running);
                frame
            })
            .map_err(Into::into)
            .boxed_unsync(),
        );
        *response.status_mut() = parts.status;
        copy_headers(&parts.headers, response.headers_mut(), false);
        Ok(response)
    }

    /// Copies both ways until either side closes or the server drains.
    async fn splice(self, client: OnUpgrade, node: OnUpgrade) {
        let both = async {
            let (client, node) = futures::try_join!(client, node)?;
            let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
            let copied = tokio::io::copy_bidirectional(&mut client, &mut node).await;
            if let Err(error) = copied {
                tracing::debug!(%error, "a stream to a node ended");
            }
            Ok::<_, hyper::Error>(())
        };
        tokio::select! {
            ended = both => if let Err(error) = ended {
                tracing::debug!(%error, "a stream to a node did not begin");
            },
            () = self.draining.cancelled() => {}
        }
    }
}

fn empty() -> Body {
    Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync()
}

/// The client's request as the node gets it. The client's body goes along only where it is a
/// request of its own (node proxy).
fn outgoing(target: &Target, request: Request<Incoming>) -> Result<Request<Body>, Status> {
    let (parts, body) = request.into_parts();
    let host = match target.address {
        IpAddr::V4(address) => format!("{address}:{}", target.port),
        IpAddr::V6(address) => format!("[{address}]:{}", target.port),
    };
    let upgrade = parts.headers.contains_key(header::UPGRADE);
    let bodiless = upgrade || matches!(parts.method, Method::GET | Method::HEAD);
    let body = if bodiless { empty() } else { body.map_err(Into::into).boxed_unsync() };
    let mut request = Request::builder()
        .method(parts.method)
        .uri(&target.path)
        .header(header::HOST, host)
        .body(body)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    copy_headers(&parts.headers, request.headers_mut(), upgrade);
    Ok(request)
}

/// All but what belongs to one connection (unless it is being upgraded) and the client's credentials.
fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, upgrade: bool) {
    const NEVER: &[header::HeaderName] =
        &[header::HOST, header::AUTHORIZATION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH];
    const OF_CONNECTION: &[header::HeaderName] = &[header::CONNECTION, header::UPGRADE, header::TE];
    for (name, value) in from {
        let own = OF_CONNECTION.contains(name) && !upgrade;
        if !own && !NEVER.contains(name) && !name.as_str().starts_with("impersonate-") {
            to.append(name, value.clone());
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
    fn one_of_several_containers_must_be_named() {
        let refused = container(&pod(&["a", "b"]), None).map_err(|status| status.message);
        let why = "a container name must be specified for pod web, choose one of: [a b]";
        assert_eq!(refused, Err(why.to_string()));
    }
}

//! pods/proxy, services/proxy and nodes/proxy: any HTTP request, handed on to what the name in the
//! path means.

use super::connect::{self, Asker};
use crate::{
    backend::{self, Io, Pass, Trust, html, pass::Outgoing, service, unreachable},
    kinds::KindDef,
    memo,
    metrics::Running,
    pipeline::{Core, key},
    server::{Body, Connection, RequestInfo, full},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use k8s::{Object, Resource, Status};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

/// True if this subresource is a proxy.
pub(crate) fn is_proxy(kind: &KindDef, subresource: &str) -> bool {
    subresource == "proxy" && matches!(kind.plural, "pods" | "services" | "nodes")
}

/// `[scheme:]name[:port]`
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    secure: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Option<Named<'a>> {
        let (scheme, name, port) = match text.split(':').collect::<Vec<_>>()[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https");
        (known && !name.is_empty()).then_some(Named { secure: scheme == "https", name, port })
    }
}

/// A connection to what was named.
struct Backend {
    io: Io,
    /// As links in its pages may name it.
    host: String,
    /// A kubelet's pages are not rewritten.
    rewrites: bool,
}

pub(crate) async fn proxy(
    core: &Arc<Core>,
    connection: Connection,
    info: &RequestInfo,
    asker: Asker<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let (prefix, path) = split(request.uri().path());
    let mut path = admitted(core, info, asker, request.uri().query(), path).await?;
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let named = info.name.as_str();
    if path.is_empty() && !upgrade && matches!(*request.method(), Method::GET | Method::HEAD) {
        return redirect(&format!("{prefix}/{query}"));
    }
    if path.is_empty() {
        path = "/".to_string();
    }
    let named = Named::parse(named).ok_or_else(|| {
        Status::bad_request(format!("invalid {} request {named:?}", singular(info)))
    })?;
    let backend = match info.resource.as_str() {
        "nodes" => node(core, &named).await?,
        "services" => service_endpoint(core, &info.namespace, &named).await?,
        _ => pod(core, &info.namespace, &named).await?,
    };
    connection.may_pause.store(true, Ordering::Relaxed);
    let running = core.metrics.longrunning(info);
    let method = request.method().clone();
    let client_host = client_host(&request);
    let mut headers = Vec::new();
    for (name, value) in [
        ("x-forwarded-uri", format!("{prefix}{path}")),
        ("x-forwarded-host", client_host.clone()),
        ("x-forwarded-proto", "https".to_string()),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.push((HeaderName::from_static(name), value));
        }
    }
    let outgoing = Outgoing {
        uri: format!("{path}{query}"),
        host: client_host.clone(),
        headers,
        client: connection.peer.ip(),
    };
    let (host, rewrites) = (backend.host.clone(), backend.rewrites && !upgrade);
    let answer = hand_on(core, connection, running, backend, outgoing, request).await?;
    if !rewrites {
        return Ok(answer);
    }
    let page = html::Page { prefix: &prefix, hosts: [&host, &client_host] };
    rewritten(answer, &page, method == Method::HEAD).await
}

/// The path behind the proxy as admission wants it, of which it knows nothing else.
async fn admitted(
    core: &Core,
    info: &RequestInfo,
    asker: Asker<'_>,
    query: Option<&str>,
    path: String,
) -> Result<String, Status> {
    connect::refuse_dry_run(query.unwrap_or_default())?;
    let mut asked = info.rest.clone();
    if path.ends_with('/') && !asked.ends_with('/') {
        asked.push('/');
    }
    let options = Object::from_value(json!({ "path": asked })).unwrap_or_default();
    let wanted = connect::admit(core, info, asker, options).await?;
    let wanted = wanted.str_at("/path");
    if wanted == asked {
        return Ok(path);
    }
    let mut url = url::Url::parse("http://proxied").map_err(Status::internal)?;
    url.set_path(wanted);
    Ok(url.path().to_string())
}

fn singular(info: &RequestInfo) -> &str {
    info.resource.trim_end_matches('s')
}

async fn hand_on(
    core: &Arc<Core>,
    connection: Connection,
    running: Running,
    backend: Backend,
    outgoing: Outgoing,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (sender, link) = backend::http(backend.io).await?;
    let pass = Pass { core: core.clone(), draining: connection.draining, running, link };
    pass.on(sender, outgoing, request).await
}

/// The path up to `/proxy`, and what comes behind, escapes and all.
fn split(path: &str) -> (String, String) {
    // /api/v1/nodes/N/proxy or /api/v1/namespaces/NS/KIND/N/proxy
    let parts = if path.starts_with("/api/v1/namespaces/") { 7 } else { 5 };
    let slashes = path.match_indices('/').map(|(at, _)| at);
    match slashes.into_iter().nth(parts) {
        Some(at) => (path[..at].to_string(), path[at..].to_string()),
        None => (path.to_string(), String::new()),
    }
}

fn redirect(location: &str) -> Result<Response<Body>, Status> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::try_from(location).map_err(Status::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// The host as the client named it: HTTP/2 has it in the URI.
fn client_host(request: &Request<Incoming>) -> String {
    let named = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let authority = || request.uri().authority().map(|authority| authority.as_str());
    named.or_else(authority).unwrap_or_default().to_string()
}

async fn node(core: &Core, named: &Named<'_>) -> Result<Backend, Status> {
    let node = backend::node(core, named.name).await?;
    let kubelet = backend::kubelet_address(&node)?;
    if named.port.is_empty() || named.port.parse() == Ok(kubelet.port()) {
        let io = backend::dial_kubelet(&core.ways, kubelet, Trust::Cluster).await?;
        return Ok(Backend { io, host: kubelet.to_string(), rewrites: false });
    }
    let port = named.port.parse().map_err(|_| {
        Status::bad_request(format!("invalid port {:?} of node {:?}", named.port, named.name))
    })?;
    let address = SocketAddr::new(kubelet.ip(), port);
    dressed(backend::dial_pod(&core.ways, None, address).await?, address, named.secure).await
}

async fn pod(core: &Core, namespace: &str, named: &Named<'_>) -> Result<Backend, Status> {
    core.barrier().await?;
    let missing = || Status::not_found(&Resource::new("", "v1", "pods"), named.name);
    let kind = core.catalog().find("", "v1", "pods").ok_or_else(missing)?;
    let stored = core.store.get(&key(&kind, namespace, named.name)).ok_or_else(missing)?;
    let pod = memo::object(&stored);
    let port = match named.port {
        "" => first_port(&pod).unwrap_or(if named.secure { 443 } else { 80 }),
        port => port.parse().map_err(|_| {
            unreachable(format!("address {port}: unknown port of pod {}", pod.name()))
        })?,
    };
    let ip: Result<IpAddr, _> = pod.str_at("/status/podIP").parse();
    let ip = ip.map_err(|_| Status::bad_request("address not allowed"))?;
    let address = SocketAddr::new(ip, port);
    let node = Some(pod.str_at("/spec/nodeName")).filter(|node| !node.is_empty());
    dressed(backend::dial_pod(&core.ways, node, address).await?, address, named.secure).await
}

/// The first port any container says it has.
fn first_port(pod: &Object) -> Option<u16> {
    let containers = pod.at("/spec/containers").and_then(Value::as_array);
    let port = |container: &Value| container["ports"][0]["containerPort"].as_u64();
    containers.into_iter().flatten().find_map(port)?.try_into().ok()
}

async fn service_endpoint(
    core: &Core,
    namespace: &str,
    named: &Named<'_>,
) -> Result<Backend, Status> {
    core.barrier().await?;
    let found = service::endpoint(&*core.view, namespace, named.name, named.port)?;
    let io = backend::dial_pod(&core.ways, found.node.as_deref(), found.address).await?;
    dressed(io, found.address, named.secure).await
}

async fn dressed(io: Io, address: SocketAddr, secure: bool) -> Result<Backend, Status> {
    let io = match secure {
        true => backend::secure_with_anybody(io, address.ip()).await?,
        false => io,
    };
    Ok(Backend { io, host: address.to_string(), rewrites: true })
}

/// The answer with its redirect or its links leading back through the proxy.
async fn rewritten(
    mut answer: Response<Body>,
    page: &html::Page<'_>,
    head: bool,
) -> Result<Response<Body>, Status> {
    let text = |answer: &Response<Body>, name| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_string()
    };
    let location = text(&answer, header::LOCATION);
    if !location.is_empty() {
        if let Ok(location) = HeaderValue::try_from(page.link(&location)) {
            answer.headers_mut().insert(header::LOCATION, location);
        }
        return Ok(answer);
    }
    let media = text(&answer, header::CONTENT_TYPE);
    let is_html = media.split(';').next().is_some_and(|media| media.trim() == "text/html");
    let length = text(&answer, header::CONTENT_LENGTH).parse::<usize>();
    let short = length.is_ok_and(|length| length <= html::HTML_BYTES_MAX);
    if head || !is_html || !short || !text(&answer, header::CONTENT_ENCODING).is_empty() {
        return Ok(answer);
    }
    let (mut parts, body) = answer.into_parts();
    // Not longer than its length says: HTTP/1.1 sees to that.
    let bytes = body.collect().await;
    let bytes = bytes.map_err(unreachable)?.to_bytes();
    parts.headers.remove(header::CONTENT_LENGTH);
    let bytes = match std::str::from_utf8(&bytes) {
        Ok(text) => Bytes::from(page.rewrite(text)),
        Err(_) => bytes,
    };
    Ok(Response::from_parts(parts, full(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_scheme_and_a_port() {
        let parse = |text| Named::parse(text).map(|named| (named.secure, named.name, named.port));
        assert_eq!(parse("web"), Some((false, "web", "")));
        assert_eq!(parse("web:80"), Some((false, "web", "80")));
        assert_eq!(parse("https:web:"), Some((true, "web", "")));
        assert_eq!(parse("http:web:port"), Some((false, "web", "port")));
        assert_eq!(parse("ftp:web:1"), None);
        assert_eq!(parse(":80"), None);
        assert_eq!(parse("a:b:c:d"), None);
    }

    #[test]
    fn the_path_behind_the_proxy_keeps_its_escapes() {
        let parts = |path| split(path);
        let of_node = parts("/api/v1/nodes/n/proxy/a%20b/");
        assert_eq!(of_node, ("/api/v1/nodes/n/proxy".into(), "/a%20b/".into()));
        let of_pod = parts("/api/v1/namespaces/a/pods/b:80/proxy");
        assert_eq!(of_pod, ("/api/v1/namespaces/a/pods/b:80/proxy".into(), String::new()));
        assert_eq!(parts("/api/v1/namespaces/a/services/b/proxy/").1, "/");
    }
}

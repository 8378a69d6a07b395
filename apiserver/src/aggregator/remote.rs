//! A server behind an APIService, and a request handed on to it with the user's name in headers that
//! it believes because of this master's front-proxy certificate.

use super::SPACE;
use crate::{
    backend::{self, Io, Pass, pass::Outgoing, service, unreachable},
    identity::Identity,
    memo,
    pipeline::Core,
    server::{Body, Connection, RequestInfo, full},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use k8s::{Object, Status};
use raft_store::{Key, Stored};
use rustls::{ClientConfig, pki_types::ServerName};
use std::sync::{Arc, atomic::Ordering};

/// What an APIService with a service says.
pub(crate) struct Remote {
    /// The APIService's name.
    pub(crate) object: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    /// Why it cannot be spoken to: a bundle that is none.
    tls: Result<Arc<ClientConfig>, String>,
}

/// The server of `group` and `version`, if it is not this one.
pub(crate) fn remote(core: &Core, group: &str, version: &str) -> Option<Arc<Remote>> {
    if group.is_empty() {
        return None;
    }
    let stored = core.store.get(&Key::new(SPACE, format!("{version}.{group}")))?;
    of_stored(core, &stored)
}

pub(super) fn of_stored(core: &Core, stored: &Arc<Stored>) -> Option<Arc<Remote>> {
    let found = memo::derived(stored, |object| parse(core, object).map(Arc::new));
    Option::clone(&found)
}

fn parse(core: &Core, object: &Object) -> Option<Remote> {
    object.at("/spec/service").filter(|service| service.is_object())?;
    let text = |pointer: &str| object.str_at(pointer).to_string();
    let port = object.int_at("/spec/service/port").and_then(|port| u16::try_from(port).ok());
    let insecure = object.at("/spec/insecureSkipTLSVerify").and_then(|value| value.as_bool());
    Some(Remote {
        object: object.name().to_string(),
        group: text("/spec/group"),
        version: text("/spec/version"),
        namespace: text("/spec/service/namespace"),
        service: text("/spec/service/name"),
        port: port.unwrap_or(443),
        tls: tls(core, insecure == Some(true), object.str_at("/spec/caBundle")),
    })
}

fn tls(core: &Core, insecure: bool, bundle: &str) -> Result<Arc<ClientConfig>, String> {
    let roots = match insecure {
        true => None,
        false => {
            let pem = STANDARD.decode(bundle).map_err(|error| format!("caBundle: {error}"))?;
            Some(backend::roots(&pem).map_err(|error| format!("caBundle: {error}"))?)
        }
    };
    backend::client_config(roots, core.config.aggregation_client.clone())
}

impl Remote {
    /// The name its certificate must have.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// A TLS connection to one of the service's endpoints.
    pub(super) async fn connect(&self, core: &Core) -> Result<Io, Status> {
        let tls = self.tls.clone().map_err(unreachable)?;
        let port = self.port.to_string();
        let endpoint = service::endpoint(&*core.view, &self.namespace, &self.service, &port)?;
        let io = backend::dial_pod(&core.ways, endpoint.node.as_deref(), endpoint.address).await?;
        let name = ServerName::try_from(self.host()).map_err(unreachable)?;
        backend::secure(io, tls, name).await
    }
}

/// Hands the request on as it is, with who asks for it.
pub(crate) async fn proxy(
    core: &Arc<Core>,
    connection: Connection,
    info: &RequestInfo,
    identity: &Identity,
    remote: &Remote,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    connection.may_pause.store(true, Ordering::Relaxed);
    let running = core.metrics.longrunning(info);
    let io = remote.connect(core).await?;
    let (sender, link) = backend::http(io).await?;
    let uri = request.uri();
    let uri = uri.path_and_query().map_or(uri.path(), |both| both.as_str()).to_string();
    let mut headers = remote_user(identity);
    // Whoever the client says it is was decided on here.
    let claimed = request.headers().keys().filter(|name| name.as_str().starts_with("x-remote-"));
    let unset: Vec<HeaderName> =
        claimed.filter(|name| !headers.iter().any(|(own, _)| own == *name)).cloned().collect();
    let mut request = request;
    for name in unset {
        request.headers_mut().remove(name);
    }
    let client_host = request.headers().get(header::HOST).cloned();
    headers.extend(client_host.map(|host| (HeaderName::from_static("x-forwarded-host"), host)));
    let outgoing = Outgoing { uri, host: remote.host(), headers, client: connection.peer.ip() };
    let pass = Pass { core: core.clone(), draining: connection.draining, running, link };
    let answer = pass.on(sender, outgoing, request).await?;
    if answer.status().is_redirection() && answer.headers().contains_key(header::LOCATION) {
        let why = "the backend attempted to redirect this request, which is not permitted";
        let mut refused = Response::new(full(why));
        *refused.status_mut() = StatusCode::BAD_GATEWAY;
        return Ok(refused);
    }
    Ok(answer)
}

/// `X-Remote-User` and its fellows (kube-apiserver's --requestheader-* defaults).
pub(super) fn remote_user(identity: &Identity) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    let mut add = |name: String, value: &str| {
        // A name or value that no header can hold names nobody.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.push((name, value));
        }
    };
    add("x-remote-user".into(), &identity.user);
    if !identity.uid.is_empty() {
        add("x-remote-uid".into(), &identity.uid);
    }
    for group in &identity.groups {
        add("x-remote-group".into(), group);
    }
    for (key, values) in &identity.extra {
        for value in values {
            add(format!("x-remote-extra-{}", escaped(key)), value);
        }
    }
    headers
}

/// What a header's name cannot hold, as a URL writes it.
fn escaped(key: &str) -> String {
    let mut out = String::new();
    for byte in key.to_ascii_lowercase().bytes() {
        match byte {
            b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'^'
            | b'`'
            | b'|'
            | b'#' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_in_the_headers() {
        let mut identity = Identity::authenticated("jane", &["dev"]);
        identity.extra.insert("example.org/Scope".into(), vec!["a".into(), "b".into()]);
        let shown: Vec<String> = remote_user(&identity)
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        assert_eq!(
            shown,
            [
                "x-remote-user: jane",
                "x-remote-group: dev",
                "x-remote-group: system:authenticated",
                "x-remote-extra-example.org%2fscope: a",
                "x-remote-extra-example.org%2fscope: b",
            ]
        );
    }
}

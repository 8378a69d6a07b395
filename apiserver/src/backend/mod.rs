//! What stands behind the API: nodes, pods and services, and the ways to them. A master has no route
//! to pods; it asks the pod's node, whose agent connects it (`/coxswain/dial`, mutual TLS). Nodes
//! without that endpoint (a real kubelet's) are taken to be in networks that masters reach.

pub(crate) mod html;
pub(crate) mod pass;
pub(crate) mod service;
mod trust;

pub(crate) use pass::{Pass, Sender};

use crate::{Believed, memo, pipeline::Core, server::Body, view::View};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s::{Object, Resource, Status};
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// To reach what is asked for and agree on TLS.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The agents' protocol for bytes to a pod.
const TUNNEL: &str = "coxswain-tcp";
/// Of an answer that is no success, as much as is told.
const REFUSAL_BYTES_MAX: usize = 4096;
/// Where a node that does not say otherwise serves its kubelet API.
const KUBELET_PORT: u16 = 10250;

/// A connection to a backend, whatever it goes through.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
pub(crate) type Io = Box<dyn Stream>;

/// What it takes to reach nodes and, through them, pods.
#[derive(Clone)]
pub(crate) struct Ways {
    pub(crate) view: Arc<dyn View>,
    /// Has this master's own certificate for nodes; without it they are not connected to.
    pub(crate) believed: Believed,
}

/// A node by name.
pub(crate) async fn node(core: &Core, name: &str) -> Result<Arc<Object>, Status> {
    core.barrier().await?;
    let stored = core.view.stored("nodes", name);
    let missing = || Status::not_found(&Resource::new("", "v1", "nodes"), name);
    stored.map(|stored| memo::object(&stored)).ok_or_else(missing)
}

/// Where the node serves its kubelet API: its own port on its internal address.
pub(crate) fn kubelet_address(node: &Object) -> Result<SocketAddr, Status> {
    let addresses = node.at("/status/addresses").and_then(Value::as_array);
    let internal = addresses.into_iter().flatten().find(|entry| entry["type"] == "InternalIP");
    let address: Option<IpAddr> =
        internal.and_then(|entry| entry["address"].as_str()?.parse().ok());
    let port = node.int_at("/status/daemonEndpoints/kubeletEndpoint/Port");
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let Some(address) = address else {
        let why = format!("no preferred addresses found; known addresses: {}", node.name());
        return Err(Status::internal(why));
    };
    Ok(SocketAddr::new(address, port.unwrap_or(KUBELET_PORT)))
}

/// How the certificate of the other side is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It must be the cluster's.
    Cluster,
    /// The user asked not to look (`insecureSkipTLSVerifyBackend`).
    Anybody,
}

/// A TLS connection to a node's kubelet API, with this master's own certificate.
pub(crate) async fn dial_kubelet(
    ways: &Ways,
    address: SocketAddr,
    trust: Trust,
) -> Result<Io, Status> {
    let Some(tls) = ways.believed.now().kubelet_tls.clone() else {
        return Err(Status::not_implemented("this server has no credentials for nodes"));
    };
    let tls = match trust {
        Trust::Cluster => tls,
        // Its certificate is not shown to somebody unknown.
        Trust::Anybody => trust::anybody(),
    };
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(tls).connect(ServerName::IpAddress(address.ip().into()), tcp).await
    };
    match tokio::time::timeout(DIAL_TIMEOUT, connect).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(dialing(&error)),
        Err(_) => Err(dialing(&"i/o timeout")),
    }
}

fn dialing(error: &dyn std::fmt::Display) -> Status {
    Status::new(500, "InternalError", format!("error dialing backend: {error}"))
}

/// The refusal upstream's proxies send.
pub(crate) fn unreachable(why: impl std::fmt::Display) -> Status {
    let why = format!("error trying to reach service: {why}");
    Status::new(503, "ServiceUnavailable", why)
}

/// A connection to an address in the pod network; `node` is the node that the pod is on.
pub(crate) async fn dial_pod(
    ways: &Ways,
    node: Option<&str>,
    address: SocketAddr,
) -> Result<Io, Status> {
    if !is_proxyable(address.ip()) {
        return Err(Status::bad_request("address not allowed"));
    }
    if let Some(node) = node.and_then(|name| ways.view.object("nodes", name))
        && ways.believed.now().kubelet_tls.is_some()
        && let Some(stream) = tunnel(ways, &node, address).await?
    {
        return Ok(stream);
    }
    dial_direct(address).await
}

/// No address of this machine or of none (upstream's `IsProxyableIP`).
fn is_proxyable(ip: IpAddr) -> bool {
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

/// A connection that this master makes itself.
pub(crate) async fn dial_direct(address: SocketAddr) -> Result<Io, Status> {
    let failed = |why: &dyn std::fmt::Display| unreachable(format!("dial tcp {address}: {why}"));
    match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(tcp)) => {
            tcp.set_nodelay(true).map_err(|error| failed(&error))?;
            Ok(Box::new(tcp))
        }
        Ok(Err(error)) => Err(failed(&format!("connect: {}", plain(&error)))),
        Err(_) => Err(failed(&"i/o timeout")),
    }
}

/// Without the number in parentheses, as other systems print it.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// A connection through the node's agent; `None` if the node has no such endpoint.
async fn tunnel(ways: &Ways, node: &Object, address: SocketAddr) -> Result<Option<Io>, Status> {
    let kubelet = kubelet_address(node).map_err(|status| unreachable(status.message))?;
    let io = dial_kubelet(ways, kubelet, Trust::Cluster).await;
    let io = io.map_err(|status| unreachable(status.message))?;
    let (mut sender, link) = http(io).await?;
    let request = Request::get(format!("/coxswain/dial/{}/{}", address.ip(), address.port()))
        .header(header::HOST, kubelet.to_string())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, TUNNEL)
        .body(pass::empty())
        .map_err(unreachable)?;
    let answer = tokio::time::timeout(DIAL_TIMEOUT, sender.send_request(request)).await;
    let answer = answer.map_err(|_| unreachable("i/o timeout"))?;
    let mut answer = answer.map_err(unreachable)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(&mut answer).await.map_err(unreachable)?;
        // The connection is the stream now; its driver has nothing more to do.
        drop(link);
        return Ok(Some(Box::new(TokioIo::new(upgraded))));
    }
    if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        return Ok(None);
    }
    let body = http_body_util::Limited::new(answer.into_body(), REFUSAL_BYTES_MAX);
    let text = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
    Err(unreachable(String::from_utf8_lossy(&text)))
}

/// TLS over `io` with whoever is there, as upstream's proxies to pods do it.
pub(crate) async fn secure_with_anybody(io: Io, ip: IpAddr) -> Result<Io, Status> {
    secure(io, trust::anybody(), ServerName::IpAddress(ip.into())).await
}

pub(crate) async fn secure(
    io: Io,
    tls: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
) -> Result<Io, Status> {
    let connect = TlsConnector::from(tls).connect(name, io);
    match tokio::time::timeout(DIAL_TIMEOUT, connect).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(unreachable(error)),
        Err(_) => Err(unreachable("net/http: TLS handshake timeout")),
    }
}

pub(crate) use trust::{client_config, roots};

/// HTTP/1.1 over `io`; the connection ends when the handle is dropped.
pub(crate) async fn http(io: Io) -> Result<(Sender, AbortOnDropHandle<()>), Status> {
    let handshake = http1::handshake::<_, Body>(TokioIo::new(io)).await;
    let (sender, link) = handshake.map_err(unreachable)?;
    let link = tokio::spawn(async move {
        if let Err(error) = link.with_upgrades().await {
            tracing::debug!(%error, "a connection to a backend ended");
        }
    });
    Ok((sender, AbortOnDropHandle::new(link)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_nodes_kubelet_is_at_its_internal_address() {
        let node = json!({ "metadata": { "name": "n" }, "status": {
            "addresses": [
                { "type": "Hostname", "address": "n" },
                { "type": "InternalIP", "address": "10.0.0.7" },
            ],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10251 } },
        }});
        let node = Object::from_value(node).expect("an object");
        let address = kubelet_address(&node).map(|address| address.to_string());
        assert_eq!(address.ok().as_deref(), Some("10.0.0.7:10251"));
    }

    #[test]
    fn a_master_is_no_way_into_itself() {
        for ip in ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "::1", "fe80::1"] {
            assert!(!is_proxyable(ip.parse().expect("an address")), "{ip}");
        }
        assert!(is_proxyable("10.244.1.2".parse().expect("an address")));
    }
}

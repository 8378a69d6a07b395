//! Ways into a pod's network: from inside its namespace for port-forward, and from the node for the
//! masters, who have no route to pods (`/coxswain/dial`).

use super::{Kubelet, Refusal};
use crate::net::inside;
use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::Response,
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::net::TcpStream;

/// To connect to a pod of this node: it answers at once or not at all.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The protocol of `/coxswain/dial`: bytes, as they are.
pub(super) const TUNNEL: &str = "coxswain-tcp";

/// A connection to `port` of the pod's own loopback, IPv4 before IPv6; the error is for the client.
pub(super) async fn dial_inside(kubelet: &Kubelet, pod: &Pod, port: u16) -> io::Result<TcpStream> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let connect = async move || -> io::Result<std::net::TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for host in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let address = SocketAddr::new(host, port);
            match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return stream.into_std(),
                // The first refusal says more than that there is no IPv6.
                Ok(Err(error)) if last.kind() == io::ErrorKind::NotFound => last = error,
                Ok(Err(_)) => {}
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    };
    let stream = match kubelet.runtime.network_namespace(uid) {
        Some(path) => inside(File::open(path)?, connect).await??,
        None => connect().await?,
    };
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// `GET /coxswain/dial/IP/PORT` with `Upgrade: coxswain-tcp`: bytes to and from a pod of this node.
/// Addresses that are no pod's here are refused, so that it is no way to anywhere else.
pub(super) async fn dial(
    State(kubelet): State<Kubelet>,
    Path((ip, port)): Path<(IpAddr, u16)>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let text = ip.to_string();
    let has_it = |pod: &Pod| {
        let status = pod.status.as_ref();
        let ips = status.iter().flat_map(|status| status.pod_ips.iter().flatten());
        status.is_some_and(|status| status.pod_ip.as_deref() == Some(&text))
            || ips.into_iter().any(|one| one.ip == text)
    };
    if !kubelet.table.all().iter().any(|pod| has_it(pod)) {
        let text = format!("no pod of this node has the address {ip}");
        // Not 404: that says that there is no such endpoint.
        return Err(Refusal(StatusCode::GONE, text));
    }
    let asked = request.headers().get(header::UPGRADE);
    if asked.is_none_or(|asked| asked != TUNNEL) {
        return Err(Refusal::bad_request(format!("only with Upgrade: {TUNNEL}")));
    }
    let connect = TcpStream::connect((ip, port));
    let mut pod = match tokio::time::timeout(DIAL_TIMEOUT, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(ip, port, &plain(&error))),
        Err(_) => return Err(unreachable(ip, port, "i/o timeout")),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(master) = upgrade.await else { return };
        let mut master = TokioIo::new(master);
        // Either end closes: that is how it ends.
        let _ = tokio::io::copy_bidirectional(&mut master, &mut pod).await;
    });
    Ok(switching(TUNNEL, None))
}

fn unreachable(ip: IpAddr, port: u16, why: &str) -> Refusal {
    let text = format!("dial tcp {}: connect: {why}", SocketAddr::new(ip, port));
    Refusal(StatusCode::BAD_GATEWAY, text)
}

/// Without the number in parentheses, as other systems print it.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The answer that hands the connection over.
pub(super) fn switching(protocol: &'static str, stream_version: Option<&str>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static(protocol));
    if let Some(version) = stream_version.and_then(|version| version.parse().ok()) {
        headers.insert("x-stream-protocol-version", version);
    }
    response
}

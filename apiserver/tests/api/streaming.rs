//! Logs and exec through the server to a node that stands in for an agent.

use crate::harness::{Cluster, read, request};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::{convert::Infallible, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Answers with the path it was asked for; echoes what it hears on an upgraded connection.
async fn node(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().to_string();
    if !request.headers().contains_key(header::UPGRADE) {
        return Ok(Response::new(path.into()));
    }
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.expect("upgraded");
        let mut stream = TokioIo::new(upgraded);
        let mut buffer = [0; 64];
        loop {
            match stream.read(&mut buffer).await {
                Ok(count) if count > 0 => {
                    stream.write_all(&buffer[..count]).await.expect("written")
                }
                _ => return,
            }
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, "Upgrade".parse().expect("a value"));
    response.headers_mut().insert(header::UPGRADE, "websocket".parse().expect("a value"));
    Ok(response)
}

async fn start_node(cluster: &Cluster, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let acceptor = TlsAcceptor::from(cluster.node_tls.clone());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let stream = acceptor.accept(tcp).await.expect("TLS");
                let serving = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(node))
                    .with_upgrades();
                // Ends with an error where the client leaves first.
                let _ = serving.await;
            });
        }
    });
    address
}

/// A cluster with a pod on a node.
async fn with_pod(tasks: &mut JoinSet<()>) -> Cluster {
    let mut cluster = Cluster::start().await;
    let address = start_node(&cluster, tasks).await;
    let made = cluster.post("/api/v1/nodes", json!({ "metadata": { "name": "n1" } })).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let status = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": address.ip() }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": address.port() } },
    }});
    let status = cluster.merge("/api/v1/nodes/n1/status", status).await;
    assert_eq!(status.code, 200, "{}", status.body);
    let pod = json!({
        "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "image": "busybox" }] },
    });
    let made = cluster.post(PODS, pod).await;
    assert_eq!(made.code, 201, "{}", made.body);
    cluster
}

async fn bind(cluster: &mut Cluster) {
    let binding =
        json!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n1" } });
    let bound = cluster.post(&format!("{PODS}/p/binding"), binding).await;
    assert_eq!(bound.code, 201, "{}", bound.body);
}

#[tokio::test]
async fn logs_come_from_the_node_once_there_is_one() {
    let mut tasks = JoinSet::new();
    let mut cluster = with_pod(&mut tasks).await;
    let log = format!("{PODS}/p/log?follow=true&tailLines=5");
    assert_eq!(cluster.get(&log).await.body, "", "a pod without a node has said nothing");
    let exec = cluster.get(&format!("{PODS}/p/exec?command=sh")).await;
    assert_eq!(
        (exec.code, &exec.body["message"]),
        (400, &json!("pod p does not have a host assigned"))
    );
    bind(&mut cluster).await;
    let answer = cluster.get(&log).await;
    assert_eq!(answer.body, "/containerLogs/default/p/c?follow=true&tailLines=5");
    let proxied = cluster.get("/api/v1/nodes/n1/proxy/stats/summary?only=cpu").await;
    assert_eq!(proxied.body, "/stats/summary?only=cpu");
    let missing = cluster.get(&format!("{PODS}/q/log")).await;
    assert_eq!(missing.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn exec_is_bytes_both_ways() {
    let mut tasks = JoinSet::new();
    let mut cluster = with_pod(&mut tasks).await;
    bind(&mut cluster).await;
    let path = format!("{PODS}/p/exec?command=sh&stdin=true&stdout=true");
    let mut asked = request(Method::GET, &path, "", "");
    asked.headers_mut().insert(header::CONNECTION, "Upgrade".parse().expect("a value"));
    asked.headers_mut().insert(header::UPGRADE, "websocket".parse().expect("a value"));
    let response = cluster.send(cluster.admin(), asked).await;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        panic!("{}", read(response).await.body);
    }
    let upgraded = hyper::upgrade::on(response).await.expect("upgraded");
    let mut stream = TokioIo::new(upgraded);
    stream.write_all(b"hello").await.expect("written");
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.expect("echoed");
    assert_eq!(&heard, b"hello");
    drop(stream);
    cluster.stop().await;
}

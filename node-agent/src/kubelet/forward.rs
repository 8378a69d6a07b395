//! Port-forward: SPDY/3.1 on its own connection or inside a WebSocket, as kubectl speaks it, with two
//! streams per forwarded connection; and `v4.channel.k8s.io`, with two channels per port.

use super::{
    Kubelet, Refusal,
    reach::{dial_inside, plain},
    socket::{self, V4, unwrap, write},
    spdystream,
};
use axum::{
    extract::{
        Path, RawQuery, Request, State,
        ws::{CloseFrame, Message, WebSocket},
    },
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use spdy::{Session, Stream, header::find};
use std::{collections::BTreeMap, io, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpStream, tcp::OwnedWriteHalf},
    sync::mpsc,
    task::JoinSet,
};

const CHUNK_BYTES: usize = 16 * 1024;
/// Messages that wait for a slow client.
const QUEUE_MAX: usize = 32;
/// Between a tunnel's WebSocket and its SPDY session.
const TUNNEL_BYTES: usize = 64 * 1024;
/// Upstream's name of the protocol, and of its tunnel (KEP-4006).
const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PROTOCOLS: [&str; 3] = [TUNNEL, V4[0], V4[1]];

/// What ports are forwarded to.
#[derive(Clone)]
struct Target {
    kubelet: Kubelet,
    pod: Arc<Pod>,
}

pub(super) async fn port_forward(
    State(kubelet): State<Kubelet>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    mut request: Request,
) -> Result<Response, Refusal> {
    let pod = kubelet.pod(&namespace, &name)?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        let text = format!("pod {name:?} has ended: there is nothing to forward to");
        return Err(Refusal::bad_request(text));
    }
    let target = Target { kubelet, pod };
    if spdystream::is_asked(request.headers()) {
        let version = spdystream::choose(request.headers(), &[PORT_FORWARD])?;
        let (response, on) = spdystream::take_over(&mut request, version);
        tokio::spawn(async move {
            if let Some(session) = spdystream::session(on).await {
                target.serve(session).await;
            }
        });
        return Ok(response);
    }
    let (upgrade, chosen) = socket::upgrade(request, &PROTOCOLS).await?;
    if chosen == Some(TUNNEL) {
        return Ok(upgrade.on_upgrade(|socket| target.tunnel(socket)));
    }
    let ports = ports(&query.unwrap_or_default())?;
    let base64 = chosen == Some(V4[1]);
    Ok(upgrade.on_upgrade(move |socket| target.channels(socket, ports, base64)))
}

/// The ports a client of channels names in its query.
fn ports(query: &str) -> Result<Vec<u16>, Refusal> {
    let ports: Vec<u16> = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "port" || name == "ports")
        .flat_map(|(_, value)| value.split(',').map(str::to_string).collect::<Vec<_>>())
        .filter_map(|port| port.parse().ok())
        .collect();
    if ports.is_empty() || ports.len() > 100 {
        return Err(Refusal::bad_request("query parameter \"port\" is required"));
    }
    Ok(ports)
}

impl Target {
    /// A connection to the pod; the error is what the client is told.
    async fn dial(&self, port: u16) -> Result<TcpStream, String> {
        let dialled = dial_inside(&self.kubelet, &self.pod, port).await;
        dialled.map_err(|error: io::Error| {
            let meta = &self.pod.metadata;
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!(
                "error forwarding port {port} to pod {}, uid {}: failed to connect to \
                 localhost:{port} inside namespace {:?}: dial tcp4 127.0.0.1:{port}: connect: {}",
                text(&meta.name),
                text(&meta.uid),
                text(&meta.namespace),
                plain(&error)
            )
        })
    }

    /// SPDY bytes in binary messages.
    async fn tunnel(self, socket: WebSocket) {
        let (near, far) = tokio::io::duplex(TUNNEL_BYTES);
        let session = Session::server(near);
        tokio::join!(self.serve(session), carry(socket, far));
    }

    /// Until the client leaves. A data and an error stream with the same `requestID` are one
    /// connection to the pod.
    async fn serve(self, mut session: Session) {
        let mut connections = JoinSet::new();
        let mut halves: BTreeMap<String, Stream> = BTreeMap::new();
        loop {
            let stream = tokio::select! {
                stream = session.accept() => match stream {
                    Some(stream) => stream,
                    None => break,
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let header = |name| find(&stream.headers, name).unwrap_or_default().to_string();
            let (id, kind, port) = (header("requestid"), header("streamtype"), header("port"));
            let (Ok(port), "data" | "error") = (port.parse::<u16>(), kind.as_str()) else {
                stream.writer.reset().await;
                continue;
            };
            // Clients older than the header open the error stream first.
            let id = if id.is_empty() { port.to_string() } else { id };
            match halves.remove(&id) {
                None => {
                    halves.insert(id, stream);
                }
                Some(other) if find(&other.headers, "streamtype") == Some(&kind) => {
                    other.writer.reset().await;
                    halves.insert(id, stream);
                }
                Some(other) => {
                    let (data, error) =
                        if kind == "data" { (stream, other) } else { (other, stream) };
                    connections.spawn(self.clone().forward(port, data, error));
                }
            }
        }
        connections.shutdown().await;
        drop(halves);
        session.close().await;
    }

    /// One connection: until both directions have ended, or the client resets it.
    async fn forward(self, port: u16, data: Stream, error: Stream) {
        match self.dial(port).await {
            Err(why) => {
                let _ = error.writer.send(Bytes::from(why)).await;
            }
            Ok(pod) => {
                let (mut read, mut write) = pod.into_split();
                let Stream { mut reader, writer, .. } = data;
                let down = async {
                    let mut chunk = vec![0; CHUNK_BYTES];
                    while let Ok(count @ 1..) = read.read(&mut chunk).await {
                        if writer.send(Bytes::copy_from_slice(&chunk[..count])).await.is_err() {
                            return;
                        }
                    }
                    let _ = writer.finish().await;
                };
                let up = async {
                    while let Some(bytes) = reader.next().await {
                        if write.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    let _ = write.shutdown().await;
                };
                tokio::select! {
                    _ = async { tokio::join!(down, up) } => {}
                    () = writer.gone() => {}
                }
                let _ = error.writer.finish().await;
                return;
            }
        }
        let _ = error.writer.finish().await;
        let _ = data.writer.finish().await;
    }

    /// Two channels per port, data and error, each beginning with the port's number.
    async fn channels(self, socket: WebSocket, ports: Vec<u16>, base64: bool) {
        let (sink, mut incoming) = socket.split();
        let (queue, messages) = mpsc::channel::<Message>(QUEUE_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(write(sink, messages));
        let mut writers: Vec<Option<OwnedWriteHalf>> = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            // At most 100 ports: the channels fit.
            let (data, error) = (number as u8 * 2, number as u8 * 2 + 1);
            for channel in [data, error] {
                let _ = queue.send(wrap(channel, &port.to_le_bytes(), base64)).await;
            }
            match self.dial(*port).await {
                Ok(stream) => {
                    let (mut read, write) = stream.into_split();
                    writers.push(Some(write));
                    let queue = queue.clone();
                    tasks.spawn(async move {
                        let mut chunk = vec![0; CHUNK_BYTES];
                        while let Ok(count @ 1..) = read.read(&mut chunk).await {
                            let message = wrap(data, &chunk[..count], base64);
                            if queue.send(message).await.is_err() {
                                return;
                            }
                        }
                    });
                }
                Err(why) => {
                    writers.push(None);
                    let _ = queue.send(wrap(error, why.as_bytes(), base64)).await;
                }
            }
        }
        drop(queue);
        while let Some(Ok(message)) = incoming.next().await {
            let Some((channel, bytes)) = unwrap(message, base64) else { continue };
            let slot = writers.get_mut(usize::from(channel / 2));
            if let (0, Some(Some(writer))) = (channel % 2, slot)
                && writer.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
    }
}

fn wrap(channel: u8, bytes: &[u8], base64: bool) -> Message {
    if base64 {
        return Message::Text(format!("{channel}{}", STANDARD.encode(bytes)).into());
    }
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::Binary(message.into())
}

/// Binary messages as a stream of bytes and back, until either side ends.
async fn carry(socket: WebSocket, stream: DuplexStream) {
    let (mut sink, mut incoming) = socket.split();
    let (mut read, mut write) = tokio::io::split(stream);
    let up = async {
        while let Some(Ok(message)) = incoming.next().await {
            let Message::Binary(bytes) = message else { continue };
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    };
    let down = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = read.read(&mut chunk).await {
            let message = Message::Binary(Bytes::copy_from_slice(&chunk[..count]));
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let frame = CloseFrame { code: 1000, reason: "".into() };
        let _ = sink.send(Message::Close(Some(frame))).await;
    };
    tokio::join!(up, down);
}

//! Port-forward over WebSocket, `v4.channel.k8s.io`: two channels per port, data and error, each
//! beginning with the port's number. kubectl's own protocol, SPDY (also inside a WebSocket), is not
//! spoken: said so with 501.

use super::{
    Kubelet, Refusal,
    streams::{V4, upgrade},
};
use axum::{
    extract::{
        Path, RawQuery, Request, State,
        ws::{Message, WebSocket},
    },
    http::header,
    response::Response,
};
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedWriteHalf},
    sync::mpsc,
    task::JoinSet,
};

const CHUNK_BYTES: usize = 16 * 1024;
/// Messages that wait for a slow client.
const QUEUE_MAX: usize = 32;

pub(super) async fn port_forward(
    State(kubelet): State<Kubelet>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refusal> {
    let protocols = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    let protocols = protocols.and_then(|value| value.to_str().ok()).unwrap_or_default();
    if protocols.contains("SPDY") {
        let text = "SPDY inside WebSockets is not supported by this node";
        return Err(Refusal::not_implemented(text));
    }
    let upgrade = upgrade(request).await?;
    if upgrade.selected_protocol().is_none_or(|chosen| chosen != V4) {
        return Err(Refusal::bad_request(format!("port-forward needs {V4}")));
    }
    let ports: Vec<u16> = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, _)| name == "port" || name == "ports")
        .flat_map(|(_, value)| value.split(',').map(str::to_string).collect::<Vec<_>>())
        .filter_map(|port| port.parse().ok())
        .collect();
    if ports.is_empty() || ports.len() > 100 {
        return Err(Refusal::bad_request("you must specify 1 to 100 ports"));
    }
    let pod = kubelet.pod(&namespace, &name)?;
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let ip = ip.ok_or_else(|| Refusal::bad_request(format!("pod {name:?} has no address yet")))?;
    Ok(upgrade.on_upgrade(move |socket| forward(socket, ip, ports)))
}

async fn forward(socket: WebSocket, ip: String, ports: Vec<u16>) {
    let (mut sink, mut incoming) = socket.split();
    let (queue, mut messages) = mpsc::channel::<Message>(QUEUE_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(message) = messages.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut writers: Vec<Option<OwnedWriteHalf>> = Vec::new();
    for (number, port) in ports.iter().enumerate() {
        // At most 100 ports: the channels fit.
        let (data, error) = (number as u8 * 2, number as u8 * 2 + 1);
        for channel in [data, error] {
            let [low, high] = port.to_le_bytes();
            let _ = queue.send(Message::Binary(vec![channel, low, high].into())).await;
        }
        match TcpStream::connect((ip.as_str(), *port)).await {
            Ok(stream) => {
                let (mut read, write) = stream.into_split();
                writers.push(Some(write));
                let queue = queue.clone();
                tasks.spawn(async move {
                    let mut chunk = vec![0; CHUNK_BYTES];
                    while let Ok(count @ 1..) = read.read(&mut chunk).await {
                        let mut message = vec![data];
                        message.extend_from_slice(&chunk[..count]);
                        if queue.send(Message::Binary(message.into())).await.is_err() {
                            return;
                        }
                    }
                });
            }
            Err(why) => {
                writers.push(None);
                let mut message = vec![error];
                message.extend(format!("dial tcp {ip}:{port}: {why}").into_bytes());
                let _ = queue.send(Message::Binary(message.into())).await;
            }
        }
    }
    drop(queue);
    while let Some(Ok(message)) = incoming.next().await {
        let Message::Binary(bytes) = message else { continue };
        let Some((channel, rest)) = bytes.split_first() else { continue };
        let slot = writers.get_mut(usize::from(channel / 2));
        if let (0, Some(Some(writer))) = (channel % 2, slot)
            && writer.write_all(rest).await.is_err()
        {
            return;
        }
    }
}

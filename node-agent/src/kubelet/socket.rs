//! Exec and attach over WebSocket: `v5.channel.k8s.io` and its elders. The first byte of each
//! message is the channel; in the base64 variants it is a digit and the rest is text.

use super::{
    Refusal,
    client::{Carrier, Client, INPUT_QUEUED_MAX, Output, SIZES_QUEUED_MAX, Size},
};
use axum::{
    extract::{
        FromRequestParts, Request,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::header,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the client has no more for the channel in the next byte.
const CLOSE: u8 = 255;
/// Messages that wait for a slow client: half a megabyte at most.
const QUEUE_MAX: usize = 32;

/// A subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) name: &'static str,
    pub(super) base64: bool,
    version: u8,
}

const fn dialect(name: &'static str, base64: bool, version: u8) -> Dialect {
    Dialect { name, base64, version }
}

/// Best first.
const DIALECTS: [Dialect; 5] = [
    dialect("v5.channel.k8s.io", false, 5),
    dialect("v4.channel.k8s.io", false, 4),
    dialect("v4.base64.channel.k8s.io", true, 4),
    dialect("channel.k8s.io", false, 1),
    dialect("base64.channel.k8s.io", true, 1),
];

/// What both `v4` spellings are called in port-forward.
pub(super) const V4: [&str; 2] = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"];

/// The streams a client wants.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wants {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// The WebSocket upgrade of the request with one of `protocols`, or why there is none.
pub(super) async fn upgrade(
    request: Request,
    protocols: &'static [&'static str],
) -> Result<(WebSocketUpgrade, Option<&'static str>), Refusal> {
    let offers = request.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let upgrade = upgrade.protocols(protocols.iter().copied());
    let chosen = upgrade.selected_protocol().and_then(|chosen| chosen.to_str().ok());
    let chosen = chosen.and_then(|chosen| protocols.iter().find(|name| **name == chosen)).copied();
    if offers && chosen.is_none() {
        let text = format!("unable to negotiate protocol: server supports {protocols:?}");
        return Err(Refusal::bad_request(text));
    }
    Ok((upgrade, chosen))
}

/// The upgrade of an exec or attach.
pub(super) async fn negotiate(request: Request) -> Result<(WebSocketUpgrade, Dialect), Refusal> {
    const NAMES: [&str; 5] =
        [DIALECTS[0].name, DIALECTS[1].name, DIALECTS[2].name, DIALECTS[3].name, DIALECTS[4].name];
    let (upgrade, chosen) = upgrade(request, &NAMES).await?;
    // Who names none is as old as the protocol.
    let plain = dialect("", false, 1);
    let found = DIALECTS.iter().find(|dialect| Some(dialect.name) == chosen);
    Ok((upgrade, found.copied().unwrap_or(plain)))
}

/// A message as channel and bytes; `None` for what is neither.
pub(super) fn unwrap(message: Message, base64: bool) -> Option<(u8, Bytes)> {
    let bytes: Bytes = match message {
        Message::Binary(bytes) => bytes,
        Message::Text(text) => text.into(),
        _ => return None,
    };
    let channel = *bytes.first()?;
    if !base64 {
        return Some((channel, bytes.slice(1..)));
    }
    let channel = channel.checked_sub(b'0').filter(|digit| *digit < 10)?;
    let decoded = STANDARD.decode(&bytes[1..]).ok()?;
    Some((channel, decoded.into()))
}

/// The socket as the conversation wants it, with word sent that the streams are open.
pub(super) async fn client(socket: WebSocket, dialect: Dialect, wants: Wants) -> Client {
    let (sink, incoming) = socket.split();
    let (queue, messages) = mpsc::channel(QUEUE_MAX);
    let writer = AbortOnDropHandle::new(tokio::spawn(write(sink, messages)));
    let (input, stdin) = mpsc::channel(INPUT_QUEUED_MAX);
    let (resizes, sizes) = mpsc::channel(SIZES_QUEUED_MAX);
    let gone = CancellationToken::new();
    let ears = Ears { dialect, input: Some(input), resizes, gone: gone.clone() };
    let reader = AbortOnDropHandle::new(tokio::spawn(ears.listen(incoming)));
    let output = |number, wanted: bool| match wanted {
        true => Output::Channel { number, base64: dialect.base64, queue: queue.clone() },
        false => Output::Nowhere,
    };
    let client = Client {
        stdin,
        sizes,
        stdout: output(STDOUT, wants.stdout),
        stderr: output(STDERR, wants.stderr && !wants.tty),
        error: output(ERROR, true),
        status: dialect.version >= 4,
        gone,
        carrier: Carrier::Socket { queue: queue.clone(), writer, reader },
    };
    let first = match (wants.stdout, wants.stderr) {
        (true, _) => &client.stdout,
        (false, true) => &client.stderr,
        _ => &client.error,
    };
    let _ = first.say(b"").await;
    client
}

pub(super) async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut messages: mpsc::Receiver<Message>,
) {
    while let Some(message) = messages.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}

/// The task that hears the client.
struct Ears {
    dialect: Dialect,
    input: Option<mpsc::Sender<Bytes>>,
    resizes: mpsc::Sender<Size>,
    gone: CancellationToken,
}

impl Ears {
    async fn listen(mut self, mut incoming: SplitStream<WebSocket>) {
        while let Some(Ok(message)) = incoming.next().await {
            let Some((channel, bytes)) = unwrap(message, self.dialect.base64) else { continue };
            match channel {
                STDIN if !bytes.is_empty() => {
                    if let Some(input) = &self.input
                        && input.send(bytes).await.is_err()
                    {
                        self.input = None;
                    }
                }
                RESIZE => {
                    if let Ok(size) = serde_json::from_slice::<Size>(&bytes) {
                        let _ = self.resizes.send(size).await;
                    }
                }
                CLOSE if self.dialect.version >= 5 && bytes[..] == [STDIN] => self.input = None,
                _ => {}
            }
        }
        self.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_channel_and_bytes() {
        let binary = Message::Binary(vec![1, b'h', b'i'].into());
        assert_eq!(unwrap(binary, false), Some((1, Bytes::from_static(b"hi"))));
        let text = Message::Text("0aGk=".into());
        assert_eq!(unwrap(text, true), Some((0, Bytes::from_static(b"hi"))));
        assert_eq!(unwrap(Message::Text("xaGk=".into()), true), None);
        assert_eq!(unwrap(Message::Text("0a".into()), true), None);
        assert_eq!(unwrap(Message::Binary(Bytes::new()), false), None);
    }
}

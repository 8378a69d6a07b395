//! Exec and attach over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`. The first byte of
//! each message is the channel. SPDY is not spoken: said so with 501.

use super::{Kubelet, Refusal};
use crate::runtime::{ExecSpec, Session};
use axum::{
    extract::{
        FromRequestParts, Path, RawQuery, Request, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    http::header,
    response::Response,
};
use futures::{SinkExt, StreamExt, stream::SplitSink};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::task::AbortOnDropHandle;

pub(super) const V5: &str = "v5.channel.k8s.io";
pub(super) const V4: &str = "v4.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the client has no more for the channel in the next byte.
const CLOSE: u8 = 255;

/// How long a client may take to answer our close.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 16 * 1024;
/// Messages that wait for a slow client: half a megabyte at most.
const QUEUE_MAX: usize = 32;

/// The options in the query: of upstream's kubelet, and of the API.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    fn parse(query: &str) -> Wanted {
        let mut wanted = Wanted::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let yes = value == "1" || value == "true";
            match name.as_ref() {
                "command" => wanted.command.push(value.into_owned()),
                "input" | "stdin" => wanted.stdin |= yes,
                "output" | "stdout" => wanted.stdout |= yes,
                "error" | "stderr" => wanted.stderr |= yes,
                "tty" => wanted.tty |= yes,
                _ => {}
            }
        }
        wanted
    }

    fn spec(self) -> ExecSpec {
        ExecSpec {
            command: self.command,
            tty: self.tty,
            stdin: self.stdin,
            stdout: self.stdout,
            // A terminal has one output.
            stderr: self.stderr && !self.tty,
        }
    }
}

type Target = (String, String, String);

pub(super) async fn exec(
    State(kubelet): State<Kubelet>,
    Path((namespace, pod, container)): Path<Target>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refusal> {
    let wanted = Wanted::parse(&query.unwrap_or_default());
    if wanted.command.is_empty() {
        return Err(Refusal::bad_request(
            "you must specify at least one command for the container",
        ));
    }
    let upgrade = upgrade(request).await?;
    let (uid, id) = kubelet.running(&namespace, &pod, &container).await?;
    let v5 = upgrade.selected_protocol().is_some_and(|chosen| chosen == V5);
    let spec = wanted.spec();
    Ok(upgrade.on_upgrade(move |socket| async move {
        match kubelet.runtime.exec(&uid, &id, &spec).await {
            Ok(session) => converse(socket, session, v5).await,
            Err(error) => refuse(socket, &error.text()).await,
        }
    }))
}

pub(super) async fn attach(
    State(kubelet): State<Kubelet>,
    Path((namespace, pod, container)): Path<Target>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refusal> {
    let spec = ExecSpec { command: Vec::new(), ..Wanted::parse(&query.unwrap_or_default()).spec() };
    let upgrade = upgrade(request).await?;
    let (uid, id) = kubelet.running(&namespace, &pod, &container).await?;
    let v5 = upgrade.selected_protocol().is_some_and(|chosen| chosen == V5);
    Ok(upgrade.on_upgrade(move |socket| async move {
        match kubelet.runtime.attach(&uid, &id, &spec).await {
            Ok(session) => converse(socket, session, v5).await,
            Err(error) => refuse(socket, &error.text()).await,
        }
    }))
}

/// The WebSocket upgrade of the request, or why there is none.
pub(super) async fn upgrade(request: Request) -> Result<WebSocketUpgrade, Refusal> {
    let asked = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if asked.is_some_and(|asked| asked.to_ascii_uppercase().starts_with("SPDY")) {
        let text = "SPDY streams are not supported by this node: use WebSockets";
        return Err(Refusal::not_implemented(text));
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let upgrade = upgrade.protocols([V5, V4]);
    if upgrade.selected_protocol().is_none() {
        let text = format!("unable to negotiate protocol: server supports [{V5} {V4}]");
        return Err(Refusal::bad_request(text));
    }
    Ok(upgrade)
}

async fn converse(socket: WebSocket, mut session: Session, v5: bool) {
    let (sink, mut incoming) = socket.split();
    let (queue, messages) = mpsc::channel(QUEUE_MAX);
    let writer = AbortOnDropHandle::new(tokio::spawn(write(sink, messages)));
    let first = if session.stdout.is_some() { STDOUT } else { ERROR };
    // Tells the client that the streams are open.
    let _ = queue.send(Message::Binary(vec![first].into())).await;
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let streams = async {
        let (out, err) = (queue.clone(), queue.clone());
        tokio::join!(copy(stdout, STDOUT, out), copy(stderr, STDERR, err));
    };
    let exited = session.exited.take();
    let done = async {
        match exited {
            // Streams may be held open by what the process left behind: its exit ends all, after
            // what it wrote itself has been read.
            Some(exited) => {
                let (code, ()) = tokio::join!(exited.wait(), streams);
                code
            }
            None => {
                streams.await;
                Ok(0)
            }
        }
    };
    let mut stdin = session.stdin.take();
    let terminal = session.terminal.take();
    let receive = async {
        while let Some(Ok(message)) = incoming.next().await {
            let Message::Binary(bytes) = message else { continue };
            match bytes.split_first() {
                Some((&STDIN, rest)) => {
                    let gone = match &mut stdin {
                        Some(stdin) => stdin.write_all(rest).await.is_err(),
                        None => false,
                    };
                    if gone {
                        stdin = None;
                    }
                }
                Some((&RESIZE, rest)) => {
                    if let (Some(terminal), Ok(size)) =
                        (&terminal, serde_json::from_slice::<Size>(rest))
                    {
                        let _ = terminal.resize(size.width, size.height);
                    }
                }
                Some((&CLOSE, [STDIN])) if v5 => stdin = None,
                _ => {}
            }
        }
    };
    tokio::pin!(receive);
    tokio::select! {
        result = done => {
            let _ = queue.send(error_message(&status(&result))).await;
            let _ = queue.send(goodbye()).await;
            drop(queue);
            let _ = writer.await;
            // Until the client has said goodbye too: closing a connection with something unread in
            // it resets it, and the client would lose our last words.
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, receive).await;
        }
        // The client left: dropping the session closes the streams.
        () = &mut receive => {}
    }
}

/// What kubectl sends when the window changes.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut messages: mpsc::Receiver<Message>) {
    while let Some(message) = messages.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}

async fn copy(
    stream: Option<Box<dyn AsyncRead + Send + Unpin>>,
    channel: u8,
    queue: mpsc::Sender<Message>,
) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let mut message = Vec::with_capacity(count + 1);
                message.push(channel);
                message.extend_from_slice(&chunk[..count]);
                if queue.send(Message::Binary(message.into())).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn refuse(mut socket: WebSocket, why: &str) {
    let status = json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: error executing command in container: {why}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": format!("error executing command in container: {why}")}]},
        "code": 500,
    });
    let _ = socket.send(error_message(&status)).await;
    let _ = socket.send(goodbye()).await;
}

fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))
}

fn error_message(status: &Value) -> Message {
    let mut bytes = vec![ERROR];
    bytes.extend(status.to_string().into_bytes());
    Message::Binary(bytes.into())
}

/// The last word on the error channel.
fn status(result: &io::Result<i32>) -> Value {
    match result {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: {error}"),
            "reason": "InternalError",
            "code": 500,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_the_options() {
        let wanted = Wanted::parse("command=sh&command=-c&command=a%20b&input=1&output=1&tty=true");
        let expected = Wanted {
            command: vec!["sh".into(), "-c".into(), "a b".into()],
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        };
        assert_eq!(wanted, expected);
        assert!(!Wanted::parse("stdin=true&stdout=true&stderr=true&tty=true").spec().stderr);
    }
}

//! The client's side of an exec or attach, whatever protocol carries it, and the conversation
//! between it and a process.

use crate::runtime::Session;
use axum::extract::ws::{CloseFrame, Message};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

const CHUNK_BYTES: usize = 16 * 1024;
/// Pieces of input that wait for a process that does not read.
pub(super) const INPUT_QUEUED_MAX: usize = 8;
/// Window sizes that wait; only the last one matters.
pub(super) const SIZES_QUEUED_MAX: usize = 4;
/// How long a client may take to answer our close.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who asked for the process, and what it may say and hear.
pub(super) struct Client {
    /// Ends when the client has no more to say.
    pub(super) stdin: mpsc::Receiver<Bytes>,
    pub(super) sizes: mpsc::Receiver<Size>,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) error: Output,
    /// From version 4 on the error stream ends with a `Status`, before with a text.
    pub(super) status: bool,
    /// Cancelled when the client has left.
    pub(super) gone: CancellationToken,
    pub(super) carrier: Carrier,
}

/// What is left to close when all has been said.
pub(super) enum Carrier {
    Socket {
        queue: mpsc::Sender<Message>,
        writer: AbortOnDropHandle<()>,
        reader: AbortOnDropHandle<()>,
    },
    Spdy {
        session: spdy::Session,
        _readers: Vec<AbortOnDropHandle<()>>,
    },
}

/// Where the bytes of one stream go.
pub(super) enum Output {
    Nowhere,
    /// A channel of a WebSocket.
    Channel {
        number: u8,
        base64: bool,
        queue: mpsc::Sender<Message>,
    },
    Stream(spdy::Writer),
}

/// The size of the client's window.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Size {
    pub(super) width: u16,
    pub(super) height: u16,
}

impl Output {
    /// `Err`: the client is gone.
    pub(super) async fn say(&self, bytes: &[u8]) -> Result<(), ()> {
        match self {
            Output::Nowhere => Ok(()),
            Output::Channel { number, base64: false, queue } => {
                let mut message = Vec::with_capacity(bytes.len() + 1);
                message.push(*number);
                message.extend_from_slice(bytes);
                queue.send(Message::Binary(message.into())).await.map_err(drop)
            }
            Output::Channel { number, base64: true, queue } => {
                let text = format!("{number}{}", STANDARD.encode(bytes));
                queue.send(Message::Text(text.into())).await.map_err(drop)
            }
            Output::Stream(writer) => {
                writer.send(Bytes::copy_from_slice(bytes)).await.map_err(drop)
            }
        }
    }

    /// Channels of a WebSocket end only with it.
    async fn finish(&self) {
        if let Output::Stream(writer) = self {
            let _ = writer.finish().await;
        }
    }
}

/// Passes bytes until the process has ended or the client has left.
pub(super) async fn converse(client: Client, mut session: Session) {
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let exited = session.exited.take();
    let streams =
        async { tokio::join!(copy(stdout, &client.stdout), copy(stderr, &client.stderr)) };
    let done = async {
        match exited {
            // Streams may be held open by what the process left behind: its exit ends all, after
            // what it wrote itself has been read.
            Some(exited) => {
                let (code, _) = tokio::join!(exited.wait(), streams);
                code
            }
            None => {
                streams.await;
                Ok(0)
            }
        }
    };
    let (mut input, mut sizes) = (client.stdin, client.sizes);
    let mut stdin = session.stdin.take();
    let hear = async {
        while let Some(bytes) = input.recv().await {
            let Some(open) = &mut stdin else { continue };
            if open.write_all(&bytes).await.is_err() {
                stdin = None;
            }
        }
        drop(stdin.take());
    };
    let terminal = session.terminal.take();
    let resize = async {
        while let Some(size) = sizes.recv().await {
            if let Some(terminal) = &terminal {
                // A window of a process that just ended: nothing to resize.
                let _ = terminal.resize(size.width, size.height);
            }
        }
    };
    let both = async {
        tokio::join!(hear, resize);
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = done => result,
        // Dropping the session closes the streams.
        () = client.gone.cancelled() => return,
        () = both => return,
    };
    // Whatever the client still says is read past.
    drop((input, sizes));
    let word = last_word(&result, client.status);
    let (_, _, _) =
        tokio::join!(client.stdout.finish(), client.stderr.finish(), client.error.say(&word));
    client.error.finish().await;
    drop((client.stdout, client.stderr, client.error));
    client.carrier.close().await;
}

/// The process could not be run.
pub(super) async fn refuse(client: Client, why: &str) {
    let cause = format!("error executing command in container: {why}");
    let message = format!("Internal error occurred: {cause}");
    let word = if client.status {
        let status = json!({
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": "InternalError",
            "details": {"causes": [{"message": cause}]},
            "code": 500,
        });
        status.to_string()
    } else {
        message
    };
    let _ = client.error.say(word.as_bytes()).await;
    client.error.finish().await;
    drop((client.stdout, client.stderr, client.error));
    client.carrier.close().await;
}

async fn copy(stream: Option<Box<dyn AsyncRead + Send + Unpin>>, to: &Output) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) if to.say(&chunk[..count]).await.is_err() => return,
            Ok(_) => {}
        }
    }
}

impl Carrier {
    async fn close(self) {
        match self {
            Carrier::Spdy { session, _readers: readers } => {
                drop(readers);
                session.close().await;
            }
            Carrier::Socket { queue, writer, reader } => {
                let frame = CloseFrame { code: 1000, reason: "".into() };
                let _ = queue.send(Message::Close(Some(frame))).await;
                drop(queue);
                let _ = writer.await;
                // Until the client has said goodbye too: closing a connection with something
                // unread in it resets it, and the client would lose our last words.
                let _ = tokio::time::timeout(GOODBYE_TIMEOUT, reader).await;
            }
        }
    }
}

/// What the error stream says at the end.
fn last_word(result: &io::Result<i32>, as_status: bool) -> Vec<u8> {
    let status = status(result);
    if as_status {
        return status.to_string().into_bytes();
    }
    status["message"].as_str().unwrap_or_default().as_bytes().to_vec()
}

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
    fn old_clients_get_a_text_and_new_ones_a_status() {
        let text = |result| String::from_utf8(last_word(&result, false)).unwrap();
        assert_eq!(text(Ok(0)), "");
        assert_eq!(text(Ok(3)), "command terminated with non-zero exit code: exit status 3");
        let status: Value = serde_json::from_slice(&last_word(&Ok(3), true)).unwrap();
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    }
}

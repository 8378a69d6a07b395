//! Exec and attach over SPDY/3.1, as client-go speaks it by default before 1.31: one stream each for
//! error, stdin, stdout, stderr and resize, named by the header `streamType`.

use super::{
    Refusal,
    client::{Carrier, Client, INPUT_QUEUED_MAX, Output, SIZES_QUEUED_MAX, Size},
    reach::switching,
    socket::Wants,
};
use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use spdy::{Session, Stream, header::find};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

const SPDY: &str = "SPDY/3.1";
const VERSION: &str = "x-stream-protocol-version";
/// How long a client may take to open the streams it asked for (upstream's default).
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);

/// Best last: the position is the version.
const VERSIONS: [&str; 4] =
    ["channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io", "v4.channel.k8s.io"];

/// True if the request wants SPDY on its own connection.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    let asked = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    asked.is_some_and(|asked| asked.eq_ignore_ascii_case(SPDY))
}

/// A connection about to be handed over, and the answer that does it.
pub(super) struct Upgrade {
    pub(super) response: Response,
    on: OnUpgrade,
    /// Index in `VERSIONS`, plus one.
    version: usize,
}

/// The first of the client's protocols that is in `ours`; who names none is as old as the first.
pub(super) fn choose<'a>(headers: &HeaderMap, ours: &[&'a str]) -> Result<&'a str, Refusal> {
    let theirs = headers.get_all(VERSION).iter().filter_map(|value| value.to_str().ok());
    let theirs: Vec<&str> = theirs
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|v| !v.is_empty())
        .collect();
    if theirs.is_empty() {
        return Ok(ours[0]);
    }
    let found = theirs.iter().find_map(|name| ours.iter().find(|ours| *ours == name));
    found.copied().ok_or_else(|| {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {theirs:?}, server \
             accepts {ours:?}"
        );
        Refusal(StatusCode::FORBIDDEN, text)
    })
}

/// The SPDY upgrade of an exec or attach.
pub(super) fn negotiate(mut request: Request) -> Result<Upgrade, Refusal> {
    let chosen = choose(request.headers(), &VERSIONS)?;
    let version = VERSIONS.iter().position(|name| *name == chosen).map_or(1, |at| at + 1);
    let on = hyper::upgrade::on(&mut request);
    Ok(Upgrade { response: switching(SPDY, Some(chosen)), on, version })
}

/// A SPDY connection for port-forward.
pub(super) fn take_over(request: &mut Request, version: &str) -> (Response, OnUpgrade) {
    (switching(SPDY, Some(version)), hyper::upgrade::on(request))
}

/// The connection once the client has heard the answer; `None` if it left instead.
pub(super) async fn session(on: OnUpgrade) -> Option<Session> {
    match on.await {
        Ok(io) => Some(Session::server(TokioIo::new(io))),
        Err(error) => {
            tracing::debug!(%error, "a client left before its streams began");
            None
        }
    }
}

impl Upgrade {
    /// The connection as the conversation wants it, once the client has opened its streams.
    pub(super) async fn client(self, wants: Wants) -> Option<Client> {
        let mut session = session(self.on).await?;
        let mut wanted = vec!["error"];
        let resizes = wants.tty && self.version >= 3;
        for (name, is_wanted) in [
            ("stdin", wants.stdin),
            ("stdout", wants.stdout),
            ("stderr", wants.stderr && !wants.tty),
            ("resize", resizes),
        ] {
            if is_wanted {
                wanted.push(name);
            }
        }
        let mut streams: Vec<(String, Stream)> = Vec::new();
        let all = async {
            while streams.len() < wanted.len() {
                let stream = session.accept().await?;
                let name = find(&stream.headers, "streamtype").unwrap_or_default().to_string();
                let is_new = !streams.iter().any(|(known, _)| *known == name);
                if wanted.contains(&name.as_str()) && is_new {
                    streams.push((name, stream));
                } else {
                    stream.writer.reset().await;
                }
            }
            Some(())
        };
        match tokio::time::timeout(STREAMS_TIMEOUT, all).await {
            Ok(Some(())) => Some(assemble(session, streams, self.version >= 4)),
            _ => {
                tracing::debug!(?wanted, "a client did not open the streams it asked for");
                session.close().await;
                None
            }
        }
    }
}

fn assemble(session: Session, streams: Vec<(String, Stream)>, status: bool) -> Client {
    let (input, stdin) = mpsc::channel(INPUT_QUEUED_MAX);
    let (resizes, sizes) = mpsc::channel(SIZES_QUEUED_MAX);
    let mut client = Client {
        stdin,
        sizes,
        stdout: Output::Nowhere,
        stderr: Output::Nowhere,
        error: Output::Nowhere,
        status,
        gone: CancellationToken::new(),
        carrier: Carrier::Spdy { session, _readers: Vec::new() },
    };
    let mut readers = Vec::new();
    let (mut input, mut resizes) = (Some(input), Some(resizes));
    for (name, stream) in streams {
        let Stream { mut reader, writer, .. } = stream;
        match name.as_str() {
            "error" => {
                // The error stream ends with the connection, or with our last word.
                let (gone, lost) = (client.gone.clone(), writer.lost());
                readers.push(spawn(async move {
                    lost.cancelled().await;
                    gone.cancel();
                }));
                client.error = Output::Stream(writer);
            }
            "stdout" => client.stdout = Output::Stream(writer),
            "stderr" => client.stderr = Output::Stream(writer),
            "stdin" => {
                let input = input.take();
                readers.push(spawn(async move {
                    let _open = writer;
                    let Some(input) = input else { return };
                    while let Some(bytes) = reader.next().await {
                        if input.send(bytes).await.is_err() {
                            return;
                        }
                    }
                }));
            }
            _ => {
                let resizes = resizes.take();
                readers.push(spawn(async move {
                    let _open = writer;
                    let Some(resizes) = resizes else { return };
                    hear_sizes(reader, resizes).await;
                }));
            }
        }
    }
    if let Carrier::Spdy { _readers, .. } = &mut client.carrier {
        *_readers = readers;
    }
    client
}

fn spawn(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// JSON objects, one after the other, in pieces of any length.
async fn hear_sizes(mut reader: spdy::Reader, resizes: mpsc::Sender<Size>) {
    let mut heard = Vec::new();
    while let Some(bytes) = reader.next().await {
        heard.extend_from_slice(&bytes);
        for size in take_sizes(&mut heard) {
            if resizes.send(size).await.is_err() {
                return;
            }
        }
    }
}

fn take_sizes(heard: &mut Vec<u8>) -> Vec<Size> {
    /// More than this without an object is no stream of sizes.
    const UNREAD_MAX: usize = 4096;
    let mut objects = serde_json::Deserializer::from_slice(heard).into_iter::<Size>();
    let mut sizes = Vec::new();
    let mut read = 0;
    while let Some(Ok(size)) = objects.next() {
        sizes.push(size);
        read = objects.byte_offset();
    }
    heard.drain(..read);
    if heard.len() > UNREAD_MAX {
        heard.clear();
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::client::converse;
    use bytes::Bytes;

    #[test]
    fn sizes_come_in_any_pieces() {
        let mut heard = br#"{"Width":80,"Height":24}
            {"Width":100,"Hei"#
            .to_vec();
        assert_eq!(take_sizes(&mut heard), [Size { width: 80, height: 24 }]);
        heard.extend_from_slice(b"ght\":30}\n");
        assert_eq!(take_sizes(&mut heard), [Size { width: 100, height: 30 }]);
    }

    #[test]
    fn the_clients_first_choice_wins() {
        let mut headers = HeaderMap::new();
        assert_eq!(choose(&headers, &VERSIONS).ok(), Some("channel.k8s.io"));
        for version in ["v9.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"] {
            headers.append(VERSION, version.parse().unwrap());
        }
        assert_eq!(choose(&headers, &VERSIONS).ok(), Some("v4.channel.k8s.io"));
        headers.clear();
        headers.append(VERSION, "v9.channel.k8s.io".parse().unwrap());
        assert!(choose(&headers, &VERSIONS).is_err());
    }

    /// A process that echoes: what goes in as stdin comes out, then the error stream says how it
    /// went.
    #[tokio::test]
    async fn a_conversation_over_spdy() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let client = Session::client(near);
        let mut server = Session::server(far);
        let open = async |name: &str| {
            client.open(vec![("streamtype".into(), name.into())]).await.expect("open")
        };
        let mut error = open("error").await;
        let stdin = open("stdin").await;
        let mut stdout = open("stdout").await;
        let mut streams = Vec::new();
        for name in ["error", "stdin", "stdout"] {
            streams.push((name.to_string(), server.accept().await.expect("a stream")));
        }
        let ends = assemble(server, streams, true);
        let (process_in, process_out) = tokio::io::duplex(64);
        let session = crate::runtime::Session {
            stdin: Some(Box::new(process_in)),
            stdout: Some(Box::new(process_out)),
            ..Default::default()
        };
        let talk = tokio::spawn(converse(ends, session));
        stdin.writer.send(Bytes::from_static(b"hello")).await.expect("sent");
        stdin.writer.finish().await.expect("finished");
        assert_eq!(stdout.reader.next().await.as_deref(), Some(&b"hello"[..]));
        assert_eq!(stdout.reader.next().await, None);
        let word = error.reader.next().await.expect("a last word");
        let status: serde_json::Value = serde_json::from_slice(&word).expect("a Status");
        assert_eq!(status["status"], "Success");
        drop((client, error, stdin, stdout));
        talk.await.expect("the conversation ends");
    }
}

//! A watch that outlives its connection: it resumes after the last revision it delivered, on
//! whichever master answers, so that no event is lost or repeated.

use super::{Client, http};
use bytes::{Buf, BytesMut};
use futures::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use k8s::{Events, Object, Revision, Status, WatchEvent, WatchRequest};
use serde::Deserialize;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The server ends a watch after this many seconds, drawn between the bounds so that watches do
/// not all come back at once (as client-go does it).
const TIMEOUT_SECONDS: std::ops::Range<u32> = 300..600;
/// Longest silence before the watch is opened anew: thrice the interval of bookmarks (one minute).
/// Pings notice a dead master long before; this is for a server that lost the watch itself.
const SILENCE_MAX: Duration = Duration::from_secs(180);
/// Pause after a failed attempt to resume; the choice of a master has its own growing pauses.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// One line of a watch body.
#[derive(Deserialize)]
struct Line {
    r#type: String,
    object: Object,
}

/// What was delivered so far: decides what of the server's lines is new. No IO.
pub(super) struct Position {
    /// Every change up to here was delivered. `None` until the initial events are complete.
    pub(super) revision: Option<Revision>,
    /// Initial events wait here for their end, so that an interrupted start can begin anew.
    initial: Vec<WatchEvent>,
    ready: VecDeque<WatchEvent>,
}

/// What a line asks of the watch.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    Read,
    /// This stream is over; open another.
    Reopen,
    End(Status),
}

impl Position {
    pub(super) fn new(after: Option<Revision>) -> Position {
        Position { revision: after, initial: Vec::new(), ready: VecDeque::new() }
    }

    /// Forgets an incomplete start; to be called before the watch is opened anew.
    pub(super) fn restart(&mut self) {
        self.initial.clear();
    }

    pub(super) fn pop(&mut self) -> Option<WatchEvent> {
        self.ready.pop_front()
    }

    pub(super) fn accept(&mut self, line: &[u8]) -> Next {
        let line: Line = match serde_json::from_slice(line) {
            Ok(line) => line,
            Err(error) => {
                tracing::warn!(%error, "unreadable watch event");
                return Next::Reopen;
            }
        };
        if line.r#type == "ERROR" {
            return error(line.object);
        }
        let Some(revision) = line.object.revision() else {
            tracing::warn!(kind = line.r#type, "watch event without a revision");
            return Next::Reopen;
        };
        let known = self.revision.is_some_and(|delivered| revision <= delivered);
        if line.r#type == "BOOKMARK" {
            let ends = line.object.annotation("k8s.io/initial-events-end") == Some("true");
            self.bookmark(revision, ends, known);
            return Next::Read;
        }
        if known {
            return Next::Read;
        }
        let object = Arc::new(line.object);
        let event = match line.r#type.as_str() {
            "ADDED" => WatchEvent::Added(object),
            "MODIFIED" => WatchEvent::Modified(object),
            "DELETED" => WatchEvent::Deleted(object),
            other => {
                tracing::warn!(kind = other, "unknown watch event");
                return Next::Read;
            }
        };
        match &mut self.revision {
            Some(delivered) => {
                *delivered = revision;
                self.ready.push_back(event);
            }
            None => self.initial.push(event),
        }
        Next::Read
    }

    fn bookmark(&mut self, revision: Revision, ends: bool, known: bool) {
        if self.revision.is_none() {
            if !ends {
                return;
            }
            self.ready.extend(self.initial.drain(..));
        } else if known {
            return;
        }
        self.revision = Some(revision);
        self.ready.push_back(WatchEvent::Bookmark { revision, initial_events_end: ends });
    }
}

/// The caller is told what only he can mend; the rest is tried again.
fn error(object: Object) -> Next {
    let status = Status::from_value(&object.into_value())
        .unwrap_or_else(|| Status::internal("watch ended with an error that is no Status"));
    if status.is_retryable() { Next::Reopen } else { Next::End(status) }
}

struct Watch {
    client: Client,
    request: WatchRequest,
    position: Position,
    body: Option<(Incoming, BytesMut)>,
    ended: bool,
}

/// Opens the watch once, so that a refusal is the caller's to see, then keeps it open.
pub(super) async fn open(client: Client, request: WatchRequest) -> Result<Events, Status> {
    let position = Position::new(request.after);
    let mut watch = Watch { client, request, position, body: None, ended: false };
    watch.reopen().await?;
    let events = stream::unfold(watch, |mut watch| async {
        let event = watch.next().await?;
        Some((event, watch))
    });
    Ok(Box::pin(events))
}

impl Watch {
    async fn reopen(&mut self) -> Result<(), Status> {
        self.position.restart();
        let mut request = self.request.clone();
        request.after = self.position.revision;
        let call = http::watch(&request, rand::random_range(TIMEOUT_SECONDS));
        let body = self.client.open(&call).await?;
        self.body = Some((body, BytesMut::new()));
        Ok(())
    }

    async fn next(&mut self) -> Option<Result<WatchEvent, Status>> {
        while !self.ended {
            if let Some(event) = self.position.pop() {
                return Some(Ok(event));
            }
            let next = match self.body.as_mut() {
                Some((body, buffer)) => match line(body, buffer).await {
                    Some(line) => self.position.accept(&line),
                    None => Next::Reopen,
                },
                None => match self.reopen().await {
                    Ok(()) => Next::Read,
                    Err(status) if status.is_retryable() => {
                        tokio::time::sleep(RETRY_PAUSE).await;
                        Next::Reopen
                    }
                    Err(status) => Next::End(status),
                },
            };
            match next {
                Next::Read => {}
                Next::Reopen => self.body = None,
                Next::End(status) => {
                    self.ended = true;
                    return Some(Err(status));
                }
            }
        }
        None
    }
}

/// The next line of the body; `None` if it ended, broke or fell silent.
async fn line(body: &mut Incoming, buffer: &mut BytesMut) -> Option<BytesMut> {
    let mut searched = 0;
    loop {
        if let Some(at) = buffer[searched..].iter().position(|&byte| byte == b'\n') {
            let line = buffer.split_to(searched + at);
            buffer.advance(1);
            if line.is_empty() {
                searched = 0;
                continue;
            }
            return Some(line);
        }
        searched = buffer.len();
        let frame = tokio::time::timeout(SILENCE_MAX, body.frame()).await.ok()??.ok()?;
        if let Some(data) = frame.data_ref() {
            buffer.extend_from_slice(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, name: &str, revision: u64) -> Vec<u8> {
        let meta = json!({"name": name, "resourceVersion": revision.to_string()});
        json!({"type": kind, "object": {"metadata": meta}}).to_string().into_bytes()
    }

    fn bookmark(revision: u64, ends: bool) -> Vec<u8> {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if ends {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        json!({"type": "BOOKMARK", "object": {"metadata": meta}}).to_string().into_bytes()
    }

    fn delivered(position: &mut Position) -> String {
        let mut said = Vec::new();
        while let Some(event) = position.pop() {
            said.push(match event {
                WatchEvent::Added(object) => format!("+{}", object.name()),
                WatchEvent::Modified(object) => format!("~{}", object.name()),
                WatchEvent::Deleted(object) => format!("-{}", object.name()),
                WatchEvent::Bookmark { revision, initial_events_end } => {
                    format!("{}{revision}", if initial_events_end { "=" } else { "." })
                }
            });
        }
        said.join(" ")
    }

    #[test]
    fn an_interrupted_start_delivers_each_object_once() {
        let mut position = Position::new(None);
        position.accept(&event("ADDED", "a", 3));
        position.accept(&event("ADDED", "b", 2));
        assert_eq!(delivered(&mut position), "");
        position.restart();
        position.accept(&event("ADDED", "a", 9));
        position.accept(&bookmark(9, true));
        assert_eq!(delivered(&mut position), "+a =9");
        assert_eq!(position.revision, Some(Revision(9)));
    }

    #[test]
    fn events_seen_before_a_move_are_not_repeated() {
        let mut position = Position::new(Some(Revision(5)));
        position.accept(&event("MODIFIED", "a", 6));
        position.accept(&event("DELETED", "b", 8));
        position.restart();
        for (kind, name, revision) in [("MODIFIED", "a", 6), ("DELETED", "b", 8), ("ADDED", "c", 9)]
        {
            assert_eq!(position.accept(&event(kind, name, revision)), Next::Read);
        }
        position.accept(&bookmark(9, false));
        position.accept(&bookmark(12, false));
        assert_eq!(delivered(&mut position), "~a -b +c .12");
        assert_eq!(position.revision, Some(Revision(12)));
    }

    #[test]
    fn expiry_ends_the_watch_and_passing_trouble_does_not() {
        let mut position = Position::new(Some(Revision(5)));
        let gone = Status::expired("too old resource version: 5 (10)");
        let line = json!({"type": "ERROR", "object": gone.to_value()}).to_string();
        assert_eq!(position.accept(line.as_bytes()), Next::End(gone));
        let busy = Status::unavailable("no leader", 1);
        let line = json!({"type": "ERROR", "object": busy.to_value()}).to_string();
        assert_eq!(position.accept(line.as_bytes()), Next::Reopen);
        assert_eq!(position.accept(b"{"), Next::Reopen);
    }
}

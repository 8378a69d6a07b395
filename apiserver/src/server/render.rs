//! Answers as bytes: objects and lists by concatenation, streamed; tables and bare metadata when
//! asked; watches event by event.

use super::{
    Body, BoxError, full,
    negotiate::{Format, Include},
};
use crate::{
    encode,
    kind::Kind,
    kinds::KindDef,
    memo,
    metrics::{Metrics, Running},
    pipeline::{
        List, Reply, What,
        watch::{Event, Feed, bookmark_object},
    },
    table::Table,
};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s::{Object, Status, Verb};
use raft_store::Stored;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Bodies of lists and watches go out in pieces of about this many bytes.
// Large enough to make TLS records and system calls cheap, small enough to be allocated without page
// faults over and over (measured: 35 ms per 416 MB in such chunks, 1.6 s and more as one buffer).
const CHUNK: usize = 128 * 1024;

pub(crate) fn bytes(
    code: StatusCode,
    media: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<Body> {
    with_type(code, media, full(bytes))
}

fn with_type(code: StatusCode, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// A refusal.
pub(crate) fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = bytes(code, "application/json", status.to_value().to_string());
    if let Some(seconds) = status.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The pipeline's answer in the form asked for.
pub(super) fn reply(
    reply: Reply,
    kind: &KindDef,
    version: &str,
    format: Format,
    verb: Verb,
) -> Response<Body> {
    let code = if reply.created { StatusCode::CREATED } else { StatusCode::OK };
    let media = match format {
        Format::Json => "application/json",
        Format::Table(_) => "application/json;as=Table;g=meta.k8s.io;v=v1",
        Format::Partial => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    };
    let deleted_collection = verb == Verb::DeleteCollection;
    let mut response = match (reply.what, format) {
        (What::Other(object), _) => bytes(code, "application/json", to_bytes(&object)),
        (What::List(list), Format::Json) => with_type(code, media, list_body(list, kind, version)),
        (What::List(list), _) if deleted_collection => {
            with_type(code, "application/json", list_body(list, kind, version))
        }
        (What::List(list), Format::Table(include)) => {
            bytes(code, media, to_bytes(&list_table(&list, kind, version, include)))
        }
        (What::List(list), Format::Partial) => bytes(code, media, partial_list(&list)),
        (What::Stored(stored), Format::Json) => {
            let mut out = Vec::with_capacity(stored.body.len() + 128);
            let revision = encode::revision(stored.revision);
            encode::splice(&mut out, &encode::object_head(kind, version), &stored, revision);
            bytes(code, media, out)
        }
        (What::Stored(stored), format) => {
            let object = memo::object(&stored);
            bytes(code, media, one(&object, kind, version, format))
        }
        (What::Object(object), format) => bytes(code, media, one(&object, kind, version, format)),
    };
    for warning in reply.warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

fn to_bytes(value: &(impl serde::Serialize + ?Sized)) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    encode::write_value(&mut out, value);
    out
}

/// One object, which may lack `kind` and `apiVersion`.
fn one(object: &Object, kind: &KindDef, version: &str, format: Format) -> Vec<u8> {
    match format {
        Format::Json => {
            let mut object = object.clone();
            encode::stamp(&mut object, kind, version);
            to_bytes(&object)
        }
        Format::Partial => to_bytes(&partial(object)),
        Format::Table(include) => {
            let revision = object.str_at("/metadata/resourceVersion").to_string();
            let metadata = json!({ "resourceVersion": revision });
            let mut table = Table::new(kind, metadata, true);
            table.push(kind, version, object, include);
            to_bytes(&table.into_value())
        }
    }
}

/// Only what all objects have (`meta.k8s.io/v1 PartialObjectMetadata`).
pub(crate) fn partial(object: &Object) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.metadata(),
    })
}

/// A list piece by piece, each made when the client has taken the one before.
fn list_body(list: List, kind: &KindDef, version: &str) -> Body {
    let api_version = encode::api_version(kind.group, version);
    let metadata = encode::list_metadata(list.revision, list.next.as_deref(), list.remaining);
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[",
        kind.kind
    );
    let begin = (head.into_bytes(), list.items.into_iter().peekable(), false);
    let pieces = futures::stream::unfold(begin, |(mut out, mut items, done)| async move {
        if done {
            return None;
        }
        while out.len() < CHUNK
            && let Some(stored) = items.next()
        {
            let revision = encode::revision(stored.revision);
            encode::splice(&mut out, encode::ITEM_HEAD, &stored, revision);
            if items.peek().is_some() {
                out.push(b',');
            }
        }
        let done = items.peek().is_none();
        if done {
            out.extend_from_slice(b"]}");
        }
        let piece = Ok::<_, BoxError>(Frame::data(Bytes::from(out)));
        let next = Vec::with_capacity(if done { 0 } else { CHUNK + CHUNK / 8 });
        Some((piece, (next, items, done)))
    });
    BodyExt::boxed_unsync(StreamBody::new(pieces))
}

fn list_table(list: &List, kind: &KindDef, version: &str, include: Include) -> Value {
    let metadata = encode::list_metadata(list.revision, list.next.as_deref(), list.remaining);
    let mut table = Table::new(kind, metadata, true);
    for stored in &list.items {
        table.push(kind, version, &memo::object(stored), include);
    }
    table.into_value()
}

fn partial_list(list: &List) -> Vec<u8> {
    let items: Vec<Value> =
        list.items.iter().map(|stored| partial(&memo::object(stored))).collect();
    to_bytes(&json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": encode::list_metadata(list.revision, list.next.as_deref(), list.remaining),
        "items": items,
    }))
}

/// How the events of one watch are written.
struct Writer {
    kind: Kind,
    version: String,
    format: Format,
    head: Vec<u8>,
    /// Column definitions go with the first table only, as upstream sends them.
    first: bool,
}

impl Writer {
    fn events(&mut self, events: &[Event]) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        for event in events {
            self.event(&mut out, event);
            out.extend_from_slice(b"}\n");
        }
        out
    }

    /// JSON of an event is a copy of the stored bytes between two fixed ends, cheaper than any cache
    /// of it; the other forms need the tree, which all watchers of a version share.
    fn event(&mut self, out: &mut Vec<u8>, event: &Event) {
        match event {
            Event::Object { kind, stored, revision } => {
                out.extend_from_slice(b"{\"type\":\"");
                out.extend_from_slice(kind.name().as_bytes());
                out.extend_from_slice(b"\",\"object\":");
                if self.format == Format::Json {
                    return encode::splice(out, &self.head, stored, *revision);
                }
                let object = self.at(stored, *revision);
                self.shaped(out, &object);
            }
            Event::Bookmark { revision, initial_events_end } => {
                out.extend_from_slice(b"{\"type\":\"BOOKMARK\",\"object\":");
                let object =
                    bookmark_object(&self.kind, &self.version, *revision, *initial_events_end);
                if self.format == Format::Json {
                    return encode::write_value(out, &object);
                }
                self.shaped(out, &object);
            }
        }
    }

    fn at(&self, stored: &Arc<Stored>, revision: k8s::Revision) -> Arc<Object> {
        let object = memo::object(stored);
        if revision == encode::revision(stored.revision) {
            return object;
        }
        let mut moved = (*object).clone();
        encode::stamp_revision(&mut moved, revision);
        Arc::new(moved)
    }

    fn shaped(&mut self, out: &mut Vec<u8>, object: &Object) {
        let Format::Table(include) = self.format else {
            return encode::write_value(out, &partial(object));
        };
        let revision = object.str_at("/metadata/resourceVersion");
        let metadata = json!({ "resourceVersion": revision });
        let mut table = Table::new(&self.kind, metadata, std::mem::take(&mut self.first));
        table.push(&self.kind, &self.version, object, include);
        encode::write_value(out, &table.into_value());
    }
}

/// A watch as a body without end: nothing is buffered beyond the batch being written.
pub(super) fn watch(
    feed: Feed,
    kind: Kind,
    version: String,
    format: Format,
    metrics: Metrics,
    running: Running,
    draining: CancellationToken,
) -> Response<Body> {
    let head = encode::object_head(&kind, &version);
    let writer = Writer { kind, version, format, head, first: true };
    let begin = Some((feed, writer, running));
    let pieces = futures::stream::unfold(begin, move |state| {
        let (metrics, draining) = (metrics.clone(), draining.clone());
        async move {
            let (mut feed, mut writer, running) = state?;
            let next = tokio::select! {
                next = feed.next() => next?,
                () = draining.cancelled() => return None,
            };
            match next {
                Ok(events) => {
                    let out = writer.events(&events);
                    metrics.events(&writer.kind, &writer.version, events.len(), out.len());
                    Some((out, Some((feed, writer, running))))
                }
                Err(status) => Some((error_event(&status), None)),
            }
        }
    });
    let frames = pieces.map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from(piece))));
    with_type(StatusCode::OK, "application/json", BodyExt::boxed_unsync(StreamBody::new(frames)))
}

fn error_event(status: &Status) -> Vec<u8> {
    let mut out = to_bytes(&json!({ "type": "ERROR", "object": status.to_value() }));
    out.push(b'\n');
    out
}

/// A watch that cannot begin: upstream answers 200 and says why in the stream.
pub(super) fn watch_error(status: &Status) -> Response<Body> {
    bytes(StatusCode::OK, "application/json", error_event(status))
}

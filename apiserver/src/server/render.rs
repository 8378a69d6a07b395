//! Answers as bytes: objects by concatenation, tables and bare metadata when asked, watches event by
//! event; each in JSON, YAML or protobuf.

use super::{
    Body, BoxError, full,
    lists::{self, partial_message},
    negotiate::{Coding, Format, Shape},
    transfer::respond,
    warnings::{Warnings, deprecated},
};
use crate::{
    encode,
    kind::Kind,
    kinds::KindDef,
    memo,
    metrics::{Metrics, Running},
    pipeline::{
        Reply, What,
        watch::{Event, Feed, bookmark_object},
    },
    protobuf,
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
use std::{iter::once, sync::Arc};
use tokio_util::sync::CancellationToken;

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

/// A refusal, as the client reads it best.
pub(crate) fn status(status: &Status, format: Format) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let whole = Object::from_value(status.to_value()).unwrap_or_default();
    let mut response = object(code, &whole, format);
    if let Some(seconds) = status.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// An object that says itself what it is; JSON if it cannot be said otherwise.
pub(crate) fn object(code: StatusCode, object: &Object, format: Format) -> Response<Body> {
    match any(object, format.coding) {
        Ok(body) => respond(code, format.coding.media_type(), once(body), format),
        Err(_) => {
            let format = Format { coding: Coding::Json, ..format };
            respond(code, "application/json", once(to_bytes(object)), format)
        }
    }
}

/// The pipeline's answer in the form asked for.
pub(super) async fn reply(
    reply: Reply,
    kind: &Kind,
    version: &str,
    mut format: Format,
    verb: Verb,
) -> Result<Response<Body>, Status> {
    let code = if reply.created { StatusCode::CREATED } else { StatusCode::OK };
    if verb == Verb::DeleteCollection {
        format = format.whole();
    }
    let media = format.coding.media_type();
    let mut response = match reply.what {
        What::List(list) => {
            if format.shape == Shape::Partial {
                return Err(not_acceptable("PartialObjectMetadata", "a list", kind, "List"));
            }
            let pieces = lists::pieces(list, kind, version, format).await?;
            respond(code, media, pieces, format)
        }
        What::Other(object) => respond(code, media, once(any(&object, format.coding)?), format),
        _ if format.shape == Shape::PartialList => {
            return Err(not_acceptable("PartialObjectMetadataList", "not a list", kind, ""));
        }
        What::Stored(stored) => {
            let body = match (format.coding, format.shape) {
                (Coding::Json, Shape::Whole) => spliced(kind, version, &stored),
                (Coding::Protobuf, Shape::Whole) => {
                    let message = protobuf::of_stored(kind, version, &stored)?;
                    let api_version = encode::api_version(kind.group, version);
                    k8s::protobuf::enveloped(&api_version, kind.kind, &message)
                }
                _ => one(&memo::parse(&stored), kind, version, format)?,
            };
            respond(code, media, once(body), format)
        }
        What::Object(object) => {
            respond(code, media, once(one(&object, kind, version, format)?), format)
        }
    };
    let mut warnings = Warnings::default();
    warnings.add_all(deprecated(kind, version));
    warnings.add_all(reply.warnings);
    warnings.write(&mut response);
    Ok(response)
}

/// What is warned of besides an answer that is a refusal.
pub(super) fn warn(response: &mut Response<Body>, texts: Vec<String>) {
    let mut warnings = Warnings::default();
    warnings.add_all(texts);
    warnings.write(response);
}

fn not_acceptable(asked: &str, is: &str, kind: &KindDef, suffix: &str) -> Status {
    let package = kind.schema.split('.').next().unwrap_or_default();
    Status::not_acceptable(format!(
        "you requested {asked}, but the requested object is {is} (*{package}.{}{suffix})",
        kind.kind
    ))
}

fn spliced(kind: &KindDef, version: &str, stored: &Stored) -> Vec<u8> {
    let mut out = Vec::with_capacity(stored.body.len() + 128);
    let revision = encode::revision(stored.revision);
    encode::splice(&mut out, &encode::object_head(kind, version), stored, revision);
    out
}

fn to_bytes(value: &(impl serde::Serialize + ?Sized)) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    encode::write_value(&mut out, value);
    out
}

fn text(value: &Value, coding: Coding) -> Vec<u8> {
    if coding == Coding::Yaml {
        let mut out = Vec::with_capacity(1024);
        k8s::yaml::write(&mut out, value);
        return out;
    }
    to_bytes(value)
}

/// An object that says itself what it is.
fn any(object: &Object, coding: Coding) -> Result<Vec<u8>, Status> {
    match coding {
        Coding::Json => Ok(to_bytes(object)),
        Coding::Yaml => Ok(text(&object.clone().into_value(), coding)),
        Coding::Protobuf => protobuf::body_of_any(object),
    }
}

/// One object, which may lack `kind` and `apiVersion`.
fn one(object: &Object, kind: &Kind, version: &str, format: Format) -> Result<Vec<u8>, Status> {
    let coding = format.coding;
    match (format.shape, coding) {
        (Shape::Whole, Coding::Protobuf) => {
            let message = protobuf::of_object(kind, version, object)?;
            let api_version = encode::api_version(kind.group, version);
            Ok(k8s::protobuf::enveloped(&api_version, kind.kind, &message))
        }
        (Shape::Whole, _) => {
            let mut object = object.clone();
            encode::stamp(&mut object, kind, version);
            any(&object, coding)
        }
        (Shape::Table(include), _) => {
            let table = Table::new(format.meta).of(kind, version, object, include, true);
            Ok(text(&table, coding))
        }
        (_, Coding::Protobuf) => {
            let message = partial_message(object)?;
            Ok(k8s::protobuf::enveloped(format.meta, "PartialObjectMetadata", &message))
        }
        _ => Ok(text(&partial(object, format.meta), coding)),
    }
}

/// Only what all objects have (`PartialObjectMetadata` of `meta`).
pub(crate) fn partial(object: &Object, meta: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": meta,
        "metadata": object.metadata(),
    })
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
    fn events(&mut self, events: &[Event]) -> Result<Vec<u8>, Status> {
        let mut out = Vec::with_capacity(512);
        for event in events {
            match self.format.coding {
                Coding::Protobuf => out.extend_from_slice(&self.frame(event)?),
                _ => {
                    self.line(&mut out, event)?;
                    out.extend_from_slice(b"}\n");
                }
            }
        }
        Ok(out)
    }

    /// JSON of an event is a copy of the stored bytes between two fixed ends, cheaper than any cache
    /// of it; the other forms need the tree, which all watchers of a version share.
    fn line(&mut self, out: &mut Vec<u8>, event: &Event) -> Result<(), Status> {
        let (name, object) = match event {
            Event::Object { kind, stored, revision } if self.format.shape == Shape::Whole => {
                begin_line(out, kind.name());
                encode::splice(out, &self.head, stored, *revision);
                return Ok(());
            }
            Event::Object { kind, stored, revision } => (kind.name(), at(stored, *revision)),
            Event::Bookmark { revision, initial_events_end } => {
                ("BOOKMARK", self.bookmark(*revision, *initial_events_end))
            }
        };
        begin_line(out, name);
        if let Shape::Table(include) = self.format.shape {
            let first = std::mem::take(&mut self.first);
            let table = Table::new(self.format.meta);
            encode::write_value(out, &table.of(&self.kind, &self.version, &object, include, first));
            return Ok(());
        }
        // A watch asked for as a list of metadata is of single objects all the same.
        let format = match self.format.shape {
            Shape::PartialList => Format { shape: Shape::Partial, ..self.format },
            _ => self.format,
        };
        out.extend_from_slice(&one(&object, &self.kind, &self.version, format)?);
        Ok(())
    }

    fn frame(&self, event: &Event) -> Result<Vec<u8>, Status> {
        let whole = self.format.shape == Shape::Whole;
        let (name, object) = match event {
            Event::Object { kind, stored, revision }
                if whole && *revision == encode::revision(stored.revision) =>
            {
                let message = protobuf::of_stored(&self.kind, &self.version, stored)?;
                let api_version = encode::api_version(self.kind.group, &self.version);
                let body = k8s::protobuf::enveloped(&api_version, self.kind.kind, &message);
                return Ok(k8s::protobuf::watch_frame(kind.name(), &body));
            }
            Event::Object { kind, stored, revision } => (kind.name(), at(stored, *revision)),
            Event::Bookmark { revision, initial_events_end } => {
                ("BOOKMARK", self.bookmark(*revision, *initial_events_end))
            }
        };
        let shape = if whole { Shape::Whole } else { Shape::Partial };
        let format = Format { shape, ..self.format };
        let body = one(&object, &self.kind, &self.version, format)?;
        Ok(k8s::protobuf::watch_frame(name, &body))
    }

    fn bookmark(&self, revision: k8s::Revision, initial_events_end: bool) -> Arc<Object> {
        Arc::new(bookmark_object(&self.kind, &self.version, revision, initial_events_end))
    }
}

fn begin_line(out: &mut Vec<u8>, event: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

fn at(stored: &Arc<Stored>, revision: k8s::Revision) -> Arc<Object> {
    let mut object = memo::parse(stored);
    encode::stamp_revision(&mut object, revision);
    Arc::new(object)
}

/// A watch as a body without end: nothing is buffered beyond the batch being written.
pub(super) fn watch(
    feed: Feed,
    kind: Kind,
    version: String,
    format: Format,
    metrics: Metrics,
    running: Running,
    ends: CancellationToken,
) -> Response<Body> {
    let warned = deprecated(&kind, &version);
    let head = encode::object_head(&kind, &version);
    let writer = Writer { kind, version, format, head, first: true };
    let begin = Some((feed, writer, running));
    let pieces = futures::stream::unfold(begin, move |state| {
        let (metrics, ends) = (metrics.clone(), ends.clone());
        async move {
            let (mut feed, mut writer, running) = state?;
            let next = tokio::select! {
                next = feed.next() => next?,
                () = ends.cancelled() => return None,
            };
            match next.and_then(|events| Ok((writer.events(&events)?, events.len()))) {
                Ok((out, count)) => {
                    metrics.events(&writer.kind, &writer.version, count, out.len());
                    Some((out, Some((feed, writer, running))))
                }
                Err(status) => Some((error_event(&status, format), None)),
            }
        }
    });
    let frames = pieces.map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from(piece))));
    let media = format.coding.stream_type();
    let body = BodyExt::boxed_unsync(StreamBody::new(frames));
    let mut response = with_type(StatusCode::OK, media, body);
    let mut warnings = Warnings::default();
    warnings.add_all(warned);
    warnings.write(&mut response);
    response
}

fn error_event(status: &Status, format: Format) -> Vec<u8> {
    let object = Object::from_value(status.to_value()).unwrap_or_default();
    if format.coding == Coding::Protobuf
        && let Ok(body) = protobuf::body_of_any(&object)
    {
        return k8s::protobuf::watch_frame("ERROR", &body);
    }
    let mut out = to_bytes(&json!({ "type": "ERROR", "object": object }));
    out.push(b'\n');
    out
}

/// A watch that cannot begin: upstream answers 200 and says why in the stream.
pub(super) fn watch_error(status: &Status, format: Format) -> Response<Body> {
    bytes(StatusCode::OK, format.coding.stream_type(), error_event(status, format))
}

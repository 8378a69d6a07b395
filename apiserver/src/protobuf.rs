//! Protobuf messages of this server's objects. The message of a stored version is made once and kept
//! while it is among those asked for last.

use crate::{kinds::KindDef, memo};
use k8s::{
    Object, Status, protobuf,
    schema::{Schema, TypeId},
};
use raft_store::Stored;
use serde_json::{Map, Value};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// How many bytes of messages are kept.
// Enough for 100,000 pods, which informers of several controllers list at the same time after a
// failover; a message that was given up costs 20 µs to make again.
const KEPT_BYTES_MAX: usize = 256 << 20;

static KEPT: Mutex<Kept> = Mutex::new(Kept { messages: VecDeque::new(), bytes: 0 });

/// The messages made last, which keeps them alive for [`memo::message`].
struct Kept {
    messages: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

fn keep(message: &Arc<[u8]>) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.bytes += message.len();
    kept.messages.push_back(message.clone());
    while kept.bytes > KEPT_BYTES_MAX
        && let Some(oldest) = kept.messages.pop_front()
    {
        kept.bytes -= oldest.len();
    }
}

/// The type of `kind` in `version` in the schema table, if it has a protobuf form.
pub(crate) fn type_of(kind: &KindDef, version: &str) -> Option<TypeId> {
    let schema = Schema::built_in();
    let own = kind.schema_of(version);
    let mut parts = own.splitn(3, '.');
    let (package, _, name) = (parts.next()?, parts.next()?, parts.next()?);
    let ty = schema.get(&format!("{package}.{version}.{name}"));
    let ty = ty.or_else(|| schema.get(own))?;
    protobuf::has_form(schema, ty).then_some(ty)
}

/// The message of a stored version as `version` of `kind` shows it.
pub(crate) fn of_stored(
    kind: &KindDef,
    version: &str,
    stored: &Stored,
) -> Result<Arc<[u8]>, Status> {
    let make = || of_object(kind, version, &memo::parse(stored));
    if kind.versions.first() != Some(&version) {
        return Ok(make()?.into());
    }
    memo::message(stored, || {
        let message: Arc<[u8]> = make()?.into();
        keep(&message);
        Ok(message)
    })
}

/// The message of an object of `kind`.
pub(crate) fn of_object(kind: &KindDef, version: &str, object: &Object) -> Result<Vec<u8>, Status> {
    let ty = type_of(kind, version)
        .ok_or_else(|| Status::internal(format!("{} has no protobuf form", kind.kind)))?;
    protobuf::write(Schema::built_in(), ty, &object.0).map_err(Status::internal)
}

/// The message of a value of the type the table calls `name`.
pub(crate) fn of(name: &str, value: &Map<String, Value>) -> Result<Vec<u8>, Status> {
    let schema = Schema::built_in();
    let ty = schema.get(name).ok_or_else(|| Status::internal(format!("no type {name}")))?;
    protobuf::write(schema, ty, value).map_err(Status::internal)
}

/// A whole body of an object that says itself what it is: a `Status`, a `Scale`, a review.
pub(crate) fn body_of_any(object: &Object) -> Result<Vec<u8>, Status> {
    let (group, version) =
        object.api_version().rsplit_once('/').unwrap_or(("", object.api_version()));
    let package = match (group, object.kind()) {
        (_, "Status" | "APIVersions" | "APIGroup" | "APIGroupList" | "APIResourceList") => "meta",
        ("", _) => "core",
        (group, _) => group.split('.').next().unwrap_or(group),
    };
    // Discovery's oldest documents name no version.
    let version = if version.is_empty() { "v1" } else { version };
    let message = of(&format!("{package}.{version}.{}", object.kind()), &object.0)?;
    Ok(protobuf::enveloped(object.api_version(), object.kind(), &message))
}

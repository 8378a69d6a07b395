//! The bytes an object is stored as, and how they become answers by concatenation.
//!
//! A body has no `metadata.resourceVersion` and, unless it is of a custom kind, no `apiVersion` and
//! `kind`; it begins with [`OPEN`]; metadata is never empty (it has at least a name).

use crate::kinds::KindDef;
use bytes::Bytes;
use k8s::{Object, Revision};
use raft_store::Stored;
use serde_json::Value;
use std::io::Write;

/// How every body begins.
const OPEN: &[u8] = b"{\"metadata\":{";

/// Removes what is not stored.
pub(crate) fn strip(object: &mut Object) {
    object.0.remove("apiVersion");
    object.0.remove("kind");
    let metadata = object.metadata_mut();
    metadata.remove("resourceVersion");
    metadata.remove("selfLink");
}

/// Removes what no version is stored with, and leaves a custom object complete.
pub(crate) fn strip_stored(kind: &KindDef, object: &mut Object) {
    let complete = kind
        .is_custom()
        .then(|| (object.0.get("apiVersion").cloned(), object.0.get("kind").cloned()));
    strip(object);
    if let Some((Some(api_version), Some(kind))) = complete {
        object.0.insert("apiVersion".into(), api_version);
        object.0.insert("kind".into(), kind);
    }
}

/// The stored form of a stripped object.
pub(crate) fn body(object: &Object) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"metadata\":");
    write_value(&mut out, object.0.get("metadata").unwrap_or(&Value::Null));
    for (field, value) in object.0.iter().filter(|(field, _)| *field != "metadata") {
        out.push(b',');
        write_value(&mut out, field);
        out.push(b':');
        write_value(&mut out, value);
    }
    out.push(b'}');
    // Both for our own sake: every reader splices on the strength of it.
    assert!(out.starts_with(OPEN) && out[OPEN.len()] == b'"', "metadata first, never empty");
    Bytes::from(out)
}

/// The bytes of a body from where its metadata begins.
pub(crate) fn metadata(body: &[u8]) -> &[u8] {
    &body[OPEN.len() - 1..]
}

/// JSON of anything serializable to memory, which cannot fail.
pub(crate) fn write_value(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("JSON values serialize to memory");
}

/// `v1` or `group/version`.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}

/// What a single object of `kind` begins with, up to the resource version.
pub(crate) fn object_head(kind: &KindDef, version: &str) -> Vec<u8> {
    if kind.is_custom() {
        return ITEM_HEAD.to_vec();
    }
    let api_version = api_version(kind.group, version);
    format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{\"resourceVersion\":\"",
        kind.kind
    )
    .into_bytes()
}

/// What an item of a typed list begins with: upstream leaves `kind` and `apiVersion` out there.
pub(crate) const ITEM_HEAD: &[u8] = b"{\"metadata\":{\"resourceVersion\":\"";

/// Appends a stored version under `head`, at `revision` (its own, or that of its deletion).
pub(crate) fn splice(out: &mut Vec<u8>, head: &[u8], stored: &Stored, revision: Revision) {
    out.extend_from_slice(head);
    write!(out, "{revision}\",").expect("writing to memory");
    out.extend_from_slice(&stored.body[OPEN.len()..]);
}

/// The list's own metadata: resource version, and for pages what is left.
pub(crate) fn list_metadata(
    revision: Revision,
    continue_token: Option<&str>,
    remaining: Option<u64>,
) -> Value {
    let mut metadata = serde_json::json!({ "resourceVersion": revision.to_string() });
    if let Some(token) = continue_token {
        metadata["continue"] = token.into();
    }
    if let Some(remaining) = remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

/// Names `object` as of `kind` in `version`.
pub(crate) fn stamp(object: &mut Object, kind: &KindDef, version: &str) {
    object.0.insert("kind".into(), kind.kind.into());
    object.0.insert("apiVersion".into(), api_version(kind.group, version).into());
}

/// Sets `metadata.resourceVersion`.
pub(crate) fn stamp_revision(object: &mut Object, revision: Revision) {
    object.metadata_mut().insert("resourceVersion".into(), revision.to_string().into());
}

/// The store's counter in the API's words.
pub(crate) fn revision(revision: raft_store::Revision) -> Revision {
    Revision(revision.0)
}

//! What the files of kinds share: printing, field paths, metadata, pod specs. Not a kind itself.

pub mod print;

use k8s::Object;

/// `prepare_create` of a kind with a status subresource: a client may not set it.
pub(super) fn drop_status(object: &mut Object) {
    object.0.remove("status");
}

/// `prepare_update` of a kind with a status subresource: it stays as it was.
pub(super) fn keep_status(new: &mut Object, old: &Object) {
    match old.0.get("status") {
        Some(status) => new.0.insert("status".into(), status.clone()),
        None => new.0.remove("status"),
    };
}

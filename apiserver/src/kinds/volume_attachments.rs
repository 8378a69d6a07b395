//! VolumeAttachments: a volume to be attached to a node.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors},
        print,
        volume_sources::driver_name,
    },
};
use k8s::{FieldError, Object, apply::Scope};

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    namespaced: false,
    schema: "storage.v1.VolumeAttachment",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column { name: "Attacher", value: |o, _| print::text(o, "/spec/attacher"), ..Column::NAME },
        Column::text("PV", |o, _| print::text(o, "/spec/source/persistentVolumeName")),
        Column::text("Node", |o, _| print::text(o, "/spec/nodeName")),
        Column::boolean("Attached", |o, _| print::boolean(o, "/status/attached").into()),
        Column::AGE,
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    status_scope: Scope::STATUS_ALONE,
    unconditional_update: false,
    validate,
    validate_status,
    ..KindDef::BASE
};

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    driver_name(&spec.field("attacher"), &mut errors);
    let source = spec.field("source");
    let (inline, volume) = (source.field("inlineVolumeSpec"), source.field("persistentVolumeName"));
    match (inline.exists(), volume.exists()) {
        (false, false) => {
            let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.required(&source, detail);
        }
        (true, true) => {
            let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.forbidden(&source, detail);
        }
        (false, true) if volume.text().is_empty() => {
            errors.required(&volume, "must specify non empty persistentVolumeName");
        }
        (false, true) => (),
        (true, false) if !inline.field("csi").exists() => {
            let detail = "has to be specified in the context of inline volumes";
            errors.required(&inline.field("csi"), detail);
        }
        (true, false) => (),
    }
    errors.invalid_each(
        &spec.field("nodeName"),
        k8s::names::is_dns1123_subdomain(spec.field("nodeName").text()),
    );
    status(new, &mut errors);
    if let Some(old) = old {
        errors.immutable(&spec, &At::top(old, "spec"));
    }
    errors.0
}

fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    status(new, &mut errors);
    errors.0
}

/// Upstream's bounds of what a driver says, in bytes.
const METADATA_BYTES_MAX: usize = 256 * 1024;
const MESSAGE_BYTES_MAX: usize = 1024;

fn status(attachment: &Object, errors: &mut Errors) {
    let status = At::top(attachment, "status");
    let metadata = status.field("attachmentMetadata");
    let bytes: usize = metadata.entries().map(|(key, value)| key.len() + value.text().len()).sum();
    if bytes > METADATA_BYTES_MAX {
        errors.too_long(&metadata, METADATA_BYTES_MAX);
    }
    for field in ["attachError", "detachError"] {
        let error = status.field(field);
        let message = error.field("message");
        if message.text().len() > MESSAGE_BYTES_MAX {
            errors.too_long(&message, MESSAGE_BYTES_MAX);
        }
        errors.not_negative(&error.field("errorCode"));
    }
}

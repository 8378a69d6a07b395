//! VolumeAttachments: a volume to be attached to a node.

use super::{
    Column, KindDef, Subresource,
    common::{self, print},
};

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    namespaced: false,
    schema: "storage.v1.VolumeAttachment",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Attacher", |o, _| print::text(o, "/spec/attacher")),
        Column::text("PV", |o, _| print::text(o, "/spec/source/persistentVolumeName")),
        Column::text("Node", |o, _| print::text(o, "/spec/nodeName")),
        Column::boolean("Attached", |o, _| print::boolean(o, "/status/attached").into()),
        Column::AGE,
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    unconditional_update: false,
    ..KindDef::BASE
};

//! PersistentVolumeClaims: storage asked for by a pod.

use super::{common::{self, print}, Column, KindDef, Subresource};

pub(super) const KIND: KindDef = KindDef {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    short_names: &["pvc"],
    schema: "core.v1.PersistentVolumeClaim",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME,
Column::text("Status", |o, _| (if o.deletion_timestamp().is_some() { "Terminating" } else { o.str_at("/status/phase") }).into()),
Column::text("Volume", |o, _| print::text(o, "/spec/volumeName")),
Column::text("Capacity", |o, _| print::scalar(o.at("/status/capacity/storage"), "").into()),
Column::text("Access Modes", |o, _| print::access_modes(print::list(o, "/status/accessModes"))),
Column::text("StorageClass", |o, _| print::text(o, "/spec/storageClassName")),
Column::text("VolumeAttributesClass", |o, _| print::text_or(o, "/spec/volumeAttributesClassName", "<unset>")),
Column::AGE,
Column::text("VolumeMode", |o, _| print::text_or(o, "/spec/volumeMode", "<unset>")).wide()],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    ..KindDef::BASE
};

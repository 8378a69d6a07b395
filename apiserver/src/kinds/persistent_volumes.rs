//! PersistentVolumes: storage there is.

use super::{common::{self, print}, Column, KindDef, Subresource};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    short_names: &["pv"],
    namespaced: false,
    schema: "core.v1.PersistentVolume",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME,
Column::text("Capacity", |o, _| print::scalar(o.at("/spec/capacity/storage"), "").into()),
Column::text("Access Modes", |o, _| print::access_modes(print::list(o, "/spec/accessModes"))),
Column::text("Reclaim Policy", |o, _| print::text(o, "/spec/persistentVolumeReclaimPolicy")),
Column::text("Status", |o, _| (if o.deletion_timestamp().is_some() { "Terminating" } else { o.str_at("/status/phase") }).into()),
Column::text("Claim", |o, _| claim(o)),
Column::text("StorageClass", |o, _| print::text(o, "/spec/storageClassName")),
Column::text("VolumeAttributesClass", |o, _| print::text_or(o, "/spec/volumeAttributesClassName", "<unset>")),
Column::text("Reason", |o, _| print::text(o, "/status/reason")),
Column::AGE,
Column::text("VolumeMode", |o, _| print::text_or(o, "/spec/volumeMode", "<unset>")).wide()],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    ..KindDef::BASE
};

fn claim(object: &Object) -> Value {
    match object.at("/spec/claimRef") {
        Some(claim) => format!("{}/{}", print::field(claim, "namespace"), print::field(claim, "name")).into(),
        None => "".into(),
    }
}

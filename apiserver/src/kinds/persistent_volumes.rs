//! PersistentVolumes: storage there is.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors},
        pod_spec, print, set_text,
    },
};
use k8s::{FieldError, Object};
use serde_json::{Value, json};

pub(super) const KIND: KindDef = KindDef {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    short_names: &["pv"],
    namespaced: false,
    schema: "core.v1.PersistentVolume",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Capacity", |o, _| print::scalar(o.at("/spec/capacity/storage"), "").into()),
        Column::text("Access Modes", |o, _| {
            print::access_modes(print::list(o, "/spec/accessModes"))
        }),
        Column::text("Reclaim Policy", |o, _| {
            print::text(o, "/spec/persistentVolumeReclaimPolicy")
        }),
        Column::text("Status", |o, _| {
            (if o.deletion_timestamp().is_some() {
                "Terminating"
            } else {
                o.str_at("/status/phase")
            })
            .into()
        }),
        Column::text("Claim", |o, _| claim(o)),
        Column::text("StorageClass", |o, _| print::text(o, "/spec/storageClassName")),
        Column::text("VolumeAttributesClass", |o, _| {
            print::text_or(o, "/spec/volumeAttributesClassName", "<unset>")
        }),
        Column::text("Reason", |o, _| print::text(o, "/status/reason")),
        Column::AGE,
        Column::text("VolumeMode", |o, _| print::text_or(o, "/spec/volumeMode", "<unset>")).wide(),
    ],
    prepare_update: common::keep_status,
    default,
    prepare_create,
    validate,
    ..KindDef::BASE
};

fn claim(object: &Object) -> Value {
    match object.at("/spec/claimRef") {
        Some(claim) => {
            format!("{}/{}", print::field(claim, "namespace"), print::field(claim, "name")).into()
        }
        None => "".into(),
    }
}

fn default(volume: &mut Object) {
    let spec = volume.map_mut("spec");
    set_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_text(spec, "volumeMode", "Filesystem");
}

fn prepare_create(volume: &mut Object) {
    volume.0.insert("status".into(), json!({ "phase": "Pending" }));
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let (modes, capacity) = (spec.field("accessModes"), spec.field("capacity"));
    if modes.count() == 0 {
        errors.required(&modes, "");
    }
    let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.items() {
        errors.one_of(&mode, &known, true);
    }
    if capacity.count() == 0 {
        errors.required(&capacity, "");
    }
    pod_spec::validate_quantities(&capacity, &mut errors);
    let policy = spec.field("persistentVolumeReclaimPolicy");
    errors.one_of(&policy, &["Delete", "Recycle", "Retain"], false);
    errors.one_of(&spec.field("volumeMode"), &["Block", "Filesystem"], false);
    if let Some(old) = old {
        let was = At::top(old, "spec");
        errors.immutable(&spec.field("volumeMode"), &was.field("volumeMode"));
    }
    errors.0
}

//! PersistentVolumeClaims: storage asked for by a pod.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors},
        labels, pod_spec, print, set_text,
    },
};
use k8s::{FieldError, Object};
use serde_json::{Value, json};

pub(super) const KIND: KindDef = KindDef {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    short_names: &["pvc"],
    schema: "core.v1.PersistentVolumeClaim",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Status", |o, _| {
            (if o.deletion_timestamp().is_some() {
                "Terminating"
            } else {
                o.str_at("/status/phase")
            })
            .into()
        }),
        Column::text("Volume", |o, _| print::text(o, "/spec/volumeName")),
        Column::text("Capacity", |o, _| print::scalar(o.at("/status/capacity/storage"), "").into()),
        Column::text("Access Modes", |o, _| {
            print::access_modes(print::list(o, "/status/accessModes"))
        }),
        Column::text("StorageClass", |o, _| print::text(o, "/spec/storageClassName")),
        Column::text("VolumeAttributesClass", |o, _| {
            print::text_or(o, "/spec/volumeAttributesClassName", "<unset>")
        }),
        Column::AGE,
        Column::text("VolumeMode", |o, _| print::text_or(o, "/spec/volumeMode", "<unset>")).wide(),
    ],
    prepare_update: common::keep_status,
    default,
    prepare_create,
    validate,
    ..KindDef::BASE
};

fn default(claim: &mut Object) {
    set_text(claim.map_mut("spec"), "volumeMode", "Filesystem");
}

fn prepare_create(claim: &mut Object) {
    claim.0.insert("status".into(), json!({ "phase": "Pending" }));
}

/// What of a claim the binder and the user may change later.
const MAY_CHANGE: [&str; 4] =
    ["resources", "volumeAttributesClassName", "volumeName", "storageClassName"];

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let modes = spec.field("accessModes");
    if modes.count() == 0 {
        errors.required(&modes, "at least 1 access mode is required");
    }
    let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.items() {
        errors.one_of(&mode, &known, true);
    }
    labels::validate_selector(&spec.field("selector"), &mut errors);
    let resources = spec.field("resources");
    let requests = resources.field("requests");
    if !requests.key("storage").exists() {
        errors.0.push(FieldError::required("spec.resources[storage]", ""));
    }
    pod_spec::validate_quantities(&requests, &mut errors);
    errors.one_of(&spec.field("volumeMode"), &["Block", "Filesystem"], false);
    let fixed = |claim: &Object| {
        let mut spec = claim.at("/spec").and_then(Value::as_object).cloned().unwrap_or_default();
        MAY_CHANGE.iter().for_each(|field| drop(spec.remove(*field)));
        spec
    };
    if old.is_some_and(|old| fixed(old) != fixed(new)) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(&spec, detail);
    }
    errors.0
}

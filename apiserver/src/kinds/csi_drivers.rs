//! CSIDrivers: what a volume driver can do.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors},
        print, set_default, set_text,
        volume_sources::driver_name,
    },
};
use k8s::{FieldError, Object};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "CSIDriver",
    plural: "csidrivers",
    namespaced: false,
    schema: "storage.v1.CSIDriver",
    columns: &[
        Column::NAME,
        Column::boolean("AttachRequired", |o, _| {
            (o.at("/spec/attachRequired") != Some(&Value::Bool(false))).into()
        }),
        Column::boolean("PodInfoOnMount", |o, _| print::boolean(o, "/spec/podInfoOnMount").into()),
        Column::boolean("StorageCapacity", |o, _| {
            print::boolean(o, "/spec/storageCapacity").into()
        }),
        Column::text("TokenRequests", |o, _| token_audiences(o)),
        Column::boolean("RequiresRepublish", |o, _| {
            print::boolean(o, "/spec/requiresRepublish").into()
        }),
        Column::text("Modes", |o, _| modes(o)),
        Column::AGE,
    ],
    unconditional_update: false,
    default,
    prepare_update: count_changes,
    validate,
    ..KindDef::BASE
};

fn token_audiences(object: &Object) -> Value {
    match object.at("/spec/tokenRequests") {
        None | Some(Value::Null) => "<unset>".into(),
        Some(_) => print::join_field(print::list(object, "/spec/tokenRequests"), "audience").into(),
    }
}

fn modes(object: &Object) -> Value {
    let modes = print::list(object, "/spec/volumeLifecycleModes");
    let modes: Vec<&str> = modes.iter().filter_map(Value::as_str).collect();
    if modes.is_empty() { "<none>".into() } else { modes.join(",").into() }
}

/// Upstream counts changes only, so that the first version has no generation.
fn count_changes(new: &mut Object, old: &Object) {
    if new.at("/spec") != old.at("/spec") {
        let generation = old.generation() + 1;
        new.metadata_mut().insert("generation".into(), generation.into());
    }
}

fn default(driver: &mut Object) {
    let spec = driver.map_mut("spec");
    set_default(spec, "attachRequired", true);
    for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        set_default(spec, field, false);
    }
    set_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    set_default(spec, "volumeLifecycleModes", json!(["Persistent"]));
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    driver_name(&At::top(new, "metadata").field("name"), &mut errors);
    for field in ["attachRequired", "podInfoOnMount", "storageCapacity", "seLinuxMount"] {
        if !spec.field(field).exists() {
            errors.required(&spec.field(field), "");
        }
    }
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    errors.one_of(&spec.field("fsGroupPolicy"), &policies, false);
    let mut audiences = BTreeSet::new();
    for request in spec.field("tokenRequests").items() {
        let (audience, seconds) = (request.field("audience"), request.field("expirationSeconds"));
        if !audiences.insert(audience.text()) {
            errors.duplicate_value(&audience, audience.text());
        }
        match seconds.int() {
            Some(..600) => {
                errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
            }
            Some(seconds_asked) if seconds_asked > 1 << 32 => {
                errors.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
            }
            _ => (),
        }
    }
    let in_secrets = spec.field("serviceAccountTokenInSecrets");
    if in_secrets.exists() && spec.field("tokenRequests").count() == 0 {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.invalid(&in_secrets, detail);
    }
    let modes = spec.field("volumeLifecycleModes");
    for mode in modes.texts().filter(|mode| !matches!(*mode, "Ephemeral" | "Persistent")) {
        errors.not_supported_value(&modes, mode, &["Ephemeral", "Persistent"]);
    }
    let period = spec.field("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|seconds| seconds < 10) {
        errors.invalid(&period, "must be greater than or equal to 10 seconds");
    }
    if let Some(old) = old {
        let was = At::top(old, "spec");
        // Upstream's path has a letter more.
        let attach = spec.field("attachRequired").renamed("attachedRequired");
        errors.immutable(&attach, &was.field("attachRequired"));
        errors.immutable(&modes, &was.field("volumeLifecycleModes"));
    }
    errors.0
}

//! ResourceClaims: devices asked for by pods.

use super::{
    Column, KindDef, Subresource,
    common::{
        self, devices,
        field::{At, Errors},
        print,
    },
};
use k8s::{FieldError, Object, apply::Scope};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "resource.k8s.io",
    kind: "ResourceClaim",
    plural: "resourceclaims",
    schema: "resource.v1.ResourceClaim",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME, Column::text("State", |o, _| state(o)), Column::AGE],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    status_scope: Scope::STATUS_ALONE,
    prepare_status,
    default: |claim| devices::default_spec(claim.map_mut("spec")),
    validate,
    validate_status,
    ..KindDef::BASE
};

/// What is said of devices is forgotten with their allocation.
fn prepare_status(new: &mut Object, old: &Object) {
    const IDENTITY: [&str; 4] = ["driver", "pool", "device", "shareID"];
    let identity = |device: &Value| IDENTITY.map(|field| device.get(field).cloned());
    let allocated = |claim: &Object| -> Vec<_> {
        print::list(claim, "/status/allocation/devices/results").iter().map(identity).collect()
    };
    let (had, has) = (allocated(old), allocated(new));
    let Some(Value::Array(devices)) = new.map_mut("status").get_mut("devices") else { return };
    devices.retain(|device| {
        let device = identity(device);
        has.contains(&device) || !had.contains(&device)
    });
    if devices.is_empty() {
        new.map_mut("status").remove("devices");
    }
}

fn state(object: &Object) -> Value {
    let mut states: Vec<&str> = Vec::new();
    if object.deletion_timestamp().is_some() {
        states.push("deleted");
    }
    if object.at("/status/allocation").is_some() {
        states.push("allocated");
        if print::count(object, "/status/reservedFor") > 0 {
            states.push("reserved");
        }
    } else if states.is_empty() {
        states.push("pending");
    }
    states.join(",").into()
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    devices::validate_spec(&spec, &mut errors);
    if let Some(old) = old {
        errors.immutable(&spec, &At::top(old, "spec"));
    }
    errors.0
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (status, was) = (At::top(new, "status"), At::top(old, "status"));
    devices::validate_allocation(&status, &mut errors);
    let (now, before) = (status.field("allocation"), was.field("allocation"));
    if before.exists() && now.exists() {
        errors.immutable(&now, &before);
    }
    if new.deletion_timestamp().is_some() {
        let kept =
            |uid: &str| was.field("reservedFor").items().any(|old| old.field("uid").text() == uid);
        for consumer in status.field("reservedFor").items() {
            if !kept(consumer.field("uid").text()) {
                let detail = "new entries may not be added while `deletionTimestamp` is set";
                errors.forbidden(&status.field("reservedFor"), detail);
            }
        }
    }
    errors.0
}

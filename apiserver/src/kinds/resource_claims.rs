//! ResourceClaims: devices asked for by pods.

use super::{
    Column, KindDef, Subresource,
    common::{self, print},
};
use k8s::Object;
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
    ..KindDef::BASE
};

fn state(object: &Object) -> Value {
    let mut states: Vec<&str> = Vec::new();
    if object.deletion_timestamp().is_some() {
        states.push("deleted");
    }
    if object.at("/status/allocation").is_some() {
        states.push("allocated");
    } else if states.is_empty() {
        states.push("pending");
    }
    if print::count(object, "/status/reservedFor") > 0 {
        states.push("reserved");
    }
    states.join(",").into()
}

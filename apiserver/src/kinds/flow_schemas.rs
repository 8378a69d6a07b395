//! FlowSchemas: which requests belong to which priority level.

use super::{
    Column, KindDef, Subresource,
    common::{self, print, set_default},
};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "FlowSchema",
    plural: "flowschemas",
    namespaced: false,
    schema: "flowcontrol.v1.FlowSchema",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("PriorityLevel", |o, _| {
            print::text(o, "/spec/priorityLevelConfiguration/name")
        }),
        Column::integer("MatchingPrecedence", |o, _| print::int(o, "/spec/matchingPrecedence")),
        Column::text("DistinguisherMethod", |o, _| {
            print::text_or_none(o, "/spec/distinguisherMethod/type")
        }),
        Column::AGE,
        Column::text("MissingPL", |o, _| dangling(o)),
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    unconditional_update: false,
    default,
    ..KindDef::BASE
};

fn dangling(object: &Object) -> Value {
    let conditions = print::list(object, "/status/conditions");
    let dangling =
        conditions.iter().find(|condition| print::field(condition, "type") == "Dangling");
    dangling.map_or("?", |condition| print::field(condition, "status")).into()
}

fn default(schema: &mut Object) {
    set_default(schema.map_mut("spec"), "matchingPrecedence", 1000);
}

//! Events of `events.k8s.io`: the same happenings with newer field names.

use super::{Column, KindDef, SelectableField, common::print};
use jiff::Timestamp;
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "events.k8s.io",
    kind: "Event",
    plural: "events",
    short_names: &["ev"],
    schema: "events.v1.Event",
    columns: &[
        Column::text("Last Seen", last_seen),
        Column::text("Type", |o, _| print::text(o, "/type")),
        Column::text("Reason", |o, _| print::text(o, "/reason")),
        Column::text("Object", |o, _| object_name(o)),
        Column::text("Message", |o, _| o.str_at("/note").trim().into()),
        Column::NAME.wide(),
    ],
    selectable: &[
        SelectableField::text("reason", |o| o.str_at("/reason").to_string()),
        SelectableField::text("regarding.kind", |o| o.str_at("/regarding/kind").to_string()),
        SelectableField::text("regarding.namespace", |o| {
            o.str_at("/regarding/namespace").to_string()
        }),
        SelectableField::text("regarding.name", |o| o.str_at("/regarding/name").to_string()),
        SelectableField::text("regarding.uid", |o| o.str_at("/regarding/uid").to_string()),
        SelectableField::text("regarding.apiVersion", |o| {
            o.str_at("/regarding/apiVersion").to_string()
        }),
        SelectableField::text("regarding.resourceVersion", |o| {
            o.str_at("/regarding/resourceVersion").to_string()
        }),
        SelectableField::text("regarding.fieldPath", |o| {
            o.str_at("/regarding/fieldPath").to_string()
        }),
        SelectableField::text("reportingController", |o| {
            o.str_at("/reportingController").to_string()
        }),
        SelectableField::text("type", |o| o.str_at("/type").to_string()),
    ],
    create_on_update: true,
    ..KindDef::BASE
};

fn last_seen(object: &Object, now: Timestamp) -> Value {
    let pointers = ["/series/lastObservedTime", "/deprecatedLastTimestamp", "/eventTime"];
    let time =
        pointers.into_iter().map(|pointer| object.str_at(pointer)).find(|time| !time.is_empty());
    print::since(time.unwrap_or_default(), now).into()
}

fn object_name(object: &Object) -> Value {
    let kind = object.str_at("/regarding/kind").to_lowercase();
    format!("{kind}/{}", object.str_at("/regarding/name")).into()
}

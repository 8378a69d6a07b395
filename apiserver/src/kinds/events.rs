//! Events: what happened to an object, for people to read.

use super::{
    Column, KindDef, SelectableField,
    common::{
        field::{At, Errors},
        print,
    },
};
use jiff::Timestamp;
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    kind: "Event",
    plural: "events",
    short_names: &["ev"],
    schema: "core.v1.Event",
    columns: &[
        Column::text("Last Seen", last_seen),
        Column::text("Type", |o, _| print::text(o, "/type")),
        Column::text("Reason", |o, _| print::text(o, "/reason")),
        Column::text("Object", |o, _| object_name(o)),
        Column::text("Subobject", |o, _| print::text(o, "/involvedObject/fieldPath")).wide(),
        Column::text("Source", |o, _| source(o)).wide(),
        Column::text("Message", |o, _| o.str_at("/message").trim().into()),
        Column::text("First Seen", first_seen).wide(),
        Column::integer("Count", |o, _| count(o).into()).wide(),
        Column::NAME.wide(),
    ],
    selectable: &[
        SelectableField::text("involvedObject.kind", |o| {
            o.str_at("/involvedObject/kind").to_string()
        }),
        SelectableField::text("involvedObject.namespace", |o| {
            o.str_at("/involvedObject/namespace").to_string()
        }),
        SelectableField::text("involvedObject.name", |o| {
            o.str_at("/involvedObject/name").to_string()
        }),
        SelectableField::text("involvedObject.uid", |o| {
            o.str_at("/involvedObject/uid").to_string()
        }),
        SelectableField::text("involvedObject.apiVersion", |o| {
            o.str_at("/involvedObject/apiVersion").to_string()
        }),
        SelectableField::text("involvedObject.resourceVersion", |o| {
            o.str_at("/involvedObject/resourceVersion").to_string()
        }),
        SelectableField::text("involvedObject.fieldPath", |o| {
            o.str_at("/involvedObject/fieldPath").to_string()
        }),
        SelectableField::text("reason", |o| o.str_at("/reason").to_string()),
        SelectableField::text("reportingComponent", |o| {
            o.str_at("/reportingComponent").to_string()
        }),
        SelectableField::text("source", |o| {
            first_of(o, &["/source/component", "/reportingComponent"]).to_string()
        }),
        SelectableField::text("type", |o| o.str_at("/type").to_string()),
    ],
    create_on_update: true,
    validate,
    ..KindDef::BASE
};

fn first_of<'a>(object: &'a Object, pointers: &[&str]) -> &'a str {
    let texts = pointers.iter().map(|pointer| object.str_at(pointer));
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

fn ago(time: &str, now: Timestamp) -> Value {
    print::since(time, now).into()
}

fn last_seen(object: &Object, now: Timestamp) -> Value {
    if object.at("/series").is_some_and(Value::is_object) {
        return ago(object.str_at("/series/lastObservedTime"), now);
    }
    let time = first_of(object, &["/lastTimestamp", "/firstTimestamp", "/eventTime"]);
    ago(time, now)
}

fn first_seen(object: &Object, now: Timestamp) -> Value {
    ago(first_of(object, &["/firstTimestamp", "/eventTime"]), now)
}

fn count(object: &Object) -> i64 {
    let count = object.int_at("/series/count").or_else(|| object.int_at("/count"));
    count.filter(|&count| count > 0).unwrap_or(1)
}

fn object_name(object: &Object) -> Value {
    let kind = object.str_at("/involvedObject/kind").to_lowercase();
    match object.str_at("/involvedObject/name") {
        "" => kind.into(),
        name => format!("{kind}/{name}").into(),
    }
}

fn source(object: &Object) -> Value {
    let component = first_of(object, &["/source/component", "/reportingComponent"]);
    match first_of(object, &["/source/host", "/reportingInstance"]) {
        "" => component.into(),
        host => format!("{component}, {host}").into(),
    }
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let involved = At::top(new, "involvedObject");
    let place = involved.field("namespace");
    let matches = match place.text() {
        "" => matches!(new.namespace(), "" | "default"),
        namespace => namespace == new.namespace(),
    };
    if !matches {
        errors.invalid_value(&place, place.text(), "does not match event.namespace");
    }
    errors.0
}

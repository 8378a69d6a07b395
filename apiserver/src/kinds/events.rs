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

/// Of both APIs, whose tables upstream makes of one internal type.
pub(super) const COLUMNS: &[Column] = &[
    Column::text("Last Seen", last_seen),
    Column::text("Type", |o, _| print::text(o, "/type")),
    Column::text("Reason", |o, _| print::text(o, "/reason")),
    Column::text("Object", |o, _| object_name(o)),
    Column::text("Subobject", |o, _| print::text(o, "/involvedObject/fieldPath")).wide(),
    Column::text("Source", |o, _| source(o)).wide(),
    Column::text("Message", |o, _| o.str_at("/message").trim().into()),
    Column::text("First Seen", first_seen).wide(),
    Column::text("Count", |o, _| count(o).into()).wide(),
    Column::NAME.wide(),
];

pub(super) const KIND: KindDef = KindDef {
    kind: "Event",
    plural: "events",
    short_names: &["ev"],
    schema: "core.v1.Event",
    columns: COLUMNS,
    // In the order that the other API has, see there.
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
        SelectableField::text("type", |o| o.str_at("/type").to_string()),
        SelectableField::text("source", |o| {
            first_of(o, &["/source/component", "/reportingComponent"]).to_string()
        }),
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

/// Upstream's bounds of an event's words, in bytes.
const WORD_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    validate_any(new, "reportingComponent", &mut errors);
    errors.0
}

/// What is asked of an event of either API; `reporter` is what the API calls who reports it.
pub(super) fn validate_any(new: &Object, reporter: &'static str, errors: &mut Errors) {
    let involved = At::top(new, "involvedObject");
    let place = involved.field("namespace");
    let newer = !new.str_at("/eventTime").is_empty();
    let matches = match (place.text(), newer) {
        ("", false) => matches!(new.namespace(), "" | "default"),
        ("", true) => matches!(new.namespace(), "default" | "kube-system"),
        (namespace, false) => namespace == new.namespace(),
        (_, true) => true,
    };
    if !matches {
        errors.invalid_value(&place, place.text(), "does not match event.namespace");
    }
    if newer {
        words(new, reporter, errors);
    }
}

/// An event with a time of its own says who saw what.
fn words(new: &Object, reporter: &'static str, errors: &mut Errors) {
    let component = At::top(new, "reportingComponent").renamed(reporter);
    errors.needs_text(&component);
    errors.qualified_name(&component);
    let mut at_most = |at: &At<'_, '_>, most: usize, needed: bool| {
        if needed {
            errors.needs_text(at);
        }
        if at.text().len() > most {
            errors.invalid_value(at, "", format!("can have at most {most} characters"));
        }
    };
    at_most(&At::top(new, "reportingInstance"), WORD_BYTES_MAX, true);
    at_most(&At::top(new, "action"), WORD_BYTES_MAX, true);
    at_most(&At::top(new, "reason"), WORD_BYTES_MAX, true);
    at_most(&At::top(new, "message"), NOTE_BYTES_MAX, false);
}

//! Events of `events.k8s.io`: the core's events under newer names. They are kept once, in the form of
//! the core API; defaults, rules and columns see that form.

use super::{
    Foreign, KindDef, SelectableField,
    common::field::{At, Errors, IMMUTABLE, same},
    events,
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "events.k8s.io",
    kind: "Event",
    plural: "events",
    short_names: &["ev"],
    schema: "core.v1.Event",
    foreign: &[Foreign {
        version: "v1",
        schema: "events.v1.Event",
        from_stored: |event| renamed(event, Way::Out),
        to_stored: |event| renamed(event, Way::In),
    }],
    shares: Some("events"),
    columns: events::COLUMNS,
    // The values of both APIs' fields are kept once as well: same order, same places.
    selectable: &[
        SelectableField::text("regarding.kind", |o| text(o, "/involvedObject/kind")),
        SelectableField::text("regarding.namespace", |o| text(o, "/involvedObject/namespace")),
        SelectableField::text("regarding.name", |o| text(o, "/involvedObject/name")),
        SelectableField::text("regarding.uid", |o| text(o, "/involvedObject/uid")),
        SelectableField::text("regarding.apiVersion", |o| text(o, "/involvedObject/apiVersion")),
        SelectableField::text("regarding.resourceVersion", |o| {
            text(o, "/involvedObject/resourceVersion")
        }),
        SelectableField::text("regarding.fieldPath", |o| text(o, "/involvedObject/fieldPath")),
        SelectableField::text("reason", |o| text(o, "/reason")),
        SelectableField::text("reportingController", |o| text(o, "/reportingComponent")),
        SelectableField::text("type", |o| text(o, "/type")),
    ],
    create_on_update: true,
    validate,
    ..KindDef::BASE
};

fn text(event: &Object, pointer: &str) -> String {
    event.str_at(pointer).to_string()
}

#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

/// What the core API calls a field, and what this one does.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn renamed(mut event: Object, way: Way) -> Object {
    for (core, own) in NAMES {
        let (from, to) = match way {
            Way::In => (own, core),
            Way::Out => (core, own),
        };
        if let Some(value) = event.0.remove(from) {
            event.0.insert(to.into(), value);
        }
    }
    event
}

/// This API asks for more than the core's.
fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    events::validate_any(new, "reportingController", &mut errors);
    match old {
        None => validate_new(new, &mut errors),
        Some(old) => validate_update(new, old, &mut errors),
    }
    errors.0
}

fn series(event: &Object, errors: &mut Errors) {
    let series = At::top(event, "series");
    if !series.exists() {
        return;
    }
    if series.field("count").int().unwrap_or(0) < 2 {
        errors.invalid_value(&series.field("count"), "", "should be at least 2");
    }
    errors.needs_text(&series.field("lastObservedTime"));
}

fn validate_new(event: &Object, errors: &mut Errors) {
    series(event, errors);
    errors.needs_text(&At::top(event, "eventTime"));
    let kind = At::top(event, "type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        errors.invalid_value(&kind, "", format!("has invalid value: {}", kind.text()));
    }
    for old in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let at = At::top(event, old);
        let set = match old {
            "count" => at.int().unwrap_or(0) != 0,
            "source" => {
                ["component", "host"].into_iter().any(|part| !at.field(part).text().is_empty())
            }
            _ => at.exists(),
        };
        if set {
            errors.invalid_value(&at, "", "needs to be unset");
        }
    }
}

/// Only the series goes on.
fn validate_update(new: &Object, old: &Object, errors: &mut Errors) {
    if !same(new.at("/series"), old.at("/series")) {
        series(new, errors);
    }
    for (field, name) in [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        let (now, was) = (At::top(new, field), At::top(old, field));
        if !same(now.value(), was.value()) {
            errors.invalid(&now.renamed(name), IMMUTABLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_event_by_other_names() {
        let core = json!({
            "metadata": { "name": "a" },
            "involvedObject": { "kind": "Pod", "name": "web" },
            "message": "Started",
            "reportingComponent": "kubelet",
            "source": { "component": "kubelet" },
            "count": 2,
        });
        let event = Object::from_value(core.clone()).expect("an object");
        let out = renamed(event, Way::Out);
        let other = json!({
            "metadata": { "name": "a" },
            "regarding": { "kind": "Pod", "name": "web" },
            "note": "Started",
            "reportingController": "kubelet",
            "deprecatedSource": { "component": "kubelet" },
            "deprecatedCount": 2,
        });
        assert_eq!(out.clone().into_value(), other);
        assert_eq!(renamed(out, Way::In).into_value(), core);
    }
}

//! PriorityClasses: names for the importance of pods.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors},
        print, set_text,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    short_names: &["pc"],
    namespaced: false,
    schema: "scheduling.v1.PriorityClass",
    columns: &[
        Column::NAME,
        Column::integer("Value", |o, _| print::int(o, "/value")),
        Column::boolean("Global-Default", |o, _| print::boolean(o, "/globalDefault").into()),
        Column::AGE,
        Column::text("PreemptionPolicy", |o, _| print::text(o, "/preemptionPolicy")),
    ],
    generation: true,
    default,
    validate,
    ..KindDef::BASE
};

/// The most a class of the user's may be worth; the system's two are above it.
const USER_MAX: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

fn default(class: &mut Object) {
    set_text(&mut class.0, "preemptionPolicy", "PreemptLowerPriority");
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let value = At::top(new, "value");
    let number = value.int().unwrap_or(0);
    let system = SYSTEM.contains(&(new.name(), number));
    if new.name().starts_with("system-") && !system {
        let detail = "priority class names with 'system-' prefix are reserved for system use only";
        errors.forbidden(&At::top(new, "metadata").field("name"), detail);
    }
    if number > USER_MAX && !system {
        let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
        errors.forbidden(&value, detail);
    }
    let policy = At::top(new, "preemptionPolicy");
    errors.one_of(&policy, &["PreemptLowerPriority", "Never"], false);
    if let Some(old) = old {
        if At::top(old, "value").int().unwrap_or(0) != number {
            errors.forbidden(&value, "may not be changed in an update.");
        }
        errors.immutable(&policy, &At::top(old, "preemptionPolicy"));
    }
    errors.0
}

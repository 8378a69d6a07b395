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
    // It is counted once.
    prepare_create: |class| _ = class.metadata_mut().insert("generation".into(), 1.into()),
    default,
    validate,
    ..KindDef::BASE
};

/// The most a class of the user's may be worth; the system's two are above it.
const USER_MAX: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// The system's two have one value each and are nobody's default.
fn check_system(class: &Object, value: i64) -> Result<(), String> {
    let name = class.name();
    let Some((_, wanted)) = SYSTEM.into_iter().find(|(known, _)| *known == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if value != wanted {
        return Err(format!("value of {name} PriorityClass must be {wanted}"));
    }
    match print::boolean(class, "/globalDefault") {
        true => Err(format!("globalDefault of {name} PriorityClass must be false")),
        false => Ok(()),
    }
}

fn default(class: &mut Object) {
    set_text(&mut class.0, "preemptionPolicy", "PreemptLowerPriority");
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let value = At::top(new, "value");
    let number = value.int().unwrap_or(0);
    if new.name().starts_with("system-") {
        if let Err(why) = check_system(new, number) {
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. \
                 error: {why}"
            );
            errors.forbidden(&At::top(new, "metadata").field("name"), detail);
        }
    } else if number > USER_MAX {
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

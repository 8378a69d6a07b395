//! ControllerRevisions: what a DaemonSet or StatefulSet looked like before.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors},
        print,
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "apps",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    schema: "apps.v1.ControllerRevision",
    columns: &[
        Column::NAME,
        Column::text("Controller", |o, _| print::controller(o)),
        Column::text("Revision", |o, _| print::int(o, "/revision")),
        Column::AGE,
    ],
    validate,
    ..KindDef::BASE
};

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let data = At::top(new, "data");
    match data.value() {
        None | Some(Value::Null) => errors.required(&data, "data is mandatory"),
        // Others may have been let in before.
        Some(data) if data.is_object() || old.is_some() => (),
        Some(_) => errors.required(&data, "data must be a valid JSON object"),
    }
    errors.not_negative(&At::top(new, "revision"));
    if let Some(old) = old {
        errors.immutable(&At::top(new, "data"), &At::top(old, "data"));
    }
    errors.0
}

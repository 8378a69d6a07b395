//! RuntimeClasses: ways to run a container.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors},
        print,
    },
};
use k8s::{FieldError, Object, names};

pub(super) const KIND: KindDef = KindDef {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    namespaced: false,
    schema: "node.v1.RuntimeClass",
    columns: &[
        Column::NAME,
        Column::text("Handler", |o, _| print::text(o, "/handler")),
        Column::AGE,
    ],
    unconditional_update: false,
    validate,
    ..KindDef::BASE
};

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let handler = At::top(new, "handler");
    errors.invalid_each(&handler, names::is_dns1123_label(handler.text()));
    if let Some(old) = old {
        errors.immutable(&handler, &At::top(old, "handler"));
    }
    errors.0
}

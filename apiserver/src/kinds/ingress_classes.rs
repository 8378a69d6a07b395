//! IngressClasses: which controller serves an Ingress.

use super::{
    Column, KindDef,
    common::{
        child,
        field::{At, Errors},
        print, set_text,
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "networking.k8s.io",
    kind: "IngressClass",
    plural: "ingressclasses",
    namespaced: false,
    schema: "networking.v1.IngressClass",
    columns: &[
        Column::NAME,
        Column::text("Controller", |o, _| print::text(o, "/spec/controller")),
        Column::text("Parameters", |o, _| parameters(o)),
        Column::AGE,
    ],
    generation: true,
    default,
    validate,
    ..KindDef::BASE
};

fn parameters(object: &Object) -> Value {
    if object.at("/spec/parameters").is_none() {
        return "<none>".into();
    }
    let kind = object.str_at("/spec/parameters/kind");
    let name = object.str_at("/spec/parameters/name");
    match object.str_at("/spec/parameters/apiGroup") {
        "" => format!("{kind}/{name}").into(),
        group => format!("{kind}.{group}/{name}").into(),
    }
}

fn default(class: &mut Object) {
    if let Some(parameters) = child(class.map_mut("spec"), "parameters") {
        set_text(parameters, "scope", "Cluster");
    }
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let controller = spec.field("controller");
    errors.needs_text(&controller);
    let parameters = spec.field("parameters");
    if parameters.exists() {
        errors.needs_text(&parameters.field("kind"));
        errors.needs_text(&parameters.field("name"));
        errors.one_of(&parameters.field("scope"), &["Cluster", "Namespace"], true);
    }
    if let Some(old) = old {
        let was = At::top(old, "spec");
        errors.immutable(&controller, &was.field("controller"));
    }
    errors.0
}

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
        Column { value: |o, _| name(o), ..Column::NAME },
        Column::text("Controller", |o, _| print::text(o, "/spec/controller")),
        Column::text("Parameters", |o, _| parameters(o)),
        Column::AGE,
    ],
    generation: true,
    default,
    validate,
    ..KindDef::BASE
};

/// Marked if it is for Ingresses that name none.
fn name(object: &Object) -> Value {
    match object.annotation("ingressclass.kubernetes.io/is-default-class") {
        Some("true") => format!("{} (default)", object.name()).into(),
        _ => object.name().into(),
    }
}

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

const CONTROLLER_BYTES_MAX: usize = 250;

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let controller = spec.field("controller");
    if controller.text().len() > CONTROLLER_BYTES_MAX {
        errors.too_long(&controller, CONTROLLER_BYTES_MAX);
    }
    errors.domain_path(&controller);
    let parameters = spec.field("parameters");
    if parameters.exists() {
        let (group, scope) = (parameters.field("apiGroup"), parameters.field("scope"));
        if group.exists() {
            errors.subdomain(&group);
        }
        errors.needs_segment(&parameters.field("kind"));
        errors.needs_segment(&parameters.field("name"));
        errors.one_of(&scope, &["Cluster", "Namespace"], true);
        let namespace = parameters.field("namespace");
        match (scope.text(), namespace.exists()) {
            ("Namespace", false) => {
                errors.required(&namespace, "`parameters.scope` is set to 'Namespace'");
            }
            ("Namespace", true) => errors.label(&namespace),
            ("Cluster", true) => {
                errors.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'");
            }
            _ => (),
        }
    }
    if let Some(old) = old {
        let was = At::top(old, "spec");
        errors.immutable(&controller, &was.field("controller"));
    }
    errors.0
}

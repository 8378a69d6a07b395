//! APIServices: API groups served elsewhere. Stored, not yet proxied to.

use super::{
    Column, KindDef, NameRule, Subresource,
    common::{
        self, child,
        field::{At, Errors},
        print, set_default,
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "apiregistration.k8s.io",
    kind: "APIService",
    plural: "apiservices",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "apiregistration.v1.APIService",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Service", |o, _| service(o)),
        Column::text("Available", |o, _| available(o)),
        Column::AGE,
    ],
    name: NameRule::PathSegment,
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    unconditional_update: false,
    default,
    validate,
    ..KindDef::BASE
};

fn service(object: &Object) -> Value {
    match object.at("/spec/service") {
        Some(service) => {
            format!("{}/{}", print::field(service, "namespace"), print::field(service, "name"))
                .into()
        }
        None => "Local".into(),
    }
}

fn available(object: &Object) -> Value {
    let conditions = print::list(object, "/status/conditions");
    let available = conditions.iter().find(|c| print::field(c, "type") == "Available");
    match available {
        Some(condition) if print::field(condition, "status") == "True" => "True".into(),
        Some(condition) => {
            let status = print::field(condition, "status");
            format!("{status} ({})", print::field(condition, "reason")).into()
        }
        None => "Unknown".into(),
    }
}

fn default(service: &mut Object) {
    if let Some(reference) = child(service.map_mut("spec"), "service") {
        set_default(reference, "port", 443);
    }
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let (version, group) = (spec.field("version"), spec.field("group"));
    let wanted = format!("{}.{}", version.text(), group.text());
    if new.name() != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.invalid(&At::top(new, "metadata").field("name"), detail);
    }
    errors.0
}

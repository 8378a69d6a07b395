//! APIServices: API groups served elsewhere. Stored, not yet proxied to.

use super::{
    Column, KindDef, NameRule, Subresource,
    common::{
        self, child,
        field::{At, Errors},
        print, set_default,
    },
};
use k8s::{FieldError, Object, apply::Scope, names};
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
    status_scope: Scope::STATUS_ALONE,
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
    if !group.text().is_empty() {
        errors.subdomain(&group);
    } else if version.text() != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        errors.required(&group, detail);
    }
    errors.invalid_each(&version, names::is_dns1035_label(version.text()));
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.field(field);
        let value = priority.int().unwrap_or(0);
        if !(1..=max).contains(&value) {
            let detail = format!("must be positive and less than {max}");
            errors.invalid_value(&priority, value, detail);
        }
    }
    validate_service(&spec, &mut errors);
    errors.0
}

fn validate_service(spec: &At<'_, '_>, errors: &mut Errors) {
    let (service, insecure) = (spec.field("service"), spec.field("insecureSkipTLSVerify"));
    let bundle = spec.field("caBundle");
    let has_bundle = !bundle.text().is_empty();
    if !service.exists() {
        if has_bundle {
            errors.invalid(&bundle, "local APIServices may not have a caBundle");
        }
        if insecure.flag() {
            errors.invalid(&insecure, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    errors.needs_text(&service.field("namespace"));
    errors.needs_text(&service.field("name"));
    let port = service.field("port");
    let wrong = names::is_port_number(port.int().unwrap_or(0));
    if !wrong.is_empty() {
        errors.invalid(&port, format!("port is not valid: {}", wrong.join(", ")));
    }
    if insecure.flag() && has_bundle {
        errors.invalid(&insecure, "may not be true if caBundle is present");
    }
}

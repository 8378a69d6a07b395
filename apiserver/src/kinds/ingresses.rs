//! Ingresses: HTTP routes from outside to services.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors},
        print,
    },
};
use k8s::{FieldError, Object, names};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    short_names: &["ing"],
    schema: "networking.v1.Ingress",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Class", |o, _| print::text_or_none(o, "/spec/ingressClassName")),
        Column::text("Hosts", |o, _| hosts(o)),
        Column::text("Address", |o, _| print::load_balancer(o)),
        Column::text("Ports", |o, _| {
            (if print::count(o, "/spec/tls") > 0 { "80, 443" } else { "80" }).into()
        }),
        Column::AGE,
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    validate,
    ..KindDef::BASE
};

fn hosts(object: &Object) -> Value {
    let hosts = print::list(object, "/spec/rules").iter().map(|rule| print::field(rule, "host"));
    let hosts: Vec<String> = hosts.filter(|host| !host.is_empty()).map(String::from).collect();
    if hosts.is_empty() { "*".into() } else { print::at_most_three(&hosts).into() }
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let (rules, default) = (spec.field("rules"), spec.field("defaultBackend"));
    if rules.count() == 0 && !default.exists() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid_value(&spec, rules.owned(), detail);
    }
    if default.exists() {
        backend(&default, &mut errors);
    }
    for rule in rules.items() {
        let host = rule.field("host");
        match host.text() {
            "" => (),
            text if text.starts_with('*') => {
                errors.invalid_each(&host, names::is_wildcard_dns1123_subdomain(text));
            }
            text => errors.invalid_each(&host, names::is_dns1123_subdomain(text)),
        }
        let http = rule.field("http");
        let paths = http.field("paths");
        if http.exists() && paths.count() == 0 {
            errors.required(&paths, "");
        }
        for path in paths.items() {
            http_path(&path, &mut errors);
        }
    }
    errors.0
}

fn http_path(path: &At<'_, '_>, errors: &mut Errors) {
    let (kind, text) = (path.field("pathType"), path.field("path"));
    let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
    match kind.text() {
        "" => errors.required(&kind, "pathType must be specified"),
        known if kinds.contains(&known) => {
            if (known != "ImplementationSpecific" || !text.text().is_empty())
                && !text.text().starts_with('/')
            {
                errors.invalid_value(&text, text.text(), "must be an absolute path");
            }
        }
        _ => errors.not_supported(&kind, &kinds),
    }
    backend(&path.field("backend"), errors);
}

fn backend(backend: &At<'_, '_>, errors: &mut Errors) {
    let (service, resource) = (backend.field("service"), backend.field("resource"));
    if service.exists() && resource.exists() {
        errors.invalid_value(backend, "", "cannot set both resource and service backends");
    } else if resource.exists() {
        errors.needs_text(&resource.field("kind"));
        errors.needs_text(&resource.field("name"));
    } else if errors.needs_text(&service.field("name")) {
        let port = service.field("port");
        let (name, number) = (port.field("name"), port.field("number"));
        match (name.text().is_empty(), number.int().unwrap_or(0) == 0) {
            (true, true) => errors.required(&port, "port name or number is required"),
            (false, false) => {
                errors.invalid(&port, "cannot set both port name & port number");
            }
            (false, true) => errors.invalid_each(&name, names::is_port_name(name.text())),
            (true, false) => errors.port_number(&number),
        }
    }
}

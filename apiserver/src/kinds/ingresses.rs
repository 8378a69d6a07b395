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
    validate_status,
    warnings,
    ..KindDef::BASE
};

fn hosts(object: &Object) -> Value {
    let hosts = print::list(object, "/spec/rules").iter().map(|rule| print::field(rule, "host"));
    let hosts: Vec<String> = hosts.filter(|host| !host.is_empty()).map(String::from).collect();
    if hosts.is_empty() { "*".into() } else { print::at_most_three(&hosts).into() }
}

const CLASS: &str = "kubernetes.io/ingress.class";

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let class = spec.field("ingressClassName");
    if let (Some(said), None, true) = (new.annotation(CLASS), old, class.exists())
        && said != class.text()
    {
        let detail = "must match `ingressClassName` when both are specified";
        errors.0.push(FieldError::invalid(format!("annotations.{CLASS}"), said.into(), detail));
    }
    let (rules, default) = (spec.field("rules"), spec.field("defaultBackend"));
    if rules.count() == 0 && !default.exists() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid_value(&spec, rules.owned(), detail);
    }
    if default.exists() {
        backend(&default, &mut errors);
    }
    for rule in rules.items() {
        validate_host(&rule.field("host"), &mut errors);
        let http = rule.field("http");
        let paths = http.field("paths");
        if http.exists() && paths.count() == 0 {
            errors.required(&paths, "");
        }
        for path in paths.items() {
            http_path(&path, &mut errors);
        }
    }
    for tls in spec.field("tls").items() {
        for host in tls.field("hosts").items() {
            dns_name(&host, &mut errors);
        }
        let secret = tls.field("secretName");
        if !secret.text().is_empty() {
            errors.subdomain(&secret);
        }
    }
    if class.exists() {
        errors.subdomain(&class);
    }
    errors.0
}

fn validate_host(host: &At<'_, '_>, errors: &mut Errors) {
    if host.text().is_empty() {
        return;
    }
    if host.text().parse::<std::net::IpAddr>().is_ok() {
        errors.invalid(host, "must be a DNS name, not an IP address");
    }
    dns_name(host, errors);
}

fn dns_name(host: &At<'_, '_>, errors: &mut Errors) {
    let wrong = match host.text().contains('*') {
        true => names::is_wildcard_dns1123_subdomain(host.text()),
        false => names::is_dns1123_subdomain(host.text()),
    };
    errors.invalid_each(host, wrong);
}

fn http_path(path: &At<'_, '_>, errors: &mut Errors) {
    let (kind, text) = (path.field("pathType"), path.field("path"));
    match kind.text() {
        "" => errors.required(&kind, "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !text.text().starts_with('/') {
                errors.invalid_value(&text, text.text(), "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.text().contains(part) {
                    errors.invalid(&text, format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if text.text().ends_with(end) {
                    errors.invalid(&text, format!("cannot end with '{end}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.text().is_empty() && !text.text().starts_with('/') {
                errors.invalid(&text, "must be an absolute path");
            }
        }
        _ => errors.not_supported(&kind, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(&path.field("backend"), errors);
}

fn backend(backend: &At<'_, '_>, errors: &mut Errors) {
    let (service, resource) = (backend.field("service"), backend.field("resource"));
    match (service.exists(), resource.exists()) {
        (true, true) => {
            errors.invalid_value(backend, "", "cannot set both resource and service backends");
        }
        (false, false) => {
            errors.invalid_value(backend, "", "resource or service backend is required");
        }
        (false, true) => typed_reference(&resource, errors),
        (true, false) => {
            let (name, port) = (service.field("name"), service.field("port"));
            if errors.needs_text(&name) {
                errors.invalid_each(&name, names::is_dns1035_label(name.text()));
            }
            let (named, number) = (port.field("name"), port.field("number"));
            match (named.text().is_empty(), number.int().unwrap_or(0) == 0) {
                (true, true) => errors.required(backend, "port name or number is required"),
                (false, false) => {
                    errors.invalid_value(backend, "", "cannot set both port name & port number");
                }
                (false, true) => errors.invalid_each(&named, names::is_port_name(named.text())),
                (true, false) => errors.port_number(&number),
            }
        }
    }
}

/// A `TypedLocalObjectReference`.
fn typed_reference(reference: &At<'_, '_>, errors: &mut Errors) {
    let group = reference.field("apiGroup");
    if group.exists() {
        errors.subdomain(&group);
    }
    errors.needs_segment(&reference.field("kind"));
    errors.needs_segment(&reference.field("name"));
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let kept: Vec<&str> = print::list(old, "/status/loadBalancer/ingress")
        .iter()
        .map(|ingress| print::field(ingress, "ip"))
        .collect();
    let status = At::top(new, "status");
    let balancer = status.field("loadBalancer");
    for entry in balancer.field("ingress").items() {
        let (ip, host) = (entry.field("ip"), entry.field("hostname"));
        if !ip.text().is_empty() {
            errors.legacy_ip(&ip, &kept);
        }
        if !host.text().is_empty() {
            errors.subdomain(&host);
            if host.text().parse::<std::net::IpAddr>().is_ok() {
                errors.invalid(&host, "must be a DNS name, not an IP address");
            }
        }
    }
    errors.0
}

fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    match (new.annotation(CLASS), old) {
        (Some(_), None) => vec![format!(
            "annotation \"{CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"
        )],
        _ => Vec::new(),
    }
}

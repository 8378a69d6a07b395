//! Requests for devices, in ResourceClaims and their templates (KEP-4381).

use super::{
    child, children,
    field::{At, Errors},
    pod_spec, set_text,
};
use k8s::names;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Upstream's bounds of a claim.
const REQUESTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const SELECTORS_MAX: usize = 32;
const TOLERATIONS_MAX: usize = 16;

/// One device of each request, unless it says otherwise.
pub(crate) fn default_spec(spec: &mut Map<String, Value>) {
    let Some(devices) = child(spec, "devices") else { return };
    for request in children(devices, "requests") {
        if let Some(exactly) = child(request, "exactly") {
            default_request(exactly);
        }
        children(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Map<String, Value>) {
    set_text(request, "allocationMode", "ExactCount");
    let none = request.get("count").and_then(Value::as_i64).unwrap_or(0) == 0;
    if request["allocationMode"] == "ExactCount" && none {
        request.insert("count".into(), 1.into());
    }
    children(request, "tolerations")
        .for_each(|toleration| set_text(toleration, "operator", "Equal"));
}

pub(crate) fn validate_spec(spec: &At<'_, '_>, errors: &mut Errors) {
    let devices = spec.field("devices");
    let requests = devices.field("requests");
    errors.too_many(&requests, REQUESTS_MAX);
    let mut names: BTreeSet<String> = BTreeSet::new();
    for request in requests.items() {
        let name = request.field("name");
        errors.needs_label(&name);
        if !names.insert(name.text().to_string()) {
            errors.duplicate(&name);
        }
        for alternative in request.field("firstAvailable").items() {
            names.insert(format!("{}/{}", name.text(), alternative.field("name").text()));
        }
        validate_request(&request, errors);
    }
    let constraints = devices.field("constraints");
    errors.too_many(&constraints, REQUESTS_MAX);
    for constraint in constraints.items() {
        known(&constraint.field("requests"), &names, errors);
        let attribute = constraint.field("matchAttribute");
        if !attribute.exists() && !constraint.field("distinctAttribute").exists() {
            errors.required(&attribute, "");
        } else if attribute.exists() {
            qualified(&attribute, errors);
        }
    }
    let config = devices.field("config");
    errors.too_many(&config, REQUESTS_MAX);
    for entry in config.items() {
        known(&entry.field("requests"), &names, errors);
        validate_config(&entry, errors);
    }
}

/// Names of requests that the claim has, each once.
fn known(requests: &At<'_, '_>, names: &BTreeSet<String>, errors: &mut Errors) {
    errors.too_many(requests, REQUESTS_MAX);
    let mut seen = BTreeSet::new();
    for request in requests.items() {
        if !names.contains(request.text()) {
            let detail = "must be the name of a request in the claim or the name of a request and \
                          a subrequest separated by '/'";
            errors.invalid(&request, detail);
        }
        if !seen.insert(request.text()) {
            errors.duplicate(&request);
        }
    }
}

/// Parameters for a driver: exactly one kind of them, and there is one.
pub(crate) fn validate_config(config: &At<'_, '_>, errors: &mut Errors) {
    let opaque = config.field("opaque");
    if !opaque.exists() {
        return errors.required(&opaque, "");
    }
    errors.needs_subdomain(&opaque.field("driver"));
    let parameters = opaque.field("parameters");
    if !parameters.exists() {
        errors.required(&parameters, "");
    } else if !parameters.value().is_some_and(Value::is_object) {
        errors.invalid(&parameters, "must be a valid JSON object");
    }
}

fn validate_request(request: &At<'_, '_>, errors: &mut Errors) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    let (exactly, first) = (request.field("exactly"), request.field("firstAvailable"));
    match (exactly.exists(), first.count() > 0) {
        (true, true) => {
            let detail = format!("{ONE}, but multiple fields are set");
            errors.invalid_value(request, Value::Null, detail);
        }
        (false, false) => errors.required(request, ONE),
        _ => (),
    }
    if exactly.exists() {
        validate_exact(&exactly, errors);
    }
    errors.too_many(&first, ALTERNATIVES_MAX);
    let mut names = BTreeSet::new();
    for alternative in first.items() {
        let name = alternative.field("name");
        errors.needs_label(&name);
        if !names.insert(name.text()) {
            errors.duplicate(&name);
        }
        validate_exact(&alternative, errors);
    }
}

fn validate_exact(request: &At<'_, '_>, errors: &mut Errors) {
    errors.needs_subdomain(&request.field("deviceClassName"));
    validate_selectors(&request.field("selectors"), errors);
    let (mode, count) = (request.field("allocationMode"), request.field("count"));
    match mode.text() {
        "All" if count.int().unwrap_or(0) != 0 => {
            errors.invalid(&count, "must not be specified when allocationMode is 'All'");
        }
        "All" => (),
        "ExactCount" => errors.positive(&count),
        other => errors.not_supported_value(&mode, other, &["All", "ExactCount"]),
    }
    let tolerations = request.field("tolerations");
    errors.too_many(&tolerations, TOLERATIONS_MAX);
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.field("key"), toleration.field("operator"));
        let value = toleration.field("value");
        if !key.text().is_empty() {
            errors.qualified_name(&key);
        }
        match operator.text() {
            "Equal" if key.text().is_empty() => {
                errors.invalid_value(
                    &operator,
                    operator.text(),
                    "must be `Exists` when `key` is empty",
                );
            }
            "Equal" => errors.invalid_each(&value, names::is_label_value(value.text())),
            "Exists" if !value.text().is_empty() => {
                errors.invalid(&value, "must be empty for operator `Exists`");
            }
            "Exists" => (),
            "" => errors.required(&operator, ""),
            other => errors.not_supported_value(&operator, other, &["Equal", "Exists"]),
        }
        errors.one_of(&toleration.field("effect"), &["NoExecute", "NoSchedule", "None"], false);
    }
}

/// Expressions that choose devices; their text is checked where CEL is.
pub(crate) fn validate_selectors(selectors: &At<'_, '_>, errors: &mut Errors) {
    errors.too_many(selectors, SELECTORS_MAX);
    for selector in selectors.items() {
        let cel = selector.field("cel");
        if cel.exists() {
            errors.needs_text(&cel.field("expression"));
        } else {
            errors.required(&cel, "");
        }
    }
}

/// `domain/name`
fn qualified(at: &At<'_, '_>, errors: &mut Errors) {
    match at.text().split_once('/') {
        None => errors.invalid(at, "must include a domain"),
        Some((domain, name)) => {
            for detail in names::is_dns1123_subdomain(domain) {
                errors.invalid_value(at, domain, detail);
            }
            for detail in names::is_c_identifier(name) {
                errors.invalid_value(at, name, detail);
            }
        }
    }
}

/// What of a claim the scheduler wrote: where its devices are, and for whom they are kept.
pub(crate) fn validate_allocation(status: &At<'_, '_>, errors: &mut Errors) {
    const RESERVED_MAX: usize = 256;
    let (allocation, reserved) = (status.field("allocation"), status.field("reservedFor"));
    let selector = allocation.field("nodeSelector");
    if selector.exists() {
        pod_spec::node_selector(&selector, errors);
        let terms = selector.field("nodeSelectorTerms");
        if terms.count() != 1 {
            errors.invalid(&terms, "must have exactly one node selector term");
        }
    }
    errors.too_many(&reserved, RESERVED_MAX);
    if reserved.count() > 0 && !allocation.exists() {
        let detail = "may not be specified when `allocated` is not set";
        errors.forbidden(&reserved, detail);
    }
    let mut uids = BTreeSet::new();
    for consumer in reserved.items() {
        for field in ["resource", "name", "uid"] {
            errors.needs_text(&consumer.field(field));
        }
        if !uids.insert(consumer.field("uid").text()) {
            errors.duplicate_value(&consumer.field("uid"), consumer.field("uid").text());
        }
    }
}

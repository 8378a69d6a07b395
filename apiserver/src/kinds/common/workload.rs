//! What kinds that make pods from a template share.

use super::{
    child, children,
    field::{At, Errors},
    labels, pod_spec, set_default, set_text,
};
use k8s::Object;
use serde_json::{Map, Value};

/// Defaults of the pod template at `spec.template`.
pub(crate) fn default_template(spec: &mut Map<String, Value>) {
    if let Some(pods) = child(spec, "template").and_then(|template| child(template, "spec")) {
        pod_spec::default(pods);
    }
}

/// Defaults of claims made for each pod of a StatefulSet.
pub(crate) fn default_claims(spec: &mut Map<String, Value>) {
    for claim in children(spec, "volumeClaimTemplates") {
        set_text(claim, "apiVersion", "v1");
        set_text(claim, "kind", "PersistentVolumeClaim");
        if let Some(spec) = child(claim, "spec") {
            set_text(spec, "volumeMode", "Filesystem");
        }
        if let Some(status) = super::made(claim, "status") {
            set_text(status, "phase", "Pending");
        }
    }
}

/// The selector is there, selects something, and is well formed.
pub(crate) fn validate_selector(spec: &At<'_, '_>, errors: &mut Errors) {
    let selector = spec.field("selector");
    if !selector.exists() {
        errors.required(&selector, "");
        return;
    }
    labels::validate_selector(&selector, errors);
    let parts = ["matchLabels", "matchExpressions"];
    if parts.into_iter().all(|part| selector.field(part).count() == 0) {
        errors.invalid(&selector, "empty selector is invalid for deployment");
    }
}

/// `spec.selector` says which pods are ours and never changes.
pub(crate) fn validate_same_selector(new: &Object, old: &Object, errors: &mut Errors) {
    let (now, was) = (At::top(new, "spec"), At::top(old, "spec"));
    errors.immutable(&now.field("selector"), &was.field("selector"));
}

/// A number, or a percentage, that is not negative and at most all.
pub(crate) fn validate_int_or_percent(at: &At<'_, '_>, errors: &mut Errors) {
    match at.value() {
        Some(Value::String(text)) => {
            let wrong = k8s::names::is_percent(text);
            if wrong.is_empty() {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
                if percent > 100 {
                    errors.invalid(at, "must not be greater than 100%");
                }
            }
            errors.invalid_each(at, wrong);
        }
        Some(_) => errors.not_negative(at),
        None => (),
    }
}

/// True if a number or percentage is there and is nothing.
pub(crate) fn is_zero(at: &At<'_, '_>) -> bool {
    at.value().is_some_and(|value| {
        value.as_i64() == Some(0) || matches!(value.as_str(), Some("0" | "0%"))
    })
}

/// Counts in a status: none negative, and the named ones at most `status.replicas`.
pub(crate) fn validate_counts(
    status: &At<'_, '_>,
    counts: &[&'static str],
    at_most_replicas: &[&'static str],
    errors: &mut Errors,
) {
    for count in counts {
        errors.not_negative(&status.field(count));
    }
    let replicas = status.field("replicas").int().unwrap_or(0);
    for count in at_most_replicas {
        let count = status.field(count);
        if count.int().is_some_and(|value| value > replicas) {
            errors.invalid(&count, "cannot be greater than status.replicas");
        }
    }
}

/// Sets `spec.replicas` to 1 where nothing is said.
pub(crate) fn default_replicas(spec: &mut Map<String, Value>) {
    set_default(spec, "replicas", 1);
}

//! What kinds that make pods from a template share.

use super::{
    child, children,
    field::{At, Errors},
    labels, pod_spec, set_default, set_text,
};
use k8s::{FieldError, Object};
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

/// The selector is there, selects something, and is well formed. `owner` as upstream writes it here.
pub(crate) fn validate_selector(spec: &At<'_, '_>, owner: &str, errors: &mut Errors) {
    let selector = spec.field("selector");
    if !selector.exists() {
        errors.required(&selector, "");
        return;
    }
    labels::validate_selector(&selector, errors);
    let parts = ["matchLabels", "matchExpressions"];
    if parts.into_iter().all(|part| selector.field(part).count() == 0) {
        errors.invalid(&selector, format!("empty selector is invalid for {owner}"));
    }
}

/// `spec.selector` says which pods are ours and never changes.
pub(crate) fn validate_same_selector(new: &Object, old: &Object, errors: &mut Errors) {
    let (now, was) = (At::top(new, "spec"), At::top(old, "spec"));
    errors.immutable(&now.field("selector"), &was.field("selector"));
}

/// A number, or a percentage, that is not negative and at most all.
pub(crate) fn validate_int_or_percent(at: &At<'_, '_>, errors: &mut Errors) {
    validate_any_percent(at, errors);
    if let Some(Value::String(text)) = at.value()
        && k8s::names::is_percent(text).is_empty()
        && text.trim_end_matches('%').parse::<i64>().is_ok_and(|percent| percent > 100)
    {
        errors.invalid(at, "must not be greater than 100%");
    }
}

/// The same without an upper end.
pub(crate) fn validate_any_percent(at: &At<'_, '_>, errors: &mut Errors) {
    match at.value() {
        Some(Value::String(text)) => errors.invalid_each(at, k8s::names::is_percent(text)),
        Some(_) => errors.not_negative(at),
        None => (),
    }
}

/// The number or percentage; nothing is 0.
pub(crate) fn amount(at: &At<'_, '_>) -> i64 {
    match at.value() {
        Some(Value::String(text)) => text.trim_end_matches('%').parse().unwrap_or(0),
        _ => at.int().unwrap_or(0),
    }
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

/// More pods cannot be available than are ready.
pub(crate) fn validate_available(status: &At<'_, '_>, detail: &str, errors: &mut Errors) {
    let (ready, available) = (status.field("readyReplicas"), status.field("availableReplicas"));
    if available.int().unwrap_or(0) > ready.int().unwrap_or(0) {
        errors.invalid(&available, detail);
    }
}

/// `status.collisionCount` only grows.
pub(crate) fn validate_collisions(new: &Object, old: &Object, errors: &mut Errors) {
    let (now, was) = (At::top(new, "status"), At::top(old, "status"));
    let (count, had) = (now.field("collisionCount"), was.field("collisionCount"));
    if had.int().is_some_and(|had| count.int().is_none_or(|count| count < had)) {
        errors.invalid_value(&count, count.int().unwrap_or(0), "cannot be decremented");
    }
}

/// What a client is warned of in the name of a workload and in its template, which an update shows
/// only where something changed.
pub(crate) fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    let mut warnings = match old {
        None => name_warnings(new),
        Some(_) => Vec::new(),
    };
    warnings.extend(template_warnings(new, old));
    warnings
}

pub(crate) fn name_warnings(new: &Object) -> Vec<String> {
    let wrong = k8s::names::is_dns1123_label(new.name());
    if wrong.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising \
         behavior; a DNS label is recommended: [{}]",
        wrong.join(" ")
    )]
}

/// Of the template at `spec.template`.
pub(crate) fn template_warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    match old {
        Some(old) if old.at("/spec") == new.at("/spec") => Vec::new(),
        _ => pod_spec::template_warnings(&At::top(new, "spec").field("template")),
    }
}

/// `validate_status` of a ReplicaSet and of a ReplicationController, which lacks one of the counts.
pub(crate) fn validate_replicas_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    let counts = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "terminatingReplicas",
        "observedGeneration",
    ];
    let within = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    validate_counts(&status, &counts, &within, &mut errors);
    validate_available(&status, "cannot be greater than readyReplicas", &mut errors);
    errors.0
}

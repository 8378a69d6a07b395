//! ResourceQuotas: how much a namespace may use.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors, IMMUTABLE},
        print,
        resources::{self, Whose},
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) const KIND: KindDef = KindDef {
    kind: "ResourceQuota",
    plural: "resourcequotas",
    short_names: &["quota"],
    schema: "core.v1.ResourceQuota",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Request", |o, _| used(o, false)),
        Column::text("Limit", |o, _| used(o, true)),
        Column::AGE,
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    validate,
    validate_status,
    ..KindDef::BASE
};

/// `cpu: 1/10, …` for the limits, or for everything else.
fn used(object: &Object, limits: bool) -> Value {
    let hard = object.at("/status/hard").and_then(Value::as_object);
    let mut shown: Vec<String> = hard
        .into_iter()
        .flatten()
        .filter(|(resource, _)| resource.starts_with("limits.") == limits)
        .map(|(resource, hard)| {
            let used = object.at("/status/used").and_then(|used| used.get(resource));
            format!("{resource}: {}/{}", print::scalar(used, "0"), print::scalar(Some(hard), "0"))
        })
        .collect();
    shown.sort();
    shown.join(", ").into()
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    resources::validate_named_amounts(&spec.field("hard"), Whose::Quota, &mut errors);
    scopes(&spec, &mut errors);
    scope_selector(&spec, &mut errors);
    if let Some(old) = old {
        let was = At::top(old, "spec");
        let (now, had) = (spec.field("scopes"), was.field("scopes"));
        let set = |scopes: &At<'_, '_>| scopes.texts().map(String::from).collect::<BTreeSet<_>>();
        if set(&now) != set(&had) {
            errors.invalid(&now, IMMUTABLE);
        }
    }
    errors.0
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const COMPUTE: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const OPPOSITES: [[&str; 2]; 2] =
    [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

/// True if the scope can choose among the things that this resource counts.
fn applies(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => resource == "pods" || COMPUTE.contains(&resource),
    }
}

fn scopes(spec: &At<'_, '_>, errors: &mut Errors) {
    let (scopes, hard) = (spec.field("scopes"), spec.field("hard"));
    for scope in scopes.texts() {
        if !SCOPES.contains(&scope) {
            errors.invalid(&scopes, "unsupported scope");
        }
        for (resource, _) in hard.entries() {
            if resources::is_quota_name(resource) && !applies(scope, resource) {
                errors.invalid(&scopes, "unsupported scope applied to resource");
            }
        }
    }
    if OPPOSITES.iter().any(|pair| pair.iter().all(|scope| scopes.has(scope))) {
        errors.invalid(&scopes, "conflicting scopes");
    }
}

/// Upstream names the list, not the entry.
fn scope_selector(spec: &At<'_, '_>, errors: &mut Errors) {
    const EXISTS: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
    let (selector, hard) = (spec.field("scopeSelector"), spec.field("hard"));
    let list = selector.field("matchExpressions");
    let mut chosen = BTreeSet::new();
    for requirement in list.items() {
        let scope = requirement.field("scopeName").text();
        let (operator, values) =
            (requirement.field("operator").text(), requirement.field("values"));
        if !SCOPES.contains(&scope) {
            errors.invalid_value(&list.field("scopeName"), scope, "unsupported scope");
        }
        for (resource, _) in hard.entries() {
            if resources::is_quota_name(resource) && !applies(scope, resource) {
                let detail = "unsupported scope applied to resource";
                errors.invalid_value(&list, selector.owned(), detail);
            }
        }
        let named = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if SCOPES.contains(&scope) && !named && operator != "Exists" {
            errors.invalid_value(&list.field("operator"), operator, EXISTS);
        }
        let at = list.field("values");
        match operator {
            "In" | "NotIn" if values.count() == 0 => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&at, detail);
            }
            "Exists" | "DoesNotExist" if values.count() > 0 => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid_value(&at, values.owned(), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => (),
            _ => {
                let detail = "not a valid selector operator";
                errors.invalid_value(&list.field("operator"), operator, detail);
            }
        }
        chosen.insert(scope);
    }
    if OPPOSITES.iter().any(|pair| pair.iter().all(|scope| chosen.contains(scope))) {
        errors.invalid_value(&list, spec.field("scopes").owned(), "conflicting scopes");
    }
}

fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    for map in ["hard", "used"] {
        resources::validate_named_amounts(&status.field(map), Whose::Quota, &mut errors);
    }
    errors.0
}

//! ResourceQuotas: how much a namespace may use. Stored, not yet enforced.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors},
        pod_spec, print,
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;

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

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    pod_spec::validate_quantities(&At::top(new, "spec").field("hard"), &mut errors);
    errors.0
}

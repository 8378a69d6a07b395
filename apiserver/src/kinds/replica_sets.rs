//! ReplicaSets: a number of equal pods.

use super::{
    Column, KindDef, SelectableField, Subresource,
    common::{
        self,
        field::{At, Errors},
        pod_spec, print, workload,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    short_names: &["rs"],
    categories: &["all"],
    schema: "apps.v1.ReplicaSet",
    subresources: &[Subresource::Status, Subresource::SCALE],
    columns: &[
        Column::NAME,
        Column::integer("Desired", |o, _| print::int(o, "/spec/replicas")),
        Column::integer("Current", |o, _| print::int(o, "/status/replicas")),
        Column::integer("Ready", |o, _| print::int(o, "/status/readyReplicas")),
        Column::AGE,
        Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
        Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
        Column::text("Selector", |o, _| print::selector(o.at("/spec/selector")).into()).wide(),
    ],
    selectable: &[SelectableField::text("status.replicas", |o| {
        o.int_at("/status/replicas").unwrap_or(0).to_string()
    })],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    default,
    validate,
    validate_status: workload::validate_replicas_status,
    warnings: workload::warnings,
    ..KindDef::BASE
};

fn default(replica_set: &mut Object) {
    let spec = replica_set.map_mut("spec");
    workload::default_replicas(spec);
    workload::default_template(spec);
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    errors.not_negative(&spec.field("replicas"));
    errors.not_negative(&spec.field("minReadySeconds"));
    workload::validate_selector(&spec, "deployment", &mut errors);
    let (template, selector) = (spec.field("template"), spec.field("selector"));
    pod_spec::validate_template(&template, &selector, "ReplicaSet", &mut errors);
    if let Some(old) = old {
        workload::validate_same_selector(new, old, &mut errors);
    }
    errors.0
}

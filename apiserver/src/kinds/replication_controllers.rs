//! ReplicationControllers: what came before ReplicaSets.

use super::{
    Column, KindDef, SelectableField, Subresource,
    common::{
        self, child,
        field::{At, Errors},
        pod_spec, print, set_default, workload,
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    short_names: &["rc"],
    categories: &["all"],
    schema: "core.v1.ReplicationController",
    subresources: &[
        Subresource::Status,
        Subresource::Scale {
            spec_replicas: "/spec/replicas",
            status_replicas: "/status/replicas",
            selector: "/spec/selector",
        },
    ],
    columns: &[
        Column::NAME,
        Column::integer("Desired", |o, _| print::int(o, "/spec/replicas")),
        Column::integer("Current", |o, _| print::int(o, "/status/replicas")),
        Column::integer("Ready", |o, _| print::int(o, "/status/readyReplicas")),
        Column::AGE,
        Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
        Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
        Column::text("Selector", |o, _| print::labels(o.at("/spec/selector")).into()).wide(),
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

fn default(controller: &mut Object) {
    let spec = controller.map_mut("spec");
    workload::default_replicas(spec);
    workload::default_template(spec);
    let labels = child(spec, "template")
        .and_then(|template| child(template, "metadata")?.get("labels").cloned());
    let Some(labels) = labels else { return };
    if spec.get("selector").and_then(Value::as_object).is_none_or(|map| map.is_empty()) {
        spec.insert("selector".into(), labels.clone());
    }
    if controller.labels().next().is_none() {
        set_default(controller.metadata_mut(), "labels", labels);
    }
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    errors.not_negative(&spec.field("minReadySeconds"));
    let (selector, template) = (spec.field("selector"), spec.field("template"));
    if selector.count() == 0 {
        errors.required(&selector, "");
    }
    errors.not_negative(&spec.field("replicas"));
    if !template.exists() {
        errors.required(&template, "");
        return errors.0;
    }
    let metadata = template.field("metadata");
    let have = metadata.field("labels");
    if !selector.entries().all(|(key, value)| have.key(key).value() == value.value()) {
        errors.invalid(&have, "`selector` does not match template `labels`");
    }
    pod_spec::validate_any_template(&template, &mut errors);
    pod_spec::only_always(&template, &mut errors);
    let pods = template.field("spec");
    let deadline = pods.field("activeDeadlineSeconds");
    if deadline.exists() {
        let detail = "activeDeadlineSeconds in ReplicationController is not Supported";
        errors.forbidden(&deadline, detail);
    }
    errors.0
}

//! Deployments: a set of equal pods and how it goes from one version to the next.

use super::{
    Column, KindDef, Subresource,
    common::{
        self, child,
        field::{At, Errors},
        made, pod_spec, print, set_default, set_text, workload,
    },
};
use k8s::{FieldError, Object, apply::Scope};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    short_names: &["deploy"],
    categories: &["all"],
    schema: "apps.v1.Deployment",
    subresources: &[Subresource::Status, Subresource::SCALE],
    columns: &[
        Column::NAME,
        Column::text("Ready", |o, _| ready(o)),
        Column::text("Up-to-date", |o, _| print::int(o, "/status/updatedReplicas")),
        Column::text("Available", |o, _| print::int(o, "/status/availableReplicas")),
        Column::AGE,
        Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
        Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
        Column::text("Selector", |o, _| print::selector(o.at("/spec/selector")).into()).wide(),
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    status_scope: Scope::STATUS_BUT_LABELS,
    generation: true,
    generation_of: "annotations",
    default,
    validate,
    validate_status,
    warnings: workload::warnings,
    ..KindDef::BASE
};

fn ready(object: &Object) -> Value {
    let ready = object.int_at("/status/readyReplicas").unwrap_or(0);
    format!("{ready}/{}", object.int_at("/spec/replicas").unwrap_or(0)).into()
}

fn default(deployment: &mut Object) {
    let spec = deployment.map_mut("spec");
    workload::default_replicas(spec);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = made(spec, "strategy") {
        set_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            if let Some(rolling) = made(strategy, "rollingUpdate") {
                set_default(rolling, "maxUnavailable", "25%");
                set_default(rolling, "maxSurge", "25%");
            }
        } else if child(strategy, "rollingUpdate").is_some_and(|rolling| rolling.is_empty()) {
            strategy.remove("rollingUpdate");
        }
    }
    workload::default_template(spec);
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    errors.not_negative(&spec.field("replicas"));
    workload::validate_selector(&spec, "deployment", &mut errors);
    let (template, selector) = (spec.field("template"), spec.field("selector"));
    pod_spec::validate_template(&template, &selector, "ReplicaSet", &mut errors);
    strategy(&spec.field("strategy"), &mut errors);
    errors.not_negative(&spec.field("minReadySeconds"));
    errors.not_negative(&spec.field("revisionHistoryLimit"));
    let deadline = spec.field("progressDeadlineSeconds");
    errors.not_negative(&deadline);
    let ready = spec.field("minReadySeconds").int().unwrap_or(0);
    if deadline.int().is_some_and(|seconds| seconds <= ready) {
        errors.invalid(&deadline, "must be greater than minReadySeconds");
    }
    if let Some(old) = old {
        workload::validate_same_selector(new, old, &mut errors);
    }
    errors.0
}

fn strategy(strategy: &At<'_, '_>, errors: &mut Errors) {
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "Recreate" if rolling.exists() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.forbidden(&rolling, detail);
        }
        "Recreate" => (),
        "RollingUpdate" if !rolling.exists() => {
            errors.required(&rolling, "this should be defaulted and never be nil");
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
            workload::validate_int_or_percent(&unavailable, errors);
            workload::validate_any_percent(&surge, errors);
            if workload::amount(&unavailable) == 0 && workload::amount(&surge) == 0 {
                errors.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
            }
        }
        _ => errors.not_supported(&strategy.field("type"), &["Recreate", "RollingUpdate"]),
    }
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    let within = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    workload::validate_counts(&status, &counts, &within, &mut errors);
    workload::validate_available(&status, "cannot be greater than readyReplicas", &mut errors);
    workload::validate_collisions(new, old, &mut errors);
    errors.0
}

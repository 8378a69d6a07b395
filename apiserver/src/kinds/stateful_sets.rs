//! StatefulSets: pods with names and storage of their own.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors},
        made, pod_spec, print, set_default, set_text, workload,
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    short_names: &["sts"],
    categories: &["all"],
    schema: "apps.v1.StatefulSet",
    subresources: &[Subresource::Status, Subresource::SCALE],
    columns: &[
        Column::NAME,
        Column::text("Ready", |o, _| ready(o)),
        Column::AGE,
        Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
        Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    default,
    validate,
    ..KindDef::BASE
};

fn ready(object: &Object) -> Value {
    let ready = object.int_at("/status/readyReplicas").unwrap_or(0);
    format!("{ready}/{}", object.int_at("/spec/replicas").unwrap_or(0)).into()
}

fn default(stateful_set: &mut Object) {
    let spec = stateful_set.map_mut("spec");
    workload::default_replicas(spec);
    set_text(spec, "podManagementPolicy", "OrderedReady");
    set_default(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = made(spec, "updateStrategy") {
        set_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            set_default(rolling, "partition", 0);
        }
    }
    if let Some(retention) = made(spec, "persistentVolumeClaimRetentionPolicy") {
        set_text(retention, "whenDeleted", "Retain");
        set_text(retention, "whenScaled", "Retain");
    }
    workload::default_template(spec);
    workload::default_claims(spec);
}

/// What of the spec may change, in upstream's words.
const MAY_CHANGE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
const FIXED: [&str; 4] = ["selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"];

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    errors.one_of(&spec.field("podManagementPolicy"), &["OrderedReady", "Parallel"], true);
    let strategy = spec.field("updateStrategy");
    errors.one_of(&strategy.field("type"), &["OnDelete", "RollingUpdate"], true);
    errors.not_negative(&strategy.field("rollingUpdate").field("partition"));
    errors.not_negative(&spec.field("replicas"));
    errors.not_negative(&spec.field("minReadySeconds"));
    workload::validate_selector(&spec, &mut errors);
    pod_spec::validate_template(&spec.field("template"), &spec.field("selector"), &mut errors);
    let fixed = |old: &Object| {
        let old = At::top(old, "spec");
        FIXED.into_iter().all(|field| old.field(field).value() == spec.field(field).value())
    };
    if old.is_some_and(|old| !fixed(old)) {
        errors.forbidden(&spec, MAY_CHANGE);
    }
    errors.0
}

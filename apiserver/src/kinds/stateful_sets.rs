//! StatefulSets: pods with names and storage of their own.

use super::{
    Column, KindDef, NameRule, Subresource,
    common::{
        self, child, claims,
        field::{At, Errors, same},
        labels, made, pod_spec, print, set_default, set_text, workload,
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
    name: NameRule::Label,
    validate,
    validate_status,
    warnings,
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
        let unsaid = strategy.get("type").and_then(Value::as_str).is_none_or(str::is_empty);
        set_text(strategy, "type", "RollingUpdate");
        if unsaid {
            made(strategy, "rollingUpdate");
        }
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            set_default(rolling, "partition", 0);
            set_default(rolling, "maxUnavailable", 1);
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
    let management = spec.field("podManagementPolicy");
    if errors.needs_text(&management) && !matches!(management.text(), "OrderedReady" | "Parallel") {
        errors.invalid(&management, "must be 'OrderedReady' or 'Parallel'");
    }
    strategy(&spec.field("updateStrategy"), &mut errors);
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"].into_iter().filter(|_| retention.exists()) {
        errors.one_of(&retention.field(field), &["Retain", "Delete"], false);
    }
    errors.not_negative(&spec.field("replicas"));
    errors.not_negative(&spec.field("minReadySeconds"));
    errors.not_negative(&spec.field("ordinals").field("start"));
    workload::validate_selector(&spec, "statefulset", &mut errors);
    template(&spec, &mut errors);
    let fixed = |old: &Object| {
        let old = At::top(old, "spec");
        FIXED.into_iter().all(|field| same(old.field(field).value(), spec.field(field).value()))
    };
    if old.is_some_and(|old| !fixed(old)) {
        errors.forbidden(&spec, MAY_CHANGE);
    }
    errors.0
}

/// Upstream leaves the rest of the pod spec to the pods, whose volumes come from the claims.
fn template(spec: &At<'_, '_>, errors: &mut Errors) {
    let template = spec.field("template");
    pod_spec::template_matches(&template, &spec.field("selector"), errors);
    let metadata = template.field("metadata");
    let mut within = Errors::default();
    labels::validate_template_metadata(&metadata, &mut within);
    errors.adopt(within, &metadata, &template);
    pod_spec::only_always(&template, errors);
    let pods = template.field("spec");
    let deadline = pods.field("activeDeadlineSeconds");
    if deadline.exists() {
        errors.forbidden(&deadline, "activeDeadlineSeconds in StatefulSet is not Supported");
    }
}

fn strategy(strategy: &At<'_, '_>, errors: &mut Errors) {
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "" => errors.required(strategy, ""),
        "OnDelete" if rolling.exists() => {
            errors.invalid(&rolling, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => (),
        "RollingUpdate" => {
            errors.not_negative(&rolling.field("partition"));
            let unavailable = rolling.field("maxUnavailable");
            workload::validate_int_or_percent(&unavailable, errors);
            if unavailable.exists() && workload::amount(&unavailable) == 0 {
                errors.invalid(&unavailable, "cannot be 0");
            }
        }
        _ => errors.invalid(strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    let counts = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    let within = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    workload::validate_counts(&status, &counts, &within, &mut errors);
    let detail = "cannot be greater than status.readyReplicas";
    workload::validate_available(&status, detail, &mut errors);
    workload::validate_collisions(new, old, &mut errors);
    errors.0
}

fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    let mut warnings = workload::template_warnings(new, old);
    let claims = At::top(new, "spec");
    for claim in claims.field("volumeClaimTemplates").items() {
        warnings.extend(claims::warnings(&claim.field("spec")));
    }
    if new.int_at("/spec/revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        warnings.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value \
             >= 0 is recommended"
                .into(),
        );
    }
    warnings
}

//! DaemonSets: one pod on every node that fits.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors},
        made, pod_spec, print, set_default, set_text, workload,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    short_names: &["ds"],
    categories: &["all"],
    schema: "apps.v1.DaemonSet",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::integer("Desired", |o, _| print::int(o, "/status/desiredNumberScheduled")),
        Column::integer("Current", |o, _| print::int(o, "/status/currentNumberScheduled")),
        Column::integer("Ready", |o, _| print::int(o, "/status/numberReady")),
        Column::integer("Up-to-date", |o, _| print::int(o, "/status/updatedNumberScheduled")),
        Column::integer("Available", |o, _| print::int(o, "/status/numberAvailable")),
        Column::text("Node Selector", |o, _| {
            print::labels(o.at("/spec/template/spec/nodeSelector")).into()
        }),
        Column::AGE,
        Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
        Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
        Column::text("Selector", |o, _| print::selector(o.at("/spec/selector")).into()).wide(),
    ],
    prepare_create,
    prepare_update,
    generation: true,
    default,
    validate,
    validate_status,
    warnings: workload::template_warnings,
    ..KindDef::BASE
};

/// What is left of a field of older versions: how often the template changed.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(daemon_set: &Object) -> i64 {
    let text = daemon_set.annotation(TEMPLATE_GENERATION).unwrap_or_default();
    text.parse().unwrap_or(0).max(1)
}

fn annotate(daemon_set: &mut Object, generation: i64) {
    if let Some(annotations) = made(daemon_set.metadata_mut(), "annotations") {
        annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string().into());
    }
}

fn prepare_create(new: &mut Object) {
    common::drop_status(new);
    annotate(new, template_generation(new));
}

fn prepare_update(new: &mut Object, old: &Object) {
    common::keep_status(new, old);
    let changed = new.at("/spec/template") != old.at("/spec/template");
    annotate(new, template_generation(old) + i64::from(changed));
}

fn default(daemon_set: &mut Object) {
    if daemon_set.annotation(TEMPLATE_GENERATION).is_none() {
        // Whoever leaves it out counts as its writer, as with upstream's conversion.
        annotate(daemon_set, 0);
    }
    let spec = daemon_set.map_mut("spec");
    set_default(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = made(spec, "updateStrategy") {
        set_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxUnavailable", 1);
            set_default(rolling, "maxSurge", 0);
        }
    }
    workload::default_template(spec);
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    workload::validate_selector(&spec, "daemonset", &mut errors);
    let (template, selector) = (spec.field("template"), spec.field("selector"));
    pod_spec::validate_template(&template, &selector, "DaemonSet", &mut errors);
    errors.not_negative(&spec.field("minReadySeconds"));
    strategy(&spec.field("updateStrategy"), &mut errors);
    errors.not_negative(&spec.field("revisionHistoryLimit"));
    if let Some(old) = old {
        workload::validate_same_selector(new, old, &mut errors);
    }
    errors.0
}

fn strategy(strategy: &At<'_, '_>, errors: &mut Errors) {
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "OnDelete" => (),
        "RollingUpdate" if !rolling.exists() => errors.required(&rolling, ""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
            workload::validate_int_or_percent(&unavailable, errors);
            workload::validate_int_or_percent(&surge, errors);
            match (workload::amount(&unavailable), workload::amount(&surge)) {
                (0, 0) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
                (_, 0) | (0, _) => (),
                _ => errors.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
            }
        }
        _ => errors.not_supported(&strategy.field("type"), &["RollingUpdate", "OnDelete"]),
    }
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    for count in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ] {
        errors.not_negative(&status.field(count));
    }
    workload::validate_collisions(new, old, &mut errors);
    errors.0
}

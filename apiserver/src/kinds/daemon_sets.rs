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
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    default,
    validate,
    ..KindDef::BASE
};

fn default(daemon_set: &mut Object) {
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
    workload::validate_selector(&spec, &mut errors);
    pod_spec::validate_template(&spec.field("template"), &spec.field("selector"), &mut errors);
    let strategy = spec.field("updateStrategy");
    errors.one_of(&strategy.field("type"), &["OnDelete", "RollingUpdate"], true);
    let rolling = strategy.field("rollingUpdate");
    workload::validate_int_or_percent(&rolling.field("maxUnavailable"), &mut errors);
    workload::validate_int_or_percent(&rolling.field("maxSurge"), &mut errors);
    errors.not_negative(&spec.field("minReadySeconds"));
    errors.not_negative(&spec.field("revisionHistoryLimit"));
    if let Some(old) = old {
        workload::validate_same_selector(new, old, &mut errors);
    }
    errors.0
}

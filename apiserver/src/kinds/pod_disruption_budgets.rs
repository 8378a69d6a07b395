//! PodDisruptionBudgets: how many pods may be away at once.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors},
        labels, print, workload,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    short_names: &["pdb"],
    schema: "policy.v1.PodDisruptionBudget",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Min Available", |o, _| {
            print::scalar(o.at("/spec/minAvailable"), "N/A").into()
        }),
        Column::text("Max Unavailable", |o, _| {
            print::scalar(o.at("/spec/maxUnavailable"), "N/A").into()
        }),
        Column::integer("Allowed Disruptions", |o, _| print::int(o, "/status/disruptionsAllowed")),
        Column::AGE,
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    unconditional_update: false,
    validate,
    validate_status,
    ..KindDef::BASE
};

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let (available, unavailable) = (spec.field("minAvailable"), spec.field("maxUnavailable"));
    if available.exists() && unavailable.exists() {
        errors.invalid(&spec, "minAvailable and maxUnavailable cannot be both set");
    }
    workload::validate_int_or_percent(&available, &mut errors);
    workload::validate_int_or_percent(&unavailable, &mut errors);
    labels::validate_selector(&spec.field("selector"), &mut errors);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    errors.one_of(&spec.field("unhealthyPodEvictionPolicy"), &policies, false);
    errors.0
}

fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    common::validate_conditions(&status.field("conditions"), &mut errors);
    for count in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        errors.not_negative(&status.field(count));
    }
    errors.0
}

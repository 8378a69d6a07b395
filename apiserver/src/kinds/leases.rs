//! Leases: who holds something, and since when.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors},
        print,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    schema: "coordination.v1.Lease",
    columns: &[
        Column::NAME,
        Column::text("Holder", |o, _| print::text(o, "/spec/holderIdentity")),
        Column::AGE,
    ],
    create_on_update: true,
    unconditional_update: false,
    validate,
    ..KindDef::BASE
};

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let duration = spec.field("leaseDurationSeconds");
    if duration.int().is_some_and(|seconds| seconds <= 0) {
        errors.invalid(&duration, "must be greater than 0");
    }
    errors.not_negative(&spec.field("leaseTransitions"));
    let strategy = spec.field("strategy");
    if !strategy.text().is_empty() {
        errors.qualified_name(&strategy);
    }
    let preferred = spec.field("preferredHolder");
    if !preferred.text().is_empty() && strategy.text().is_empty() {
        errors.forbidden(&preferred, "may only be specified if `strategy` is defined");
    }
    errors.0
}

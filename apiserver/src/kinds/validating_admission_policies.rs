//! ValidatingAdmissionPolicies: rules for requests, in CEL. Enforced by `admission/policy`.

use super::{
    Column, KindDef, Subresource,
    common::{policies, print},
};
use k8s::apply::Scope;

pub(super) const KIND: KindDef = KindDef {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admissionregistration.v1.ValidatingAdmissionPolicy",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::integer("Validations", |o, _| print::count(o, "/spec/validations").into()),
        Column::text("ParamKind", |o, _| print::policy_kind(o)),
        Column::AGE,
    ],
    // Of creates and updates, admission settles the status: it checks the types there.
    status_scope: Scope::STATUS_ALONE,
    generation: true,
    unconditional_update: false,
    default: policies::default,
    validate: |new, _| policies::validate_validating(new),
    ..KindDef::BASE
};

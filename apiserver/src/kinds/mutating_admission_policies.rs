//! MutatingAdmissionPolicies: changes to requests, in CEL. Enforced by `admission/policy`.

use super::{
    Column, KindDef,
    common::{policies, print},
};

pub(super) const KIND: KindDef = KindDef {
    group: "admissionregistration.k8s.io",
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admissionregistration.v1.MutatingAdmissionPolicy",
    columns: &[
        Column::NAME,
        Column::integer("Mutations", |o, _| print::count(o, "/spec/mutations").into()),
        Column::text("ParamKind", |o, _| print::policy_kind(o)),
        Column::AGE,
    ],
    generation: true,
    unconditional_update: false,
    default: policies::default,
    validate: |new, _| policies::validate_mutating(new),
    ..KindDef::BASE
};

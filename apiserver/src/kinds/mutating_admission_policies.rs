//! MutatingAdmissionPolicies: changes to requests, in CEL. Stored, not yet enforced.

use super::{
    Column, KindDef,
    common::{self, child, print, set_text},
};
use k8s::Object;

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
    default,
    ..KindDef::BASE
};

fn default(policy: &mut Object) {
    let spec = policy.map_mut("spec");
    set_text(spec, "failurePolicy", "Fail");
    if let Some(matches) = child(spec, "matchConstraints") {
        common::default_match(matches);
    }
}

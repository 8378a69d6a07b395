//! MutatingAdmissionPolicyBindings: where a policy applies. See `admission/policy`.

use super::{
    Column, KindDef,
    common::{self, child, policies, print},
};
use k8s::Object;

pub(super) const KIND: KindDef = KindDef {
    group: "admissionregistration.k8s.io",
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admissionregistration.v1.MutatingAdmissionPolicyBinding",
    columns: &[
        Column::NAME,
        Column::text("PolicyName", |o, _| print::text(o, "/spec/policyName")),
        Column::text("ParamRef", |o, _| print::param_ref(o)),
        Column::AGE,
    ],
    generation: true,
    unconditional_update: false,
    default,
    validate: |new, _| policies::validate_binding(new, false),
    ..KindDef::BASE
};

fn default(binding: &mut Object) {
    if let Some(matches) = child(binding.map_mut("spec"), "matchResources") {
        common::default_match(matches);
    }
}

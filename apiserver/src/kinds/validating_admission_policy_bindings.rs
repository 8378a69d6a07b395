//! ValidatingAdmissionPolicyBindings: where a policy applies. Stored, not yet enforced.

use super::{
    Column, KindDef,
    common::{self, child, print},
};
use k8s::Object;

pub(super) const KIND: KindDef = KindDef {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    columns: &[
        Column::NAME,
        Column::text("PolicyName", |o, _| print::text(o, "/spec/policyName")),
        Column::text("ParamRef", |o, _| print::param_ref(o)),
        Column::AGE,
    ],
    generation: true,
    unconditional_update: false,
    default,
    ..KindDef::BASE
};

fn default(binding: &mut Object) {
    if let Some(matches) = child(binding.map_mut("spec"), "matchResources") {
        common::default_match(matches);
    }
}

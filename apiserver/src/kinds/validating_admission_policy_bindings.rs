//! ValidatingAdmissionPolicyBindings: where a policy applies. Stored, not yet enforced.

use super::{common::print, Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    columns: &[Column::NAME,
Column::text("PolicyName", |o, _| print::text(o, "/spec/policyName")),
Column::text("ParamRef", |o, _| print::param_ref(o)),
Column::AGE],
    generation: true,
    ..KindDef::BASE
};

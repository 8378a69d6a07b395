//! ValidatingAdmissionPolicies: rules for requests, in CEL. Stored, not yet enforced.

use super::{
    Column, KindDef, Subresource,
    common::{self, child, print, set_text},
};
use k8s::{Object, apply::Scope};

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
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    status_scope: Scope::STATUS_ALONE,
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

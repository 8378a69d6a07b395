//! ClusterRoleBindings: who has a ClusterRole everywhere.

use super::{
    Column, KindDef, NameRule,
    common::{field::Errors, print, rbac},
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "rbac.authorization.k8s.io",
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    namespaced: false,
    schema: "rbac.v1.ClusterRoleBinding",
    columns: &[
        Column::NAME,
        Column::text("Role", |o, _| print::rbac_role(o)),
        Column::AGE,
        Column::text("Users", |o, _| print::rbac_subjects(o, "User")).wide(),
        Column::text("Groups", |o, _| print::rbac_subjects(o, "Group")).wide(),
        Column::text("ServiceAccounts", |o, _| print::rbac_subjects(o, "ServiceAccount")).wide(),
    ],
    name: NameRule::PathSegment,
    create_on_update: true,
    default: rbac::default_binding,
    validate,
    ..KindDef::BASE
};

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    rbac::validate_binding(new, old, &["ClusterRole"], &mut errors);
    errors.0
}

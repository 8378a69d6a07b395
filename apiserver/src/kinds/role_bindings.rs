//! RoleBindings: who has a role in a namespace.

use super::{common::print, Column, KindDef, NameRule};

pub(super) const KIND: KindDef = KindDef {
    group: "rbac.authorization.k8s.io",
    kind: "RoleBinding",
    plural: "rolebindings",
    schema: "rbac.v1.RoleBinding",
    columns: &[Column::NAME,
Column::text("Role", |o, _| print::rbac_role(o)),
Column::AGE,
Column::text("Users", |o, _| print::rbac_subjects(o, "User")).wide(),
Column::text("Groups", |o, _| print::rbac_subjects(o, "Group")).wide(),
Column::text("ServiceAccounts", |o, _| print::rbac_subjects(o, "ServiceAccount")).wide()],
    name: NameRule::PathSegment,
    create_on_update: true,
    ..KindDef::BASE
};

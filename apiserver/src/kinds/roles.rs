//! Roles: rules for one namespace.

use super::{KindDef, NameRule};

pub(super) const KIND: KindDef = KindDef {
    group: "rbac.authorization.k8s.io",
    kind: "Role",
    plural: "roles",
    schema: "rbac.v1.Role",
    name: NameRule::PathSegment,
    create_on_update: true,
    ..KindDef::BASE
};

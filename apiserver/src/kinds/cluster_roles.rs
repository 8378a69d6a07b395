//! ClusterRoles: rules for all namespaces and for what has none; may be made of others by label.

use super::{KindDef, NameRule};

pub(super) const KIND: KindDef = KindDef {
    group: "rbac.authorization.k8s.io",
    kind: "ClusterRole",
    plural: "clusterroles",
    namespaced: false,
    schema: "rbac.v1.ClusterRole",
    name: NameRule::PathSegment,
    create_on_update: true,
    ..KindDef::BASE
};

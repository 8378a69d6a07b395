//! ClusterRoles: rules for all namespaces and for what has none; may be made of others by label.

use super::{
    KindDef, NameRule,
    common::{
        field::{At, Errors},
        labels, rbac,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "rbac.authorization.k8s.io",
    kind: "ClusterRole",
    plural: "clusterroles",
    namespaced: false,
    schema: "rbac.v1.ClusterRole",
    name: NameRule::PathSegment,
    create_on_update: true,
    validate,
    ..KindDef::BASE
};

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    rbac::validate_rules(&At::top(new, "rules"), false, &mut errors);
    let aggregation = At::top(new, "aggregationRule");
    let selectors = aggregation.field("clusterRoleSelectors");
    if aggregation.exists() && selectors.count() == 0 {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.required(&selectors, detail);
    }
    for selector in selectors.items() {
        labels::validate_selector(&selector, &mut errors);
    }
    errors.0
}

//! Roles: rules for one namespace.

use super::{
    KindDef, NameRule,
    common::{
        field::{At, Errors},
        rbac,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "rbac.authorization.k8s.io",
    kind: "Role",
    plural: "roles",
    schema: "rbac.v1.Role",
    name: NameRule::PathSegment,
    create_on_update: true,
    validate,
    ..KindDef::BASE
};

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    rbac::validate_rules(&At::top(new, "rules"), true, &mut errors);
    errors.0
}

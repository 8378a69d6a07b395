//! SelfSubjectAccessReviews: may I do something?

use super::{KindDef, Verbs, common::access_reviews};

pub(super) const KIND: KindDef = KindDef {
    group: "authorization.k8s.io",
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    namespaced: false,
    schema: "authorization.v1.SelfSubjectAccessReview",
    verbs: Verbs::CreateOnly,
    validate: access_reviews::validate_own,
    ..KindDef::BASE
};

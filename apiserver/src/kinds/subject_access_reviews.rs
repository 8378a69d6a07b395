//! SubjectAccessReviews: may somebody do something?

use super::{KindDef, Verbs, common::access_reviews};

pub(super) const KIND: KindDef = KindDef {
    group: "authorization.k8s.io",
    kind: "SubjectAccessReview",
    plural: "subjectaccessreviews",
    namespaced: false,
    schema: "authorization.v1.SubjectAccessReview",
    verbs: Verbs::CreateOnly,
    validate: access_reviews::validate_any,
    ..KindDef::BASE
};

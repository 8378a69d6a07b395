//! LocalSubjectAccessReviews: may somebody do something in this namespace?

use super::{KindDef, Verbs, common::access_reviews};

pub(super) const KIND: KindDef = KindDef {
    group: "authorization.k8s.io",
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    schema: "authorization.v1.LocalSubjectAccessReview",
    verbs: Verbs::CreateOnly,
    validate: access_reviews::validate_local,
    ..KindDef::BASE
};

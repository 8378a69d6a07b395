//! LocalSubjectAccessReviews: may somebody do something in this namespace?

use super::{KindDef, Verbs};

pub(super) const KIND: KindDef = KindDef {
    group: "authorization.k8s.io",
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    schema: "authorization.v1.LocalSubjectAccessReview",
    verbs: Verbs::CreateOnly,
    ..KindDef::BASE
};

//! SelfSubjectReviews: who am I?

use super::{KindDef, Verbs};

pub(super) const KIND: KindDef = KindDef {
    group: "authentication.k8s.io",
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    namespaced: false,
    schema: "authentication.v1.SelfSubjectReview",
    verbs: Verbs::CreateOnly,
    ..KindDef::BASE
};

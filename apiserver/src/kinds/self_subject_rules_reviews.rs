//! SelfSubjectRulesReviews: what may I do in this namespace?

use super::{KindDef, Verbs};

pub(super) const KIND: KindDef = KindDef {
    group: "authorization.k8s.io",
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    namespaced: false,
    schema: "authorization.v1.SelfSubjectRulesReview",
    verbs: Verbs::CreateOnly,
    ..KindDef::BASE
};

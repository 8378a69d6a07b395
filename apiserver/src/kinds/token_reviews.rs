//! TokenReviews: whose token is this?

use super::{KindDef, Verbs};

pub(super) const KIND: KindDef = KindDef {
    group: "authentication.k8s.io",
    kind: "TokenReview",
    plural: "tokenreviews",
    namespaced: false,
    schema: "authentication.v1.TokenReview",
    verbs: Verbs::CreateOnly,
    ..KindDef::BASE
};

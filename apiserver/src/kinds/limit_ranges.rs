//! LimitRanges: default and extreme requests in a namespace. Stored, not yet enforced.

use super::KindDef;

pub(super) const KIND: KindDef = KindDef {
    kind: "LimitRange",
    plural: "limitranges",
    short_names: &["limits"],
    schema: "core.v1.LimitRange",
    create_on_update: true,
    ..KindDef::BASE
};

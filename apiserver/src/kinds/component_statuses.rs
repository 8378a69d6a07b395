//! ComponentStatuses: a deprecated list of control plane parts; served empty.

use super::{Column, KindDef, Verbs};

pub(super) const KIND: KindDef = KindDef {
    kind: "ComponentStatus",
    plural: "componentstatuses",
    short_names: &["cs"],
    namespaced: false,
    schema: "core.v1.ComponentStatus",
    verbs: Verbs::ReadOnly,
    columns: &[
        Column::NAME,
        Column::text("Status", |_, _| "".into()),
        Column::text("Message", |_, _| "".into()),
        Column::text("Error", |_, _| "".into()),
    ],
    ..KindDef::BASE
};

//! Namespaces: scopes for names.

use super::{common::{self, print}, Column, KindDef, NameRule, SelectableField, Subresource, Verbs};

pub(super) const KIND: KindDef = KindDef {
    kind: "Namespace",
    plural: "namespaces",
    short_names: &["ns"],
    namespaced: false,
    schema: "core.v1.Namespace",
    verbs: Verbs::NoDeleteCollection,
    subresources: &[Subresource::Status, Subresource::Named { name: "finalize", schema: "core.v1.Namespace", verbs: &["update"] }],
    columns: &[Column::NAME,
Column::text("Status", |o, _| print::text(o, "/status/phase")),
Column::AGE],
    selectable: &[SelectableField::text("status.phase", |o| o.str_at("/status/phase").to_string())],
    name: NameRule::Label,
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    ..KindDef::BASE
};

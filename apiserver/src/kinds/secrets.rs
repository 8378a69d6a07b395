//! Secrets: configuration not for everyone.

use super::{common::print, Column, KindDef, SelectableField};

pub(super) const KIND: KindDef = KindDef {
    kind: "Secret",
    plural: "secrets",
    schema: "core.v1.Secret",
    columns: &[Column::NAME,
Column::text("Type", |o, _| print::text(o, "/type")),
Column::integer("Data", |o, _| print::count(o, "/data").into()),
Column::AGE],
    selectable: &[SelectableField::text("type", |o| o.str_at("/type").to_string())],
    ..KindDef::BASE
};

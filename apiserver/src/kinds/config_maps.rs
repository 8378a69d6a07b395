//! ConfigMaps: non-secret configuration that pods read.

use super::{common::print, Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    kind: "ConfigMap",
    plural: "configmaps",
    short_names: &["cm"],
    schema: "core.v1.ConfigMap",
    columns: &[Column::NAME,
Column::text("Data", |o, _| (print::count(o, "/data") + print::count(o, "/binaryData")).into()),
Column::AGE],
    ..KindDef::BASE
};

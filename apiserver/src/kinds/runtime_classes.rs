//! RuntimeClasses: ways to run a container.

use super::{common::print, Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    namespaced: false,
    schema: "node.v1.RuntimeClass",
    columns: &[Column::NAME,
Column::text("Handler", |o, _| print::text(o, "/handler")),
Column::AGE],
    unconditional_update: false,
    ..KindDef::BASE
};

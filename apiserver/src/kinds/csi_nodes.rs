//! CSINodes: the volume drivers of a node.

use super::{Column, KindDef, common::print};

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "CSINode",
    plural: "csinodes",
    namespaced: false,
    schema: "storage.v1.CSINode",
    columns: &[
        Column::NAME,
        Column::integer("Drivers", |o, _| print::count(o, "/spec/drivers").into()),
        Column::AGE,
    ],
    unconditional_update: false,
    ..KindDef::BASE
};

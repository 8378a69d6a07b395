//! ResourceSlices: the devices of a node or pool.

use super::{Column, KindDef, SelectableField, common::print};

pub(super) const KIND: KindDef = KindDef {
    group: "resource.k8s.io",
    kind: "ResourceSlice",
    plural: "resourceslices",
    namespaced: false,
    schema: "resource.v1.ResourceSlice",
    columns: &[
        Column::NAME,
        Column::text("Node", |o, _| print::text_or(o, "/spec/nodeName", "<unset>")),
        Column::text("Driver", |o, _| print::text(o, "/spec/driver")),
        Column::text("Pool", |o, _| print::text(o, "/spec/pool/name")),
        Column::AGE,
    ],
    selectable: &[
        SelectableField::text("spec.driver", |o| o.str_at("/spec/driver").to_string()),
        SelectableField::text("spec.nodeName", |o| o.str_at("/spec/nodeName").to_string()),
    ],
    generation: true,
    ..KindDef::BASE
};

//! DeviceClasses: kinds of devices that claims may name.

use super::{Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    group: "resource.k8s.io",
    kind: "DeviceClass",
    plural: "deviceclasses",
    namespaced: false,
    schema: "resource.v1.DeviceClass",
    columns: &[Column::NAME, Column::AGE],
    generation: true,
    ..KindDef::BASE
};

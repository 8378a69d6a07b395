//! VolumeAttributesClasses: mutable properties that claims may name.

use super::{common::print, Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    short_names: &["vac"],
    namespaced: false,
    schema: "storage.v1.VolumeAttributesClass",
    columns: &[Column::NAME,
Column::text("DriverName", |o, _| print::text(o, "/driverName")),
Column::AGE],
    ..KindDef::BASE
};

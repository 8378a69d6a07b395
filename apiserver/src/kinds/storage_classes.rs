//! StorageClasses: kinds of storage that claims may name.

use super::{common::print, Column, KindDef};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
    short_names: &["sc"],
    namespaced: false,
    schema: "storage.v1.StorageClass",
    columns: &[Column { value: |o, _| name(o), ..Column::NAME },
Column::text("Provisioner", |o, _| print::text(o, "/provisioner")),
Column::text("ReclaimPolicy", |o, _| print::text(o, "/reclaimPolicy")),
Column::text("VolumeBindingMode", |o, _| print::text(o, "/volumeBindingMode")),
Column::boolean("AllowVolumeExpansion", |o, _| print::boolean(o, "/allowVolumeExpansion").into()),
Column::AGE],
    ..KindDef::BASE
};

fn name(object: &Object) -> Value {
    let annotation = object.annotation("storageclass.kubernetes.io/is-default-class");
    match annotation == Some("true") {
        true => format!("{} (default)", object.name()).into(),
        false => object.name().into(),
    }
}

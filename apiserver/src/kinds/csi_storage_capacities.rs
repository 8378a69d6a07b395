//! CSIStorageCapacities: how much room a driver has in a part of the cluster.

use super::{Column, KindDef, common::print};

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    schema: "storage.v1.CSIStorageCapacity",
    columns: &[
        Column::NAME,
        Column::text("StorageClassName", |o, _| print::text(o, "/storageClassName")),
        Column::text("Capacity", |o, _| print::scalar(o.at("/capacity"), "<unset>").into()),
    ],
    ..KindDef::BASE
};

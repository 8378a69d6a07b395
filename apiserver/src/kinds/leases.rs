//! Leases: who holds something, and since when.

use super::{common::print, Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    schema: "coordination.v1.Lease",
    columns: &[Column::NAME,
Column::text("Holder", |o, _| print::text(o, "/spec/holderIdentity")),
Column::AGE],
    create_on_update: true, unconditional_update: false,
    ..KindDef::BASE
};

//! NetworkPolicies: which pods may talk. Stored, not yet enforced.

use super::{common::print, Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    short_names: &["netpol"],
    schema: "networking.v1.NetworkPolicy",
    columns: &[Column::NAME,
Column::text("Pod-Selector", |o, _| print::selector(o.at("/spec/podSelector")).into()),
Column::AGE],
    generation: true,
    ..KindDef::BASE
};

//! ServiceCIDRs: where service addresses are taken from.

use super::{
    Column, KindDef, Subresource,
    common::{self, print},
};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    namespaced: false,
    schema: "networking.v1.ServiceCIDR",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME, Column::text("CIDRs", |o, _| cidrs(o)), Column::AGE],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    ..KindDef::BASE
};

fn cidrs(object: &Object) -> Value {
    let cidrs = print::list(object, "/spec/cidrs").iter().filter_map(Value::as_str);
    cidrs.collect::<Vec<_>>().join(",").into()
}

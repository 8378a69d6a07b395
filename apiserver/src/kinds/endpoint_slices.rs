//! EndpointSlices: where the pods of a service listen.

use super::{common::print, Column, KindDef};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    schema: "discovery.v1.EndpointSlice",
    columns: &[Column::NAME,
Column::text("AddressType", |o, _| print::text(o, "/addressType")),
Column::text("Ports", |o, _| ports(o)),
Column::text("Endpoints", |o, _| addresses(o)),
Column::AGE],
    generation: true,
    ..KindDef::BASE
};

fn ports(object: &Object) -> Value {
    let ports = print::list(object, "/ports");
    let named: Vec<String> = ports.iter().map(|port| print::scalar(port.get("port"), "*")).collect();
    if named.is_empty() { "<unset>".into() } else { print::at_most_three(&named).into() }
}

fn addresses(object: &Object) -> Value {
    let addresses: Vec<String> = print::list(object, "/endpoints")
        .iter()
        .filter_map(|endpoint| endpoint.get("addresses")?.as_array())
        .flatten()
        .filter_map(|address| Some(address.as_str()?.to_string()))
        .collect();
    if addresses.is_empty() { "<unset>".into() } else { print::at_most_three(&addresses).into() }
}

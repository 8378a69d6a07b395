//! Endpoints: the older, single-object form of EndpointSlices.

use super::{Column, KindDef, common::print};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    kind: "Endpoints",
    plural: "endpoints",
    short_names: &["ep"],
    schema: "core.v1.Endpoints",
    columns: &[Column::NAME, Column::text("Endpoints", |o, _| addresses(o)), Column::AGE],
    create_on_update: true,
    ..KindDef::BASE
};

/// `10.0.0.1:80,10.0.0.2:80 + 3 more...`
fn addresses(object: &Object) -> Value {
    let mut shown: Vec<String> = Vec::new();
    for subset in print::list(object, "/subsets") {
        let entries =
            |name: &str| subset.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for address in entries("addresses") {
            let ip = print::field(address, "ip");
            let ports = entries("ports");
            if ports.is_empty() {
                shown.push(ip.to_string());
            }
            for port in ports {
                let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
                let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
                shown.push(format!("{host}:{number}"));
            }
        }
    }
    if shown.is_empty() { "<none>".into() } else { print::at_most_three(&shown).into() }
}

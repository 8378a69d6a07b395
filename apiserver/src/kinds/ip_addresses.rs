//! IPAddresses: a service address taken and by whom.

use super::{Column, KindDef};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    short_names: &["ip"],
    namespaced: false,
    schema: "networking.v1.IPAddress",
    columns: &[Column::NAME, Column::text("ParentRef", |o, _| parent(o)), Column::AGE],
    ..KindDef::BASE
};

fn parent(object: &Object) -> Value {
    let part = |field: &str| object.str_at(&format!("/spec/parentRef/{field}"));
    let parts = [part("group"), part("resource"), part("namespace"), part("name")];
    let resource = match parts[0] {
        "" => parts[1].to_string(),
        group => format!("{}.{group}", parts[1]),
    };
    let path: Vec<&str> =
        [resource.as_str(), parts[2], parts[3]].into_iter().filter(|p| !p.is_empty()).collect();
    path.join("/").into()
}

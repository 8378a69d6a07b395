//! Services: one address for many pods.

use super::{common::{self, print}, Column, KindDef, NameRule, SelectableField, Subresource};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    kind: "Service",
    plural: "services",
    short_names: &["svc"],
    categories: &["all"],
    schema: "core.v1.Service",
    subresources: &[Subresource::Status, Subresource::Named { name: "proxy", schema: "core.v1.ServiceProxyOptions", verbs: &["create", "delete", "get", "patch", "update"] }],
    columns: &[Column::NAME,
Column::text("Type", |o, _| print::text(o, "/spec/type")),
Column::text("Cluster-IP", |o, _| cluster_ip(o)),
Column::text("External-IP", |o, _| external_ip(o)),
Column::text("Port(s)", |o, _| ports(o)),
Column::AGE,
Column::text("Selector", |o, _| print::labels(o.at("/spec/selector")).into()).wide()],
    selectable: &[SelectableField::text("spec.clusterIP", |o| o.str_at("/spec/clusterIP").to_string()), SelectableField::text("spec.type", |o| o.str_at("/spec/type").to_string())],
    name: NameRule::Rfc1035Label,
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    ..KindDef::BASE
};

fn cluster_ip(service: &Object) -> Value {
    print::text_or_none(service, "/spec/clusterIP")
}

fn external_ip(service: &Object) -> Value {
    let given: Vec<&str> =
        print::list(service, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match service.str_at("/spec/type") {
        "LoadBalancer" => {
            let ingress = print::load_balancer(service);
            let mut all: Vec<&str> = vec![ingress.as_str().unwrap_or_default()];
            all.retain(|address| !address.is_empty());
            all.extend(given);
            if all.is_empty() { "<pending>".into() } else { all.join(",").into() }
        }
        "ExternalName" => service.str_at("/spec/externalName").into(),
        _ if given.is_empty() => "<none>".into(),
        _ => given.join(",").into(),
    }
}

/// `80:30080/TCP,443/TCP`
fn ports(service: &Object) -> Value {
    let shown = print::list(service, "/spec/ports").iter().map(|port| {
        let protocol = print::field(port, "protocol");
        let number = print::scalar(port.get("port"), "0");
        match port.get("nodePort").and_then(Value::as_i64) {
            Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { "<none>".into() } else { shown.join(",").into() }
}

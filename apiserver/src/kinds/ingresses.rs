//! Ingresses: HTTP routes from outside to services.

use super::{common::{self, print}, Column, KindDef, Subresource};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    short_names: &["ing"],
    schema: "networking.v1.Ingress",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME,
Column::text("Class", |o, _| print::text_or_none(o, "/spec/ingressClassName")),
Column::text("Hosts", |o, _| hosts(o)),
Column::text("Address", |o, _| print::load_balancer(o)),
Column::text("Ports", |o, _| (if print::count(o, "/spec/tls") > 0 { "80, 443" } else { "80" }).into()),
Column::AGE],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    ..KindDef::BASE
};

fn hosts(object: &Object) -> Value {
    let hosts = print::list(object, "/spec/rules").iter().map(|rule| print::field(rule, "host"));
    let hosts: Vec<String> = hosts.filter(|host| !host.is_empty()).map(String::from).collect();
    if hosts.is_empty() { "*".into() } else { print::at_most_three(&hosts).into() }
}

//! Nodes: machines.

use super::{common::{self, print}, Column, KindDef, SelectableField, Subresource};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    kind: "Node",
    plural: "nodes",
    short_names: &["no"],
    namespaced: false,
    schema: "core.v1.Node",
    subresources: &[Subresource::Status, Subresource::Named { name: "proxy", schema: "core.v1.NodeProxyOptions", verbs: &["create", "delete", "get", "patch", "update"] }],
    columns: &[Column::NAME,
Column::text("Status", |o, _| status(o)),
Column::text("Roles", |o, _| roles(o)),
Column::AGE,
Column::text("Version", |o, _| print::text(o, "/status/nodeInfo/kubeletVersion")),
Column::text("Internal-IP", |o, _| address(o, "InternalIP")).wide(),
Column::text("External-IP", |o, _| address(o, "ExternalIP")).wide(),
Column::text("OS-Image", |o, _| print::text_or(o, "/status/nodeInfo/osImage", "<unknown>")).wide(),
Column::text("Kernel-Version", |o, _| print::text_or(o, "/status/nodeInfo/kernelVersion", "<unknown>")).wide(),
Column::text("Container-Runtime", |o, _| print::text_or(o, "/status/nodeInfo/containerRuntimeVersion", "<unknown>")).wide()],
    selectable: &[SelectableField::text("spec.unschedulable", |o| print::boolean(o, "/spec/unschedulable").to_string())],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    ..KindDef::BASE
};

/// `Ready,SchedulingDisabled`
fn status(object: &Object) -> Value {
    let conditions = print::list(object, "/status/conditions");
    let ready = conditions.iter().find(|condition| print::field(condition, "type") == "Ready");
    let mut words = vec![match ready.map(|condition| print::field(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if print::boolean(object, "/spec/unschedulable") {
        words.push("SchedulingDisabled");
    }
    words.join(",").into()
}

fn roles(object: &Object) -> Value {
    let mut roles: Vec<&str> = object
        .labels()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => (key == "kubernetes.io/role").then_some(value),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",").into() }
}

fn address(object: &Object, kind: &str) -> Value {
    let addresses = print::list(object, "/status/addresses");
    let found = addresses.iter().find(|address| print::field(address, "type") == kind);
    found.map_or("<none>", |address| print::field(address, "address")).into()
}

//! Nodes: machines.

use super::{
    Column, KindDef, SelectableField, Subresource,
    common::{
        self,
        field::{At, Errors},
        labels, pod_spec, print, set_default,
    },
};
use k8s::{FieldError, Object, names};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) const KIND: KindDef = KindDef {
    kind: "Node",
    plural: "nodes",
    short_names: &["no"],
    namespaced: false,
    schema: "core.v1.Node",
    subresources: &[
        Subresource::Status,
        Subresource::Named {
            name: "proxy",
            schema: "core.v1.NodeProxyOptions",
            verbs: &["create", "delete", "get", "patch", "update"],
        },
    ],
    columns: &[
        Column::NAME,
        Column::text("Status", |o, _| status(o)),
        Column::text("Roles", |o, _| roles(o)),
        Column::AGE,
        Column::text("Version", |o, _| print::text(o, "/status/nodeInfo/kubeletVersion")),
        Column::text("Internal-IP", |o, _| address(o, "InternalIP")).wide(),
        Column::text("External-IP", |o, _| address(o, "ExternalIP")).wide(),
        Column::text("OS-Image", |o, _| print::text_or(o, "/status/nodeInfo/osImage", "<unknown>"))
            .wide(),
        Column::text("Kernel-Version", |o, _| {
            print::text_or(o, "/status/nodeInfo/kernelVersion", "<unknown>")
        })
        .wide(),
        Column::text("Container-Runtime", |o, _| {
            print::text_or(o, "/status/nodeInfo/containerRuntimeVersion", "<unknown>")
        })
        .wide(),
    ],
    selectable: &[SelectableField::text("spec.unschedulable", |o| {
        print::boolean(o, "/spec/unschedulable").to_string()
    })],
    default,
    prepare_update: common::keep_status,
    validate,
    validate_status,
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

/// What can be used is what there is, unless the node says less.
fn default(node: &mut Object) {
    let Some(capacity) = node.at("/status/capacity").cloned() else { return };
    set_default(node.map_mut("status"), "allocatable", capacity);
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (spec, status) = (At::top(new, "spec"), At::top(new, "status"));
    taints(&spec.field("taints"), &mut errors);
    let cidrs = spec.field("podCIDRs");
    for cidr in cidrs.items() {
        errors.invalid_each(&cidr, names::is_cidr(cidr.text()));
    }
    let first = cidrs.items().next().map_or("", |cidr| cidr.text());
    if cidrs.count() > 0 && spec.field("podCIDR").text() != first {
        let detail = "must be the same as podCIDR";
        errors.invalid(&cidrs.items().next().unwrap_or(cidrs), detail);
    }
    if cidrs.count() > 2 {
        errors.invalid(&cidrs, "may specify no more than one CIDR for each IP family");
    }
    for map in ["capacity", "allocatable"] {
        pod_spec::validate_quantities(&status.field(map), &mut errors);
    }
    if let Some(old) = old {
        fixed_once_set(&spec, &At::top(old, "spec"), &mut errors);
    }
    errors.0
}

fn fixed_once_set(spec: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    let (cidrs, had) = (spec.field("podCIDRs"), was.field("podCIDRs"));
    if had.count() > 0 && cidrs.value() != had.value() {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(&cidrs, detail);
    }
    let (id, had) = (spec.field("providerID"), was.field("providerID"));
    if !had.text().is_empty() && id.text() != had.text() {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&id, detail);
    }
}

fn taints(taints: &At<'_, '_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for taint in taints.items() {
        let (key, effect) = (taint.field("key"), taint.field("effect"));
        labels::validate_key(&key, errors);
        let value = taint.field("value");
        let wrong = names::is_label_value(value.text());
        if !wrong.is_empty() {
            errors.invalid_value(&value, value.text(), wrong.join(";"));
        }
        errors.one_of(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"], true);
        if !seen.insert((key.text(), effect.text())) {
            let detail = taint.owned();
            errors.duplicate_value(&taint, detail);
            errors.0.last_mut().expect("pushed above").detail =
                "taints must be unique by key and effect pair".into();
        }
    }
}

fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    for map in ["capacity", "allocatable"] {
        pod_spec::validate_quantities(&status.field(map), &mut errors);
    }
    let mut seen = BTreeSet::new();
    for address in status.field("addresses").items() {
        if !seen.insert((address.field("type").text(), address.field("address").text())) {
            errors.duplicate(&address);
        }
    }
    errors.0
}

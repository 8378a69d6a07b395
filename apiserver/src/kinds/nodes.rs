//! Nodes: machines.

use super::{
    Column, KindDef, SelectableField, Subresource,
    common::{
        self,
        field::{At, Errors},
        pod_spec, print, resources, set_default,
    },
};
use k8s::{FieldError, Object};
use serde_json::{Value, json};
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
        Column::text("Kernel-Version", |o, _| kernel(o)).wide(),
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
    warnings,
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

/// With the architecture it is built for.
fn kernel(object: &Object) -> Value {
    let version = match object.str_at("/status/nodeInfo/kernelVersion") {
        "" => "<unknown>",
        version => version,
    };
    match object.str_at("/status/nodeInfo/architecture") {
        "" => version.into(),
        architecture => format!("{version} ({architecture})").into(),
    }
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

/// What can be used is what there is, unless the node says less; the old field for the network is
/// the first of the new one's.
fn default(node: &mut Object) {
    if let Some(capacity) = node.at("/status/capacity").cloned() {
        set_default(node.map_mut("status"), "allocatable", capacity);
    }
    let (own, first) = (node.str_at("/spec/podCIDR"), node.str_at("/spec/podCIDRs/0"));
    let (own, first) = (own.to_string(), first.to_string());
    if !own.is_empty() && own != first {
        node.map_mut("spec").insert("podCIDRs".into(), json!([own]));
    } else if own.is_empty() && !first.is_empty() {
        node.map_mut("spec").insert("podCIDR".into(), first.into());
    }
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let taints = spec.field("taints");
    let mut within = Errors::default();
    pod_spec::taints(&taints, &mut within);
    // Upstream looks for them in the metadata.
    errors.adopt(within, &taints, &"metadata.taints");
    amounts(new, &mut errors);
    match old {
        None => networks(&spec, &mut errors),
        Some(old) => {
            addresses(new, &mut errors);
            fixed_once_set(&spec, &At::top(old, "spec"), &mut errors);
        }
    }
    errors.0
}

fn networks(spec: &At<'_, '_>, errors: &mut Errors) {
    let cidrs = spec.field("podCIDRs");
    for cidr in cidrs.items() {
        errors.legacy_cidr(&cidr, &[]);
    }
    let (v6, v4): (Vec<&str>, Vec<&str>) = cidrs.texts().partition(|cidr| cidr.contains(':'));
    if v4.len() > 1 || v6.len() > 1 {
        errors.invalid(&cidrs, "may specify no more than one CIDR for each IP family");
    }
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
    let (id, had) = (spec.field("externalID"), was.field("externalID"));
    if id.text() != had.text() {
        errors.forbidden(&id, "may not be updated");
    }
}

/// Upstream writes the name of a resource after a dot here.
fn amounts(node: &Object, errors: &mut Errors) {
    let status = At::top(node, "status");
    for map in ["capacity", "allocatable"] {
        let map = status.field(map);
        for (name, at) in map.entries() {
            let mut within = Errors::default();
            resources::validate_amount(name, &at, &mut within);
            errors.adopt(within, &at, &format!("{map}.{name}"));
        }
    }
}

fn addresses(node: &Object, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for address in At::top(node, "status").field("addresses").items() {
        if !seen.insert((address.field("type").text(), address.field("address").text())) {
            errors.duplicate(&address);
        }
    }
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    amounts(new, &mut errors);
    addresses(new, &mut errors);
    fixed_once_set(&At::top(new, "spec"), &At::top(old, "spec"), &mut errors);
    errors.0
}

/// Old ways to say where pods may run, in labels that a user sets.
fn warnings(new: &Object, _: Option<&Object>) -> Vec<String> {
    let source = new.at("/spec/configSource").is_some();
    let mut warnings = Vec::new();
    if source {
        warnings.push("spec.configSource: the feature is no longer supported".into());
    }
    if !new.str_at("/spec/externalID").is_empty() {
        warnings
            .push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
    }
    warnings
}

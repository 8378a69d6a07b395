//! Worlds written as YAML, and what the scheduler makes of them, line by line.

mod affinity;
mod basics;
mod properties;
mod spread;
mod state;

use super::*;
use k8s::Object;
use k8s_openapi::api::core::v1 as core;
use reconcile::Kind;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

/// A pod of one container that asks for nothing.
pub(super) fn pod(name: &str) -> Pod {
    parse_pod(json!({"metadata": {"name": name}}))
}

/// Fills in what the tests leave out. `requests` beside `metadata` are the only container's.
pub(super) fn parse_pod(mut value: Value) -> Pod {
    let requests = value.get("requests").cloned().unwrap_or(json!({}));
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_string();
    let meta = value["metadata"].as_object_mut().expect("metadata");
    meta.entry("namespace").or_insert("default".into());
    meta.entry("uid").or_insert(format!("uid-{name}").into());
    if value.get("spec").is_none() {
        value["spec"] = json!({});
    }
    let spec = value["spec"].as_object_mut().expect("spec");
    spec.entry("schedulerName").or_insert(PROFILE.into());
    spec.entry("containers").or_insert(json!([{"name": "c", "resources": {"requests": requests}}]));
    let pod = core::Pod::decode(&Object::from_value(value).expect("an object"));
    Pod::of(&pod.expect("a pod")).expect("it has a name")
}

/// Four cpus, 8 GiB and 110 pods where nothing else is said.
pub(super) fn parse_node(mut value: Value) -> (String, Facts) {
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_string();
    value["metadata"]["labels"]["kubernetes.io/hostname"] = name.into();
    let mut allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    if let Some(given) = value["status"]["allocatable"].as_object() {
        given.iter().for_each(|(name, amount)| allocatable[name] = amount.clone());
    }
    value["status"]["allocatable"] = allocatable;
    let node = core::Node::decode(&Object::from_value(value).expect("an object"));
    Facts::of(&node.expect("a node")).expect("it has a name")
}

/// `nodes`, `namespaces` and `services` make the world; each of `pods` that names a node is on it,
/// the others are planned in order. One line for each of those.
fn check(yaml: &str) -> String {
    let text: Value = serde_saphyr::from_str(yaml).expect("YAML");
    let list = |field: &str| text[field].as_array().cloned().unwrap_or_default();
    let mut world = World::default();
    for node in list("nodes") {
        let (name, facts) = parse_node(node);
        world.set_node(&name, facts);
    }
    for namespace in list("namespaces") {
        let labels = namespace["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        let labels = labels.into_iter().map(|(key, value)| (key, text_of(&value))).collect();
        world.set_namespace(&text_of(&namespace["metadata"]["name"]), Some(labels));
    }
    for service in list("services") {
        let selector = service["selector"].as_object().cloned().unwrap_or_default();
        let labels = selector.into_iter().map(|(key, value)| (key, text_of(&value))).collect();
        let key = PodKey { namespace: "default".into(), name: text_of(&service["name"]) };
        world.set_service(key, Some(Selector::of_labels(&labels)));
    }
    let (bound, pending): (Vec<Pod>, Vec<Pod>) =
        list("pods").into_iter().map(parse_pod).partition(|pod| pod.node.is_some());
    bound.into_iter().for_each(|pod| world.set_pod(Arc::new(pod)));
    let pending: Vec<Arc<Pod>> = pending.into_iter().map(Arc::new).collect();
    trace(&plan(&mut Planner::default(), &mut world, &pending))
}

fn trace(decisions: &[Decision]) -> String {
    let mut lines = String::new();
    for decision in decisions {
        let written = match decision {
            Decision::Bind { pod, node, .. } => writeln!(lines, "{} -> {node}", pod.name),
            Decision::Unschedulable { pod, diagnosis } => {
                writeln!(lines, "{}: {}", pod.name, diagnosis.message())
            }
        };
        written.expect("a string takes everything");
    }
    lines
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

//! ExtendedResourceToleration (off unless asked for): pods that use a device tolerate the taint that
//! keeps its nodes for them.

use super::{
    Cx,
    resources::{Side, containers, is_extended, of_container},
};
use k8s::{Object, Status};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) fn admit(cx: &Cx<'_>, pod: &mut Object) -> Result<(), Status> {
    if !(cx.creates("", "pods") || cx.updates("", "pods")) {
        return Ok(());
    }
    let all = ["containers", "initContainers"].into_iter().flat_map(|field| containers(pod, field));
    let asked = all.flat_map(|container| of_container(container, Side::Requests).into_keys());
    let devices: BTreeSet<String> = asked.filter(|name| is_extended(name)).collect();
    let given = pod.at("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let tolerated = |device: &str| {
        let exists = |one: &Value| {
            let effect = one.get("effect").and_then(Value::as_str).unwrap_or_default();
            one["key"] == device && one["operator"] == "Exists" && effect.is_empty()
        };
        given.iter().any(exists)
    };
    let missing = devices.iter().filter(|device| !tolerated(device));
    let added: Vec<Value> =
        missing.map(|device| json!({ "key": device, "operator": "Exists" })).collect();
    if !added.is_empty() {
        let all: Vec<Value> = given.into_iter().chain(added).collect();
        pod.map_mut("spec").insert("tolerations".into(), all.into());
    }
    Ok(())
}

//! TaintNodesByCondition: nothing is scheduled to a new node before it says that it is ready.

use super::Cx;
use crate::kinds::common::set_default;
use k8s::{Object, Status};
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn admit(cx: &Cx<'_>, node: &mut Object) -> Result<(), Status> {
    if !cx.creates("", "nodes") {
        return Ok(());
    }
    let spec = node.map_mut("spec");
    set_default(spec, "taints", json!([]));
    if let Some(taints) = spec.get_mut("taints").and_then(Value::as_array_mut)
        && !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule")
    {
        taints.push(json!({ "key": NOT_READY, "effect": "NoSchedule" }));
    }
    Ok(())
}

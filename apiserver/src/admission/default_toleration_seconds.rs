//! DefaultTolerationSeconds: how long a pod stays on a node that is not ready or unreachable when
//! the pod does not say.

use super::{Cx, Operation};
use k8s::{Object, Status};
use serde_json::{Value, json};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) fn admit(cx: &Cx<'_>, pod: &mut Object) -> Result<(), Status> {
    let writes = matches!(cx.operation, Operation::Create | Operation::Update);
    if !writes || !cx.is("", "pods") {
        return Ok(());
    }
    let given = pod.at("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |toleration: &Value, field: &str| {
        toleration.get(field).and_then(Value::as_str).unwrap_or_default().to_string()
    };
    let tolerates = |taint: &&str| {
        given.iter().any(|toleration| {
            let (key, effect) = (text(toleration, "key"), text(toleration, "effect"));
            (key == **taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        })
    };
    let added: Vec<Value> = TAINTS
        .iter()
        .filter(|taint| !tolerates(taint))
        .map(|taint| {
            json!({
                "key": taint,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": cx.config.default_toleration_seconds,
            })
        })
        .collect();
    if !added.is_empty() {
        let all: Vec<Value> = given.into_iter().chain(added).collect();
        pod.map_mut("spec").insert("tolerations".into(), all.into());
    }
    Ok(())
}

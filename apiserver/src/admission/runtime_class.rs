//! RuntimeClass: what running under a class costs and where it can be done.

use super::Cx;
use crate::kinds::common::made;
use k8s::{Object, Status};
use serde_json::{Value, json};
use std::sync::Arc;

const CLASSES: &str = "node.k8s.io/runtimeclasses";

fn class(cx: &Cx<'_>, pod: &Object) -> Result<Option<Arc<Object>>, Status> {
    let Some(name) = pod.at("/spec/runtimeClassName").and_then(Value::as_str) else {
        return Ok(None);
    };
    match cx.view.object(CLASSES, name) {
        Some(class) => Ok(Some(class)),
        None => Err(cx.forbidden(pod, format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

pub(super) fn admit(cx: &Cx<'_>, pod: &mut Object) -> Result<(), Status> {
    if !cx.creates("", "pods") {
        return Ok(());
    }
    let Some(class) = class(cx, pod)? else { return Ok(()) };
    if let Some(overhead) = class.at("/overhead/podFixed") {
        if pod.at("/spec/overhead").is_some_and(|given| !same(given, overhead)) {
            return Err(cx.forbidden(pod, MISMATCH));
        }
        pod.map_mut("spec").insert("overhead".into(), overhead.clone());
    }
    schedule(cx, pod, &class)
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn same(a: &Value, b: &Value) -> bool {
    super::resources::list(Some(a)) == super::resources::list(Some(b))
}

fn schedule(cx: &Cx<'_>, pod: &mut Object, class: &Object) -> Result<(), Status> {
    let selector = class.at("/scheduling/nodeSelector").and_then(Value::as_object);
    for (key, value) in selector.into_iter().flatten() {
        let given = pod.at("/spec/nodeSelector").and_then(|given| given.get(key));
        if let Some(given) = given.filter(|given| *given != value) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; \
                 pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(given)
            );
            return Err(cx.forbidden(pod, why));
        }
        if let Some(selector) = made(pod.map_mut("spec"), "nodeSelector") {
            selector.insert(key.clone(), value.clone());
        }
    }
    let more = class.at("/scheduling/tolerations").and_then(Value::as_array);
    if let Some(more) = more.filter(|more| !more.is_empty()) {
        let own = pod.at("/spec/tolerations").and_then(Value::as_array).cloned();
        let all: Vec<Value> = own.into_iter().flatten().chain(more.iter().cloned()).collect();
        pod.map_mut("spec").insert("tolerations".into(), merge(&all).into());
    }
    Ok(())
}

/// Without those that another covers; of equals the first stays.
fn merge(all: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let covered = merged.iter().any(|other| covers(other, one))
            || all[index + 1..].iter().any(|other| other != one && covers(other, one));
        if !covered {
            merged.push(one.clone());
        }
    }
    merged
}

/// Whether `wide` tolerates all that `narrow` does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let text = |one: &Value, field: &str| {
        one.get(field).and_then(Value::as_str).unwrap_or_default().to_string()
    };
    let seconds = |one: &Value| one.get("tolerationSeconds").and_then(Value::as_i64);
    let operator = |one: &Value| match text(one, "operator") {
        empty if empty.is_empty() => "Equal".to_string(),
        operator => operator,
    };
    let any_key = text(wide, "key").is_empty() && operator(wide) == "Exists";
    if text(narrow, "key") != text(wide, "key") && !any_key {
        return false;
    }
    let effect = text(wide, "effect");
    if !effect.is_empty() && text(narrow, "effect") != effect {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = seconds(wide)
        && seconds(narrow).is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match operator(wide).as_str() {
        "Equal" => operator(narrow) == "Equal" && text(narrow, "value") == text(wide, "value"),
        "Exists" => true,
        _ => false,
    }
}

pub(super) fn validate(cx: &Cx<'_>, pod: &Object) -> Result<(), Status> {
    if !cx.creates("", "pods") {
        return Ok(());
    }
    let class = class(cx, pod)?;
    let due = class.as_ref().and_then(|class| class.at("/overhead/podFixed"));
    match (due, pod.at("/spec/overhead")) {
        (Some(due), given) => {
            let given = given.cloned().unwrap_or_else(|| json!({}));
            if same(due, &given) { Ok(()) } else { Err(cx.forbidden(pod, MISMATCH)) }
        }
        (None, Some(_)) => {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined \
                       Overhead";
            Err(cx.forbidden(pod, why))
        }
        (None, None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Operation,
        tests::{Asked, active_namespace},
    };
    use super::*;

    fn create(spec: Value) -> Result<Object, String> {
        let mut world = active_namespace("default");
        world.put(
            CLASSES,
            json!({
                "metadata": { "name": "vm" }, "handler": "kata",
                "overhead": { "podFixed": { "memory": "64Mi" } },
                "scheduling": {
                    "nodeSelector": { "vm": "yes" },
                    "tolerations": [{ "key": "vm", "operator": "Exists" }],
                },
            }),
        );
        let pod = json!({ "metadata": { "name": "web", "namespace": "default" }, "spec": spec });
        let asked = Asked::new(&world, Operation::Create, ("", "pods"));
        asked.decide(pod).0.map_err(|status| status.message)
    }

    #[test]
    fn a_class_adds_its_overhead_and_its_nodes() {
        let tolerations = json!([{ "key": "vm", "value": "x", "effect": "NoSchedule" }]);
        let pod = create(json!({ "runtimeClassName": "vm", "tolerations": tolerations }));
        let pod = pod.expect("admitted");
        assert_eq!(pod.at("/spec/overhead"), Some(&json!({ "memory": "64Mi" })));
        assert_eq!(pod.at("/spec/nodeSelector"), Some(&json!({ "vm": "yes" })));
        let tolerations = pod.at("/spec/tolerations").and_then(Value::as_array).expect("a list");
        let of_vm: Vec<&Value> = tolerations.iter().filter(|one| one["key"] == "vm").collect();
        assert_eq!(of_vm, [&json!({ "key": "vm", "operator": "Exists" })]);
    }

    #[test]
    fn refusals_are_upstreams() {
        let refused = [
            create(json!({ "runtimeClassName": "none" })),
            create(json!({ "runtimeClassName": "vm", "overhead": { "memory": "1Mi" } })),
            create(json!({ "runtimeClassName": "vm", "nodeSelector": { "vm": "no" } })),
            create(json!({ "overhead": { "memory": "1Mi" } })),
        ];
        let texts: Vec<String> = refused.into_iter().filter_map(Result::err).collect();
        insta::assert_snapshot!(texts.join("\n"));
    }
}

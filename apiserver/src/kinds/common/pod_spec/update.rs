//! What of a pod may change once it is there: very little.

use super::super::field::{At, Errors};
use k8s::{FieldError, Object};
use serde_json::{Map, Value};

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(crate) fn validate_update(new: &Object, old: &Object, errors: &mut Errors) {
    let (now, was) = (At::top(new, "spec"), At::top(old, "spec"));
    for list in ["containers", "initContainers"] {
        let (now, was) = (now.field(list), was.field(list));
        if now.count() != was.count() {
            errors.forbidden(&now, "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(&now.field("activeDeadlineSeconds"), &was.field("activeDeadlineSeconds"), errors);
    tolerations(&now.field("tolerations"), &was.field("tolerations"), errors);
    gates(&now.field("schedulingGates"), &was.field("schedulingGates"), errors);
    let (Some(now), Some(was)) = (now.value(), was.value()) else { return };
    let changed = differences(&masked(now, was), was);
    if !changed.is_empty() {
        let detail = format!("{MAY_CHANGE}\n{}", changed.join("\n"));
        errors.0.push(FieldError::forbidden("spec", detail));
    }
}

fn deadline(now: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    match (now.int(), was.int()) {
        (Some(now_seconds), Some(was_seconds)) if now_seconds > was_seconds => {
            errors.invalid(now, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            errors.invalid(now, "must not update from a positive integer to nil value");
        }
        _ => (),
    }
}

fn tolerations(now: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    let same = |a: &Value, b: &Value| {
        let without = |value: &Value| {
            let mut map = value.as_object().cloned().unwrap_or_default();
            map.remove("tolerationSeconds");
            map
        };
        without(a) == without(b)
    };
    let list = now.value().and_then(Value::as_array);
    let kept = |old: &Value| list.is_some_and(|list| list.iter().any(|new| same(new, old)));
    if !was.items().all(|old| old.value().is_none_or(kept)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(now, detail);
    }
}

fn gates(now: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    for gate in now.items() {
        let name = gate.field("name").text();
        if !was.items().any(|old| old.field("name").text() == name) {
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&gate, detail);
        }
    }
}

/// `new` with what may change set to what it was.
fn masked(new: &Value, old: &Value) -> Value {
    let mut masked = new.clone();
    let Some(map) = masked.as_object_mut() else { return masked };
    let old_field = |field: &str| old.get(field).cloned();
    let negative = old.get("terminationGracePeriodSeconds").and_then(Value::as_i64) < Some(0);
    let mut back = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if negative && map.get("terminationGracePeriodSeconds").and_then(Value::as_i64) == Some(1) {
        back.push("terminationGracePeriodSeconds");
    }
    if old.get("schedulingGates").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        // A pod that waits at a gate may still be told where to go.
        back.extend(["nodeSelector", "affinity"]);
    }
    for field in back {
        restore(map, field, old_field(field));
    }
    for list in ["containers", "initContainers"] {
        let olds = old.get(list).and_then(Value::as_array);
        let news = map.get_mut(list).and_then(Value::as_array_mut);
        for (new, old) in news.into_iter().flatten().zip(olds.into_iter().flatten()) {
            if let Some(new) = new.as_object_mut() {
                restore(new, "image", old.get("image").cloned());
            }
        }
    }
    masked
}

fn restore(map: &mut Map<String, Value>, field: &str, old: Option<Value>) {
    match old {
        Some(old) => map.insert(field.into(), old),
        None => map.remove(field),
    };
}

/// The top-level fields that differ, with what they were and are.
fn differences(new: &Value, old: &Value) -> Vec<String> {
    let empty = Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let fields: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or("unset".to_string(), Value::to_string);
    fields
        .into_iter()
        .filter(|field| new.get(*field) != old.get(*field))
        .map(|field| format!("  {field}: {} -> {}", shown(old.get(field)), shown(new.get(field))))
        .collect()
}

//! Conditions in the status of objects that the server itself keeps.

use crate::pipeline::meta;
use k8s::Object;
use serde_json::{Value, json};

/// The conditions of `object` with that of type `kind` as it is now; `None` if it says so already. The
/// time of its last transition is that of the last change of `status`.
pub(crate) fn changed(
    object: &Object,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) -> Option<Vec<Value>> {
    let old = object.at("/status/conditions").and_then(Value::as_array).cloned();
    let mut conditions = old.unwrap_or_default();
    let before = conditions.iter().find(|one| one["type"] == kind);
    if before.is_some_and(|one| {
        one["status"] == status && one["reason"] == reason && one["message"] == message
    }) {
        return None;
    }
    let since = match before {
        Some(before) if before["status"] == status => before["lastTransitionTime"].clone(),
        _ => meta::now().into(),
    };
    conditions.retain(|one| one["type"] != kind);
    conditions.push(json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }));
    Some(conditions)
}

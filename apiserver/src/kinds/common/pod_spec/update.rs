//! What of a pod may change once it is there: very little, and a little more through the
//! subresources made for it.

use super::{
    super::{
        field::{At, Errors, same},
        made, print,
    },
    annotations,
    totals::qos_class,
};
use k8s::{FieldError, Object};
use serde_json::{Map, Value, json};

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(crate) fn validate_update(new: &Object, old: &Object, errors: &mut Errors) {
    let (now, was) = (At::top(new, "spec"), At::top(old, "spec"));
    update_annotations(new, old, errors);
    for list in ["containers", "initContainers"] {
        let (now, was) = (now.field(list), was.field(list));
        if now.count() != was.count() {
            errors.forbidden(&now, "pod updates may not add or remove containers");
            return;
        }
        for container in now.items() {
            errors.needs_text(&container.field("image"));
            errors.unpadded(&container.field("image"));
        }
    }
    deadline(&now.field("activeDeadlineSeconds"), &was.field("activeDeadlineSeconds"), errors);
    tolerations(&now.field("tolerations"), &was.field("tolerations"), errors);
    gates(&now.field("schedulingGates"), &was.field("schedulingGates"), errors);
    if was.field("schedulingGates").count() > 0 {
        placement(&now, &was, errors);
    }
    let (Some(now), Some(was)) = (now.value(), was.value()) else { return };
    let masked = masked(now, was);
    if !same(Some(&masked), Some(was)) {
        let detail = format!("{MAY_CHANGE}\n{}", differences(&masked, was));
        errors.0.push(FieldError::forbidden("spec", detail));
    }
}

fn update_annotations(new: &Object, old: &Object, errors: &mut Errors) {
    let (new, old) = (At::top(new, "metadata"), At::top(old, "metadata"));
    annotations::validate_update(&new.field("annotations"), &old.field("annotations"), errors);
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
    let equal = |a: &Value, b: &Value| {
        let without = |value: &Value| {
            let mut map = value.as_object().cloned().unwrap_or_default();
            map.remove("tolerationSeconds");
            map
        };
        without(a) == without(b)
    };
    let list = now.value().and_then(Value::as_array);
    let kept = |old: &Value| list.is_some_and(|list| list.iter().any(|new| equal(new, old)));
    for old in was.items() {
        if !old.value().is_none_or(kept) {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            errors.forbidden(now, detail);
        }
    }
}

fn gates(now: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    for gate in now.items() {
        let name = gate.field("name");
        if !was.items().any(|old| old.field("name").text() == name.text()) {
            let detail = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                name.text()
            );
            errors.forbidden(&name, detail);
        }
    }
}

/// A pod that waits at a gate may be told more of where to go, never less (KEP-3838).
fn placement(now: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    let (selector, old_selector) = (now.field("nodeSelector"), was.field("nodeSelector"));
    for (key, value) in old_selector.entries() {
        if selector.key(key).value() != value.value() {
            let detail =
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.invalid(&selector, detail);
        }
    }
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let (affinity, old_affinity) = (now.field("affinity"), was.field("affinity"));
    let (node, old_node) = (affinity.field("nodeAffinity"), old_affinity.field("nodeAffinity"));
    let (required, old_required) = (node.field(required), old_node.field(required));
    let (terms, old_terms) =
        (required.field("nodeSelectorTerms"), old_required.field("nodeSelectorTerms"));
    if old_terms.count() == 0 {
        return;
    }
    if terms.count() != old_terms.count() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(&terms, detail);
    }
    for (term, old) in terms.items().zip(old_terms.items()) {
        let begins = |field: &'static str| {
            let (new, old) = (term.field(field), old.field(field));
            new.items().zip(old.items()).all(|(a, b)| same(a.value(), b.value()))
                && new.count() >= old.count()
        };
        let (fields, empty) = (
            ["matchExpressions", "matchFields"],
            old.field("matchExpressions").count() + old.field("matchFields").count() == 0,
        );
        let filled = fields.into_iter().any(|field| term.field(field).count() > 0);
        if !fields.into_iter().all(begins) || (empty && filled) {
            errors.invalid(&term, "only additions are allowed (no mutations or deletions)");
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
    let gated =
        old.get("schedulingGates").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if gated {
        back.push("nodeSelector");
        let affinity = old.pointer("/affinity/nodeAffinity").cloned();
        let alone = |map: &Map<String, Value>| map.keys().all(|key| key == "nodeAffinity");
        match map.get_mut("affinity").and_then(Value::as_object_mut) {
            Some(new) if affinity.is_none() && alone(new) => _ = map.remove("affinity"),
            Some(new) => restore(new, "nodeAffinity", affinity),
            None if affinity.is_some() => back.push("affinity"),
            None => (),
        }
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
fn differences(new: &Value, old: &Value) -> String {
    let empty = Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let fields: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or("unset".to_string(), Value::to_string);
    fields
        .into_iter()
        .filter(|field| !same(new.get(*field), old.get(*field)))
        .map(|field| format!("  {field}: {} -> {}", shown(old.get(field)), shown(new.get(field))))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `pods/ephemeralcontainers`: containers may be added, nothing else (KEP-277).
pub(crate) fn validate_ephemeral(new: &Object, old: &Object, errors: &mut Errors) {
    update_annotations(new, old, errors);
    if old.annotation(annotations::MIRROR).is_some() {
        let detail = "static pods do not support ephemeral containers";
        return errors.0.push(FieldError::forbidden("", detail));
    }
    let (now, was) = (At::top(new, "spec"), At::top(old, "spec"));
    let list = now.field("ephemeralContainers");
    for old in was.field("ephemeralContainers").items() {
        let name = old.field("name").text();
        let detail = match list.items().find(|new| new.field("name").text() == name) {
            None => format!("existing ephemeral containers \"{name}\" may not be removed\n"),
            Some(new) if !same(new.value(), old.value()) => {
                let empty = Value::Null;
                let (new, old) = (new.value().unwrap_or(&empty), old.value().unwrap_or(&empty));
                let changed = differences(new, old);
                format!("existing ephemeral containers \"{name}\" may not be changed\n{changed}")
            }
            Some(_) => continue,
        };
        errors.forbidden(&list, detail);
    }
}

/// `pods/resize`: cpu and memory may change (KEP-1287), of the whole pod too (KEP-5419).
pub(crate) fn validate_resize(new: &Object, old: &Object, errors: &mut Errors) {
    let (now, was) = (At::top(new, "spec"), At::top(old, "spec"));
    let never = match () {
        _ if old.annotation(annotations::MIRROR).is_some() => "static pods cannot be resized",
        _ if was.field("os").field("name").text() == "windows" => "windows pods cannot be resized",
        _ => "",
    };
    if !never.is_empty() {
        return errors.0.push(FieldError::forbidden("", never));
    }
    if qos_class(new) != qos_class(old) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid_value(&now, new.str_at("/status/qosClass"), detail);
    }
    if !takes_resizes(old) {
        errors.forbidden(&now, "Pod running on node without support for resize");
    }
    whole_pod(&now, &was, errors);
    if print::count(old, "/status/nodeAllocatableResourceClaimStatuses") > 0 {
        errors.forbidden(&now, "pods with node allocatable resource claims cannot be resized");
    }
    if !same_containers(&now, &was, errors) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (new, old) in now.field(list).items().zip(was.field(list).items()) {
            removed(&new.field("resources"), &old.field("resources"), "resource", errors);
        }
    }
    for (new, old) in now.field("containers").items().zip(was.field("containers").items()) {
        if !same(Some(&sized(new.value(), old.value())), old.value()) {
            errors.forbidden(&now, "only cpu and memory resources are mutable");
        }
    }
    for (new, old) in now.field("initContainers").items().zip(was.field("initContainers").items()) {
        init_container(&new, &old, errors);
    }
    let (Some(new), Some(old)) = (now.value(), was.value()) else { return };
    let mut whole = sized(Some(new), Some(old));
    for list in ["initContainers", "containers"] {
        if let Some(map) = whole.as_object_mut() {
            restore(map, list, old.get(list).cloned());
        }
    }
    if errors.0.is_empty() && !same(Some(&whole), Some(old)) {
        errors.forbidden(&now, "only cpu and memory resources are mutable");
    }
}

/// A node that resizes says what its running containers have.
fn takes_resizes(pod: &Object) -> bool {
    let statuses = print::list(pod, "/status/containerStatuses");
    let running = statuses.iter().find(|status| status.pointer("/state/running").is_some());
    running.is_none_or(|status| status.get("resources").is_some())
}

/// The resources of the pod itself.
fn whole_pod(now: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    let (new, old) = (now.field("resources"), was.field("resources"));
    let said = |at: &At<'_, '_>| at.field("requests").count() + at.field("limits").count() > 0;
    if !said(&new) && !said(&old) {
        return;
    }
    if old.exists() && !new.exists() {
        return errors.forbidden(&new, "pod-level resources cannot be removed");
    }
    removed(&new, &old, "pod-level resource", errors);
    let only = |spec: &At<'_, '_>| json!({ "resources": spec.field("resources").owned() });
    let (new, old) = (only(now), only(was));
    if !same(Some(&sized(Some(&new), Some(&old))), Some(&old)) {
        errors.forbidden(now, "only cpu and memory resources are mutable at pod-level");
    }
}

/// One that runs to its end may be resized too, unless it would have to start again.
fn init_container(new: &At<'_, '_>, old: &At<'_, '_>, errors: &mut Errors) {
    if !same(Some(&sized(new.value(), old.value())), old.value()) {
        let detail = "only cpu and memory resources for init or sidecar containers are mutable";
        errors.forbidden(new, detail);
    }
    let stays = new.field("restartPolicy").text() == "Always";
    if stays || same(new.value(), old.value()) {
        return;
    }
    for policy in new.field("resizePolicy").items() {
        if policy.field("restartPolicy").text() == "RestartContainer" {
            let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be \
                 resized";
            errors.forbidden(new, detail);
        }
    }
}

fn same_containers(now: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) -> bool {
    let before = errors.0.len();
    for list in ["containers", "initContainers"] {
        let (new, old) = (now.field(list), was.field(list));
        if new.count() != old.count() {
            errors.forbidden(&new, format!("{list} may not be added or removed on resize"));
            continue;
        }
        for (new, old) in new.items().zip(old.items()) {
            if new.field("name").text() != old.field("name").text() {
                let detail = format!("{list} may not be renamed or reordered on resize");
                errors.forbidden(&new.field("name"), detail);
            }
        }
    }
    errors.0.len() == before
}

/// An amount once said may change but not go.
fn removed(new: &At<'_, '_>, old: &At<'_, '_>, what: &str, errors: &mut Errors) {
    for kind in ["requests", "limits"] {
        let (new, old) = (new.field(kind), old.field(kind));
        if old.entries().any(|(name, _)| !new.key(name).exists()) {
            errors.forbidden(&new, format!("{what} {kind} cannot be removed"));
        }
    }
}

/// `new` with the cpu and memory of `old`.
fn sized(new: Option<&Value>, old: Option<&Value>) -> Value {
    let mut new = new.cloned().unwrap_or_default();
    for kind in ["requests", "limits"] {
        let path = format!("/resources/{kind}");
        let was = |name: &str| old?.pointer(&path)?.get(name).cloned();
        let had = old.and_then(|old| old.pointer(&path)).is_some_and(Value::is_object);
        if had
            && new.pointer(&path).is_none()
            && let Some(new) = new.as_object_mut()
            && let Some(resources) = made(new, "resources")
        {
            made(resources, kind);
        }
        if let Some(Value::Object(amounts)) = new.pointer_mut(&path) {
            for name in ["cpu", "memory"] {
                restore(amounts, name, was(name));
            }
        }
    }
    new
}

//! What the files of kinds share: printing, field paths, metadata, pod specs. Not a kind itself.

pub(crate) mod config;
pub(crate) mod field;
pub(crate) mod labels;
pub(crate) mod pod_spec;
pub(crate) mod print;
pub(crate) mod rbac;
pub(crate) mod workload;

use k8s::Object;
use serde_json::{Map, Value};

/// `prepare_create` of a kind with a status subresource: a client may not set it.
pub(crate) fn drop_status(object: &mut Object) {
    object.0.remove("status");
}

/// `prepare_update` of a kind with a status subresource: it stays as it was.
pub(crate) fn keep_status(new: &mut Object, old: &Object) {
    match old.0.get("status") {
        Some(status) => new.0.insert("status".into(), status.clone()),
        None => new.0.remove("status"),
    };
}

/// Sets `field` where it is absent or null.
pub(crate) fn set_default(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    match map.get_mut(field) {
        None => {
            map.insert(field.into(), value.into());
        }
        Some(slot) if slot.is_null() => *slot = value.into(),
        Some(_) => (),
    }
}

/// Sets `field` where it is absent, null or empty text.
pub(crate) fn set_text(map: &mut Map<String, Value>, field: &str, value: &str) {
    let empty = |slot: &Value| slot.is_null() || slot.as_str() == Some("");
    if map.get(field).is_none_or(empty) {
        map.insert(field.into(), value.into());
    }
}

/// The object under `field`, made if absent; `None` if something else is there.
pub(crate) fn made<'a>(
    map: &'a mut Map<String, Value>,
    field: &str,
) -> Option<&'a mut Map<String, Value>> {
    set_default(map, field, Map::new());
    map.get_mut(field)?.as_object_mut()
}

/// The object under `field` if there is one.
pub(crate) fn child<'a>(
    map: &'a mut Map<String, Value>,
    field: &str,
) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(field)?.as_object_mut()
}

/// The objects in the list under `field`.
pub(crate) fn children<'a>(
    map: &'a mut Map<String, Value>,
    field: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = map.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// What an admission policy matches where it says nothing: everything.
pub(crate) fn default_match(matches: &mut Map<String, Value>) {
    set_text(matches, "matchPolicy", "Equivalent");
    made(matches, "namespaceSelector");
    made(matches, "objectSelector");
    for rules in ["resourceRules", "excludeResourceRules"] {
        children(matches, rules).for_each(|rule| set_text(rule, "scope", "*"));
    }
}

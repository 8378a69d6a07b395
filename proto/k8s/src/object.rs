//! An object as a JSON tree, with the few fields every object has.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// `metadata.resourceVersion`: the cluster-wide revision of an object's last write. Compared only
/// with `<`; grows by at least one per committed change and never goes back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Revision {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Revision)
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub controller: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub block_owner_deletion: bool,
}

/// A Kubernetes object (or a list, or an options body) as the JSON that travels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object(pub Map<String, Value>);

impl Object {
    /// The object in `value`; `None` if it is not a JSON object.
    pub fn from_value(value: Value) -> Option<Object> {
        match value {
            Value::Object(map) => Some(Object(map)),
            _ => None,
        }
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub fn api_version(&self) -> &str {
        self.0.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.0.get("kind").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.meta_str("name")
    }

    /// Empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        self.meta_str("namespace")
    }

    pub fn uid(&self) -> &str {
        self.meta_str("uid")
    }

    /// `None` if absent or not a number this server issued.
    pub fn revision(&self) -> Option<Revision> {
        self.meta_str("resourceVersion").parse().ok()
    }

    pub fn generation(&self) -> i64 {
        self.metadata().and_then(|meta| meta.get("generation")?.as_i64()).unwrap_or_default()
    }

    /// RFC 3339 text; `Some` means the object is being deleted.
    pub fn deletion_timestamp(&self) -> Option<&str> {
        self.metadata()?.get("deletionTimestamp")?.as_str()
    }

    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        let list = self.metadata().and_then(|meta| meta.get("finalizers")?.as_array());
        list.into_iter().flatten().filter_map(Value::as_str)
    }

    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.meta_map("labels")
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata()?.get("labels")?.get(key)?.as_str()
    }

    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        self.meta_map("annotations")
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata()?.get("annotations")?.get(key)?.as_str()
    }

    pub fn owner_references(&self) -> Vec<OwnerReference> {
        let list = self.metadata().and_then(|meta| meta.get("ownerReferences")?.as_array());
        let entries = list.into_iter().flatten();
        entries.filter_map(|entry| OwnerReference::deserialize(entry).ok()).collect()
    }

    /// The owner that controls this object, if there is one.
    pub fn controller(&self) -> Option<OwnerReference> {
        self.owner_references().into_iter().find(|owner| owner.controller)
    }

    pub fn metadata(&self) -> Option<&Map<String, Value>> {
        self.0.get("metadata")?.as_object()
    }

    /// `metadata`, made if absent or not an object.
    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        self.map_mut("metadata")
    }

    /// The object under a top-level field, made if absent or not an object.
    pub fn map_mut(&mut self, field: &str) -> &mut Map<String, Value> {
        let slot = self.0.entry(field).or_insert_with(|| Value::Object(Map::new()));
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        match slot {
            Value::Object(map) => map,
            _ => unreachable!("made an object above"),
        }
    }

    /// The value at a JSON pointer (RFC 6901).
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        let (first, rest) = match pointer.strip_prefix('/')?.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (&pointer[1..], None),
        };
        let value = self.0.get(&first.replace("~1", "/").replace("~0", "~"))?;
        rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
    }

    /// The text at a JSON pointer, empty if absent or not text.
    pub fn str_at(&self, pointer: &str) -> &str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The number at a JSON pointer.
    pub fn int_at(&self, pointer: &str) -> Option<i64> {
        self.at(pointer)?.as_i64()
    }

    fn meta_str(&self, field: &str) -> &str {
        self.metadata().and_then(|meta| meta.get(field)?.as_str()).unwrap_or_default()
    }

    fn meta_map(&self, field: &str) -> impl Iterator<Item = (&str, &str)> {
        let map = self.metadata().and_then(|meta| meta.get(field)?.as_object());
        map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Object {
        let owner = |name: &str, controller: bool| {
            json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "u",
                "controller": controller,
            })
        };
        Object::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "namespace": "n", "resourceVersion": "7", "labels": {"a/b": "c"},
                "finalizers": ["x"], "ownerReferences": [owner("r", false), owner("s", true)],
            },
            "spec": {"nodeName": "m", "containers": [{"name": "c", "a/b": 5}]},
        }))
        .expect("an object")
    }

    #[test]
    fn what_every_object_has_is_at_hand() {
        let pod = pod();
        assert_eq!((pod.kind(), pod.name(), pod.namespace()), ("Pod", "a", "n"));
        assert_eq!(pod.revision(), Some(Revision(7)));
        assert_eq!(pod.label("a/b"), Some("c"));
        assert_eq!(pod.finalizers().collect::<Vec<_>>(), ["x"]);
        assert_eq!(pod.controller().map(|owner| owner.name), Some("s".to_string()));
        assert_eq!(pod.deletion_timestamp(), None);
    }

    #[test]
    fn pointers_reach_every_value() {
        let pod = pod();
        assert_eq!(pod.str_at("/spec/nodeName"), "m");
        assert_eq!(pod.int_at("/spec/containers/0/a~1b"), Some(5));
        assert_eq!(pod.str_at("/metadata/labels/a~1b"), "c");
        for absent in ["", "spec", "/x", "/spec/containers/1", "/kind/x"] {
            assert_eq!(pod.at(absent), None, "{absent}");
        }
    }

    #[test]
    fn wrong_shapes_are_read_as_absent() {
        let wrong = json!({"metadata": {"labels": 5, "name": 1, "ownerReferences": [{}]}});
        let mut wrong = Object::from_value(wrong).expect("an object");
        assert_eq!((wrong.name(), wrong.labels().count()), ("", 0));
        assert_eq!(wrong.owner_references(), []);
        wrong.0.insert("spec".into(), 1.into());
        wrong.map_mut("spec").insert("a".into(), 2.into());
        assert_eq!(wrong.int_at("/spec/a"), Some(2));
    }
}

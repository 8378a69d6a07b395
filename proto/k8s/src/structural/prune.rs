//! Drops what the schema does not know.

use super::{Additional, Node, Path, Step};
use serde_json::{Map, Value};

/// What every resource has, specified or not.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops unknown fields and returns where they were: `spec.containers[0].imagee`, sorted.
/// `root`: the value is a resource, so that `apiVersion`, `kind` and `metadata` stay untouched.
pub fn prune(value: &mut Value, node: &Node, root: bool) -> Vec<String> {
    let mut unknown = Vec::new();
    let path = Path::root("");
    known(value, Some(node), root || node.embedded_resource, &path, &mut unknown);
    unknown.sort();
    unknown
}

/// A value that is pruned. `resource` counts for this level alone.
fn known(
    value: &mut Value,
    node: Option<&Node>,
    resource: bool,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) {
    if let Some(node) = node.filter(|node| node.preserve_unknown_fields) {
        return kept(value, Some(node), resource, path, unknown);
    }
    match value {
        Value::Object(object) => {
            retain(object, |name, value| {
                if resource && META.contains(&name) {
                    return true;
                }
                let below = path.below(Step::Field(name));
                let additional = node.map(|node| &node.additional);
                match (node.and_then(|node| node.properties.get(name)), additional) {
                    (Some(field), _) => {
                        known(value, Some(field), field.embedded_resource, &below, unknown);
                    }
                    (None, Some(Additional::Each(each))) => {
                        known(value, Some(each), each.embedded_resource, &below, unknown);
                    }
                    (None, Some(Additional::Allowed | Additional::Forbidden)) => {
                        known(value, None, false, &below, unknown);
                    }
                    _ => {
                        unknown.push(below.to_string());
                        return false;
                    }
                }
                true
            });
        }
        Value::Array(list) => {
            let items = node.and_then(|node| node.items.as_deref());
            for (index, value) in list.iter_mut().enumerate() {
                let resource = items.is_some_and(|items| items.embedded_resource);
                known(value, items, resource, &path.below(Step::Index(index)), unknown);
            }
        }
        _ => {}
    }
}

/// A value of which nothing unknown is dropped; what is specified below it is pruned again.
fn kept(
    value: &mut Value,
    node: Option<&Node>,
    resource: bool,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) {
    let Some(node) = node else { return };
    match value {
        Value::Object(object) => {
            for (name, value) in object.iter_mut() {
                if resource && META.contains(&name.as_str()) {
                    continue;
                }
                let below = path.below(Step::Field(name));
                match (node.properties.get(name.as_str()), &node.additional) {
                    (Some(field), _) => {
                        known(value, Some(field), field.embedded_resource, &below, unknown);
                    }
                    (None, Additional::Each(each)) => {
                        known(value, Some(each), each.embedded_resource, &below, unknown);
                    }
                    (None, Additional::Allowed | Additional::Forbidden) => {
                        known(value, None, false, &below, unknown);
                    }
                    (None, Additional::Unsaid) => {}
                }
            }
        }
        Value::Array(list) => {
            let items = node.items.as_deref();
            for (index, value) in list.iter_mut().enumerate() {
                let resource = items.is_some_and(|items| items.embedded_resource);
                kept(value, items, resource, &path.below(Step::Index(index)), unknown);
            }
        }
        _ => {}
    }
}

fn retain(object: &mut Map<String, Value>, mut keep: impl FnMut(&str, &mut Value) -> bool) {
    object.retain(|name, value| keep(name, value));
}

/// Drops fields that are null, may not be and have no default: as in Go, they count as absent.
pub fn prune_nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(object) => object.retain(|name, value| {
            let field = node.and_then(|node| node.field(name));
            let void = field.is_some_and(|field| !field.nullable && field.default.is_none());
            if value.is_null() && void {
                return false;
            }
            prune_nulls(value, field);
            true
        }),
        Value::Array(list) => {
            let items = node.and_then(|node| node.items.as_deref());
            list.iter_mut().for_each(|value| prune_nulls(value, items));
        }
        _ => {}
    }
}

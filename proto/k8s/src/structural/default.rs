//! Fills in what the schema has defaults for.

use super::{Additional, Node};
use serde_json::Value;

/// Sets every absent field that has a default, wherever its parent is there, and the defaults of
/// nulls that may not be null. Idempotent.
pub fn default(value: &mut Value, node: &Node) {
    match value {
        Value::Object(object) => {
            for (name, field) in &node.properties {
                let Some(filler) = &field.default else { continue };
                let unset = object.get(&**name).is_none_or(|value| is_void(value, field));
                if unset {
                    object.insert(name.to_string(), filler.clone());
                }
            }
            for (name, value) in object.iter_mut() {
                match (node.properties.get(name.as_str()), &node.additional) {
                    (Some(field), _) => default(value, field),
                    (None, Additional::Each(each)) => {
                        fill(value, each);
                        default(value, each);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &node.items else { return };
            for value in list {
                fill(value, items);
                default(value, items);
            }
        }
        _ => {}
    }
}

fn fill(value: &mut Value, node: &Node) {
    if is_void(value, node)
        && let Some(filler) = &node.default
    {
        *value = filler.clone();
    }
}

/// A null that means absent.
fn is_void(value: &Value, node: &Node) -> bool {
    value.is_null() && !node.nullable
}

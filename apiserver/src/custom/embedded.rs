//! `x-kubernetes-embedded-resource`: objects within objects have types and metadata like any other.

use super::decode::metadata;
use crate::{kinds::KindDef, pipeline::meta};
use k8s::{
    FieldError, Object, names,
    structural::{Additional, Node},
};
use serde_json::Value;

/// Gives the metadata of embedded objects its types; the root's is another's.
pub(super) fn coerce(
    value: &mut Value,
    node: &Node,
    strict: &mut Vec<String>,
) -> Result<(), String> {
    // Few schemas embed anything: most values need not be walked.
    if !node.any(&|node| node.embedded_resource) {
        return Ok(());
    }
    coerce_below(value, node, "", strict)
}

fn coerce_below(
    value: &mut Value,
    node: &Node,
    path: &str,
    strict: &mut Vec<String>,
) -> Result<(), String> {
    if node.embedded_resource
        && let Value::Object(object) = value
        && let Some(was) = object.remove("metadata")
    {
        let path = below(path, "metadata");
        object.insert("metadata".into(), Value::Object(metadata(Some(was), &path, strict)?));
    }
    match value {
        Value::Object(object) => {
            for (name, value) in object.iter_mut() {
                if let Some(field) = node.field(name) {
                    coerce_below(value, field, &below(path, name), strict)?;
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &node.items else { return Ok(()) };
            for (index, value) in list.iter_mut().enumerate() {
                coerce_below(value, items, &format!("{path}[{index}]"), strict)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// Everything wrong with type and metadata of embedded objects.
pub(super) fn errors(value: &Value, node: &Node) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if node.any(&|node| node.embedded_resource) {
        errors_below(value, node, "", &mut errors);
    }
    errors
}

fn errors_below(value: &Value, node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(object) => {
            if node.embedded_resource {
                resource_errors(&Object(object.clone()), path, errors);
            }
            for (name, value) in object {
                let inner = match (node.properties.contains_key(name.as_str()), &node.additional) {
                    (false, Additional::Each(_)) => format!("{path}[{name}]"),
                    _ => below(path, name),
                };
                if let Some(field) = node.field(name) {
                    errors_below(value, field, &inner, errors);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &node.items else { return };
            for (index, value) in list.iter().enumerate() {
                errors_below(value, items, &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

fn resource_errors(object: &Object, path: &str, errors: &mut Vec<FieldError>) {
    for field in ["apiVersion", "kind"] {
        let at = below(path, field);
        match object.0.get(field) {
            None => errors.push(FieldError::required(at, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(at, "".into(), "must not be empty"));
            }
            Some(Value::String(text)) if field == "apiVersion" => {
                if text.matches('/').count() > 1 {
                    let why = format!("unexpected GroupVersion string: {text}");
                    errors.push(FieldError::invalid(at, text.as_str().into(), why));
                }
            }
            Some(Value::String(text)) => {
                let wrong = names::is_dns1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    let why = format!(
                        "may have mixed case, but should otherwise match: {}",
                        wrong.join(",")
                    );
                    errors.push(FieldError::invalid(at, text.as_str().into(), why));
                }
            }
            Some(other) => errors.push(FieldError::invalid(at, other.clone(), "must be a string")),
        }
    }
    let mut object = object.clone();
    if object.metadata().is_none() {
        return;
    }
    // A template need not have a name.
    if object.name().is_empty() {
        object.metadata_mut().insert("name".into(), "fakename".into());
    }
    let namespaced = !object.namespace().is_empty();
    let any = KindDef { namespaced, name: crate::kinds::NameRule::PathSegment, ..KindDef::BASE };
    let found = meta::validate(&any, &object);
    errors.extend(
        found.into_iter().map(|error| FieldError { path: below(path, &error.path), ..error }),
    );
}

//! `x-kubernetes-list-type`: entries of sets and keys of maps are unique, and a key finds the entry
//! that was there before.

use super::{Additional, Node, Path, Step};
use crate::FieldError;
use crate::schema::ListType;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Everything that stands twice where it may not.
pub fn unique_errors(value: &Value, node: &Node) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(value, node, &Path::root(""), &mut errors);
    errors
}

fn walk(value: &Value, node: &Node, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                match (node.properties.get(name.as_str()), &node.additional) {
                    (Some(field), _) => walk(value, field, &path.below(Step::Field(name)), errors),
                    (None, Additional::Each(each)) => {
                        walk(value, each, &path.below(Step::Key(name)), errors);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            match node.list_type {
                Some(ListType::Set) => {
                    for index in repeated(list.iter().map(Value::to_string)) {
                        let at = path.below(Step::Index(index)).to_string();
                        errors.push(FieldError::duplicate(at, list[index].clone()));
                    }
                }
                Some(ListType::Map) => keys(list, node, path, errors),
                _ => {}
            }
            let Some(items) = &node.items else { return };
            for (index, value) in list.iter().enumerate() {
                walk(value, items, &path.below(Step::Index(index)), errors);
            }
        }
        _ => {}
    }
}

fn keys(list: &[Value], node: &Node, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(index) = list.iter().position(|entry| !entry.is_object() && !entry.is_null()) {
        let at = path.below(Step::Index(index)).to_string();
        let why = "must be an object for an array of list-type map";
        return errors.push(FieldError::invalid(at, list[index].clone(), why));
    }
    let key = |entry: &Value| -> Map<String, Value> {
        let fields = node.list_map_keys.iter();
        fields.filter_map(|name| Some((name.to_string(), entry.get(&**name)?.clone()))).collect()
    };
    for index in repeated(list.iter().map(|entry| json!(key(entry)).to_string())) {
        let at = path.below(Step::Index(index)).to_string();
        errors.push(FieldError::duplicate(at, Value::Object(key(&list[index]))));
    }
}

/// The entries of a list before an update, found by what stands in their place now. Only lists of
/// type map have any: in others nothing says which entry became which.
pub struct Counterparts<'a> {
    by_key: HashMap<String, &'a Value>,
    keys: &'a [Box<str>],
}

impl<'a> Counterparts<'a> {
    /// Of the old list, whose schema is `node`. Linear in its length.
    pub fn of(old: Option<&'a Value>, node: &'a Node) -> Counterparts<'a> {
        let keys = &node.list_map_keys[..];
        let mut by_key = HashMap::new();
        let known = node.list_type == Some(ListType::Map) && !keys.is_empty();
        let old = old.filter(|_| known).and_then(Value::as_array);
        for entry in old.into_iter().flatten() {
            if let Some(key) = composite(entry, keys) {
                by_key.entry(key).or_insert(entry);
            }
        }
        Counterparts { by_key, keys }
    }

    /// The entry `new` is a new version of.
    pub fn get(&self, new: &Value) -> Option<&'a Value> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&composite(new, self.keys)?).copied()
    }
}

/// `None`: a key is missing, or is no scalar.
fn composite(entry: &Value, keys: &[Box<str>]) -> Option<String> {
    let mut composite = String::new();
    for key in keys {
        let value = entry.get(&**key)?;
        if matches!(value, Value::Null | Value::Array(_) | Value::Object(_)) {
            return None;
        }
        composite.push_str(&value.to_string());
        composite.push('\0');
    }
    Some(composite)
}

/// Places of the second of each that stands more than once.
fn repeated(entries: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut places = Vec::new();
    for (index, entry) in entries.enumerate() {
        let count = seen.entry(entry).or_default();
        *count += 1;
        if *count == 2 {
            places.push(index);
        }
    }
    places
}

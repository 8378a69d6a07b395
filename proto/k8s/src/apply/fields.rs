//! The fields an applied configuration names, and whether it fits its type at all.

use super::place::{
    Form, ListKind, Place, Scalar, Walk, entries_of, fields_of, is_hollow, step_of, walk_of,
};
use super::set::{Node, Set};
use super::step;
use crate::text::go_text;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Every leaf and entry the object names. An explicit `null` is named too.
pub fn to_field_set<'s, P: Place<'s>>(place: P, object: &Map<String, Value>) -> Set {
    fields(place, object).into()
}

fn walk<'s, P: Place<'s>>(place: P, value: &Value) -> Node {
    match walk_of(place, value) {
        Walk::Leaf => Node::leaf(),
        Walk::Fields => fields(place, fields_of(value)),
        Walk::Entries(element, kind) => entries(element, kind, entries_of(value)),
    }
}

fn fields<'s, P: Place<'s>>(place: P, object: &Map<String, Value>) -> Node {
    let mut node = Node::default();
    for (name, value) in object {
        let Some(inner) = place.field(name) else { continue };
        let mut child = walk(inner, value);
        let hollow = is_hollow(value) && !value.is_array();
        child.member |= hollow || !place.names(name);
        node.put(step::field(name), child);
    }
    node
}

fn entries<'s, P: Place<'s>>(element: P, kind: ListKind<'s>, list: &[Value]) -> Node {
    let mut by_step: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for entry in list {
        if let Ok(step) = step_of(element, kind, entry) {
            by_step.entry(step).or_default().push(entry);
        }
    }
    let mut node = Node::default();
    for (step, values) in by_step {
        let mut child = match values[..] {
            [value] => walk(element, value),
            // Duplicates are owned as a whole.
            _ => Node::default(),
        };
        child.member = true;
        node.put(step, child);
    }
    node
}

/// What is wrong with an applied configuration, in upstream's words, or nothing.
pub(super) fn validate<'s, P: Place<'s>>(place: P, object: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    check(place, object, &mut String::new(), &mut errors);
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(format!("errors:\n  {}", errors.join("\n  "))),
    }
}

fn check<'s, P: Place<'s>>(place: P, value: &Value, path: &mut String, errors: &mut Vec<String>) {
    match (place.form(), value) {
        (_, Value::Null) => {}
        (Form::Scalar(scalar), value) => {
            if let Some(why) = scalar_error(scalar, value) {
                errors.push(located(path, &why));
            }
        }
        (Form::Map { .. } | Form::Deduced | Form::Whole, Value::Object(map)) => {
            check_fields(place, map, path, errors);
        }
        (Form::List { element, kind }, Value::Array(list)) => {
            check_entries(element, kind, list, path, errors);
        }
        (Form::Map { .. }, other) => {
            errors.push(located(path, &format!("expected map, got {}", shown(other))));
        }
        (Form::List { .. }, other) => {
            errors.push(located(path, &format!("expected list, got {}", shown(other))));
        }
        (Form::Deduced | Form::Whole, _) => {}
    }
}

fn check_fields<'s, P: Place<'s>>(
    place: P,
    map: &Map<String, Value>,
    path: &mut String,
    errors: &mut Vec<String>,
) {
    for (name, value) in map {
        let length = path.len();
        path.push('.');
        path.push_str(name);
        match place.field(name) {
            Some(inner) => check(inner, value, path, errors),
            None => errors.push(located(path, "field not declared in schema")),
        }
        path.truncate(length);
    }
}

fn check_entries<'s, P: Place<'s>>(
    element: P,
    kind: ListKind<'s>,
    list: &[Value],
    path: &mut String,
    errors: &mut Vec<String>,
) {
    let mut seen = std::collections::HashSet::new();
    for (position, entry) in list.iter().enumerate() {
        let step = match kind {
            ListKind::Atomic => format!("i:{position}"),
            _ => match step_of(element, kind, entry) {
                Ok(step) => step,
                Err(why) => {
                    errors.push(located(path, &format!("element {position}: {why}")));
                    return;
                }
            },
        };
        let shown = step::display(&step);
        if !seen.insert(step) {
            errors.push(located(path, &format!("duplicate entries for key {shown}")));
        }
        let length = path.len();
        path.push_str(&shown);
        check(element, entry, path, errors);
        path.truncate(length);
    }
}

fn located(path: &str, why: &str) -> String {
    if path.is_empty() { why.to_string() } else { format!("{path}: {why}") }
}

fn scalar_error(scalar: Scalar, value: &Value) -> Option<String> {
    let go_type = match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Array(_) => "[]interface {}",
        _ => "map[string]interface {}",
    };
    match (scalar, value) {
        (Scalar::Text, Value::String(_))
        | (Scalar::Number, Value::Number(_))
        | (Scalar::Bool, Value::Bool(_))
        | (Scalar::Any, Value::String(_) | Value::Number(_) | Value::Bool(_)) => None,
        (Scalar::Number, _) => Some(format!("expected numeric (int or float), got {go_type}")),
        (Scalar::Text, _) => {
            let text = go_text(value);
            Some(format!("expected string, got &value.valueUnstructured{{Value:{text}}}"))
        }
        (Scalar::Bool, _) => Some(format!("expected boolean, got {}", shown(value))),
        (Scalar::Any, _) => Some(format!("expected any scalar, got {}", shown(value))),
    }
}

/// Go's `%v` of the wrapper upstream keeps values in.
fn shown(value: &Value) -> String {
    format!("&{{{}}}", go_text(value))
}

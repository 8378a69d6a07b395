//! A value without the fields of a set, and sets that are brought up to a schema which changed.

use super::place::{Form, ListKind, Place, Walk, step_of, walk_of};
use super::set::Set;
use super::step;
use serde_json::{Map, Value};

/// `value` without the members of `set`. What becomes empty by it becomes `null`.
pub(super) fn remove<'s, P: Place<'s>>(place: P, value: Value, set: &Set) -> Value {
    without(place, value, set.root())
}

fn without<'s, P: Place<'s>>(place: P, value: Value, set: &Map<String, Value>) -> Value {
    match (walk_of(place, &value), value) {
        (Walk::Fields, Value::Object(map)) => {
            let mut kept = Map::new();
            for (name, value) in map {
                let inner = place.field(&name);
                match (set.get(&step::field(&name)).and_then(Value::as_object), inner) {
                    (None, _) => {
                        kept.insert(name, value);
                    }
                    (Some(below), _) if is_member(below) => {}
                    (Some(below), Some(inner)) => {
                        kept.insert(name, without(inner, value, below));
                    }
                    (Some(_), None) => {}
                }
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        (Walk::Entries(element, kind), Value::Array(list)) => {
            let mut kept = Vec::with_capacity(list.len());
            for entry in list {
                let step = step_of(element, kind, &entry).ok();
                match step.and_then(|step| set.get(&step)).and_then(Value::as_object) {
                    None => kept.push(entry),
                    Some(below) if is_member(below) => {}
                    Some(below) => kept.push(without(element, entry, below)),
                }
            }
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        // Something owned as a whole, of which a part is to go: none of it can stay.
        (Walk::Leaf, Value::Object(_) | Value::Array(_)) => Value::Null,
        (_, scalar) => scalar,
    }
}

fn is_member(node: &Map<String, Value>) -> bool {
    node.is_empty() || node.contains_key(step::SELF)
}

/// What was owned field by field and is now owned as a whole, is owned as a whole. The other way
/// round there is nothing to do: upstream too goes on as if it had always been so.
pub(super) fn reconcile<'s, P: Place<'s>>(place: P, set: &mut Set) {
    reconcile_below(place, set.root_mut());
}

fn reconcile_below<'s, P: Place<'s>>(place: P, node: &mut Map<String, Value>) {
    for (step, child) in node.iter_mut() {
        let inner = match (step.strip_prefix("f:"), place.form()) {
            (Some(name), _) => place.field(name),
            (None, Form::List { element, .. }) => Some(element),
            _ => None,
        };
        let (Some(inner), Some(child)) = (inner, child.as_object_mut()) else { continue };
        if child.is_empty() {
            continue;
        }
        match inner.form() {
            Form::Map { atomic: true }
            | Form::List { kind: ListKind::Atomic, .. }
            | Form::Whole => child.clear(),
            Form::Scalar(_) | Form::Deduced => {}
            _ => reconcile_below(inner, child),
        }
    }
}

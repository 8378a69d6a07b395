//! Strategic merge patch: a merge patch that knows from the schema which lists are keyed
//! (<https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md>).

use super::PatchError;
use crate::schema::{Element, Field, Schema, Shape, Type, TypeId};
use crate::text::{go_quote, go_text};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList";
const ORDER_PREFIX: &str = "$setElementOrder";

/// `doc`, an object of type `ty`, changed by `patch`.
pub fn strategic(
    schema: &Schema,
    ty: TypeId,
    doc: Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let (Value::Object(doc), Value::Object(patch)) = (doc, patch) else {
        let got = crate::decode::go_kind(patch);
        return Err(PatchError::BadRequest(format!(
            "json: cannot unmarshal {got} into Go value of type map[string]interface {{}}"
        )));
    };
    let merger = Merger { schema };
    merger.merge_map(doc, patch.clone(), Place::Struct(schema.ty(ty))).map(Value::Object)
}

/// What the schema knows of the place a map stands in.
#[derive(Clone, Copy)]
enum Place<'s> {
    Struct(&'s Type),
    /// The entries of a map field.
    Entries(&'s Field),
    /// Free-form JSON.
    Free,
}

/// How one member of a map is merged.
struct Rule<'s> {
    place: Place<'s>,
    merge: bool,
    replace: bool,
    merge_key: Option<&'s str>,
}

struct Merger<'s> {
    schema: &'s Schema,
}

impl<'s> Merger<'s> {
    fn rule(&self, place: Place<'s>, name: &str) -> Result<Rule<'s>, PatchError> {
        let plain = |place| Rule { place, merge: false, replace: false, merge_key: None };
        match place {
            Place::Free => Ok(plain(Place::Free)),
            Place::Entries(field) => Ok(plain(self.inside(field))),
            Place::Struct(ty) => {
                let Some(field) = ty.field(name) else {
                    return Err(PatchError::Unclassified(format!(
                        "unable to find api field in struct {} for the json field {}",
                        ty.kind(),
                        go_quote(name)
                    )));
                };
                let place = match field.shape {
                    Shape::Map => Place::Entries(field),
                    _ => self.inside(field),
                };
                Ok(Rule {
                    place,
                    merge: field.patch.merge,
                    replace: field.patch.replace,
                    merge_key: field.patch_merge_key.as_deref(),
                })
            }
        }
    }

    fn inside(&self, field: &'s Field) -> Place<'s> {
        match field.element {
            Element::Message(id) => Place::Struct(self.schema.ty(id)),
            _ => Place::Free,
        }
    }

    fn merge_map(
        &self,
        mut doc: Map<String, Value>,
        mut patch: Map<String, Value>,
        place: Place<'s>,
    ) -> Result<Map<String, Value>, PatchError> {
        if let Some(directive) = patch.remove(DIRECTIVE) {
            return match directive.as_str() {
                Some("replace") => Ok(patch),
                Some("delete") => Ok(Map::new()),
                _ => Err(unknown_directive(directive, patch)),
            };
        }
        retain_keys(&mut doc, &mut patch)?;
        self.merge_ordered_lists(&mut doc, &mut patch, place)?;
        for (key, change) in patch {
            if key.starts_with(DELETE_PREFIX) {
                delete_scalars(&mut doc, &key, change)?;
                continue;
            }
            if change.is_null() {
                doc.remove(&key);
                continue;
            }
            let merged = match (doc.remove(&key), change) {
                (Some(Value::Object(old)), Value::Object(change)) => {
                    let rule = self.rule(place, &key)?;
                    if rule.replace {
                        Some(Value::Object(change))
                    } else {
                        Some(Value::Object(self.merge_map(old, change, rule.place)?))
                    }
                }
                (Some(Value::Array(old)), Value::Array(change)) => {
                    let rule = self.rule(place, &key)?;
                    Some(Value::Array(self.merge_list(old, change, &rule)?))
                }
                (_, change) => without_directives(change),
            };
            if let Some(merged) = merged {
                doc.insert(key, merged);
            }
        }
        Ok(doc)
    }

    /// Lists whose order the patch gives with `$setElementOrder/name`.
    fn merge_ordered_lists(
        &self,
        doc: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
        place: Place<'s>,
    ) -> Result<(), PatchError> {
        let orders: Vec<String> =
            patch.keys().filter(|key| key.starts_with(ORDER_PREFIX)).cloned().collect();
        for directive in orders {
            let order = list(patch.remove(&directive).unwrap_or_default())?;
            let name = directive
                .split_once('/')
                .filter(|(prefix, _)| *prefix == ORDER_PREFIX)
                .map(|(_, name)| name)
                .ok_or_else(bad_order)?;
            let rule = self.rule(place, name)?;
            let old = doc.get(name).cloned().map(list).transpose()?;
            let change = patch.get(name).cloned().map(list).transpose()?;
            patch.remove(name);
            check_order(change.as_deref().unwrap_or_default(), &order, rule.merge_key)?;
            let mut server_order = old.clone().unwrap_or_default();
            let merged = match (old, change) {
                (Some(old), Some(change)) => {
                    if let Some(key) = rule.merge_key {
                        server_order = order_after(&old, &change, key);
                    }
                    self.merge_list(old, change, &rule)?
                }
                (Some(old), None) => old,
                (None, Some(change)) => match without_directives(Value::Array(change)) {
                    Some(Value::Array(change)) => change,
                    _ => continue,
                },
                (None, None) => continue,
            };
            let sorted = interleave(merged, &order, &server_order, rule.merge_key)?;
            doc.insert(name.to_string(), Value::Array(sorted));
        }
        Ok(())
    }

    fn merge_list(
        &self,
        old: Vec<Value>,
        change: Vec<Value>,
        rule: &Rule<'s>,
    ) -> Result<Vec<Value>, PatchError> {
        if !rule.merge {
            return Ok(change);
        }
        if old.is_empty() && change.is_empty() {
            return Ok(old);
        }
        let server_order = old.clone();
        let order = change.clone();
        if !all_objects(&old, &change)? {
            let mut merged = old;
            for scalar in change {
                if !merged.contains(&scalar) {
                    merged.push(scalar);
                }
            }
            return interleave(merged, &order, &server_order, None);
        }
        let Some(key) = rule.merge_key else {
            return Err(PatchError::Unclassified(
                "cannot merge lists without merge key for struct".into(),
            ));
        };
        let (mut merged, change) = apply_list_directives(old, change, key)?;
        for entry in change {
            let Value::Object(entry) = entry else { continue };
            let id = merge_key_of(&entry, key)?.clone();
            match position_of(&merged, key, &id) {
                Some(position) => {
                    let Value::Object(old) = std::mem::take(&mut merged[position]) else {
                        continue;
                    };
                    merged[position] = Value::Object(self.merge_map(old, entry, rule.place)?);
                }
                None => merged.extend(without_directives(Value::Object(entry))),
            }
        }
        interleave(merged, &order, &server_order, Some(key))
    }
}

/// `$patch: delete` and `$patch: replace` of list entries: what is left of the list, and the entries
/// that are to be merged into it.
fn apply_list_directives(
    mut old: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::new();
    let mut replace = false;
    for mut entry in change {
        let Some(directive) = entry.as_object_mut().and_then(|entry| entry.remove(DIRECTIVE))
        else {
            plain.push(entry);
            continue;
        };
        let Value::Object(entry) = entry else { continue };
        match directive.as_str() {
            Some("delete") => {
                let id = merge_key_of(&entry, key)?;
                old.retain(|candidate| candidate.get(key) != Some(id));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                let text = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Unclassified(text.into()));
            }
            _ => return Err(unknown_directive(directive, entry)),
        }
    }
    if replace { Ok((plain, Vec::new())) } else { Ok((old, plain)) }
}

/// `$retainKeys`: only the named members stay, and the patch may not set others.
fn retain_keys(
    doc: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad = || PatchError::BadRequest("invalid patch format of retainKeys".into());
    let Value::Array(retained) = retained else {
        return Err(bad());
    };
    let is_retained = |key: &str| retained.iter().any(|name| name.as_str() == Some(key));
    for (key, change) in &*patch {
        let directive = key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX);
        if !change.is_null() && !directive && !is_retained(key) {
            return Err(bad());
        }
    }
    doc.retain(|key, _| is_retained(key));
    Ok(())
}

/// `$deleteFromPrimitiveList/name: [..]`.
fn delete_scalars(
    doc: &mut Map<String, Value>,
    directive: &str,
    change: Value,
) -> Result<(), PatchError> {
    let name = match directive.split_once('/') {
        Some((DELETE_PREFIX, name)) => name,
        _ => {
            let text = "invalid patch format of primitive list";
            return Err(PatchError::BadRequest(text.into()));
        }
    };
    if let (Some(Value::Array(old)), Value::Array(gone)) = (doc.get_mut(name), change) {
        old.retain(|scalar| !gone.contains(scalar));
    }
    Ok(())
}

/// A value that is new to the document: without `null` members and without what carries a directive.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) => {
            if map.contains_key(DIRECTIVE) {
                return None;
            }
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            let clean = kept.filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(clean.collect()))
        }
        Value::Array(list) => {
            Some(Value::Array(list.into_iter().filter_map(without_directives).collect()))
        }
        scalar => Some(scalar),
    }
}

/// The merged list in the patch's order, with what only the server has put where it stood.
fn interleave(
    merged: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    let place = |list: &[Value], value: &Value| -> Option<usize> {
        list.iter().position(|candidate| match key {
            Some(key) => candidate.get(key).is_some() && candidate.get(key) == value.get(key),
            None => candidate == value,
        })
    };
    if let Some(key) = key {
        for entry in &merged {
            match entry {
                Value::Object(entry) => merge_key_of(entry, key).map(|_| ())?,
                _ => return Err(bad_entry(entry)),
            }
        }
    }
    let (mut named, mut server_only): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|value| place(order, value).is_some());
    named.sort_by_key(|value| place(order, value));
    server_only.sort_by_key(|value| place(server_order, value).unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + server_only.len());
    let mut named = named.into_iter().peekable();
    for value in server_only {
        let here = place(server_order, &value);
        while let Some(next) = named.peek() {
            let there = place(server_order, next);
            // Before the first named entry that stood behind it on the server.
            if here.is_some() && there.is_some() && here < there {
                break;
            }
            result.extend(named.next());
        }
        result.push(value);
    }
    result.extend(named);
    Ok(result)
}

/// The server's order as the merge leaves it: upstream deletes and adds in place, so that what is new
/// takes the places of what is gone, and is no longer free to stand wherever the patch has it.
fn order_after(old: &[Value], change: &[Value], key: &str) -> Vec<Value> {
    let mut order = old.to_vec();
    let mut length = order.len();
    for entry in change.iter().filter(|entry| entry[DIRECTIVE] == "delete") {
        while let Some(position) = position_of(&order[..length], key, &entry[key]) {
            order[position..length].rotate_left(1);
            length -= 1;
            if let Some(last) = length.checked_sub(1) {
                order[length] = order[last].clone();
            }
        }
    }
    let plain = change.iter().filter(|entry| entry.get(DIRECTIVE).is_none());
    let new = plain.filter(|entry| position_of(old, key, &entry[key]).is_none());
    for (place, entry) in order[length..].iter_mut().zip(new) {
        *place = entry.clone();
    }
    order
}

/// The patch's own entries must stand in the order it asks for.
fn check_order(change: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if change.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for entry in change.iter().filter(|entry| entry.get(DIRECTIVE).is_none()) {
        let found = match key {
            Some(key) => {
                let Value::Object(object) = entry else { return Err(bad_entry(entry)) };
                let id = merge_key_of(object, key)?;
                rest.any(|wanted| wanted.get(key) == Some(id))
            }
            None => rest.any(|wanted| wanted == entry),
        };
        if !found {
            let (change, order) =
                (go_text(&Value::from(change.to_vec())), go_text(&Value::from(order.to_vec())));
            return Err(PatchError::Unclassified(format!(
                "The order in patch list:\n{change}\n doesn't match {ORDER_PREFIX} list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

fn merge_key_of<'a>(entry: &'a Map<String, Value>, key: &str) -> Result<&'a Value, PatchError> {
    entry.get(key).ok_or_else(|| {
        let text = go_text(&Value::Object(entry.clone()));
        PatchError::Unclassified(format!("map: {text} does not contain declared merge key: {key}"))
    })
}

fn position_of(list: &[Value], key: &str, id: &Value) -> Option<usize> {
    list.iter().position(|entry| entry.get(key) == Some(id))
}

/// True for lists of objects, false for lists of scalars.
fn all_objects(old: &[Value], change: &[Value]) -> Result<bool, PatchError> {
    let all = || old.iter().chain(change);
    if all().any(Value::is_array) {
        return Err(PatchError::Unprocessable("lists of lists are not supported".into()));
    }
    let objects = all().filter(|entry| entry.is_object()).count();
    match objects {
        0 => Ok(false),
        _ if objects == old.len() + change.len() => Ok(true),
        _ => {
            let both = Value::from(vec![Value::from(old.to_vec()), Value::from(change.to_vec())]);
            Err(PatchError::Unclassified(format!(
                "list element types are not identical: {}",
                go_text(&both)
            )))
        }
    }
}

fn list(value: Value) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(PatchError::Unclassified(format!(
            "expected a []interface {{}}, but received a {}",
            go_type(&other)
        ))),
    }
}

fn bad_entry(entry: &Value) -> PatchError {
    let got = go_type(entry);
    PatchError::Unclassified(format!("expected a map[string]interface {{}}, but received a {got}"))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn bad_order() -> PatchError {
    PatchError::BadRequest("invalid patch format of setElementOrder list".into())
}

fn unknown_directive(directive: Value, mut rest: Map<String, Value>) -> PatchError {
    let name = go_text(&directive);
    rest.insert(DIRECTIVE.into(), directive);
    let map = go_text(&Value::Object(rest));
    PatchError::Unclassified(format!("unknown patch type: {name} in map: {map}"))
}

#[cfg(test)]
mod tests;

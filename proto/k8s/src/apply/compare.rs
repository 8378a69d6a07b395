//! What a write changed: which fields are new or different, and which are gone.

use super::place::{ListKind, Place, Walk, entries_of, fields_of, is_hollow, step_of, walk_of};
use super::scope::{Part, Scope};
use super::set::{Node, Set};
use super::step;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Lists longer than this are not searched for duplicates entry by entry.
const PAIRED_ENTRIES_MAX: usize = 32;

/// The difference of two versions of an object. No field is in both.
#[derive(Debug, Default, PartialEq)]
pub struct Delta {
    /// Added, or present in both and not the same.
    pub changed: Set,
    pub removed: Set,
}

impl Delta {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Compares two versions of an object as far as `scope` goes. Unchanged parts cost an equality test.
pub fn compare<'s, P: Place<'s>>(
    place: P,
    scope: &Scope,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> Delta {
    let mut both = Both::default();
    for (name, left, right) in zip(old, new) {
        let part = scope.top(name);
        if part == Part::None || left == right {
            continue;
        }
        let Some(inner) = place.field(name) else { continue };
        let left = left.or_else(|| place.implied(name));
        let right = right.or_else(|| place.implied(name));
        let mut found = Both::default();
        if part == Part::All {
            found = walk(inner, left, right);
        } else {
            let left = left.unwrap_or(&Value::Null);
            let right = right.unwrap_or(&Value::Null);
            fields(inner, left, right, |field| scope.below(name, field), &mut found);
        }
        both.put(|| step::field(name), found);
    }
    Delta { changed: both.changed.into(), removed: both.removed.into() }
}

/// What was found at one field, in both sets.
#[derive(Debug, Default)]
struct Both {
    changed: Node,
    removed: Node,
}

impl Both {
    fn changed() -> Both {
        Both { changed: Node::leaf(), ..Both::default() }
    }

    fn removed() -> Both {
        Both { removed: Node::leaf(), ..Both::default() }
    }

    fn put(&mut self, step: impl FnOnce() -> String, child: Both) {
        match (child.changed.is_empty(), child.removed.is_empty()) {
            (true, true) => {}
            (false, true) => self.changed.put(step(), child.changed),
            (true, false) => self.removed.put(step(), child.removed),
            (false, false) => {
                let step = step();
                self.changed.put(step.clone(), child.changed);
                self.removed.put(step, child.removed);
            }
        }
    }
}

fn walk<'s, P: Place<'s>>(place: P, left: Option<&Value>, right: Option<&Value>) -> Both {
    if left == right {
        return Both::default();
    }
    let mut both = match (left.map(|v| walk_of(place, v)), right.map(|v| walk_of(place, v))) {
        (None | Some(Walk::Fields), None | Some(Walk::Fields)) => {
            let (old, new) = (left.unwrap_or(&Value::Null), right.unwrap_or(&Value::Null));
            if is_hollow(old) && is_hollow(new) {
                return leaf(left, right);
            }
            let mut both = Both::default();
            let (l, r) = (left.map(|_| place), right.map(|_| place));
            for (name, old, new) in zip(fields_of(old), fields_of(new)) {
                if old == new {
                    continue;
                }
                let Some(inner) = place.field(name) else { continue };
                let old = old.or_else(|| l?.implied(name));
                let new = new.or_else(|| r?.implied(name));
                both.put(|| step::field(name), walk(inner, old, new));
            }
            both
        }
        (Some(Walk::Entries(element, kind)), None | Some(Walk::Entries(..)))
        | (None, Some(Walk::Entries(element, kind))) => {
            let (old, new) = (left.unwrap_or(&Value::Null), right.unwrap_or(&Value::Null));
            if is_hollow(old) && is_hollow(new) {
                return leaf(left, right);
            }
            entries(element, kind, entries_of(old), entries_of(new))
        }
        (Some(Walk::Leaf), None | Some(Walk::Leaf)) | (None, Some(Walk::Leaf)) => {
            return leaf(left, right);
        }
        // One was a map and the other is none: the whole changed, and what was below is gone.
        _ => {
            let mut both = walk(place, left, None);
            both.changed = walk(place, None, right).changed;
            both.removed.member = false;
            both.changed.member = true;
            return both;
        }
    };
    both.changed.member |= left.is_none();
    both.removed.member |= right.is_none();
    both
}

fn leaf(left: Option<&Value>, right: Option<&Value>) -> Both {
    match (left, right) {
        (_, None) => Both::removed(),
        _ => Both::changed(),
    }
}

/// The fields `within`, of a struct that is there before and after.
fn fields<'s, P: Place<'s>>(
    place: P,
    left: &Value,
    right: &Value,
    within: impl Fn(&str) -> bool,
    both: &mut Both,
) {
    for (name, old, new) in zip(fields_of(left), fields_of(right)) {
        if old == new || !within(name) {
            continue;
        }
        let Some(inner) = place.field(name) else { continue };
        let old = old.or_else(|| place.implied(name));
        let new = new.or_else(|| place.implied(name));
        both.put(|| step::field(name), walk(inner, old, new));
    }
}

fn entries<'s, P: Place<'s>>(element: P, kind: ListKind<'s>, old: &[Value], new: &[Value]) -> Both {
    if let Some(both) = paired(element, kind, old, new) {
        return both;
    }
    let mut by_step: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for entry in old {
        if let Ok(step) = step_of(element, kind, entry) {
            by_step.entry(step).or_default().0.push(entry);
        }
    }
    for entry in new {
        if let Ok(step) = step_of(element, kind, entry) {
            by_step.entry(step).or_default().1.push(entry);
        }
    }
    let mut both = Both::default();
    for (step, (old, new)) in by_step {
        let found = match (&old[..], &new[..]) {
            (l, r) if l == r => Both::default(),
            ([_, _, ..], [_, _, ..]) => Both::changed(),
            // Duplicates are owned as a whole, single entries field by field.
            ([_, _, ..], r) => {
                let mut found = r.first().map(|r| walk(element, None, Some(r))).unwrap_or_default();
                found.removed.member = true;
                found
            }
            (l, [_, _, ..]) => {
                let mut found = l.first().map(|l| walk(element, Some(l), None)).unwrap_or_default();
                found.changed.member = true;
                found
            }
            (l, r) => walk(element, l.first().copied(), r.first().copied()),
        };
        both.put(|| step, found);
    }
    both
}

/// The usual change of a list: the same entries in the same places, some of them different. `None` if
/// it is another, or if there may be duplicates.
fn paired<'s, P: Place<'s>>(
    element: P,
    kind: ListKind<'s>,
    old: &[Value],
    new: &[Value],
) -> Option<Both> {
    let ListKind::Keyed(keys) = kind else { return None };
    if old.len() != new.len() || old.len() > PAIRED_ENTRIES_MAX {
        return None;
    }
    let same = |a: &Value, b: &Value| keys.iter().all(|key| a.get(&**key) == b.get(&**key));
    let mut both = Both::default();
    for (position, (left, right)) in old.iter().zip(new).enumerate() {
        if left == right {
            continue;
        }
        let alike = |list: &[Value]| list.iter().filter(|entry| same(entry, right)).count();
        // Keys that are left out have defaults, which `same` does not know.
        let complete = keys.iter().all(|key| right.get(&**key).is_some());
        if !complete || !same(left, &new[position]) || alike(old) != 1 || alike(new) != 1 {
            return None;
        }
        let step = step_of(element, kind, right).ok()?;
        both.put(|| step, walk(element, Some(left), Some(right)));
    }
    Some(both)
}

/// Both sides of every name.
fn zip<'a>(
    left: &'a Map<String, Value>,
    right: &'a Map<String, Value>,
) -> impl Iterator<Item = (&'a str, Option<&'a Value>, Option<&'a Value>)> {
    let here = left.iter().map(|(name, value)| (name.as_str(), Some(value), right.get(name)));
    let only_there = right.iter().filter(|(name, _)| !left.contains_key(*name));
    here.chain(only_there.map(|(name, value)| (name.as_str(), None, Some(value))))
}

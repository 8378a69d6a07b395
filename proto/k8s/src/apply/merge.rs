//! An applied configuration laid over the live object: nothing is removed, what both name is the
//! configuration's, and a shared list follows the configuration's order.

use super::place::{ListKind, Place, Walk, entries_of, fields_of, is_hollow, step_of, walk_of};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet, VecDeque};

/// Lays `config`, which fits its type, over `live`.
pub(super) fn merge<'s, P: Place<'s>>(place: P, live: &mut Value, config: &Value) {
    match walk_of(place, config) {
        Walk::Leaf => *live = config.clone(),
        Walk::Fields | Walk::Entries(..) if is_hollow(config) => {
            if is_hollow(live) || !(live.is_object() || live.is_array()) {
                *live = config.clone();
            }
        }
        Walk::Fields => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            let Value::Object(live) = live else { return };
            for (name, value) in fields_of(config) {
                match (live.get_mut(name), place.field(name)) {
                    (Some(old), Some(inner)) => merge(inner, old, value),
                    _ => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        Walk::Entries(element, kind) => {
            let old = match live.take() {
                Value::Array(list) => list,
                _ => Vec::new(),
            };
            *live = Lists::new(element, kind, old, entries_of(config)).merged();
        }
    }
}

/// Two lists on their way to one.
struct Lists<'a, 's, P> {
    element: P,
    kind: ListKind<'s>,
    old: Vec<Value>,
    config: &'a [Value],
    old_steps: Vec<String>,
    config_steps: Vec<String>,
}

impl<'a, 's, P: Place<'s>> Lists<'a, 's, P> {
    fn new(element: P, kind: ListKind<'s>, mut old: Vec<Value>, config: &'a [Value]) -> Self {
        let step = |entry: &Value| step_of(element, kind, entry).ok();
        // An entry that cannot be told apart is in no managed field either.
        old.retain(|entry| step(entry).is_some());
        let old_steps = old.iter().filter_map(step).collect();
        let config_steps = config.iter().filter_map(step).collect();
        Lists { element, kind, old, config, old_steps, config_steps }
    }

    /// What is in both comes in the configuration's order; what only the old list has stays between
    /// the neighbours it had.
    fn merged(mut self) -> Value {
        let wanted: HashSet<String> = self.config_steps.iter().cloned().collect();
        let mut at: HashMap<String, Option<usize>> = HashMap::new();
        for (position, step) in self.old_steps.iter().enumerate() {
            // Duplicates cannot be merged with.
            at.entry(step.clone()).and_modify(|at| *at = None).or_insert(Some(position));
        }
        let shared = self.config_steps.iter().filter(|step| at.contains_key(*step));
        let mut shared: VecDeque<String> = shared.cloned().collect();
        let mut done = HashSet::new();
        let mut out = Vec::with_capacity(self.old.len().max(self.config.len()));
        let (mut left, mut right) = (0, 0);
        while left < self.old.len() || right < self.config.len() {
            let (l, r) = (self.old_steps.get(left), self.config_steps.get(right));
            if let Some(l) = l {
                if !wanted.contains(l) {
                    out.push(self.old[left].take());
                    left += 1;
                    continue;
                }
                let turn = shared.front().is_none_or(|next| next == l);
                if done.contains(l) || (r.is_some() && r != Some(l) && !turn) {
                    // Already there, or to come when the configuration gets to it.
                    left += 1;
                    continue;
                }
            }
            let Some(r) = r.cloned() else {
                left += 1;
                continue;
            };
            left += usize::from(l == Some(&r));
            out.push(self.entry(right, at.get(&r)));
            right += 1;
            if shared.front() == Some(&r) {
                shared.pop_front();
            }
            done.insert(r);
        }
        Value::Array(out)
    }

    /// The entry of the configuration, over the old one if there is exactly one.
    fn entry(&mut self, right: usize, old: Option<&Option<usize>>) -> Value {
        let config = &self.config[right];
        let mut entry = match old {
            None => return config.clone(),
            Some(None) => Value::Null,
            Some(Some(left)) => self.old[*left].take(),
        };
        if self.kind == ListKind::Set {
            return config.clone();
        }
        merge(self.element, &mut entry, config);
        entry
    }
}

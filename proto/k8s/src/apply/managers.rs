//! `metadata.managedFields`: who owns what, kept as the JSON it is stored as.

use super::set::Set;
use crate::Object;
use serde_json::{Map, Value, json};

/// Entries of updates beyond this are merged, the oldest first (upstream's
/// `DefaultMaxUpdateManagers`).
const UPDATES_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";
const APPLY: &str = "Apply";
const UPDATE: &str = "Update";

/// One manager's fields: `metav1.ManagedFieldsEntry`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry(Map<String, Value>);

impl Entry {
    pub(super) fn new(
        manager: &str,
        applied: bool,
        api_version: &str,
        subresource: &str,
        fields: Set,
    ) -> Entry {
        let operation = if applied { APPLY } else { UPDATE };
        let mut map = Map::new();
        map.insert("manager".into(), manager.into());
        map.insert("operation".into(), operation.into());
        map.insert("apiVersion".into(), api_version.into());
        map.insert("fieldsType".into(), "FieldsV1".into());
        map.insert("fieldsV1".into(), fields.into_value());
        if !subresource.is_empty() {
            map.insert("subresource".into(), subresource.into());
        }
        Entry(map)
    }

    fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn manager(&self) -> &str {
        self.text("manager")
    }

    pub fn api_version(&self) -> &str {
        self.text("apiVersion")
    }

    pub fn subresource(&self) -> &str {
        self.text("subresource")
    }

    /// RFC 3339, empty if unknown; all of this server's are comparable as text.
    pub fn time(&self) -> &str {
        self.text("time")
    }

    /// True for an applied configuration, false for all other writes.
    pub fn applied(&self) -> bool {
        self.text("operation") == APPLY
    }

    /// A manager is one per name, operation, subresource and, unless it applies, version.
    pub(super) fn is(
        &self,
        manager: &str,
        applied: bool,
        api_version: &str,
        subresource: &str,
    ) -> bool {
        self.manager() == manager
            && self.applied() == applied
            && self.subresource() == subresource
            && (applied || self.api_version() == api_version)
    }

    /// Works on the fields in place.
    pub(super) fn with_fields<R>(&mut self, work: impl FnOnce(&mut Set) -> R) -> R {
        let slot = self.0.entry("fieldsV1").or_insert(Value::Null);
        let mut set = Set::trusted(slot.take());
        let result = work(&mut set);
        *slot = set.into_value();
        result
    }

    /// A copy of the fields.
    pub fn fields(&self) -> Set {
        self.0.get("fieldsV1").cloned().map(Set::trusted).unwrap_or_default()
    }

    pub(super) fn set_time(&mut self, time: &str) {
        if time.is_empty() {
            self.0.remove("time");
        } else {
            self.0.insert("time".into(), time.into());
        }
    }

    /// `"kubectl" using v1`, as conflicts name a manager.
    pub(super) fn described(&self) -> String {
        let mut text = crate::text::go_quote(self.manager());
        if !self.subresource().is_empty() {
            text.push_str(" with subresource ");
            text.push_str(&crate::text::go_quote(self.subresource()));
        }
        if !self.applied() {
            text.push_str(" using ");
            text.push_str(self.api_version());
        }
        text
    }

    fn parse(value: &Value, position: usize) -> Result<Entry, String> {
        let Value::Object(map) = value else {
            return Err("entries must be objects".into());
        };
        let mut entry = Entry(map.clone());
        entry.0.retain(|_, value| !value.is_null() && value != "");
        if !matches!(entry.text("operation"), APPLY | UPDATE) {
            return Err("operation must be `Apply` or `Update`".into());
        }
        if entry.api_version().is_empty() {
            return Err("apiVersion must not be empty".into());
        }
        match entry.text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {position}")),
            other => {
                let quoted = crate::text::go_quote(other);
                return Err(format!(
                    "invalid fieldsType {quoted} in managed fields entry {position}"
                ));
            }
        }
        let fields = entry.0.remove("fieldsV1").unwrap_or_else(|| json!({}));
        let set = Set::parse(&fields).map_err(|why| format!("error decoding set: {why}"))?;
        entry.0.insert("fieldsV1".into(), set.into_value());
        Ok(entry)
    }
}

/// Every manager of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(pub(super) Vec<Entry>);

impl Managers {
    /// Reads `metadata.managedFields` that anyone may have written. Of two entries of one manager the
    /// later one counts.
    pub fn parse(list: &[Value]) -> Result<Managers, String> {
        let mut entries: Vec<Entry> = Vec::with_capacity(list.len());
        for (position, value) in list.iter().enumerate() {
            let entry = Entry::parse(value, position)?;
            let (manager, version) = (entry.manager(), entry.api_version());
            entries
                .retain(|known| !known.is(manager, entry.applied(), version, entry.subresource()));
            entries.push(entry);
        }
        Ok(Managers(entries))
    }

    /// `metadata.managedFields` that this server wrote.
    pub fn trusted(list: Value) -> Managers {
        let Value::Array(list) = list else { return Managers::default() };
        let entries = list.into_iter().filter_map(|entry| match entry {
            Value::Object(map) => Some(Entry(map)),
            _ => None,
        });
        Managers(entries.collect())
    }

    /// Takes them out of an object that this server wrote.
    pub fn take(object: &mut Object) -> Managers {
        match object.0.get_mut("metadata").and_then(Value::as_object_mut) {
            Some(metadata) => {
                metadata.remove("managedFields").map(Managers::trusted).unwrap_or_default()
            }
            None => Managers::default(),
        }
    }

    /// Puts them into the object, in upstream's order; without any the field is absent.
    pub fn put(self, object: &mut Object) {
        if self.0.is_empty() {
            object.metadata_mut().remove("managedFields");
        } else {
            object.metadata_mut().insert("managedFields".into(), self.into_value());
        }
    }

    pub fn into_value(mut self) -> Value {
        self.sort();
        self.0.into_iter().map(|entry| Value::Object(entry.0)).collect()
    }

    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if this is just what `list` says.
    pub(super) fn is(&self, list: &[Value]) -> bool {
        let same = |(entry, value): (&Entry, &Value)| value.as_object() == Some(&entry.0);
        self.0.len() == list.len() && self.0.iter().zip(list).all(same)
    }

    /// The same but for times.
    pub fn same_but_for_times(&self, other: &Managers) -> bool {
        let timeless = |entry: &Entry| {
            let mut entry = entry.clone();
            entry.set_time("");
            entry
        };
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(a, b)| timeless(a) == timeless(b))
    }

    fn sort(&mut self) {
        self.0.sort_by(|a, b| {
            let key = |entry: &Entry| {
                // Upstream compares the words, and "Apply" comes first.
                (!entry.applied(), entry.time().to_string(), entry.manager().to_string())
            };
            let rest =
                |entry: &Entry| (entry.api_version().to_string(), entry.subresource().to_string());
            key(a).cmp(&key(b)).then_with(|| rest(a).cmp(&rest(b)))
        });
    }

    /// Entries of updates beyond the bound become one per version.
    pub(super) fn cap(&mut self) {
        let mut updates = self.0.iter().filter(|entry| !entry.applied()).count();
        if updates <= UPDATES_MAX {
            return;
        }
        self.sort();
        let mut position = 0;
        let mut first: Vec<(String, usize)> = Vec::new();
        while position < self.0.len() && updates > UPDATES_MAX {
            let entry = &self.0[position];
            if entry.applied() {
                position += 1;
                continue;
            }
            let version = entry.api_version().to_string();
            let Some((_, bucket)) = first.iter().find(|(seen, _)| *seen == version) else {
                first.push((version, position));
                position += 1;
                continue;
            };
            let bucket = *bucket;
            let merged = self.0.remove(position);
            updates -= 1;
            let bucket = &mut self.0[bucket];
            bucket.with_fields(|fields| fields.union(&merged.fields()));
            bucket.0.insert("manager".into(), ANCIENT.into());
            bucket.0.remove("subresource");
            bucket.set_time(merged.time());
        }
        self.join_ancient();
    }

    /// A second bucket of a version that had one joins it.
    fn join_ancient(&mut self) {
        let mut position = 0;
        while position < self.0.len() {
            let entry = &self.0[position];
            let twin = self.0[..position].iter().position(|other| {
                entry.manager() == ANCIENT
                    && other.is(ANCIENT, false, entry.api_version(), entry.subresource())
                    && !entry.applied()
            });
            match twin {
                None => position += 1,
                Some(twin) => {
                    let entry = self.0.remove(position);
                    self.0[twin].with_fields(|fields| fields.union(&entry.fields()));
                    if self.0[twin].time() < entry.time() {
                        self.0[twin].set_time(entry.time());
                    }
                }
            }
        }
    }
}

/// True if the client asks for all managers to be forgotten: `[]` or `[{}]`.
pub(super) fn is_reset(list: &[Value]) -> bool {
    match list {
        [] => true,
        [Value::Object(entry)] => entry.values().all(|value| value.is_null() || value == ""),
        _ => false,
    }
}

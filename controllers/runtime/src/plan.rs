//! What a controller wants done, as values: writes, in which order, and what to tell the user of them.

use crate::{Entry, Key, Kind, KindInfo, Whole, key_of};
use k8s::{PatchType, Request, Verb};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Map, Value, json};
use std::{fmt, time::Duration};

/// The next steps for one root; empty: it is as it should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Carried out in order. A write that fails ends the plan, except for [`Step::Finally`].
    pub steps: Vec<Step>,
    /// Plan again after this long, although nothing may have changed.
    pub requeue_after: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Write(Write),
    /// Independent of each other: sent at once, each carried out whatever becomes of the others.
    Together(Vec<Write>),
    /// 1, 2, 4, … at once, each round only if the last one succeeded: a thousand creates that would
    /// all be refused end after the first.
    SlowStart(Vec<Write>),
    /// Carried out even if an earlier step failed.
    Finally(Write),
    Event(Note),
}

/// One request, and what to record of its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub kind: KindInfo,
    pub request: Request,
    /// `{name}` in the message becomes the name of the object written.
    pub on_ok: Option<Note>,
    /// `{error}` becomes what the server said.
    pub on_error: Option<Note>,
    /// Not sent while one of these exists: asked of the server, not of the cache, just before.
    pub unless: Vec<Existing>,
}

/// One object, not just any of its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Existing {
    pub kind: KindInfo,
    pub key: Key,
    /// Empty: any object of that name.
    pub uid: String,
}

/// A Kubernetes Event to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub subject: Subject,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// What an Event is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    pub kind: KindInfo,
    pub key: Key,
    pub uid: String,
    pub resource_version: String,
}

pub fn subject<K: Kind>(object: &K) -> Subject {
    let meta = object.metadata();
    Subject {
        kind: K::INFO,
        key: key_of(object),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
    }
}

impl Note {
    pub fn normal<K: Kind>(about: &K, reason: &'static str, message: impl Into<String>) -> Note {
        Note { subject: subject(about), warning: false, reason, message: message.into() }
    }

    pub fn warning<K: Kind>(about: &K, reason: &'static str, message: impl Into<String>) -> Note {
        Note { subject: subject(about), warning: true, reason, message: message.into() }
    }
}

/// The reference that makes `owner` the controlling owner of another object.
pub fn owner_reference<K: Kind>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::INFO.api_version(),
        kind: K::INFO.kind.to_string(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

impl Write {
    pub fn request(kind: KindInfo, request: Request) -> Write {
        Write { kind, request, on_ok: None, on_error: None, unless: Vec::new() }
    }

    /// With `generateName` and no name, the runner chooses the name, so that a create whose outcome
    /// got lost can be repeated without making a second object.
    pub fn create<K: Whole>(object: &K) -> Write {
        let mut object = object.encode();
        if K::INFO.namespaced && object.namespace().is_empty() {
            tracing::error!(kind = %K::INFO, "a namespaced object is created without a namespace");
        }
        object.0.remove("status");
        Write::request(K::INFO, Request::create(K::INFO.resource(), object))
    }

    /// A merge patch of what differs outside status, refused if the object has changed since `old`.
    /// `None`: nothing differs.
    pub fn patch<K: Whole>(old: &K, new: &K) -> Option<Write> {
        let (mut before, mut after) = (old.encode(), new.encode());
        before.0.remove("status");
        after.0.remove("status");
        let diff = merge_diff(&before.into_value(), &after.into_value())?;
        Some(Write::patch_if_unchanged(old, diff))
    }

    /// The same for the status, through its subresource.
    pub fn patch_status<K: Whole>(old: &K, new: &K) -> Option<Write> {
        let status = |object: &K| object.encode().0.remove("status").unwrap_or_else(|| json!({}));
        let diff = merge_diff(&status(old), &status(new))?;
        Some(Write::patch_if_unchanged(old, json!({ "status": diff })).through_status())
    }

    /// The same for the metadata alone, of which the cache has all of every object.
    pub fn patch_metadata<K: Kind>(old: &K, new: &K) -> Option<Write> {
        let metadata = |object: &K| {
            let metadata = serde_json::to_value(object.metadata());
            json!({ "metadata": metadata.expect("metadata has string keys and finite numbers") })
        };
        let diff = merge_diff(&metadata(old), &metadata(new))?;
        Some(Write::patch_if_unchanged(old, diff))
    }

    /// A merge patch as it is, refused if the object has changed since `object`.
    pub fn patch_if_unchanged<K: Kind>(object: &K, patch: Value) -> Write {
        Write::patch_with(object, guarded(object, patch))
    }

    /// The same by way of the status, where a change of annotations is no new generation.
    pub fn through_status(mut self) -> Write {
        self.request.subresource = "status".into();
        self
    }

    /// A merge patch as it is.
    pub fn patch_with<K: Kind>(object: &K, patch: Value) -> Write {
        Write::patch_key(K::INFO, &key_of(object), patch)
    }

    pub fn patch_key(kind: KindInfo, key: &Key, patch: Value) -> Write {
        let request =
            Request::patch(kind.resource(), &key.namespace, &key.name, PatchType::Merge, patch);
        Write::request(kind, request)
    }

    /// Deletes this object and no other of its name.
    pub fn delete<K: Kind>(object: &K) -> Write {
        let uid = object.metadata().uid.clone().unwrap_or_default();
        Write::delete_key(K::INFO, &key_of(object), &uid)
    }

    pub fn delete_entry(kind: KindInfo, entry: &Entry) -> Write {
        Write::delete_key(kind, &entry.key, &entry.meta.uid)
    }

    pub fn delete_key(kind: KindInfo, key: &Key, uid: &str) -> Write {
        let mut request = Request::delete(kind.resource(), &key.namespace, &key.name);
        request.options.precondition_uid = Some(uid.to_string()).filter(|uid| !uid.is_empty());
        Write::request(kind, request)
    }

    /// The same write, whatever has happened to the object since; it still is for no other object
    /// of that name.
    pub fn unguarded(mut self) -> Write {
        let metadata = self.request.body.as_mut().and_then(|body| body.get_mut("metadata"));
        if let Some(Value::Object(metadata)) = metadata {
            metadata.remove("resourceVersion");
        }
        self
    }

    pub fn on_ok(mut self, note: Note) -> Write {
        self.on_ok = Some(note);
        self
    }

    pub fn on_error(mut self, note: Note) -> Write {
        self.on_error = Some(note);
        self
    }

    pub fn unless(mut self, existing: impl IntoIterator<Item = Existing>) -> Write {
        self.unless.extend(existing);
        self
    }

    pub(crate) fn verb(&self) -> &'static str {
        match self.request.verb {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch(_) => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

fn guarded<K: Kind>(object: &K, mut patch: Value) -> Value {
    let meta = object.metadata();
    if let Some(uid) = &meta.uid {
        patch["metadata"]["uid"] = json!(uid);
    }
    if let Some(revision) = &meta.resource_version {
        patch["metadata"]["resourceVersion"] = json!(revision);
    }
    patch
}

/// The JSON merge patch (RFC 7386) that makes `old` into `new`; `None` if they are equal.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        let diff = match old.get(key) {
            Some(before) => merge_diff(before, value),
            None => Some(value.clone()),
        };
        patch.extend(diff.map(|diff| (key.clone(), diff)));
    }
    Some(Value::Object(patch))
}

impl Plan {
    pub fn nothing() -> Plan {
        Plan::default()
    }

    pub fn write(&mut self, write: impl Into<Option<Write>>) {
        self.steps.extend(write.into().map(Step::Write));
    }

    pub fn together(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.steps.push(Step::Together(writes));
        }
    }

    pub fn slow_start(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.steps.push(Step::SlowStart(writes));
        }
    }

    pub fn finally(&mut self, write: impl Into<Option<Write>>) {
        self.steps.extend(write.into().map(Step::Finally));
    }

    pub fn event(&mut self, note: Note) {
        self.steps.push(Step::Event(note));
    }

    /// Plans again after `delay`, or earlier if so asked before.
    pub fn again_after(&mut self, delay: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |before| before.min(delay)));
    }

    /// Every write of the plan, in order.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.steps.iter().flat_map(|step| match step {
            Step::Write(write) | Step::Finally(write) => std::slice::from_ref(write),
            Step::Together(writes) | Step::SlowStart(writes) => writes.as_slice(),
            Step::Event(_) => &[],
        })
    }
}

/// `patch deployments.apps/status default/web {"status":…}`
impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = &self.request;
        write!(f, "{} {}", self.verb(), request.resource)?;
        if !request.subresource.is_empty() {
            write!(f, "/{}", request.subresource)?;
        }
        let meta = |field: &str| {
            let body = request.body.as_ref();
            body.and_then(|body| body["metadata"][field].as_str()).unwrap_or_default()
        };
        let name = match request.name.as_str() {
            "" if meta("name").is_empty() => format!("{}*", meta("generateName")),
            "" => meta("name").to_string(),
            name => name.to_string(),
        };
        write!(f, " {}", Key::new(request.namespace.as_str(), name))?;
        if let Some(policy) = &request.options.propagation_policy {
            write!(f, " policy={policy}")?;
        }
        if let Some(seconds) = request.options.grace_period_seconds {
            write!(f, " grace={seconds}s")?;
        }
        if let Some(body) = &request.body {
            write!(f, " {body}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.warning { "Warning" } else { "Normal" };
        write!(f, "{kind} {} {}: {}", self.reason, self.subject.key, self.message)
    }
}

/// One line per step and write: the trace tests compare.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let (label, writes) = match step {
                Step::Write(write) => ("", std::slice::from_ref(write)),
                Step::Finally(write) => ("finally ", std::slice::from_ref(write)),
                Step::Together(writes) => ("together ", writes.as_slice()),
                Step::SlowStart(writes) => ("slow-start ", writes.as_slice()),
                Step::Event(note) => {
                    writeln!(f, "event {note}")?;
                    continue;
                }
            };
            for write in writes {
                writeln!(f, "{label}{write}")?;
                for one in &write.unless {
                    writeln!(f, "  unless {} {} {}", one.kind, one.key, one.uid)?;
                }
                if let Some(note) = &write.on_ok {
                    writeln!(f, "  then {note}")?;
                }
                if let Some(note) = &write.on_error {
                    writeln!(f, "  else {note}")?;
                }
            }
        }
        match self.requeue_after {
            Some(delay) => writeln!(f, "again after {delay:?}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_names_what_changed_and_nulls_what_went() {
        let old = json!({"a": 1, "b": {"c": 2, "d": 3}, "l": [1, 2]});
        let new = json!({"a": 1, "b": {"c": 4}, "l": [2], "n": true});
        let diff = json!({"b": {"c": 4, "d": null}, "l": [2], "n": true});
        assert_eq!(merge_diff(&old, &new), Some(diff));
        assert_eq!(merge_diff(&old, &old), None);
    }
}

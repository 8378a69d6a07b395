//! What a write does to the managers of an object, and what an applied configuration makes of it.

use super::compare::{Delta, compare};
use super::fields::{to_field_set, validate};
use super::managers::{Entry, Managers, is_reset};
use super::merge::merge;
use super::place::Place;
use super::remove::{reconcile, remove};
use super::scope::Scope;
use super::set::Set;
use crate::text::go_json;
use crate::{Cause, Object, Status};
use serde_json::Value;

/// What client-side apply keeps its last configuration in.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The one manager whose conflicts with client-side apply are waived, and who keeps its annotation.
const KUBECTL: &str = "kubectl";
/// Owns what was there before the first apply to an object nobody kept track of.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const MANAGER_UNKNOWN: &str = "unknown";
/// All annotations of an object (upstream's `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// One write of an object: by whom, through which version and subresource, and when.
#[derive(Clone, Copy)]
pub struct Write<'a, P> {
    /// The root of the kind's schema in this version.
    pub place: P,
    /// `v1`, `apps/v1`.
    pub api_version: &'a str,
    pub kind: &'a str,
    pub subresource: &'a str,
    pub manager: &'a str,
    pub scope: Scope,
    /// RFC 3339 in UTC, whole seconds.
    pub now: &'a str,
    /// What other versions make of the object.
    pub versions: &'a dyn Versions<P>,
}

/// The versions of a kind, as `apiVersion` names them. Each manager's fields are those of the version
/// it wrote in.
pub trait Versions<P> {
    /// The root of the kind's schema in a version; managers of unknown ones are forgotten.
    fn place(&self, api_version: &str) -> Option<P>;

    /// What is an object in the writer's version, in another; `None` if it looks alike.
    fn convert(&self, object: &Object, api_version: &str) -> Option<Object>;
}

/// The versions of a kind that has one.
pub struct OneVersion;

impl<P> Versions<P> for OneVersion {
    fn place(&self, _: &str) -> Option<P> {
        None
    }

    fn convert(&self, _: &Object, _: &str) -> Option<Object> {
        None
    }
}

/// What a write changed, in the writer's version and in those of all other managers.
struct Deltas {
    own: Delta,
    others: Vec<(String, Delta)>,
}

impl Deltas {
    fn of(&self, entry: &Entry) -> &Delta {
        let found = self.others.iter().find(|(version, _)| entry.api_version() == version);
        found.map_or(&self.own, |(_, delta)| delta)
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.others.iter().all(|(_, delta)| delta.is_empty())
    }

    /// Takes what changed and what is gone from all; who has nothing left goes.
    fn take_from(&self, managers: &mut Managers) {
        managers.0.retain_mut(|entry| {
            let delta = self.of(entry);
            entry.with_fields(|fields| {
                fields.subtract(&delta.changed);
                fields.subtract(&delta.removed);
                !fields.is_empty()
            })
        });
    }
}

/// An applied configuration on its object.
#[derive(Debug, PartialEq)]
pub struct Applied {
    /// Without managed fields; not yet decoded, defaulted or validated.
    pub object: Object,
    pub managers: Managers,
}

/// A field that is not as another manager has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// As upstream names managers in messages.
    pub manager: String,
    /// As upstream prints paths.
    pub path: String,
}

/// Why a configuration was not applied, named by upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// `400`.
    #[error("{0}")]
    BadRequest(String),
    /// Upstream has no code for it and answers `500` with the text.
    #[error("{0}")]
    Unclassified(String),
    /// `409`: force, or leave these fields out.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
}

impl ApplyError {
    pub fn status(&self) -> Status {
        match self {
            ApplyError::BadRequest(text) => Status::bad_request(text),
            ApplyError::Unclassified(text) => Status::new(500, "", text),
            ApplyError::Conflicts(conflicts) => {
                let mut status = Status::new(409, "Conflict", self.to_string());
                status.causes = conflicts
                    .iter()
                    .map(|conflict| Cause {
                        reason: "FieldManagerConflict".into(),
                        message: format!("conflict with {}", conflict.manager),
                        field: conflict.path.clone(),
                    })
                    .collect();
                status
            }
        }
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.manager, one.path
        );
    }
    let mut lines = Vec::new();
    for (position, conflict) in conflicts.iter().enumerate() {
        if position == 0 || conflicts[position - 1].manager != conflict.manager {
            lines.push(format!("conflicts with {}:", conflict.manager));
        }
        lines.push(format!("- {}", conflict.path));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

impl<'s, P: Place<'s>> Write<'_, P> {
    /// The managers after a create, update or patch that made `new` of `old`, which are `live` now.
    /// `sent` is what `new` itself says of its managers. On create, `old` is empty.
    pub fn update(
        &self,
        live: Managers,
        sent: Option<&Value>,
        old: &Object,
        new: &Object,
    ) -> Managers {
        let created = old.uid().is_empty();
        let mut managers = self.chosen(live, sent);
        if managers.is_empty() && !created {
            // Nobody keeps track of this object until somebody applies to it.
            return managers;
        }
        self.settle(&mut managers);
        self.track(&mut managers, old, new, self.manager);
        managers.cap();
        managers
    }

    /// Managers may be edited like any other field, but not through a subresource; those that cannot
    /// be read are ignored.
    fn chosen(&self, live: Managers, sent: Option<&Value>) -> Managers {
        let Some(Value::Array(sent)) = sent.filter(|_| self.subresource.is_empty()) else {
            return live;
        };
        if is_reset(sent) {
            return Managers::default();
        }
        if live.is(sent) {
            return live;
        }
        match Managers::parse(sent) {
            Ok(managers) if !managers.is_empty() => managers,
            _ => live,
        }
    }

    /// Forgets managers of unknown versions and brings the others up to the schema.
    fn settle(&self, managers: &mut Managers) {
        managers.0.retain(|entry| self.place_of(entry.api_version()).is_some());
        if self.place.may_have_changed() {
            self.reconcile(managers);
        }
    }

    fn place_of(&self, api_version: &str) -> Option<P> {
        if api_version == self.api_version {
            return Some(self.place);
        }
        self.versions.place(api_version)
    }

    fn reconcile(&self, managers: &mut Managers) {
        for entry in &mut managers.0 {
            if let Some(place) = self.place_of(entry.api_version()) {
                entry.with_fields(|fields| reconcile(place, fields));
            }
        }
    }

    /// The difference of two versions of the object, as every manager sees it.
    fn deltas(&self, managers: &Managers, old: &Object, new: &Object) -> Deltas {
        let own = compare(self.place, &self.scope, &old.0, &new.0);
        let mut others: Vec<(String, Delta)> = Vec::new();
        for version in managers.entries().iter().map(Entry::api_version) {
            if version == self.api_version || others.iter().any(|(known, _)| known == version) {
                continue;
            }
            let Some(place) = self.versions.place(version) else { continue };
            let (before, after) =
                (self.versions.convert(old, version), self.versions.convert(new, version));
            let (before, after) = (before.as_ref().unwrap_or(old), after.as_ref().unwrap_or(new));
            let delta = compare(place, &self.scope, &before.0, &after.0);
            others.push((version.to_string(), delta));
        }
        Deltas { own, others }
    }

    /// Takes from all what changed and gives it to `manager`.
    fn track(&self, managers: &mut Managers, old: &Object, new: &Object, manager: &str) {
        let deltas = self.deltas(managers, old, new);
        if deltas.is_empty() {
            return;
        }
        deltas.take_from(managers);
        let delta = deltas.own;
        if delta.changed.is_empty() {
            return;
        }
        let manager = if manager.is_empty() { MANAGER_UNKNOWN } else { manager };
        let mine = managers
            .0
            .iter_mut()
            .find(|entry| entry.is(manager, false, self.api_version, self.subresource));
        match mine {
            Some(entry) => {
                entry.with_fields(|fields| fields.union(&delta.changed));
                entry.set_time(self.now);
            }
            None => {
                let mut entry =
                    Entry::new(manager, false, self.api_version, self.subresource, delta.changed);
                entry.set_time(self.now);
                managers.0.push(entry);
            }
        }
    }

    /// Applies a configuration to the object `live` (without managed fields; empty to create it),
    /// whose managers are `managers`.
    pub fn apply(
        &self,
        managers: Managers,
        live: &Object,
        config: &Object,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        self.check(config)?;
        let config_value = Value::Object(config.0.clone());
        validate(self.place, &config_value).map_err(|why| {
            ApplyError::Unclassified(format!(
                "failed to create typed patch object ({}/{}; {}): {why}",
                config.namespace(),
                config.name(),
                gvk(self.api_version, self.kind)
            ))
        })?;
        let mut managers = managers;
        if managers.is_empty() && !live.uid().is_empty() {
            self.track(&mut managers, &Object::default(), live, BEFORE_FIRST_APPLY);
        }
        let applied = match self.merged(managers.clone(), live, &config_value, force) {
            Err(ApplyError::Conflicts(conflicts)) if self.manager == KUBECTL => {
                match self.not_by_client_side_apply(live, conflicts)? {
                    conflicts if conflicts.is_empty() => {
                        self.merged(managers, live, &config_value, true)?
                    }
                    conflicts => return Err(ApplyError::Conflicts(conflicts)),
                }
            }
            applied => applied?,
        };
        Ok(self.with_last_applied(applied, config))
    }

    fn check(&self, config: &Object) -> Result<(), ApplyError> {
        if config.api_version() != self.api_version || config.kind() != self.kind {
            let named = gvk(config.api_version(), config.kind());
            return Err(ApplyError::BadRequest(format!("invalid object type: {named}")));
        }
        if config
            .metadata()
            .is_some_and(|meta| meta.get("managedFields").is_some_and(Value::is_array))
        {
            return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
        }
        Ok(())
    }

    /// Merge, prune, compare.
    fn merged(
        &self,
        mut managers: Managers,
        live: &Object,
        config: &Value,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        self.settle(&mut managers);
        self.reconcile(&mut managers);
        let live_value = Value::Object(live.0.clone());
        let mut new = live_value.clone();
        merge(self.place, &mut new, config);
        let mut fields =
            config.as_object().map(|map| to_field_set(self.place, map)).unwrap_or_default();
        let mine =
            managers.0.iter().position(|entry| entry.is(self.manager, true, "", self.subresource));
        let last = mine.map(|position| managers.0.remove(position));
        if let Some(last) = last.as_ref().map(Entry::fields).filter(|last| !last.is_empty()) {
            new = self.pruned(new, &managers, &fields, &last);
        }
        self.scope.restrict(fields.root_mut());
        let new = match new {
            Value::Object(map) => Object(map),
            _ => Object::default(),
        };
        let deltas = self.deltas(&managers, live, &new);
        let conflicts = conflicts(&managers, &deltas);
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        deltas.take_from(&mut managers);
        if !fields.is_empty() {
            let mut entry =
                Entry::new(self.manager, true, self.api_version, self.subresource, fields);
            // Upstream moves the time with every apply that changes a value.
            let time = last.as_ref().map(Entry::time).unwrap_or_default();
            entry.set_time(if new == *live { time } else { self.now });
            managers.0.push(entry);
        }
        Ok(Applied { object: new, managers })
    }

    /// Without what this manager applied last time, does not now, and nobody else owns.
    fn pruned(&self, merged: Value, others: &Managers, mine: &Set, last: &Set) -> Value {
        let place = self.place;
        let set = |value: &Value| match value {
            Value::Object(map) => to_field_set(place, map).with_named_fields(place),
            _ => Set::default(),
        };
        let last = last.with_named_fields(place);
        let all = set(&merged);
        // First: without the last configuration, but with what anybody owns.
        let pruned = set(&remove(place, merged.clone(), &last));
        let mut gone = all.clone();
        gone.subtract(&pruned);
        gone.subtract(&mine.with_named_fields(place));
        for entry in others.entries() {
            gone.subtract(&entry.fields().with_named_fields(place));
        }
        // Then: of what that takes away, only what was in the last configuration.
        let pruned = set(&remove(place, merged.clone(), &gone));
        let mut gone = all;
        gone.subtract(&pruned);
        remove(place, merged, &gone.intersection(&last))
    }

    /// The conflicts that are not about what client-side apply left as it is now.
    fn not_by_client_side_apply(
        &self,
        live: &Object,
        conflicts: Vec<Conflict>,
    ) -> Result<Vec<Conflict>, ApplyError> {
        let last = live.annotation(LAST_APPLIED).unwrap_or_default();
        let Ok(Value::Object(last)) = serde_json::from_str::<Value>(last) else {
            return Ok(conflicts);
        };
        if last.get("apiVersion").and_then(Value::as_str) != Some(self.api_version) {
            return Ok(conflicts);
        }
        let mut allowed = to_field_set(self.place, &last);
        let delta = compare(self.place, &Scope::ALL, &last, &live.0);
        allowed.subtract(&delta.changed);
        allowed.subtract(&delta.removed);
        let allowed = allowed.paths();
        Ok(conflicts.into_iter().filter(|conflict| !allowed.contains(&conflict.path)).collect())
    }

    /// Keeps client-side apply's annotation in step, so that it may be gone back to.
    fn with_last_applied(&self, mut applied: Applied, config: &Object) -> Applied {
        let kept = applied.object.annotation(LAST_APPLIED).is_some_and(|text| !text.is_empty());
        if self.manager != KUBECTL || !kept {
            return applied;
        }
        let mut config = config.clone();
        if let Some(Value::Object(annotations)) = config.metadata_mut().get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                config.metadata_mut().remove("annotations");
            }
        }
        let text = go_json(&config.into_value()) + "\n";
        let others = applied.object.annotations().filter(|(key, _)| *key != LAST_APPLIED);
        let bytes: usize = others.map(|(key, value)| key.len() + value.len()).sum();
        let Some(Value::Object(annotations)) = applied.object.metadata_mut().get_mut("annotations")
        else {
            return applied;
        };
        if bytes + LAST_APPLIED.len() + text.len() > ANNOTATIONS_BYTES_MAX {
            annotations.remove(LAST_APPLIED);
        } else {
            annotations.insert(LAST_APPLIED.into(), text.into());
        }
        applied
    }
}

fn conflicts(managers: &Managers, deltas: &Deltas) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for entry in managers.entries() {
        let (fields, changed) = (entry.fields(), &deltas.of(entry).changed);
        if !fields.intersects(changed) {
            continue;
        }
        let manager = entry.described();
        let paths = fields.intersection(changed).paths().into_iter();
        conflicts.extend(paths.map(|path| Conflict { manager: manager.clone(), path }));
    }
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    conflicts
}

/// Go's text of a group, version and kind: `apps/v1, Kind=Deployment`, `/v1, Kind=Pod`.
fn gvk(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

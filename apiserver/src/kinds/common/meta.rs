//! `metadata` of every kind: names, labels, annotations, owners, finalizers.

use super::{
    super::{KindDef, NameRule},
    field::{At, Errors},
    labels,
};
use k8s::{FieldError, Object, names as rules};
use serde_json::Value;
use std::collections::BTreeSet;

/// All keys and values of annotations together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Everything wrong with the metadata of a new object. The core calls it for every kind, after it
/// has made the name of `generateName` and set the namespace of the request.
pub fn validate(kind: &KindDef, new: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let meta = At::top(new, "metadata");
    let (name, prefix) = (meta.field("name"), meta.field("generateName"));
    if !prefix.text().is_empty() {
        errors.invalid_each(&prefix, name_errors(kind.name, prefix.text(), true));
    }
    match name.text() {
        "" => errors.required(&name, "name or generateName is required"),
        text => errors.invalid_each(&name, name_errors(kind.name, text, false)),
    }
    let namespace = meta.field("namespace");
    match (kind.namespaced, namespace.text()) {
        (true, "") => errors.required(&namespace, ""),
        (true, text) => errors.invalid_each(&namespace, rules::is_dns1123_label(text)),
        (false, "") => (),
        (false, _) => errors.forbidden(&namespace, "not allowed on this type"),
    }
    errors.not_negative(&meta.field("generation"));
    validate_common(&meta, &mut errors);
    errors.0
}

/// Everything wrong with the metadata of the next version of an object.
pub fn validate_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (meta, was) = (At::top(new, "metadata"), At::top(old, "metadata"));
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"] {
        let (now, before) = (meta.field(field), was.field(field));
        if now.exists() {
            errors.immutable(&now, &before);
        }
    }
    validate_common(&meta, &mut errors);
    if old.deletion_timestamp().is_some() {
        let had: BTreeSet<&str> = old.finalizers().collect();
        let added: Vec<String> = new
            .finalizers()
            .filter(|finalizer| !had.contains(finalizer))
            .map(|finalizer| format!("{finalizer:?}"))
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden(&meta.field("finalizers"), detail);
        }
    }
    errors.0
}

/// What is wrong with a name, or with the prefix of one to be generated.
pub fn name_errors(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    // A prefix may end in the dash before the generated part.
    let name = if prefix { rules::mask_trailing_dash(name) } else { name.to_string() };
    match rule {
        NameRule::Subdomain => rules::is_dns1123_subdomain(&name),
        NameRule::Label => rules::is_dns1123_label(&name),
        NameRule::Rfc1035Label => rules::is_dns1035_label(&name),
        NameRule::PathSegment if prefix => rules::is_path_segment_prefix(&name),
        NameRule::PathSegment => rules::is_path_segment_name(&name),
    }
}

/// The metadata of a template, which has no name of its own.
pub(crate) fn validate_template(meta: &At<'_, '_>, errors: &mut Errors) {
    labels::validate_labels(&meta.field("labels"), errors);
    validate_annotations(&meta.field("annotations"), errors);
}

fn validate_common(meta: &At<'_, '_>, errors: &mut Errors) {
    labels::validate_labels(&meta.field("labels"), errors);
    validate_annotations(&meta.field("annotations"), errors);
    validate_owners(&meta.field("ownerReferences"), errors);
    validate_finalizers(&meta.field("finalizers"), errors);
}

fn validate_annotations(annotations: &At<'_, '_>, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        for detail in rules::is_qualified_name(&key.to_lowercase()) {
            errors.invalid_value(annotations, key, detail);
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.too_long(annotations, ANNOTATIONS_BYTES_MAX);
    }
}

fn validate_owners(owners: &At<'_, '_>, errors: &mut Errors) {
    let mut controller: Option<&str> = None;
    for owner in owners.items() {
        let version = owner.field("apiVersion");
        if version.text().rsplit('/').next().unwrap_or_default().is_empty() {
            errors.invalid_value(&version, version.text(), "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            let at = owner.field(field);
            if at.text().is_empty() {
                errors.invalid_value(&at, "", format!("{field} must not be empty"));
            }
        }
        if matches!(version.text(), "v1" | "events.k8s.io/v1")
            && owner.field("kind").text() == "Event"
        {
            let detail =
                format!("{}, Kind=Event is disallowed from being an owner", version.text());
            errors.invalid(&owner, detail);
        }
        if owner.field("controller").flag() {
            let name = owner.field("name").text();
            if let Some(first) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                errors.invalid(owners, detail);
            }
            controller = Some(name);
        }
    }
}

fn validate_finalizers(finalizers: &At<'_, '_>, errors: &mut Errors) {
    for finalizer in finalizers.items() {
        for detail in rules::is_qualified_name(finalizer.text()) {
            errors.invalid_value(finalizers, finalizer.text(), detail);
        }
    }
    let list = finalizers.value().and_then(Value::as_array);
    let has = |name: &str| list.is_some_and(|list| list.iter().any(|f| f.as_str() == Some(name)));
    let (orphan, foreground) = ("orphan", "foregroundDeletion");
    if has(orphan) && has(foreground) {
        let detail = format!("finalizer {orphan} and {foreground} cannot be both set");
        errors.invalid(finalizers, detail);
    }
}

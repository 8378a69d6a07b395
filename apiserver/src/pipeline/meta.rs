//! `metadata`: what the server sets, what a client may not change, and what is wrong with the rest
//! (upstream's `ValidateObjectMeta` and `ValidateObjectMetaUpdate`).

use crate::kinds::{KindDef, NameRule};
use jiff::Timestamp;
use k8s::{FieldError, Object, Status, names};
use rand::Rng;
use serde_json::{Value, json};

/// Upstream's: no vowels, so that no words come out; no 0, 1, 3, which look like letters.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const RANDOM_CHARS: usize = 5;
/// `MaxNameLength` of names.SimpleNameGenerator.
const GENERATED_NAME_MAX: usize = 63;
/// `TotalAnnotationSizeLimitB`.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Set only by the server; a client's value is ignored on create.
const SERVER_OWNED: &[&str] =
    &["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// The present, in whole seconds as the API writes it.
pub(crate) fn now() -> String {
    time(Timestamp::now())
}

pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What the server sets in a new object.
pub(crate) fn begin(kind: &KindDef, object: &mut Object) {
    let metadata = object.metadata_mut();
    for field in SERVER_OWNED {
        metadata.remove(*field);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), now().into());
    if kind.generation {
        metadata.insert("generation".into(), 1.into());
    }
}

/// A name beginning with `base`, as upstream generates it.
pub(crate) fn generate_name(base: &str) -> String {
    let mut rng = rand::rng();
    let keep = base.len().min(GENERATED_NAME_MAX - RANDOM_CHARS);
    let mut name = base.get(..keep).unwrap_or_default().to_string();
    name.extend((0..RANDOM_CHARS).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char));
    name
}

/// Gives a nameless object with `generateName` its name; true if it did.
pub(crate) fn name_it(object: &mut Object) -> bool {
    if !object.name().is_empty() || object.str_at("/metadata/generateName").is_empty() {
        return false;
    }
    let name = generate_name(object.str_at("/metadata/generateName"));
    object.metadata_mut().insert("name".into(), name.into());
    true
}

/// The object's namespace must be the request's, or empty (upstream's
/// `EnsureObjectNamespaceMatchesRequestNamespace`).
pub(crate) fn settle_namespace(
    kind: &KindDef,
    namespace: &str,
    object: &mut Object,
) -> Result<(), Status> {
    let own = object.namespace();
    if !kind.namespaced {
        if !own.is_empty() {
            object.metadata_mut().remove("namespace");
        }
        return Ok(());
    }
    if namespace.is_empty() {
        return Err(Status::bad_request("an empty namespace may not be set during creation"));
    }
    if own.is_empty() {
        object.metadata_mut().insert("namespace".into(), namespace.into());
    } else if own != namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the \
             request ({own} != {namespace})"
        )));
    }
    Ok(())
}

/// What an update may not set: kept as it was where the client left it out.
pub(crate) fn carry_over(new: &mut Object, old: &Object) {
    let was = old.metadata().cloned().unwrap_or_default();
    let metadata = new.metadata_mut();
    for field in SERVER_OWNED.iter().chain(&["name", "namespace", "generateName"]) {
        let absent = metadata.get(*field).is_none_or(|value| value.is_null() || value == "");
        // Generation is the server's own count, whatever the client sent.
        if (absent || *field == "generation")
            && let Some(value) = was.get(*field)
        {
            metadata.insert((*field).into(), value.clone());
        }
    }
}

/// Counts a change of what the user wants: anything but metadata and status.
pub(crate) fn count_generation(kind: &KindDef, new: &mut Object, old: &Object) {
    if !kind.generation {
        return;
    }
    const OTHER: &[&str] = &["apiVersion", "kind", "metadata"];
    // A custom kind may have a status without the subresource; then it is the user's.
    let own = |field: &str| field == "status" && (kind.has_status() || !kind.is_custom());
    let wanted = |(field, _): &(&String, &Value)| !OTHER.contains(&field.as_str()) && !own(field);
    let more = |object: &Object| {
        let metadata = object.metadata();
        let field = metadata.and_then(|metadata| metadata.get(kind.generation_of));
        field.and_then(Value::as_object).filter(|map| !map.is_empty()).cloned()
    };
    let changed =
        !new.0.iter().filter(wanted).eq(old.0.iter().filter(wanted)) || more(new) != more(old);
    let generation = old.generation() + i64::from(changed);
    new.metadata_mut().insert("generation".into(), generation.into());
}

/// Everything wrong with the metadata of a new version.
pub(crate) fn validate(kind: &KindDef, object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let invalid = |path: &str, value: &str, messages: Vec<String>, errors: &mut Vec<FieldError>| {
        errors
            .extend(messages.into_iter().map(|text| FieldError::invalid(path, value.into(), text)));
    };
    if object.name().is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        invalid("metadata.name", object.name(), name_errors(kind, object.name()), &mut errors);
    }
    if kind.namespaced {
        let namespace = object.namespace();
        invalid("metadata.namespace", namespace, names::is_dns1123_label(namespace), &mut errors);
    }
    for (key, value) in object.labels() {
        invalid("metadata.labels", key, names::is_qualified_name(key), &mut errors);
        invalid("metadata.labels", value, names::is_label_value(value), &mut errors);
    }
    let mut bytes = 0;
    for (key, value) in object.annotations() {
        let messages = names::is_qualified_name(&key.to_lowercase());
        invalid("metadata.annotations", key, messages, &mut errors);
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX));
    }
    owner_reference_errors(object, &mut errors);
    for finalizer in object.finalizers() {
        finalizer_errors(finalizer, has_strict_finalizers(kind), &mut errors);
    }
    let set = |wanted: &str| object.finalizers().any(|finalizer| finalizer == wanted);
    if set("orphan") && set("foregroundDeletion") {
        let all: Vec<&str> = object.finalizers().collect();
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid("metadata.finalizers", all.into(), why));
    }
    errors
}

/// True where upstream checks metadata as the core's kinds do, and not as an extension's.
fn has_strict_finalizers(kind: &KindDef) -> bool {
    const EXTENSIONS: &[&str] =
        &["admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io"];
    !kind.is_custom() && !EXTENSIONS.contains(&kind.group)
}

fn name_errors(kind: &KindDef, name: &str) -> Vec<String> {
    match kind.name {
        NameRule::Subdomain => names::is_dns1123_subdomain(name),
        NameRule::Label => names::is_dns1123_label(name),
        NameRule::Rfc1035Label => names::is_dns1035_label(name),
        NameRule::PathSegment => path_segment_errors(name),
        NameRule::Ip => ip_errors(name),
    }
}

/// The name of an IPAddress is the address, written in one way only.
fn ip_errors(name: &str) -> Vec<String> {
    match name.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.to_string() == name => Vec::new(),
        Ok(ip) => vec![format!("must be in canonical form (\"{ip}\")")],
        Err(_) => names::is_ip(name),
    }
}

/// Upstream's `IsValidPathSegmentName`.
fn path_segment_errors(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    let illegal = ["/", "%"].into_iter().filter(|part| name.contains(part));
    illegal.map(|part| format!("may not contain '{part}'")).collect()
}

/// Drops owner references that say the same again, and the warning of it (upstream's
/// `dedupOwnerReferences`).
pub(crate) fn dedup_owners(object: &mut Object, admitted: bool) -> Option<String> {
    let references = object.metadata_mut().get_mut("ownerReferences")?.as_array_mut()?;
    let mut kept: Vec<Value> = Vec::with_capacity(references.len());
    let mut again = Vec::new();
    for reference in references.drain(..) {
        if kept.contains(&reference) {
            again.push(reference["uid"].as_str().unwrap_or_default().to_string());
        } else {
            kept.push(reference);
        }
    }
    *references = kept;
    if again.is_empty() {
        return None;
    }
    let when = if admitted { " after mutating admission happens" } else { "" };
    Some(format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner \
         references in 1.20+, and may reject such requests as early as 1.24; please fix your \
         requests; duplicate UID(s) observed: {}",
        again.join(", ")
    ))
}

fn owner_reference_errors(object: &Object, errors: &mut Vec<FieldError>) {
    const PATH: &str = "metadata.ownerReferences";
    let references = object.at("/metadata/ownerReferences").and_then(Value::as_array);
    let mut controller: Option<&str> = None;
    for reference in references.into_iter().flatten() {
        let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
        let mut need = |field: &str, empty: bool, why: &str| {
            if empty {
                let path = format!("{PATH}.{field}");
                errors.push(FieldError::invalid(path, text(field).into(), why));
            }
        };
        let version = text("apiVersion").rsplit('/').next().unwrap_or_default();
        need("apiVersion", version.is_empty(), "version must not be empty");
        need("kind", text("kind").is_empty(), "must not be empty");
        need("name", text("name").is_empty(), "must not be empty");
        need("uid", text("uid").is_empty(), "must not be empty");
        if text("kind") == "Event" && matches!(text("apiVersion"), "v1") {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(PATH, reference.clone(), why));
        }
        if reference.get("controller") == Some(&Value::Bool(true)) {
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {first} and {}",
                    text("name")
                );
                let all = object.at("/metadata/ownerReferences").cloned().unwrap_or_default();
                errors.push(FieldError::invalid(PATH, all, why));
            }
            controller = Some(text("name"));
        }
    }
}

fn finalizer_errors(finalizer: &str, strict: bool, errors: &mut Vec<FieldError>) {
    const STANDARD: &[&str] = &["kubernetes", "foregroundDeletion", "orphan"];
    let path = "metadata.finalizers";
    let messages = names::is_qualified_name(finalizer);
    let bad_name = !messages.is_empty();
    errors
        .extend(messages.into_iter().map(|text| FieldError::invalid(path, finalizer.into(), text)));
    if strict && !bad_name && !finalizer.contains('/') && !STANDARD.contains(&finalizer) {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, finalizer.into(), why));
    }
}

/// Everything an update of metadata may not do.
pub(crate) fn validate_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = |object: &Object, field: &str| {
        object.metadata().and_then(|metadata| metadata.get(field)).cloned().unwrap_or_default()
    };
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let value = at(new, field);
        if value != at(old, field) {
            let path = format!("metadata.{field}");
            errors.push(FieldError::invalid(path, value, "field is immutable"));
        }
    }
    if old.deletion_timestamp().is_some() {
        let had: Vec<&str> = old.finalizers().collect();
        let fresh: Vec<&str> = new.finalizers().filter(|name| !had.contains(name)).collect();
        if !fresh.is_empty() {
            let quoted: Vec<String> = fresh.iter().map(|name| json!(name).to_string()).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                quoted.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", why));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_name_keeps_what_fits_of_its_base() {
        let name = generate_name(&"x".repeat(80));
        assert_eq!(name.len(), GENERATED_NAME_MAX);
        assert!(name.bytes().skip(58).all(|byte| ALPHABET.contains(&byte)));
    }

    #[test]
    fn a_finalizer_is_standard_or_qualified() {
        let mut errors = Vec::new();
        for name in ["kubernetes", "foregroundDeletion", "example.com/x"] {
            finalizer_errors(name, true, &mut errors);
        }
        finalizer_errors("mine", false, &mut errors);
        assert_eq!(errors, vec![]);
        finalizer_errors("mine", true, &mut errors);
        assert_eq!(errors.len(), 1);
    }
}

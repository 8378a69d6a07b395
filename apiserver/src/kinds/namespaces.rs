//! Namespaces: scopes for names.

use super::{
    Column, KindDef, NameRule, SelectableField, Subresource, Verbs,
    common::{
        self,
        field::{At, Errors},
        print,
    },
};
use k8s::{FieldError, Object, names};
use serde_json::json;

pub(super) const KIND: KindDef = KindDef {
    kind: "Namespace",
    plural: "namespaces",
    short_names: &["ns"],
    namespaced: false,
    schema: "core.v1.Namespace",
    verbs: Verbs::NoDeleteCollection,
    subresources: &[
        Subresource::Status,
        Subresource::Named { name: "finalize", schema: "core.v1.Namespace", verbs: &["update"] },
    ],
    columns: &[
        Column::NAME,
        Column::text("Status", |o, _| print::text(o, "/status/phase")),
        Column::AGE,
    ],
    selectable: &[SelectableField::text("status.phase", |o| o.str_at("/status/phase").to_string())],
    name: NameRule::Label,
    default,
    prepare_create,
    prepare_update,
    validate,
    validate_status,
    held: |namespace| namespace.at("/spec/finalizers/0").is_some(),
    mark_deleted: |namespace| {
        namespace.map_mut("status").insert("phase".into(), "Terminating".into());
    },
    ..KindDef::BASE
};

/// Every namespace can be selected by its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Held by the namespace controller until all content is gone.
const FINALIZER: &str = "kubernetes";

fn default(namespace: &mut Object) {
    let name = namespace.name().to_string();
    if !name.is_empty() {
        let metadata = namespace.metadata_mut();
        if let Some(labels) = common::made(metadata, "labels") {
            labels.insert(NAME_LABEL.into(), name.into());
        }
    }
}

fn prepare_create(namespace: &mut Object) {
    // A generated name is there by now.
    default(namespace);
    namespace.0.insert("status".into(), json!({ "phase": "Active" }));
    let spec = namespace.map_mut("spec");
    common::set_default(spec, "finalizers", json!([]));
    if let Some(list) = spec.get_mut("finalizers").and_then(|list| list.as_array_mut())
        && !list.contains(&json!(FINALIZER))
    {
        list.push(json!(FINALIZER));
    }
}

/// `spec.finalizers` changes through `finalize` only.
fn prepare_update(new: &mut Object, old: &Object) {
    common::keep_status(new, old);
    match old.0.get("spec") {
        Some(spec) => new.0.insert("spec".into(), spec.clone()),
        None => new.0.remove("spec"),
    };
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if old.is_none() {
        // Upstream names the list, not the entry.
        let finalizers = At::top(new, "spec");
        let finalizers = finalizers.field("finalizers");
        for finalizer in finalizers.texts() {
            validate_finalizer(finalizer, &finalizers, &mut errors);
        }
    }
    errors.0
}

fn validate_finalizer(finalizer: &str, at: &At<'_, '_>, errors: &mut Errors) {
    for detail in names::is_qualified_name(finalizer) {
        errors.invalid_value(at, finalizer, detail);
    }
    if !finalizer.contains('/') && !matches!(finalizer, FINALIZER | "orphan" | "foregroundDeletion")
    {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.invalid_value(at, finalizer, detail);
    }
}

/// The phase follows from the deletion, whoever writes it.
fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let phase = At::top(new, "status");
    let phase = phase.field("phase").renamed("Phase");
    let (wanted, detail) = match new.deletion_timestamp() {
        None => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
        Some(_) => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
    };
    if phase.text() != wanted {
        errors.invalid_value(&phase, phase.text(), detail);
    }
    errors.0
}

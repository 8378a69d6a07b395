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

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    for finalizer in spec.field("finalizers").items() {
        errors.invalid_each(&finalizer, names::is_qualified_name(finalizer.text()));
        if !finalizer.text().contains('/') && finalizer.text() != FINALIZER {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&finalizer, detail);
        }
    }
    errors.0
}

//! CustomResourceDefinitions: kinds that users add. Stored, not yet served as kinds.

use super::{
    KindDef, Subresource,
    common::{
        self, child,
        field::{At, Errors},
        made, set_text,
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    schema: "apiextensions.v1.CustomResourceDefinition",
    subresources: &[Subresource::Status],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    unconditional_update: false,
    default,
    validate,
    ..KindDef::BASE
};

fn default(definition: &mut Object) {
    let spec = definition.map_mut("spec");
    if let Some(names) = child(spec, "names") {
        let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_string();
        if !kind.is_empty() {
            set_text(names, "singular", &kind.to_lowercase());
            set_text(names, "listKind", &format!("{kind}List"));
        }
    }
    if let Some(conversion) = made(spec, "conversion") {
        set_text(conversion, "strategy", "None");
    }
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let group = spec.field("group");
    errors.needs_text(&group);
    let of = spec.field("names");
    for field in ["plural", "kind"] {
        errors.needs_text(&of.field(field));
    }
    let wanted = format!("{}.{}", of.field("plural").text(), group.text());
    if new.name() != wanted {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.invalid(&At::top(new, "metadata").field("name"), detail);
    }
    errors.one_of(&spec.field("scope"), &["Cluster", "Namespaced"], true);
    let versions = spec.field("versions");
    if versions.items().filter(|version| version.field("storage").flag()).count() != 1 {
        errors.invalid(&versions, "must have exactly one version marked as storage version");
    }
    errors.0
}

//! ResourceClaimTemplates: claims made for each pod.

use super::{
    Column, KindDef,
    common::{
        child, devices,
        field::{At, Errors},
        labels,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "resource.k8s.io",
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    schema: "resource.v1.ResourceClaimTemplate",
    columns: &[Column::NAME, Column::AGE],
    default,
    validate,
    ..KindDef::BASE
};

fn default(template: &mut Object) {
    if let Some(spec) = child(template.map_mut("spec"), "spec") {
        devices::default_spec(spec);
    }
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    labels::validate_template_metadata(&spec.field("metadata"), &mut errors);
    devices::validate_spec(&spec.field("spec"), &mut errors);
    if let Some(old) = old {
        errors.immutable(&spec, &At::top(old, "spec"));
    }
    errors.0
}

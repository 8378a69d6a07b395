//! PodTemplates: a pod to be made later.

use super::{
    Column, KindDef,
    common::{
        child,
        field::{At, Errors},
        pod_spec, print,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    kind: "PodTemplate",
    plural: "podtemplates",
    schema: "core.v1.PodTemplate",
    columns: &[
        Column::NAME,
        Column::text("Containers", |o, _| print::containers(o, "/template/spec")),
        Column::text("Images", |o, _| print::images(o, "/template/spec")),
        Column::text("Pod Labels", |o, _| print::labels(o.at("/template/metadata/labels")).into()),
    ],
    generation: true,
    default,
    validate,
    warnings,
    ..KindDef::BASE
};

fn default(template: &mut Object) {
    if let Some(spec) = child(template.map_mut("template"), "spec") {
        pod_spec::default(spec);
    }
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    pod_spec::validate_any_template(&At::top(new, "template"), &mut errors);
    errors.0
}

fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    match old {
        Some(old) if old.at("/template") == new.at("/template") => Vec::new(),
        _ => pod_spec::template_warnings(&At::top(new, "template")),
    }
}

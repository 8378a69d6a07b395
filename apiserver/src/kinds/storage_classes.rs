//! StorageClasses: kinds of storage that claims may name.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors},
        print, set_text,
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
    short_names: &["sc"],
    namespaced: false,
    schema: "storage.v1.StorageClass",
    columns: &[
        Column { value: |o, _| name(o), ..Column::NAME },
        Column::text("Provisioner", |o, _| print::text(o, "/provisioner")),
        Column::text("ReclaimPolicy", |o, _| print::text(o, "/reclaimPolicy")),
        Column::text("VolumeBindingMode", |o, _| print::text(o, "/volumeBindingMode")),
        Column::boolean("AllowVolumeExpansion", |o, _| {
            print::boolean(o, "/allowVolumeExpansion").into()
        }),
        Column::AGE,
    ],
    default,
    validate,
    ..KindDef::BASE
};

fn name(object: &Object) -> Value {
    let annotation = object.annotation("storageclass.kubernetes.io/is-default-class");
    match annotation == Some("true") {
        true => format!("{} (default)", object.name()).into(),
        false => object.name().into(),
    }
}

fn default(class: &mut Object) {
    set_text(&mut class.0, "reclaimPolicy", "Delete");
    set_text(&mut class.0, "volumeBindingMode", "Immediate");
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (provisioner, parameters) = (At::top(new, "provisioner"), At::top(new, "parameters"));
    errors.needs_text(&provisioner);
    let (policy, mode) = (At::top(new, "reclaimPolicy"), At::top(new, "volumeBindingMode"));
    errors.one_of(&policy, &["Delete", "Retain"], false);
    errors.one_of(&mode, &["Immediate", "WaitForFirstConsumer"], true);
    if let Some(old) = old {
        if At::top(old, "parameters").value() != parameters.value() {
            errors.forbidden(&parameters, "updates to parameters are forbidden.");
        }
        if At::top(old, "provisioner").value() != provisioner.value() {
            errors.forbidden(&provisioner, "updates to provisioner are forbidden.");
        }
        if At::top(old, "reclaimPolicy").value() != policy.value() {
            errors.forbidden(&policy, "updates to reclaimPolicy are forbidden.");
        }
        errors.immutable(&mode, &At::top(old, "volumeBindingMode"));
    }
    errors.0
}

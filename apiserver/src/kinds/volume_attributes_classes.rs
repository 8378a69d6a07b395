//! VolumeAttributesClasses: mutable properties that claims may name.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors},
        print,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    short_names: &["vac"],
    namespaced: false,
    schema: "storage.v1.VolumeAttributesClass",
    columns: &[
        Column::NAME,
        Column::text("DriverName", |o, _| print::text(o, "/driverName")),
        Column::AGE,
    ],
    validate,
    ..KindDef::BASE
};

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let driver = At::top(new, "driverName");
    errors.needs_text(&driver);
    if let Some(old) = old {
        if At::top(old, "driverName").value() != driver.value() {
            errors.forbidden(&driver, "updates to driverName are forbidden.");
        }
        let parameters = At::top(new, "parameters");
        if At::top(old, "parameters").value() != parameters.value() {
            errors.forbidden(&parameters, "updates to parameters are forbidden.");
        }
    }
    errors.0
}

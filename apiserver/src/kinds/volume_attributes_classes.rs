//! VolumeAttributesClasses: mutable properties that claims may name.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors, same},
        print,
        volume_sources::driver_name,
    },
    storage_classes,
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
    let (driver, parameters) = (At::top(new, "driverName"), At::top(new, "parameters"));
    match old {
        None => {
            driver_name(&driver, &mut errors);
            storage_classes::validate_parameters(&parameters, false, &mut errors);
        }
        Some(old) => {
            for now in [&driver, &parameters] {
                let field = now.to_string();
                if !same(now.value(), old.0.get(&field)) {
                    errors.forbidden(now, format!("updates to {field} are forbidden."));
                }
            }
        }
    }
    errors.0
}

//! ConfigMaps: non-secret configuration that pods read.

use super::{
    Column, KindDef,
    common::{
        config::{self, BYTES_MAX},
        field::{At, Errors},
        print,
    },
};
use k8s::{FieldError, Object, names};

pub(super) const KIND: KindDef = KindDef {
    kind: "ConfigMap",
    plural: "configmaps",
    short_names: &["cm"],
    schema: "core.v1.ConfigMap",
    columns: &[
        Column::NAME,
        Column::text("Data", |o, _| {
            (print::count(o, "/data") + print::count(o, "/binaryData")).into()
        }),
        Column::AGE,
    ],
    validate,
    ..KindDef::BASE
};

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (data, binary) = (At::top(new, "data"), At::top(new, "binaryData"));
    let mut bytes = 0;
    for (key, value) in data.entries() {
        for detail in names::is_config_map_key(key) {
            errors.invalid_value(&value, key, detail);
        }
        if binary.key(key).exists() {
            errors.invalid_value(&value, key, "duplicate of key present in binaryData");
        }
        bytes += value.text().len();
    }
    for (key, value) in binary.entries() {
        for detail in names::is_config_map_key(key) {
            errors.invalid_value(&value, key, detail);
        }
        bytes += config::decoded_bytes(value.text());
    }
    if bytes > BYTES_MAX {
        errors.0.push(FieldError::too_long("", BYTES_MAX));
    }
    if let Some(old) = old {
        config::validate_immutable(new, old, &["data", "binaryData"], &mut errors);
    }
    errors.0
}

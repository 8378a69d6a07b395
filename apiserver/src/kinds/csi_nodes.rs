//! CSINodes: the volume drivers of a node.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors, same},
        print,
        volume_sources::driver_name,
    },
};
use k8s::{FieldError, Object};
use std::collections::BTreeSet;

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "CSINode",
    plural: "csinodes",
    namespaced: false,
    schema: "storage.v1.CSINode",
    columns: &[
        Column::NAME,
        Column::integer("Drivers", |o, _| print::count(o, "/spec/drivers").into()),
        Column::AGE,
    ],
    unconditional_update: false,
    validate,
    ..KindDef::BASE
};

/// What the CSI specification allows for the id of a node, in bytes.
const NODE_ID_BYTES_MAX: usize = 256;

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let mut names = BTreeSet::new();
    for driver in spec.field("drivers").items() {
        let (name, id) = (driver.field("name"), driver.field("nodeID"));
        driver_name(&name, &mut errors);
        if !names.insert(name.text()) {
            errors.duplicate(&name);
        }
        if errors.needs_text(&id) && id.text().len() > NODE_ID_BYTES_MAX {
            let detail = format!("must be {NODE_ID_BYTES_MAX} characters or less");
            errors.invalid(&id, detail);
        }
        let mut keys = BTreeSet::new();
        for key in driver.field("topologyKeys").items() {
            if key.text().is_empty() {
                errors.required(&key, "");
            }
            if !keys.insert(key.text()) {
                errors.duplicate(&key);
            }
            errors.qualified_name(&key);
        }
        errors.not_negative(&driver.field("allocatable").field("count"));
    }
    if let Some(old) = old {
        let was = At::top(old, "spec");
        let was = was.field("drivers");
        for driver in spec.field("drivers").items() {
            let name = driver.field("name").text();
            let before = was.items().find(|old| old.field("name").text() == name);
            let kept = |before: &At<'_, '_>| {
                ["nodeID", "topologyKeys"]
                    .into_iter()
                    .all(|field| same(driver.field(field).value(), before.field(field).value()))
            };
            if before.is_some_and(|before| !kept(&before)) {
                errors.invalid(&driver, "field is immutable");
            }
        }
    }
    errors.0
}

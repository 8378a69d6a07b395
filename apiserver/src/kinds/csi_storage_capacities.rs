//! CSIStorageCapacities: how much room a driver has in a part of the cluster.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors, NOT_NEGATIVE},
        labels, print,
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "storage.k8s.io",
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    schema: "storage.v1.CSIStorageCapacity",
    columns: &[
        Column::NAME,
        Column::text("StorageClassName", |o, _| print::text(o, "/storageClassName")),
        Column::text("Capacity", |o, _| print::scalar(o.at("/capacity"), "<unset>").into()),
    ],
    unconditional_update: false,
    validate,
    ..KindDef::BASE
};

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (topology, class) = (At::top(new, "nodeTopology"), At::top(new, "storageClassName"));
    labels::validate_selector(&topology, &mut errors);
    for detail in k8s::names::is_dns1123_subdomain(class.text()) {
        errors.invalid_value(&class, class.text(), detail);
    }
    for field in ["capacity", "maximumVolumeSize"] {
        let at = At::top(new, field);
        if let Some(amount) = at.quantity().filter(|amount| amount.sign() < 0) {
            errors.invalid_value(&at, amount.to_string(), NOT_NEGATIVE);
        }
    }
    if let Some(old) = old {
        errors.immutable(&topology, &At::top(old, "nodeTopology"));
        errors.immutable(&class, &At::top(old, "storageClassName"));
    }
    errors.0
}

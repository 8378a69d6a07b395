//! DeviceClasses: kinds of devices that claims may name.

use super::{
    Column, KindDef,
    common::{
        devices,
        field::{At, Errors},
    },
};
use k8s::{FieldError, Object};

pub(super) const KIND: KindDef = KindDef {
    group: "resource.k8s.io",
    kind: "DeviceClass",
    plural: "deviceclasses",
    namespaced: false,
    schema: "resource.v1.DeviceClass",
    columns: &[Column::NAME, Column::AGE],
    generation: true,
    validate,
    ..KindDef::BASE
};

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    const CONFIG_MAX: usize = 32;
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    devices::validate_selectors(&spec.field("selectors"), &mut errors);
    let config = spec.field("config");
    errors.too_many(&config, CONFIG_MAX);
    config.items().for_each(|entry| devices::validate_config(&entry, &mut errors));
    let resource = spec.field("extendedResourceName");
    if resource.exists() {
        errors.qualified_name(&resource);
        if !resource.text().contains('/') {
            errors.invalid(&resource, "must be a valid extended resource name");
        }
    }
    errors.0
}

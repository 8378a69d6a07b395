//! StorageClasses: kinds of storage that claims may name.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors, same},
        labels, pod_spec, print, set_text,
    },
};
use k8s::{FieldError, Object, names};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

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
        Column::text("AllowVolumeExpansion", |o, _| {
            print::boolean(o, "/allowVolumeExpansion").into()
        }),
        Column::AGE,
    ],
    default,
    validate,
    warnings,
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

/// Upstream's bounds of what a driver is told: entries, and bytes in all.
pub(super) const PARAMETERS_MAX: usize = 512;
pub(super) const PARAMETER_BYTES_MAX: usize = 256 * 1024;

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (provisioner, parameters) = (At::top(new, "provisioner"), At::top(new, "parameters"));
    let (policy, mode) = (At::top(new, "reclaimPolicy"), At::top(new, "volumeBindingMode"));
    if let Some(old) = old {
        for now in [&parameters, &provisioner, &policy] {
            let field = now.to_string();
            if !same(now.value(), old.0.get(&field)) {
                errors.forbidden(now, format!("updates to {field} are forbidden."));
            }
        }
        errors.immutable(&mode, &At::top(old, "volumeBindingMode"));
        return errors.0;
    }
    if errors.needs_text(&provisioner) {
        for detail in names::is_qualified_name(&provisioner.text().to_lowercase()) {
            errors.invalid(&provisioner, detail);
        }
    }
    validate_parameters(&parameters, true, &mut errors);
    errors.one_of(&policy, &["Delete", "Retain"], false);
    errors.one_of(&mode, &["Immediate", "WaitForFirstConsumer"], true);
    topologies(&At::top(new, "allowedTopologies"), &mut errors);
    errors.0
}

/// What a driver is told in a StorageClass or VolumeAttributesClass.
pub(super) fn validate_parameters(
    parameters: &At<'_, '_>,
    may_be_empty: bool,
    errors: &mut Errors,
) {
    if parameters.count() > PARAMETERS_MAX {
        errors.too_long(parameters, PARAMETERS_MAX);
        return;
    }
    let mut bytes = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.invalid_value(parameters, key, "field can not be empty.");
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > PARAMETER_BYTES_MAX {
        errors.too_long(parameters, PARAMETER_BYTES_MAX);
    }
    if parameters.count() == 0 && !may_be_empty {
        errors.required(parameters, "must contain at least one key/value pair");
    }
}

fn topologies(terms: &At<'_, '_>, errors: &mut Errors) {
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for term in terms.items() {
        let mut own: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for expression in term.field("matchLabelExpressions").items() {
            let (key, values) = (expression.field("key"), expression.field("values"));
            if values.count() == 0 {
                errors.required(&values, "");
            }
            let mut set = BTreeSet::new();
            for value in values.items() {
                if !set.insert(value.text()) {
                    errors.duplicate(&value);
                }
            }
            labels::validate_key(&key, errors);
            if own.contains_key(key.text()) {
                errors.duplicate(&key);
            }
            own.insert(key.text(), set);
        }
        if !own.is_empty() && seen.contains(&own) {
            errors.duplicate_value(&term.field("matchLabelExpressions"), "");
        }
        seen.push(own);
    }
}

fn warnings(new: &Object, _: Option<&Object>) -> Vec<String> {
    const ZONES: [&str; 2] =
        ["failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"];
    let mut warnings = Vec::new();
    for term in At::top(new, "allowedTopologies").items() {
        for expression in term.field("matchLabelExpressions").items() {
            let key = expression.field("key");
            if let Some(text) =
                pod_spec::label_warning(key.text()).filter(|_| ZONES.contains(&key.text()))
            {
                warnings.push(format!("{key}: {} is {text}", key.text()));
            }
        }
    }
    warnings
}

//! Labels and label selectors inside objects.

use super::field::{At, Errors};
use k8s::names;

pub(crate) fn validate_labels(labels: &At<'_, '_>, errors: &mut Errors) {
    for (key, value) in labels.entries() {
        for detail in names::is_qualified_name(key) {
            errors.invalid_value(labels, key, detail);
        }
        for detail in names::is_label_value(value.text()) {
            errors.invalid_value(labels, value.text(), detail);
        }
    }
}

/// A label key at a place of its own.
pub(crate) fn validate_key(key: &At<'_, '_>, errors: &mut Errors) {
    for detail in names::is_qualified_name(key.text()) {
        errors.invalid_value(key, key.text(), detail);
    }
}

/// A `metav1.LabelSelector`.
pub(crate) fn validate_selector(selector: &At<'_, '_>, errors: &mut Errors) {
    validate_labels(&selector.field("matchLabels"), errors);
    for expression in selector.field("matchExpressions").items() {
        validate_operator(&expression, false, errors);
        validate_key(&expression.field("key"), errors);
        validate_values(&expression.field("values"), errors);
    }
}

/// Whether a requirement's values fit its operator, which may be an unknown one if `any`.
pub(crate) fn validate_operator(requirement: &At<'_, '_>, any: bool, errors: &mut Errors) {
    let values = requirement.field("values");
    let operator = requirement.field("operator");
    match operator.text() {
        "In" | "NotIn" if values.count() == 0 => {
            errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if values.count() > 0 => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&values, detail);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => (),
        other if !any => errors.invalid_value(&operator, other, "not a valid selector operator"),
        _ => (),
    }
}

pub(crate) fn validate_values(values: &At<'_, '_>, errors: &mut Errors) {
    for value in values.items() {
        errors.invalid_each(&value, names::is_label_value(value.text()));
    }
}

/// The metadata of a template, which has no name of its own.
pub(crate) fn validate_template_metadata(meta: &At<'_, '_>, errors: &mut Errors) {
    validate_labels(&meta.field("labels"), errors);
    let annotations = meta.field("annotations");
    for (key, _) in annotations.entries() {
        for detail in names::is_qualified_name(&key.to_lowercase()) {
            errors.invalid_value(&annotations, key, detail);
        }
    }
}

//! What the three access reviews may ask (`authorization.k8s.io`): one thing, by whom it says, and
//! nothing about themselves. Never who may do what.

use super::{
    field::{At, Errors, same},
    labels,
};
use k8s::{FieldError, Object};

/// A `SelfSubjectAccessReview`, which asks about the caller.
pub(crate) fn validate_own(review: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    validate_question(&At::top(review, "spec"), false, &mut errors);
    validate_metadata(review, &[], "must be empty", &mut errors);
    errors.0
}

/// A `SubjectAccessReview`, which asks about anybody.
pub(crate) fn validate_any(review: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    validate_question(&At::top(review, "spec"), true, &mut errors);
    validate_metadata(review, &[], "must be empty", &mut errors);
    errors.0
}

/// A `LocalSubjectAccessReview`, which asks about anybody in its own namespace.
pub(crate) fn validate_local(review: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(review, "spec");
    validate_question(&spec, true, &mut errors);
    validate_metadata(review, &["namespace"], "must be empty except for namespace", &mut errors);
    let (resource, path) = (spec.field("resourceAttributes"), spec.field("nonResourceAttributes"));
    let namespace = resource.field("namespace");
    if resource.exists() && namespace.text() != review.namespace() {
        errors.invalid_value(&namespace, namespace.text(), "must match metadata.namespace");
    }
    if path.exists() {
        errors.invalid(&path, "disallowed on this kind of request");
    }
    errors.0
}

fn validate_question(spec: &At<'_, '_>, of_somebody: bool, errors: &mut Errors) {
    let (resource, path) = (spec.field("resourceAttributes"), spec.field("nonResourceAttributes"));
    if resource.exists() && path.exists() {
        errors.invalid(&path, "cannot be specified in combination with resourceAttributes");
    }
    if !resource.exists() && !path.exists() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.invalid(&resource, detail);
    }
    let user = spec.field("user");
    if of_somebody && user.text().is_empty() && spec.field("groups").count() == 0 {
        errors.invalid_value(&user, "", "at least one of user or group must be specified");
    }
    validate_selector(&resource.field("fieldSelector"), errors, |key, errors| {
        if key.text().is_empty() {
            errors.required(key, "must be specified");
        }
    });
    let labels = resource.field("labelSelector");
    validate_selector(&labels, errors, labels::validate_key);
    for requirement in labels.field("requirements").items() {
        labels::validate_values(&requirement.field("values"), errors);
    }
}

/// Either text or requirements (KEP-4601). An operator that is unknown here is no error: it may be
/// known to whoever is asked.
fn validate_selector(
    selector: &At<'_, '_>,
    errors: &mut Errors,
    key: impl Fn(&At<'_, '_>, &mut Errors),
) {
    if !selector.exists() {
        return;
    }
    let (raw, requirements) = (selector.field("rawSelector"), selector.field("requirements"));
    if !raw.text().is_empty() && requirements.count() > 0 {
        errors.invalid(&raw, "may not specified at the same time as requirements");
    }
    if raw.text().is_empty() && requirements.count() == 0 {
        let detail =
            format!("when {selector} is specified, requirements or rawSelector is required");
        errors.required(&requirements, &detail);
    }
    for requirement in requirements.items() {
        labels::validate_operator(&requirement, true, errors);
        key(&requirement.field("key"), errors);
    }
}

/// Nothing but `allowed` fields, and whose they are.
fn validate_metadata(review: &Object, allowed: &[&str], detail: &str, errors: &mut Errors) {
    let metadata = At::top(review, "metadata");
    let nothing =
        |value: &At<'_, '_>| value.value() == Some(&"".into()) || same(value.value(), None);
    let said = |(name, value): (&str, At<'_, '_>)| {
        name != "managedFields" && !allowed.contains(&name) && !nothing(&value)
    };
    if metadata.entries().any(said) {
        errors.invalid(&metadata, detail);
    }
}

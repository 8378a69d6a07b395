//! Objects of a custom kind against everything its definition says of them.

use super::{CustomKind, definition::Scale, embedded, rules};
use crate::encode;
use k8s::{
    CauseReason, FieldError, Object,
    structural::{FieldPath, Target, unique_errors, validate as against},
};
use kcel::Budget;
use serde_json::Value;

/// Everything wrong with `new` besides its metadata, and what of it is forgiven; `old` is `None` on
/// create. `status`: only that part has been written.
pub(crate) fn validate(
    custom: &CustomKind,
    new: &Object,
    old: Option<&Object>,
    status: bool,
) -> rules::Verdict {
    let version = custom.version();
    let node = &version.node;
    let whole = |object: &Object| {
        let mut object = object.clone();
        encode::stamp(&mut object, &custom.def, version.name);
        object.into_value()
    };
    let (new, old) = (whole(new), old.map(whole));
    let mut errors = Vec::new();
    if status {
        if let (Some(value), Some(node)) = (new.get("status"), node.properties.get("status")) {
            let old = old.as_ref().and_then(|old| old.get("status")).map(|old| (old, node));
            errors.extend(against(value, node, Target { prefix: "status", old }));
        }
    } else {
        let old = old.as_ref().map(|old| (old, node));
        errors.extend(against(&new, node, Target { prefix: "", old }));
    }
    if let Some(scale) = &version.scale {
        scale_errors(scale, &new, status, &mut errors);
    }
    if !status {
        errors.extend(embedded::errors(&new, node));
    }
    let was_unique = old.as_ref().is_none_or(|old| unique_errors(old, node).is_empty());
    if was_unique {
        errors.extend(unique_errors(&new, node));
    }
    let Some(rules) = &version.rules else {
        return rules::Verdict { errors, ..Default::default() };
    };
    if errors.iter().any(blocks_rules) {
        let why = "some validation rules were not checked because the object was invalid; correct the \
                   existing errors to complete validation";
        errors.push(FieldError::invalid("<nil>", Value::Null, why));
        return rules::Verdict { errors, ..Default::default() };
    }
    let mut budget = Budget::new(kcel::RUNTIME_BUDGET);
    let mut verdict = rules::run(rules, node, "", (&new, old.as_ref()), true, &mut budget);
    verdict.errors.splice(0..0, errors);
    verdict
}

/// A value of another form than the rules are written for.
fn blocks_rules(error: &FieldError) -> bool {
    matches!(
        error.reason,
        CauseReason::FieldValueNotSupported
            | CauseReason::FieldValueRequired
            | CauseReason::FieldValueTooLong
            | CauseReason::FieldValueTooMany
            | CauseReason::FieldValueTypeInvalid
    )
}

fn scale_errors(scale: &Scale, object: &Value, status: bool, errors: &mut Vec<FieldError>) {
    if !status {
        count_errors(&scale.spec_replicas, object, errors);
    }
    count_errors(&scale.status_replicas, object, errors);
    if scale.selector.is_empty() {
        return;
    }
    let found = FieldPath::parse(&scale.selector, false).ok();
    let found = found.and_then(|path| path.value(object).cloned());
    if let Some(value) = found.filter(|value| !value.is_string() && !value.is_null()) {
        let why = format!("{} accessor error: {value} is not of the type string", scale.selector);
        errors.push(FieldError::invalid(&scale.selector, value, why));
    }
}

fn count_errors(path: &str, object: &Value, errors: &mut Vec<FieldError>) {
    let found = FieldPath::parse(path, false).ok();
    let found = found.and_then(|path| path.value(object).cloned()).unwrap_or(Value::Null);
    let why = match found.as_i64() {
        _ if found.is_null() => return,
        Some(count) if count < 0 => "should be a non-negative integer".to_string(),
        Some(count) if count > i64::from(i32::MAX) => {
            format!("should be less than or equal to {}", i32::MAX)
        }
        Some(_) => return,
        None => format!("{path} accessor error: {found} is not of the type int64"),
    };
    errors.push(FieldError::invalid(path, found, why));
}

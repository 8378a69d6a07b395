//! What ConfigMaps and Secrets share.

use super::field::{At, Errors};
use k8s::Object;
use serde_json::Value;

/// All values of a ConfigMap or Secret together.
pub(crate) const BYTES_MAX: usize = 1024 * 1024;

/// How many bytes base64 text stands for.
pub(crate) fn decoded_bytes(base64: &str) -> usize {
    let padding = base64.bytes().rev().take_while(|byte| *byte == b'=').count();
    (base64.len() / 4 * 3).saturating_sub(padding)
}

/// Once `immutable`, an object stays so and keeps its data.
pub(crate) fn validate_immutable(
    new: &Object,
    old: &Object,
    fields: &[&'static str],
    errors: &mut Errors,
) {
    let detail = "field is immutable when `immutable` is set";
    if old.at("/immutable").and_then(Value::as_bool) != Some(true) {
        return;
    }
    let now = At::top(new, "immutable");
    if !now.flag() {
        errors.forbidden(&now, detail);
    }
    for field in fields {
        let (now, was) = (At::top(new, field), At::top(old, field));
        let (empty_now, empty_was) = (now.count() == 0, was.count() == 0);
        if now.value() != was.value() && !(empty_now && empty_was) {
            errors.forbidden(&now, detail);
        }
    }
}

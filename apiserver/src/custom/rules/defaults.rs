//! Default values against the rules of their own schema: as an object that is made brings them, and as
//! one that had them before.

use super::{Rules, run};
use k8s::{FieldError, structural::Node};
use kcel::Budget;

/// Everything the rules say of the defaults of a schema, which stands at `path`.
pub(crate) fn check(rules: &Rules, node: &Node, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut budget = Budget::new(kcel::RUNTIME_BUDGET);
    check_below(rules, node, path, &mut budget, &mut errors);
    errors
}

fn check_below(
    rules: &Rules,
    node: &Node,
    path: &str,
    budget: &mut Budget,
    errors: &mut Vec<FieldError>,
) {
    if let Some(value) = &node.default {
        let at = format!("{path}.default");
        let start = *budget;
        for old in [Some(value), None] {
            let mut left = start;
            let told = run(rules, node, &at, (value, old), false, &mut left).errors;
            if left.remaining() < budget.remaining() {
                *budget = left;
            }
            if !told.is_empty() {
                errors.extend(told);
                break;
            }
        }
    }
    if budget.remaining() == 0 {
        return;
    }
    if let (Some(rules), Some(items)) = (&rules.items, &node.items) {
        check_below(rules, items, &format!("{path}.items"), budget, errors);
    }
    for (name, rules) in &rules.fields {
        if let Some(field) = node.properties.get(name) {
            check_below(rules, field, &format!("{path}.properties[{name}]"), budget, errors);
        }
    }
    // Upstream looks for no defaults below additionalProperties.
}

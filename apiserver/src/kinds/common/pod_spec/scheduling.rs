//! Where a pod may run: tolerations, affinity, spreading, gates.

use super::super::{
    field::{At, Errors},
    labels,
};
use k8s::names as rules;
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) fn validate(spec: &At<'_, '_>, errors: &mut Errors) {
    validate_tolerations(&spec.field("tolerations"), errors);
    affinity(&spec.field("affinity"), errors);
    spread(&spec.field("topologySpreadConstraints"), errors);
    let mut gates = BTreeSet::new();
    for gate in spec.field("schedulingGates").items() {
        let name = gate.field("name");
        errors.invalid_each(&name, rules::is_qualified_name(name.text()));
        if !gates.insert(name.text()) {
            errors.duplicate_value(&gate, name.text());
        }
    }
}

fn validate_tolerations(tolerations: &At<'_, '_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.field("key"), toleration.field("operator"));
        let (value, effect) = (toleration.field("value"), toleration.field("effect"));
        if !key.text().is_empty() {
            labels::validate_key(&key, errors);
        } else if operator.text() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid_value(&operator, operator.text(), detail);
        }
        let seconds = toleration.field("tolerationSeconds");
        if seconds.exists() && effect.text() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid_value(&effect, effect.text(), detail);
        }
        match operator.text() {
            "" | "Equal" => {
                let wrong = rules::is_label_value(value.text());
                if !wrong.is_empty() {
                    errors.invalid_value(&operator, value.text(), wrong.join(";"));
                }
            }
            "Exists" if !value.text().is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                // Upstream shows the whole toleration as the bad value.
                errors.invalid_value(&operator, toleration.owned(), detail);
            }
            "Exists" => (),
            _ => errors.not_supported(&operator, &["Equal", "Exists"]),
        }
        if !effect.text().is_empty() {
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            errors.one_of(&effect, &effects, false);
        }
    }
}

fn affinity(affinity: &At<'_, '_>, errors: &mut Errors) {
    let node = affinity.field("nodeAffinity");
    let required = node.field("requiredDuringSchedulingIgnoredDuringExecution");
    if required.exists() {
        let terms = required.field("nodeSelectorTerms");
        if terms.count() == 0 {
            errors.required(&terms, "must have at least one node selector term");
        }
        for term in terms.items() {
            node_term(&term, errors);
        }
    }
    for preferred in node.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&preferred, errors);
        node_term(&preferred.field("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.field(kind);
        for term in pods.field("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_term(&term, errors);
        }
        for preferred in pods.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&preferred, errors);
            pod_term(&preferred.field("podAffinityTerm"), errors);
        }
    }
}

fn weight(preferred: &At<'_, '_>, errors: &mut Errors) {
    let weight = preferred.field("weight");
    if !weight.int().is_some_and(|weight| (1..=100).contains(&weight)) {
        errors.invalid_value(&weight, weight.int().unwrap_or(0), "must be in the range 1-100");
    }
}

fn node_term(term: &At<'_, '_>, errors: &mut Errors) {
    for expression in term.field("matchExpressions").items() {
        node_requirement(&expression, errors);
        labels::validate_key(&expression.field("key"), errors);
    }
    for field in term.field("matchFields").items() {
        let key = field.field("key");
        if key.text() != "metadata.name" {
            errors.invalid(&key, "not a valid field selector key");
        }
        if field.field("values").count() != 1 {
            let detail =
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&field.field("values"), detail);
        }
    }
}

fn node_requirement(expression: &At<'_, '_>, errors: &mut Errors) {
    let (operator, values) = (expression.field("operator"), expression.field("values"));
    match operator.text() {
        "In" | "NotIn" if values.count() == 0 => {
            errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if values.count() > 0 => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&values, detail);
        }
        "Gt" | "Lt" if values.count() != 1 => {
            errors.required(
                &values,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            );
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => (),
        other => errors.invalid_value(&operator, other, "not a valid selector operator"),
    }
}

fn pod_term(term: &At<'_, '_>, errors: &mut Errors) {
    labels::validate_selector(&term.field("labelSelector"), errors);
    labels::validate_selector(&term.field("namespaceSelector"), errors);
    for namespace in term.field("namespaces").items() {
        errors.invalid_each(&namespace, rules::is_dns1123_label(namespace.text()));
    }
    topology_key(&term.field("topologyKey"), errors);
}

fn topology_key(key: &At<'_, '_>, errors: &mut Errors) {
    match key.text() {
        "" => errors.required(key, "can not be empty"),
        _ => labels::validate_key(key, errors),
    }
}

fn spread(constraints: &At<'_, '_>, errors: &mut Errors) {
    let mut pairs = BTreeSet::new();
    for constraint in constraints.items() {
        let (skew, key) = (constraint.field("maxSkew"), constraint.field("topologyKey"));
        if skew.int().unwrap_or(0) <= 0 {
            errors.invalid_value(&skew, skew.int().unwrap_or(0), "must be greater than zero");
        }
        topology_key(&key, errors);
        let action = constraint.field("whenUnsatisfiable");
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action.text()) {
            errors.not_supported(&action, &actions);
        }
        if !pairs.insert((key.text(), action.text())) {
            let pair = format!("{{{}, {}}}", key.text(), action.text());
            let at = constraint.field("{topologyKey, whenUnsatisfiable}");
            errors.duplicate_value(&at, Value::from(pair));
        }
        let domains = constraint.field("minDomains");
        if let Some(count) = domains.int() {
            if count <= 0 {
                errors.invalid(&domains, "must be greater than zero");
            }
            if action.text() != "DoNotSchedule" {
                let detail = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    action.text()
                );
                errors.invalid(&domains, detail);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.one_of(&constraint.field(policy), &["Honor", "Ignore"], false);
        }
        labels::validate_selector(&constraint.field("labelSelector"), errors);
    }
}

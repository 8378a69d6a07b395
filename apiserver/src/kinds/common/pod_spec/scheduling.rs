//! Where a pod may run: tolerations, affinity, spreading, gates.

use super::super::{
    field::{At, Errors},
    labels,
};
use k8s::names as rules;
use std::collections::BTreeSet;

pub(super) fn gates(spec: &At<'_, '_>, errors: &mut Errors) {
    for gate in spec.field("readinessGates").items() {
        errors.qualified_name(&gate.field("conditionType"));
    }
    let mut gates = BTreeSet::new();
    for gate in spec.field("schedulingGates").items() {
        let name = gate.field("name").text();
        for detail in rules::is_qualified_name(name) {
            errors.invalid_value(&gate, name, detail);
        }
        if !gates.insert(name) {
            errors.duplicate_value(&gate, name);
        }
    }
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(crate) fn tolerations(tolerations: &At<'_, '_>, errors: &mut Errors) {
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
                errors.invalid_value(&operator, value.text(), detail);
            }
            "Exists" => (),
            _ => errors.not_supported(&operator, &["Equal", "Exists"]),
        }
        errors.one_of(&effect, &EFFECTS, false);
    }
}

/// Taints of a node: each key once for each effect.
pub(crate) fn taints(taints: &At<'_, '_>, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for taint in taints.items() {
        let (key, value, effect) =
            (taint.field("key"), taint.field("value"), taint.field("effect"));
        labels::validate_key(&key, errors);
        let wrong = rules::is_label_value(value.text());
        if !wrong.is_empty() {
            errors.invalid(&value, wrong.join(";"));
        }
        errors.one_of(&effect, &EFFECTS, true);
        if !taken.insert((effect.text(), key.text())) {
            errors.duplicate(&taint);
            if let Some(last) = errors.0.last_mut() {
                last.detail = "taints must be unique by key and effect pair".into();
            }
        }
    }
}

pub(super) fn affinity(affinity: &At<'_, '_>, errors: &mut Errors) {
    let node = affinity.field("nodeAffinity");
    let required = node.field("requiredDuringSchedulingIgnoredDuringExecution");
    if required.exists() {
        node_selector(&required, errors);
    }
    for preferred in node.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&preferred, errors);
        node_term(&preferred.field("preference"), false, errors);
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

/// A `core.v1.NodeSelector`, of a pod, a volume or a device.
pub(crate) fn node_selector(selector: &At<'_, '_>, errors: &mut Errors) {
    let terms = selector.field("nodeSelectorTerms");
    if terms.count() == 0 {
        errors.required(&terms, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_term(&term, true, errors);
    }
}

fn weight(preferred: &At<'_, '_>, errors: &mut Errors) {
    let weight = preferred.field("weight");
    if !weight.int().is_some_and(|weight| (1..=100).contains(&weight)) {
        errors.invalid_value(&weight, weight.int().unwrap_or(0), "must be in the range 1-100");
    }
}

/// What is only preferred may look for values that no label has.
fn node_term(term: &At<'_, '_>, strict: bool, errors: &mut Errors) {
    for expression in term.field("matchExpressions").items() {
        node_requirement(&expression, errors);
        labels::validate_key(&expression.field("key"), errors);
        for value in expression.field("values").items().filter(|_| strict) {
            errors.invalid_each(&value, rules::is_label_value(value.text()));
        }
    }
    for field in term.field("matchFields").items() {
        let (key, operator, values) =
            (field.field("key"), field.field("operator"), field.field("values"));
        match operator.text() {
            "In" | "NotIn" if values.count() != 1 => {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.required(&values, detail);
            }
            "In" | "NotIn" => (),
            other => errors.invalid_value(&operator, other, "not a valid selector operator"),
        }
        if key.text() != "metadata.name" {
            errors.invalid_value(&key, key.text(), "not a valid field selector key");
            continue;
        }
        for value in values.items() {
            errors.subdomain(&value);
        }
    }
}

fn node_requirement(expression: &At<'_, '_>, errors: &mut Errors) {
    match expression.field("operator").text() {
        "Gt" | "Lt" => {
            let values = expression.field("values");
            if values.count() != 1 {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.required(&values, detail);
            }
        }
        _ => labels::validate_operator(expression, false, errors),
    }
}

fn pod_term(term: &At<'_, '_>, errors: &mut Errors) {
    labels::validate_selector(&term.field("labelSelector"), errors);
    labels::validate_selector(&term.field("namespaceSelector"), errors);
    // Upstream names the field in the singular and no entry.
    let namespaces = term.field("namespaces").renamed("namespace");
    for namespace in namespaces.texts() {
        for detail in rules::is_dns1123_label(namespace) {
            errors.invalid_value(&namespaces, namespace, detail);
        }
    }
    label_keys(term, errors);
    let key = term.field("topologyKey");
    if key.text().is_empty() {
        errors.required(&key, "can not be empty");
    }
    for detail in rules::is_qualified_name(key.text()) {
        errors.invalid_value(&key, key.text(), detail);
    }
}

/// `matchLabelKeys` and `mismatchLabelKeys` (KEP-3633), which become part of the selector.
fn label_keys(term: &At<'_, '_>, errors: &mut Errors) {
    let selector = term.field("labelSelector");
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = term.field(field);
        if keys.count() > 0 && !selector.exists() {
            errors.forbidden(&keys, "must not be specified when labelSelector is not set");
            continue;
        }
        keys.items().for_each(|key| labels::validate_key(&key, errors));
    }
    let (keys, others) = (term.field("matchLabelKeys"), term.field("mismatchLabelKeys"));
    let place = |key: &str| keys.texts().position(|other| other == key);
    let mut selected: BTreeSet<&str> =
        selector.field("matchLabels").entries().map(|(key, _)| key).collect();
    for expression in selector.field("matchExpressions").items() {
        let key = expression.field("key").text();
        if let (Some(at), true) = (place(key), selected.contains(key)) {
            // Upstream takes the index of the term, not of its list.
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.invalid_value(&term.index(at), key, detail);
        }
        selected.insert(key);
    }
    for key in keys.items() {
        if others.has(key.text()) {
            errors.invalid(&key, "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
}

pub(super) fn spread(constraints: &At<'_, '_>, errors: &mut Errors) {
    for (place, constraint) in constraints.items().enumerate() {
        let key = constraint.field("topologyKey");
        errors.positive(&constraint.field("maxSkew"));
        if key.text().is_empty() {
            errors.required(&key, "can not be empty");
        }
        let action = constraint.field("whenUnsatisfiable");
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action.text()) {
            errors.not_supported_value(&action, action.text(), &actions);
        }
        let pair = |other: &At<'_, '_>| {
            other.field("topologyKey").text() == key.text()
                && other.field("whenUnsatisfiable").text() == action.text()
        };
        if constraints.items().skip(place + 1).any(|other| pair(&other)) {
            let value = format!("{{{}, {}}}", key.text(), action.text());
            let at = constraint.field("{topologyKey, whenUnsatisfiable}");
            errors.duplicate_value(&at, value);
        }
        min_domains(&constraint, errors);
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.one_of(&constraint.field(policy), &["Honor", "Ignore"], false);
        }
        label_keys(&constraint, errors);
        labels::validate_selector(&constraint.field("labelSelector"), errors);
    }
}

fn min_domains(constraint: &At<'_, '_>, errors: &mut Errors) {
    let domains = constraint.field("minDomains");
    if !domains.exists() {
        return;
    }
    errors.positive(&domains);
    let action = constraint.field("whenUnsatisfiable").text();
    if action != "DoNotSchedule" {
        let detail =
            format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.invalid(&domains, detail);
    }
}

//! `status.typeChecking` of a ValidatingAdmissionPolicy: its expressions checked against the types of
//! the kinds its rules name. What is wrong is told and changes nothing.

use super::{
    compiled::{items, text},
    env::Scope,
    served,
};
use crate::{
    admission::{Cx, Operation},
    view::View,
};
use k8s::{Object, Status};
use kcel::Type;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds one policy is checked against (upstream's `maxTypesToCheck`).
const TYPES_MAX: usize = 10;
/// Rules and variables of it that are checked; its writer waits.
const CHECKED_MAX: usize = 256;

/// Writes the status of a ValidatingAdmissionPolicy that is new or has another spec (upstream has a
/// controller for it); any other part of its status, and the status of any other, stays.
pub(in crate::admission) fn settle(cx: &Cx<'_>, policy: &mut Object) -> Result<(), Status> {
    if !cx.is("admissionregistration.k8s.io", "validatingadmissionpolicies") {
        return Ok(());
    }
    match (cx.operation, cx.old) {
        (Operation::Create, _) => {
            policy.0.remove("status");
            check(cx.view, policy, 1);
        }
        (Operation::Update, Some(old)) => {
            match old.0.get("status") {
                Some(status) => policy.0.insert("status".into(), status.clone()),
                None => policy.0.remove("status"),
            };
            if policy.0.get("spec") != old.0.get("spec") {
                check(cx.view, policy, old.generation() + 1);
            }
        }
        _ => {}
    }
    Ok(())
}

/// `generation`: the one the policy has now.
fn check(view: &dyn View, policy: &mut Object, generation: i64) {
    let warnings = warnings(view, policy.at("/spec").unwrap_or(&Json::Null));
    let checked = match warnings.is_empty() {
        true => json!({}),
        false => json!({ "expressionWarnings": warnings }),
    };
    let status = policy.map_mut("status");
    status.insert("observedGeneration".into(), generation.into());
    status.insert("typeChecking".into(), checked);
}

fn warnings(view: &dyn View, spec: &Json) -> Vec<Json> {
    let kinds = kinds_of(view, spec);
    let param = spec.get("paramKind").filter(|kind| !kind.is_null());
    let param = param.map(|kind| {
        let kind = served::by_kind(view, &text(kind, "/apiVersion"), &text(kind, "/kind"));
        kind.and_then(|kind| served::type_of(&kind)).unwrap_or(Type::DYN)
    });
    // The variables have other types for each kind. What is too much is refused by validation.
    let scopes: Vec<(String, Scope)> =
        kinds.into_iter().map(|(name, ty)| (name, scope(spec, ty, param.clone()))).collect();
    let mut found = Vec::new();
    for (index, validation) in items(spec, "validations").take(CHECKED_MAX).enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = text(validation, &format!("/{field}"));
            if source.is_empty() {
                continue;
            }
            let problems: Vec<String> =
                scopes.iter().filter_map(|(name, scope)| problem(name, scope, &source)).collect();
            if !problems.is_empty() {
                found.push(json!({
                    "fieldRef": format!("spec.validations[{index}].{field}"),
                    "warning": problems.join("\n"),
                }));
            }
        }
    }
    found
}

fn problem(name: &str, scope: &Scope, source: &str) -> Option<String> {
    Some(format!("{name}: {}\n", scope.problem(source)?))
}

fn scope(spec: &Json, object: Type, param: Option<Type>) -> Scope {
    let mut scope = Scope {
        params: param.is_some(),
        authorizer: true,
        object: Some(object),
        param,
        ..Scope::default()
    };
    for variable in items(spec, "variables").take(CHECKED_MAX) {
        let compiled = scope.compile(&text(variable, "/expression"), &[]);
        scope.declare(&text(variable, "/name"), &compiled);
    }
    scope
}

/// `apps/v1, Kind=Deployment` and its type, for every rule without wildcards.
fn kinds_of(view: &dyn View, spec: &Json) -> BTreeMap<String, Type> {
    let mut found = BTreeMap::new();
    let null = Json::Null;
    for rule in items(spec.get("matchConstraints").unwrap_or(&null), "resourceRules") {
        for [group, version, plural] in resources_of(rule) {
            if found.len() == TYPES_MAX {
                return found;
            }
            let Some(kind) = served::by_plural(view, &group, &version, &plural) else { continue };
            if let Some(ty) = served::type_of(&kind) {
                found.insert(format!("{group}/{version}, Kind={}", kind.kind), ty);
            }
        }
    }
    found
}

/// Group, version and plural, in order; none of a rule with wildcards.
fn resources_of(rule: &Json) -> BTreeSet<[String; 3]> {
    let list = |field: &str| -> Vec<&str> { items(rule, field).filter_map(Json::as_str).collect() };
    let (groups, versions, resources) = (list("apiGroups"), list("apiVersions"), list("resources"));
    if groups.iter().chain(&versions).any(|name| name.contains('*')) {
        return BTreeSet::new();
    }
    let plurals = resources.into_iter().filter(|name| !name.contains(['*', '/']));
    let plurals: Vec<&str> = plurals.collect();
    let versioned = |group: &str| {
        let of_version = |version: &&str| {
            let named = |plural: &&str| [group, version, plural].map(str::to_string);
            plurals.iter().map(named).collect::<Vec<_>>()
        };
        versions.iter().flat_map(of_version).collect::<Vec<_>>()
    };
    groups.iter().flat_map(|group| versioned(group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::testing::World;

    #[test]
    fn expressions_are_checked_against_the_kinds_they_are_for() {
        let rule = |resource: &str| {
            json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": [resource],
                   "operations": ["*"]})
        };
        let mut policy = Object::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {
                "matchConstraints": {"resourceRules": [rule("deployments")]},
                "variables": [{"name": "n", "expression": "object.spec.replicas"}],
                "validations": [
                    {"expression": "variables.n > 1"},
                    {"expression": "object.spec.replicas > '1'"},
                    {"expression": "object.foo == 'bar'", "messageExpression": "object.bar"},
                ],
            },
        }))
        .expect("an object");
        check(&World::default(), &mut policy, 3);
        let status = policy.at("/status").cloned().unwrap_or_default();
        assert_eq!(status["observedGeneration"], 3);
        let warnings: Vec<String> = items(&status["typeChecking"], "expressionWarnings")
            .map(|one| format!("{}: {}", text(one, "/fieldRef"), text(one, "/warning")))
            .collect();
        assert_eq!(
            warnings,
            [
                "spec.validations[1].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to \
                 '(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n",
                "spec.validations[2].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'foo'\n | object.foo == 'bar'\n | ......^\n",
                "spec.validations[2].messageExpression: apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'bar'\n | object.bar\n | ......^\n",
            ]
        );
    }
}

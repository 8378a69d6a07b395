//! What policies say about requests: who is refused, warned and annotated, and what is changed.

use super::super::*;
use crate::{
    admission::tests::{Asked, active_namespace},
    authz::testing::World,
};
use serde_json::{Value, json};

const GROUP: &str = "admissionregistration.k8s.io";

fn put(world: &mut World, plural: &str, name: &str, spec: Value) {
    world.put(&format!("{GROUP}/{plural}"), json!({ "metadata": { "name": name }, "spec": spec }));
}

fn rules() -> Value {
    json!({
        "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
        "resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods", "configmaps"],
            "operations": ["CREATE", "UPDATE", "DELETE"], "scope": "*",
        }],
    })
}

fn with(mut base: Value, more: Value) -> Value {
    if let (Some(base), Value::Object(more)) = (base.as_object_mut(), more) {
        base.extend(more);
    }
    base
}

/// A world with one policy `p` and one binding `b`.
fn world(policy: Value, binding: Value) -> World {
    let mut world = active_namespace("default");
    let policy = with(json!({ "failurePolicy": "Fail", "matchConstraints": rules() }), policy);
    let binding = with(json!({ "policyName": "p", "validationActions": ["Deny"] }), binding);
    put(&mut world, "validatingadmissionpolicies", "p", policy);
    put(&mut world, "validatingadmissionpolicybindings", "b", binding);
    world
}

fn config_map(data: Value) -> Value {
    json!({ "metadata": { "name": "x", "namespace": "default", "labels": {"a": "b"} }, "data": data })
}

/// What becomes of a config map: yes, or why not, and the warnings.
fn asked(world: &World) -> String {
    let asked = Asked::new(world, Operation::Create, ("", "configmaps"));
    let (result, warnings) = asked.decide(config_map(json!({ "k": "v" })));
    let result = match result {
        Ok(object) => object.at("/data").map(Value::to_string).unwrap_or_default(),
        Err(status) => format!("{} {}: {}", status.code, status.reason, status.message),
    };
    [result].into_iter().chain(warnings).collect::<Vec<_>>().join("\n")
}

fn validated(policy: Value) -> String {
    asked(&world(policy, json!({})))
}

const DENIED: &str = "422 Invalid: configmaps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with \
                      binding 'b' denied request: ";
const FINE: &str = r#"{"k":"v"}"#;

fn rule(expression: &str) -> Value {
    json!({ "validations": [{ "expression": expression }] })
}

#[test]
fn validations_refuse_with_the_message_they_have() {
    let denied = |why: &str| format!("{DENIED}{why}");
    assert_eq!(validated(rule("object.data.k == 'v'")), FINE);
    assert_eq!(
        validated(rule("object.data.k == 'w'")),
        denied("failed expression: object.data.k == 'w'")
    );
    let message = |more: Value| {
        let validation = with(json!({ "expression": "false" }), more);
        validated(json!({ "validations": [validation] }))
    };
    assert_eq!(message(json!({ "message": "no" })), denied("no"));
    assert_eq!(
        message(json!({ "message": "no", "messageExpression": "'not ' + object.data.k" })),
        denied("not v")
    );
    assert_eq!(
        message(json!({ "message": "no", "messageExpression": "object.data.missing" })),
        denied("no")
    );
    assert_eq!(
        message(json!({ "reason": "Forbidden", "message": "no" })),
        denied("no").replace("422 Invalid", "403 Forbidden")
    );
}

#[test]
fn failures_are_for_the_failure_policy() {
    let failing = rule("object.data.missing == 'v'");
    let why = "expression 'object.data.missing == 'v'' resulted in error: no such key: missing";
    assert_eq!(validated(failing.clone()), format!("{DENIED}{why}"));
    assert_eq!(validated(with(failing, json!({ "failurePolicy": "Ignore" }))), FINE);
    let broken = validated(rule("nonsense"));
    assert!(broken.contains("undeclared reference to 'nonsense'"), "{broken}");
}

#[test]
fn variables_are_computed_and_build_on_each_other() {
    let variables = json!([
        { "name": "a", "expression": "object.data.k" },
        { "name": "b", "expression": "variables.a + '!'" },
        { "name": "bad", "expression": "object.nope" },
    ]);
    let of = |expression| with(rule(expression), json!({ "variables": variables }));
    assert_eq!(validated(of("variables.b == 'v!'")), FINE);
    assert_eq!(
        validated(of("variables.bad == 1")),
        format!(
            "{DENIED}expression 'variables.bad == 1' resulted in error: composited variable \"bad\" \
             fails to evaluate: no such key: nope"
        )
    );
}

#[test]
fn the_request_and_its_namespace_can_be_seen() {
    let all = [
        "request.kind.kind == 'ConfigMap' && request.operation == 'CREATE'",
        "request.resource.resource == 'configmaps' && request.namespace == 'default'",
        "request.userInfo.username == 'admin'",
        "namespaceObject.metadata.name == 'default' && namespaceObject.status.phase == 'Active'",
        "oldObject == null && object.kind == 'ConfigMap' && object.apiVersion == 'v1'",
        "!authorizer.group('').resource('pods').namespace('x').check('create').allowed()",
        "!authorizer.requestResource.check('custom').allowed()",
    ];
    for expression in all {
        assert_eq!(validated(rule(expression)), FINE, "{expression}");
    }
}

#[test]
fn conditions_and_selectors_let_requests_pass() {
    let no = || rule("false");
    let condition = |expression: &str| json!({ "matchConditions": [{ "name": "c", "expression": expression }] });
    assert_eq!(validated(with(no(), condition("object.data.k == 'w'"))), FINE);
    assert!(validated(with(no(), condition("object.data.k == 'v'"))).starts_with(DENIED));
    assert_eq!(
        validated(with(no(), condition("object.data.nope == 'v'"))),
        format!(
            "{DENIED}expression 'object.data.nope == 'v'' resulted in error: no such key: nope"
        )
    );
    let matching = |more: Value| json!({ "matchConstraints": with(rules(), more) });
    let other = json!({ "objectSelector": { "matchLabels": { "a": "c" } } });
    assert_eq!(validated(with(no(), matching(other))), FINE);
    let names = json!({ "excludeResourceRules": [{
        "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"],
        "resourceNames": ["x"], "scope": "*",
    }] });
    assert_eq!(validated(with(no(), matching(names))), FINE);
    let bound = json!({ "matchResources": {
        "matchPolicy": "Equivalent", "objectSelector": {},
        "namespaceSelector": { "matchLabels": { "env": "prod" } },
    } });
    assert_eq!(asked(&world(no(), bound)), FINE);
}

#[test]
fn actions_are_those_of_the_binding() {
    let actions =
        |actions: Value| asked(&world(rule("false"), json!({ "validationActions": actions })));
    assert_eq!(
        actions(json!(["Warn", "Audit"])),
        format!(
            "{FINE}\nValidation failed for ValidatingAdmissionPolicy 'p' with binding 'b': failed \
             expression: false"
        )
    );
    assert_eq!(actions(json!(["Audit"])), FINE);
}

#[test]
fn parameters_are_found_by_name_and_by_label() {
    let policy = with(
        rule("object.data.k == params.data.wanted"),
        json!({ "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" } }),
    );
    let of = |reference: Value| {
        let mut world = world(policy.clone(), json!({ "paramRef": reference }));
        for (name, wanted) in [("good", "v"), ("bad", "w")] {
            world.put(
                "configmaps",
                json!({
                    "metadata": { "name": name, "namespace": "default", "labels": { "n": name } },
                    "data": { "wanted": wanted },
                }),
            );
        }
        asked(&world)
    };
    let named =
        |name: &str, action: &str| json!({ "name": name, "parameterNotFoundAction": action });
    assert_eq!(of(named("good", "Deny")), FINE);
    assert!(of(named("bad", "Deny")).starts_with(DENIED));
    assert_eq!(of(named("none", "Allow")), FINE);
    assert_eq!(
        of(named("none", "Deny")),
        format!(
            "{DENIED}failed to configure binding: no params found for policy binding with `Deny` \
             parameterNotFoundAction"
        )
    );
    let labelled = json!({ "selector": { "matchLabels": { "n": "good" } } });
    assert_eq!(of(labelled), FINE);
    assert!(of(json!({ "selector": {} })).starts_with(DENIED));
}

fn mutated(mutations: Value, more: Value) -> String {
    let mut world = active_namespace("default");
    let policy = with(
        json!({
            "failurePolicy": "Fail", "matchConstraints": rules(), "mutations": mutations,
            "reinvocationPolicy": "Never",
        }),
        more,
    );
    put(&mut world, "mutatingadmissionpolicies", "p", policy);
    put(&mut world, "mutatingadmissionpolicybindings", "b", json!({ "policyName": "p" }));
    asked(&world)
}

fn apply(expression: &str) -> Value {
    json!([{ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression } }])
}

fn patch(expression: &str) -> Value {
    json!([{ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } }])
}

#[test]
fn mutations_apply_configurations_and_patches() {
    let none = || json!({});
    assert_eq!(
        mutated(apply("Object{data: {'n': object.data.k + '2'}}"), none()),
        r#"{"k":"v","n":"v2"}"#
    );
    assert_eq!(
        mutated(patch("[JSONPatch{op: 'add', path: '/data/n', value: 'w'}]"), none()),
        r#"{"k":"v","n":"w"}"#
    );
    let failing = "[JSONPatch{op: 'test', path: '/data/k', value: 'w'}, \
                   JSONPatch{op: 'remove', path: '/data/k'}]";
    assert_eq!(mutated(patch(failing), none()), FINE);
    let conditions = json!({ "matchConditions": [{ "name": "c", "expression": "false" }] });
    assert_eq!(mutated(patch("[JSONPatch{op: 'remove', path: '/data'}]"), conditions), FINE);
}

#[test]
fn mutations_that_cannot_be_made_refuse() {
    let why = |mutations: Value| mutated(mutations, json!({}));
    assert_eq!(
        why(apply("Object{metadata: Object.wrong{name: 'y'}}")),
        "403 Invalid: policy 'p' with binding 'b' denied request: type mismatch: unexpected type name \
         \"Object.wrong\", expected \"Object.metadata\", which matches field name path from root \
         Object type"
    );
    assert_eq!(
        why(apply("Object{data: {'n': object.nope}}")),
        "403 Invalid: policy 'p' with binding 'b' denied request: expression 'Object{data: {'n': \
         object.nope}}' resulted in error: no such key: nope"
    );
    let ignored = json!({ "failurePolicy": "Ignore" });
    assert_eq!(mutated(apply("Object{data: {'n': object.nope}}"), ignored), FINE);
}

#[test]
fn what_variables_hold_cannot_grow_without_end() {
    let next = |index: usize| format!("[variables.v{}]", index - 1);
    let expression = |index| if index == 0 { "[1]".to_string() } else { next(index) };
    let variable = |index| json!({ "name": format!("v{index}"), "expression": expression(index) });
    let variables: Vec<Value> = (0..100).map(variable).collect();
    // One after the other, as each asks for those it is made of.
    let of = |last: usize| {
        let sizes = (0..=last).step_by(20).map(|index| format!("size(variables.v{index}) == 1"));
        let sizes = sizes.collect::<Vec<_>>().join(" && ");
        validated(with(rule(&sizes), json!({ "variables": variables })))
    };
    assert_eq!(of(60), FINE);
    let refused = of(80);
    assert!(refused.contains("the value is nested too deeply"), "{refused}");
}

//! Admission policies from outside: what they refuse, change, warn of and say of themselves.

use crate::{
    custom::{WIDGETS, define, definition, version, widget},
    harness::{Answer, CONFIG_MAPS, Cluster, config_map, config_map_path},
};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io";

/// Create and update of one resource.
fn matching(group: &str, resource: &str) -> Value {
    json!({ "resourceRules": [{
        "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource],
        "operations": ["CREATE", "UPDATE"],
    }] })
}

async fn make(cluster: &mut Cluster, version: &str, kind: &str, name: &str, spec: Value) -> Answer {
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{}ies", stem.to_lowercase()),
        None => format!("{}s", kind.to_lowercase()),
    };
    let object = json!({
        "apiVersion": format!("admissionregistration.k8s.io/{version}"), "kind": kind,
        "metadata": { "name": name }, "spec": spec,
    });
    let made = cluster.post(&format!("{GROUP}/{version}/{plural}"), object).await;
    assert_eq!(made.code, 201, "{}", made.body);
    made
}

/// Policy and binding `p`.
async fn validate(cluster: &mut Cluster, policy: Value, binding: Value) {
    make(cluster, "v1", "ValidatingAdmissionPolicy", "p", policy).await;
    let mut spec = json!({ "policyName": "p", "validationActions": ["Deny"] });
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), binding) {
        spec.extend(more);
    }
    make(cluster, "v1", "ValidatingAdmissionPolicyBinding", "p", spec).await;
}

#[tokio::test]
async fn a_policy_refuses_by_its_parameter_in_namespaces_it_is_bound_to() {
    let mut cluster = Cluster::start().await;
    let mut crd = definition(vec![version("v1", true)]);
    crd["spec"]["scope"] = "Namespaced".into();
    define(&mut cluster, crd).await;
    let made = cluster.post(WIDGETS, widget("limit", json!({ "size": 1, "color": "red" }))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let policy = json!({
        "paramKind": { "apiVersion": "example.com/v1", "kind": "Widget" },
        "matchConstraints": matching("", "configmaps"),
        "matchConditions": [{ "name": "named", "expression": "object.metadata.name != 'free'" }],
        "variables": [{ "name": "color", "expression": "object.data.color" }],
        "validations": [{
            "expression": "variables.color != params.spec.color",
            "messageExpression": "'no ' + variables.color + ' in ' + namespaceObject.metadata.name",
        }],
    });
    let binding = json!({
        "paramRef": { "name": "limit", "parameterNotFoundAction": "Deny" },
        "matchResources": { "namespaceSelector": {
            "matchLabels": { "kubernetes.io/metadata.name": "default" },
        } },
    });
    validate(&mut cluster, policy, binding).await;
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("a")).await.code, 201);
    let red = json!({ "data": { "color": "red" } });
    let refused = cluster.merge(&config_map_path("a"), red.clone()).await;
    assert_eq!((refused.code, &refused.body["reason"]), (422, &json!("Invalid")));
    insta::assert_snapshot!(refused.body["message"].as_str().unwrap_or_default(), @"configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no red in default");
    let mut free = config_map("free");
    free["data"] = red["data"].clone();
    assert_eq!(cluster.post(CONFIG_MAPS, free).await.code, 201);
    let elsewhere = "/api/v1/namespaces/kube-system/configmaps";
    let mut other = config_map("b");
    other["data"] = red["data"].clone();
    let made = cluster.post(elsewhere, other).await;
    assert_eq!(made.code, 201, "{}", made.body);
    cluster.stop().await;
}

#[tokio::test]
async fn policies_change_objects_before_webhooks_and_validation() {
    let mut cluster = Cluster::start().await;
    let policy = json!({
        "matchConstraints": matching("apps", "deployments"),
        "reinvocationPolicy": "IfNeeded",
        "mutations": [
            { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression":
                "Object{metadata: Object.metadata{annotations: {'mutated-by': 'policy'}}}" } },
            { "patchType": "JSONPatch", "jsonPatch": { "expression":
                "[JSONPatch{op: 'add', path: '/metadata/annotations/' + \
                  jsonpatch.escapeKey('example.com/replicas'), value: string(object.spec.replicas)}]" } },
        ],
    });
    make(&mut cluster, "v1", "MutatingAdmissionPolicy", "p", policy).await;
    make(&mut cluster, "v1", "MutatingAdmissionPolicyBinding", "p", json!({ "policyName": "p" }))
        .await;
    let labels = json!({ "app": "x" });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "x" },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
    });
    let made = cluster.post("/apis/apps/v1/namespaces/default/deployments", deployment).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(
        made.body["metadata"]["annotations"],
        json!({ "mutated-by": "policy", "example.com/replicas": "1" })
    );
    cluster.stop().await;
}

/// What the status says of the expressions of a policy for `resource`.
async fn warnings(cluster: &mut Cluster, name: &str, group: &str, resource: &str) -> Vec<String> {
    let spec = json!({
        "matchConstraints": matching(group, resource),
        "validations": [{
            "expression": "object.spec.size > '1'",
            "messageExpression": "'wants more, got ' + object.spec.size",
        }, { "expression": "object.metadata.labels['a'] == 'b'" }],
    });
    let made = make(cluster, "v1", "ValidatingAdmissionPolicy", name, spec).await;
    assert_eq!(made.body["status"]["observedGeneration"], 1);
    let list = made.body["status"]["typeChecking"]["expressionWarnings"].as_array().cloned();
    let text = |warning: Value| {
        let text = |field: &str| warning[field].as_str().unwrap_or_default().to_string();
        format!("{}: {}", text("fieldRef"), text("warning"))
    };
    list.into_iter().flatten().map(text).collect()
}

#[tokio::test]
async fn expressions_are_checked_against_kinds_that_users_define() {
    let mut cluster = Cluster::start().await;
    define(&mut cluster, definition(vec![version("v1", true)])).await;
    insta::assert_snapshot!(
        warnings(&mut cluster, "custom", "example.com", "widgets").await.join("\n")
    );
    assert!(warnings(&mut cluster, "nobody", "example.com", "gadgets").await.is_empty());
    let path = format!("{GROUP}/v1/validatingadmissionpolicies/custom");
    let right = json!({ "spec": { "validations": [{ "expression": "object.spec.size > 1" }] } });
    let mended = cluster.merge(&path, right).await;
    assert_eq!(mended.body["status"], json!({ "observedGeneration": 2, "typeChecking": {} }));
    let condition = json!({
        "type": "Seen", "status": "True", "reason": "Test", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = json!({ "status": { "conditions": [condition] } });
    let written = cluster.merge(&format!("{path}/status"), status).await;
    assert_eq!(written.body["status"]["conditions"][0]["type"], "Seen", "{}", written.body);
    cluster.stop().await;
}

//! Pods against the standards: which checks they fail, in upstream's words.

use super::super::{
    Operation,
    tests::{Asked, active_namespace},
};
use crate::authz::testing::World;
use serde_json::{Value, json};

fn world(labels: Value) -> World {
    let mut world = active_namespace("secure");
    let metadata = json!({ "name": "secure", "labels": labels });
    world.put("namespaces", json!({ "metadata": metadata, "status": { "phase": "Active" } }));
    world
}

fn pod(spec: Value) -> Value {
    json!({ "metadata": { "name": "web", "namespace": "secure" }, "spec": spec })
}

/// The refusal or `admitted`, then the warnings.
fn ask(labels: Value, kind: (&str, &str), operation: Operation, object: Value) -> String {
    let world = world(labels);
    let (result, warnings) = Asked::new(&world, operation, kind).decide(object);
    let mut lines = vec![match result {
        Ok(_) => "admitted".to_string(),
        Err(status) => format!("{}: {}", status.code, status.message),
    }];
    lines.extend(warnings);
    lines.join("\n")
}

fn create(labels: Value, spec: Value) -> String {
    ask(labels, ("", "pods"), Operation::Create, pod(spec))
}

fn bad() -> Value {
    json!({
        "hostNetwork": true, "hostPID": true,
        "securityContext": {
            "runAsUser": 0, "sysctls": [{ "name": "kernel.msgmax", "value": "1" }],
            "seccompProfile": { "type": "Unconfined" },
            "seLinuxOptions": { "type": "spc_t", "user": "u" },
            "windowsOptions": { "hostProcess": true },
            "appArmorProfile": { "type": "Unconfined" },
        },
        "containers": [
            {
                "name": "a",
                "securityContext": {
                    "privileged": true, "procMount": "Unmasked",
                    "capabilities": { "add": ["NET_ADMIN", "CHOWN"] },
                },
                "ports": [{ "containerPort": 80, "hostPort": 8080 }],
                "livenessProbe": { "httpGet": { "port": 80, "host": "10.0.0.1" } },
            },
            { "name": "b", "securityContext": { "runAsNonRoot": false } },
        ],
        "volumes": [{ "name": "v", "hostPath": { "path": "/" } }, { "name": "e", "emptyDir": {} }],
    })
}

fn good() -> Value {
    json!({
        "securityContext": {
            "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": "a",
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
            },
        }],
    })
}

fn enforce(level: &str) -> Value {
    json!({ "pod-security.kubernetes.io/enforce": level })
}

#[test]
fn the_standards_refuse_in_upstreams_words() {
    let plain = json!({ "containers": [{ "name": "a" }, { "name": "b" }] });
    let old = json!({
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/enforce-version": "v1.18",
    });
    let answers = [
        create(enforce("privileged"), bad()),
        create(enforce("baseline"), bad()),
        create(enforce("restricted"), bad()),
        create(enforce("baseline"), plain.clone()),
        create(enforce("restricted"), plain),
        create(enforce("restricted"), good()),
        create(
            old,
            json!({
                "securityContext": { "seccompProfile": { "type": "Unconfined" } },
                "containers": [{ "name": "a" }],
            }),
        ),
    ];
    insta::assert_snapshot!(answers.join("\n\n"));
}

#[test]
fn makers_of_pods_are_warned_and_never_refused() {
    let deployment = json!({
        "metadata": { "name": "web", "namespace": "secure" },
        "spec": { "template": { "spec": { "containers": [{ "name": "a" }] } } },
    });
    let ask =
        |labels: Value| ask(labels, ("apps", "deployments"), Operation::Create, deployment.clone());
    let warned = ask(enforce("restricted"));
    assert!(warned.starts_with("admitted\nwould violate PodSecurity \"restricted:latest\": allow"));
    assert_eq!(ask(enforce("baseline")), "admitted");
    let other = json!({
        "pod-security.kubernetes.io/warn": "restricted",
        "pod-security.kubernetes.io/warn-version": "v1.7",
    });
    insta::assert_snapshot!(ask(other));
}

#[test]
fn a_namespace_has_valid_labels_and_hears_of_the_pods_it_would_not_take() {
    let namespace = |labels: Value| json!({ "metadata": { "name": "secure", "labels": labels } });
    let wrong = json!({
        "pod-security.kubernetes.io/enforce": "strict",
        "pod-security.kubernetes.io/warn-version": "v1.07",
    });
    let refused = ask(json!({}), ("", "namespaces"), Operation::Create, namespace(wrong));
    insta::assert_snapshot!(refused);
    let mut world = world(json!({}));
    for name in ["p1", "p2"] {
        let metadata = json!({ "name": name, "namespace": "secure" });
        world.put("pods", json!({ "metadata": metadata, "spec": bad() }));
    }
    let mut asked = Asked::new(&world, Operation::Update, ("", "namespaces"));
    asked.old = Some(namespace(json!({})));
    let (result, warnings) = asked.decide(namespace(enforce("baseline")));
    assert!(result.is_ok());
    insta::assert_snapshot!(warnings.join("\n"));
}

#[test]
fn an_update_that_changes_nothing_that_counts_is_let_through() {
    let world = world(enforce("restricted"));
    let update = |change: &dyn Fn(&mut Value)| {
        let mut asked = Asked::new(&world, Operation::Update, ("", "pods"));
        let mut new = pod(bad());
        asked.old = Some(new.clone());
        change(&mut new);
        asked.decide(new).0.is_ok()
    };
    assert!(update(&|pod| pod["spec"]["containers"][0]["image"] = "new".into()));
    assert!(update(&|pod| pod["spec"]["tolerations"] = json!([{ "operator": "Exists" }])));
    assert!(!update(&|pod| {
        pod["spec"]["ephemeralContainers"] = json!([{ "name": "debug" }]);
    }));
}

//! Admission steps on values: a request in YAML-like JSON, the object or the refusal out.

use super::*;
use crate::{authz::testing::World, kinds};
use serde_json::{Value, json};

fn admit(world: &World, group: &str, plural: &str, operation: Operation, object: Value) -> String {
    let kind = kinds::find(group, plural).expect("a kind");
    let mut object = Object::from_value(object).expect("an object");
    let (namespace, name) = (object.namespace().to_string(), object.name().to_string());
    let identity = Identity::authenticated("admin", &["system:masters"]);
    let config = Config { default_toleration_seconds: 5 };
    let cx = Cx {
        operation,
        kind,
        namespace: &namespace,
        name: &name,
        subresource: "",
        identity: &identity,
        old: None,
        view: world,
        config: &config,
        dry_run: false,
    };
    match mutate(&cx, &mut object).and_then(|()| validate(&cx, &object)) {
        Ok(()) => serde_json::to_string_pretty(&object).expect("JSON"),
        Err(status) => format!("{} {}: {}", status.code, status.reason, status.message),
    }
}

fn pod(namespace: &str, spec: Value) -> Value {
    json!({ "metadata": { "name": "web", "namespace": namespace }, "spec": spec })
}

fn world() -> World {
    let mut world = World::default();
    world.put(
        "namespaces",
        json!({ "metadata": { "name": "default" }, "status": { "phase": "Active" } }),
    );
    world.put(
        "namespaces",
        json!({ "metadata": { "name": "ending", "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
    );
    world.put(
        "scheduling.k8s.io/priorityclasses",
        json!({ "metadata": { "name": "high" }, "value": 1000, "preemptionPolicy": "Never" }),
    );
    world.put(
        "serviceaccounts",
        json!({ "metadata": { "name": "default", "namespace": "default" } }),
    );
    world.put(
        "serviceaccounts",
        json!({ "metadata": { "name": "builder", "namespace": "default" }, "imagePullSecrets": [{ "name": "reg" }] }),
    );
    world
}

#[test]
fn a_pod_gets_an_account_tolerations_and_a_priority() {
    let spec = json!({ "serviceAccountName": "builder", "priorityClassName": "high" });
    let admitted = admit(&world(), "", "pods", Operation::Create, pod("default", spec));
    insta::assert_snapshot!(admitted);
}

#[test]
fn refusals_are_upstreams() {
    let world = world();
    let create = |object| admit(&world, "", "pods", Operation::Create, object);
    let cases = [
        create(pod("nowhere", json!({}))),
        create(pod("ending", json!({}))),
        create(pod("default", json!({ "priorityClassName": "none" }))),
        create(pod("default", json!({ "priorityClassName": "high", "priority": 7 }))),
        create(pod("default", json!({ "serviceAccountName": "ghost" }))),
        admit(
            &world,
            "",
            "namespaces",
            Operation::Delete,
            json!({ "metadata": { "name": "kube-system" } }),
        ),
    ];
    insta::assert_snapshot!(cases.join("\n"));
}

#[test]
fn a_toleration_of_the_users_own_is_left_alone() {
    let own = json!({ "tolerations": [{ "operator": "Exists", "effect": "NoExecute" }] });
    let admitted = admit(&world(), "", "pods", Operation::Create, pod("default", own));
    let admitted: Value = serde_json::from_str(&admitted).expect("admitted");
    assert_eq!(admitted["spec"]["tolerations"].as_array().map(Vec::len), Some(1));
}

#[test]
fn there_is_one_default_priority_class() {
    let mut world = world();
    let class =
        |name: &str| json!({ "metadata": { "name": name }, "value": 5, "globalDefault": true });
    world.put("scheduling.k8s.io/priorityclasses", class("normal"));
    let made = |name: &str| {
        admit(&world, "scheduling.k8s.io", "priorityclasses", Operation::Create, class(name))
    };
    insta::assert_snapshot!(made("other"), @r#"403 Forbidden: priorityclasses.scheduling.k8s.io "other" is forbidden: PriorityClass normal is already marked as default. Only one default can exist"#);
    assert!(made("normal").starts_with('{'), "the same one may be written again");
    let pod: Value = serde_json::from_str(&admit(
        &world,
        "",
        "pods",
        Operation::Create,
        pod("default", json!({})),
    ))
    .expect("admitted");
    assert_eq!(pod["spec"]["priority"], 5);
}

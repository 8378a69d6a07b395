//! Each step of a rollout as a world and the plan for it.

use super::CONTROLLER;
use crate::testing::plan;
use insta::assert_snapshot;

/// Deployment `default/web`; `extra` goes into its spec, `more` after it (status, for instance).
fn deployment(image: &str, replicas: i32, extra: &str, more: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: default, generation: 1, annotations: {{team: blue}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  revisionHistoryLimit: 1
  progressDeadlineSeconds: 60
{extra}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: web, image: {image}}}]}}
{more}
"
    )
}

/// One of its sets: of `size` pods, as many as `available` work.
fn set(name: &str, image: &str, revision: i32, size: i32, available: i32) -> String {
    sized_for(3, 4, name, image, revision, size, available)
}

fn sized_for(
    desired: i32,
    max: i32,
    name: &str,
    image: &str,
    revision: i32,
    size: i32,
    available: i32,
) -> String {
    format!(
        "
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web-{name}
  namespace: default
  generation: 1
  creationTimestamp: 2026-01-01T00:00:0{revision}Z
  labels: {{app: web, pod-template-hash: {name}}}
  annotations:
    team: blue
    deployment.kubernetes.io/revision: '{revision}'
    deployment.kubernetes.io/desired-replicas: '{desired}'
    deployment.kubernetes.io/max-replicas: '{max}'
  ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: web, uid: uid-web, controller: true}}]
spec:
  replicas: {size}
  selector: {{matchLabels: {{app: web, pod-template-hash: {name}}}}}
  template:
    metadata: {{labels: {{app: web, pod-template-hash: {name}}}}}
    spec: {{containers: [{{name: web, image: {image}}}]}}
status:
  observedGeneration: 1
  replicas: {size}
  readyReplicas: {available}
  availableReplicas: {available}
"
    )
}

fn status(reason: &str, updated: &str, counts: &str) -> String {
    format!(
        "status:
  observedGeneration: 1
{counts}
  conditions:
  - {{type: Available, status: 'True', reason: MinimumReplicasAvailable, message: Deployment has minimum availability., lastUpdateTime: 2026-01-01T00:00:00Z, lastTransitionTime: 2026-01-01T00:00:00Z}}
  - {{type: Progressing, status: 'True', reason: {reason}, message: m, lastUpdateTime: {updated}, lastTransitionTime: 2026-01-01T00:00:00Z}}
"
    )
}

fn web(world: &[String]) -> String {
    plan(CONTROLLER, &world.concat(), "default", "web")
}

#[test]
fn a_new_deployment_makes_its_set() {
    assert_snapshot!(web(&[deployment("a:1", 3, "", "")]));
}

#[test]
fn a_new_template_makes_a_set_of_as_many_as_surge_allows() {
    let before = deployment("a:2", 3, "", "");
    assert_snapshot!(web(&[before, set("one", "a:1", 1, 3, 3)]));
}

#[test]
fn nothing_moves_while_new_pods_are_not_available() {
    let counts = "  replicas: 4\n  updatedReplicas: 1\n  readyReplicas: 3\n  availableReplicas: 3\n  unavailableReplicas: 1\n  terminatingReplicas: 0";
    let more = status("ReplicaSetUpdated", "2026-01-01T00:09:30Z", counts);
    let annotated = deployment("a:2", 3, "", &more)
        .replace("{team: blue}", "{team: blue, deployment.kubernetes.io/revision: '2'}");
    let world = [annotated, set("one", "a:1", 1, 3, 3), set("two", "a:2", 2, 1, 0)];
    assert_eq!(web(&world), "again after 31s\n");
}

#[test]
fn an_available_new_pod_lets_an_old_one_go() {
    let world =
        [deployment("a:2", 3, "", ""), set("one", "a:1", 1, 3, 3), set("two", "a:2", 2, 1, 1)];
    assert_snapshot!(web(&world));
}

#[test]
fn broken_old_pods_go_first() {
    let world =
        [deployment("a:2", 3, "", ""), set("one", "a:1", 1, 3, 1), set("two", "a:2", 2, 1, 1)];
    assert_snapshot!(web(&world));
}

#[test]
fn a_finished_rollout_says_so_and_trims_its_history() {
    let counts = "  replicas: 4\n  updatedReplicas: 3";
    let more = status("ReplicaSetUpdated", "2026-01-01T00:09:30Z", counts);
    let world = [
        deployment("a:3", 3, "", &more),
        set("one", "a:1", 1, 0, 0),
        set("two", "a:2", 2, 0, 0),
        set("three", "a:3", 3, 3, 3),
    ];
    assert_snapshot!(web(&world));
}

#[test]
fn going_back_to_an_old_template_makes_its_set_the_newest() {
    let world =
        [deployment("a:1", 3, "", ""), set("one", "a:1", 1, 0, 0), set("two", "a:2", 2, 3, 3)];
    assert_snapshot!(web(&world));
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let extra = "  paused: true";
    assert_snapshot!(web(&[deployment("a:2", 5, extra, ""), set("one", "a:1", 1, 3, 3)]));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_in_proportion() {
    let extra = "  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 3, maxUnavailable: 2}}";
    let world = [
        deployment("a:2", 15, extra, ""),
        sized_for(10, 13, "one", "a:1", 1, 8, 8),
        sized_for(10, 13, "two", "a:2", 2, 5, 0),
    ];
    assert_snapshot!(web(&world));
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let extra = "  strategy: {type: Recreate}";
    let pod = "
---
apiVersion: v1
kind: Pod
metadata:
  name: web-one-x
  namespace: default
  deletionTimestamp: 2026-01-01T00:09:00Z
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-one, uid: uid-web-one, controller: true}]
spec: {containers: [{name: web, image: 'a:1'}]}
status: {phase: Running}
";
    let first = [deployment("a:2", 3, extra, ""), set("one", "a:1", 1, 3, 3)];
    assert_snapshot!("recreate_shrinks", web(&first));
    let second = [deployment("a:2", 3, extra, ""), set("one", "a:1", 1, 0, 0), pod.to_string()];
    assert_snapshot!("recreate_waits", web(&second));
    let third = [deployment("a:2", 3, extra, ""), set("one", "a:1", 1, 0, 0)];
    assert_snapshot!("recreate_creates", web(&third));
}

#[test]
fn a_rollout_that_gets_no_further_misses_its_deadline() {
    let counts = "  replicas: 4\n  updatedReplicas: 1\n  readyReplicas: 3\n  availableReplicas: 3\n  unavailableReplicas: 1\n  terminatingReplicas: 0";
    let more = status("ReplicaSetUpdated", "2026-01-01T00:08:00Z", counts);
    let annotated = deployment("a:2", 3, "", &more)
        .replace("{team: blue}", "{team: blue, deployment.kubernetes.io/revision: '2'}");
    let world = [annotated, set("one", "a:1", 1, 3, 3), set("two", "a:2", 2, 1, 0)];
    assert_snapshot!(web(&world));
}

#[test]
fn a_set_of_that_name_with_another_template_counts_as_a_collision() {
    let hash = {
        let text = web(&[deployment("a:2", 3, "", "")]);
        let name = text.split("create replicasets.apps default/web-").nth(1).expect("a create");
        name.split(' ').next().expect("a name").to_string()
    };
    let world = [deployment("a:2", 3, "", ""), set(&hash, "a:1", 1, 3, 3)];
    let text = web(&world);
    assert!(text.contains("\"collisionCount\":1"), "{text}");
    assert!(!text.contains("create "), "{text}");
}

//! The scheduler over time: what it does with bindings that fail, versions that come late, changes
//! that give hope and leadership that ends.

use super::super::plan::Decision;
use super::super::state::{Change, Outcome, State};
use super::{PROFILE, parse_node, parse_pod, trace};
use crate::scheduler::{Pod, PodKey};
use serde_json::{Value, json};
use std::time::Duration;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct Scene(State);

impl Scene {
    fn new() -> Scene {
        Scene(State::new(PROFILE))
    }

    fn node(&mut self, value: Value, now: u64) {
        let (name, facts) = parse_node(value);
        self.0.observe(Change::Node(name, Some(facts)), secs(now));
    }

    fn pod(&mut self, value: Value, now: u64) -> PodKey {
        let pod: Pod = parse_pod(value);
        let key = pod.key.clone();
        self.0.observe(Change::Pod(key.clone(), Some(Box::new(pod))), secs(now));
        key
    }

    fn plan(&mut self, now: u64) -> Vec<Decision> {
        self.0.plan(256, secs(now))
    }

    fn trace(&mut self, now: u64) -> String {
        let decisions = self.plan(now);
        trace(&decisions)
    }
}

fn one_cpu_node(name: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "1"}}})
}

fn whole_cpu(name: &str) -> Value {
    json!({"metadata": {"name": name}, "requests": {"cpu": "1"}})
}

#[test]
fn a_late_version_without_the_node_does_not_unbind() {
    let mut scene = Scene::new();
    scene.node(one_cpu_node("a"), 0);
    let first = scene.pod(whole_cpu("p1"), 0);
    assert_eq!(scene.trace(0), "p1 -> a\n");
    scene.0.settle(&first, Outcome::Bound, secs(0)).expect("it waited for this");
    scene.pod(
        json!({"metadata": {"name": "p1", "labels": {"new": "label"}}, "requests": {"cpu": "1"}}),
        1,
    );
    scene.pod(whole_cpu("p2"), 1);
    assert_eq!(scene.trace(1), "p2: 0/1 nodes are available: 1 Insufficient cpu.\n");
    // The version with the node comes, then the pod ends: now there is room.
    let bound = |phase: &str| {
        json!({"metadata": {"name": "p1"}, "spec": {"nodeName": "a"}, "requests": {"cpu": "1"},
               "status": {"phase": phase}})
    };
    scene.pod(bound("Running"), 2);
    assert_eq!(scene.trace(2), "");
    scene.pod(bound("Succeeded"), 3);
    assert_eq!(scene.trace(3), "p2 -> a\n");
}

#[test]
fn a_binding_that_failed_gives_the_room_back_and_is_tried_again() {
    let mut scene = Scene::new();
    scene.node(one_cpu_node("a"), 0);
    let first = scene.pod(whole_cpu("p1"), 0);
    scene.pod(whole_cpu("p2"), 0);
    let tried = scene.trace(0);
    assert!(tried.starts_with("p1 -> a\np2: 0/1"), "{tried}");
    assert!(scene.0.settle(&first, Outcome::Gone, secs(0)).is_none());
    assert_eq!(scene.trace(0), "", "p2 was tried just now");
    assert_eq!(scene.trace(1), "p2 -> a\n");
}

#[test]
fn a_binding_seen_before_its_answer_is_counted_once() {
    let mut scene = Scene::new();
    scene.node(one_cpu_node("a"), 0);
    let key = scene.pod(whole_cpu("p"), 0);
    assert_eq!(scene.trace(0), "p -> a\n");
    scene.pod(
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "a"}, "requests": {"cpu": "1"}}),
        0,
    );
    assert!(scene.0.settle(&key, Outcome::Bound, secs(0)).is_some());
    assert!(scene.0.settle(&key, Outcome::Bound, secs(0)).is_none());
    assert_eq!(scene.trace(5), "");
}

#[test]
fn the_end_of_leadership_forgets_what_was_not_written_and_keeps_what_was() {
    let mut scene = Scene::new();
    scene.node(json!({"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "2"}}}), 0);
    scene.pod(whole_cpu("seen"), 0);
    scene.pod(whole_cpu("unseen"), 0);
    assert_eq!(scene.plan(0).len(), 2);
    scene.pod(
        json!({"metadata": {"name": "seen"}, "spec": {"nodeName": "a"}, "requests": {"cpu": "1"}}),
        0,
    );
    scene.0.retire(secs(0));
    assert_eq!(scene.trace(0), "unseen -> a\n");
}

#[test]
fn only_a_change_that_could_help_wakes_a_refused_pod() {
    let mut scene = Scene::new();
    scene.node(one_cpu_node("a"), 0);
    scene.pod(
        json!({"metadata": {"name": "p"}, "requests": {"cpu": "3"},
               "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [
                   {"name": "c", "resources": {"requests": {"cpu": "3"}}}]}}),
        0,
    );
    scene.trace(0);
    scene.node(json!({"metadata": {"name": "a", "labels": {"disk": "hdd"}}}), 20);
    assert_eq!(scene.0.depth().unschedulable, 1);
    assert_eq!(scene.trace(20), "", "it would still be refused there");
    scene.node(json!({"metadata": {"name": "a", "labels": {"disk": "ssd"}}}), 21);
    scene.0.wake(secs(21));
    assert!(scene.0.has_work(secs(21)), "or nobody would ask for a plan");
    assert_eq!(scene.trace(21), "p -> a\n");
}

#[test]
fn gates_other_schedulers_and_named_nodes_are_respected() {
    let mut scene = Scene::new();
    scene.node(json!({"metadata": {"name": "a"}}), 0);
    scene.pod(
        json!({"metadata": {"name": "gated"}, "spec": {"schedulingGates": [{"name": "wait"}]}}),
        0,
    );
    scene.pod(json!({"metadata": {"name": "other"}, "spec": {"schedulerName": "mine"}}), 0);
    scene.pod(json!({"metadata": {"name": "named"}, "spec": {"nodeName": "elsewhere"}}), 0);
    let leaving = json!({"name": "leaving", "deletionTimestamp": "2026-01-01T00:00:00Z"});
    scene.pod(json!({"metadata": leaving}), 0);
    assert_eq!(scene.trace(0), "");
    assert_eq!(scene.0.depth().gated, 1);
    scene.pod(json!({"metadata": {"name": "gated"}}), 1);
    assert_eq!(scene.trace(1), "gated -> a\n");
}

#[test]
fn a_pod_made_anew_under_its_name_is_another_pod() {
    let mut scene = Scene::new();
    scene.node(one_cpu_node("a"), 0);
    let key = scene.pod(whole_cpu("p"), 0);
    assert_eq!(scene.trace(0), "p -> a\n");
    scene.0.settle(&key, Outcome::Bound, secs(0)).expect("bound");
    scene.pod(json!({"metadata": {"name": "p", "uid": "second"}, "requests": {"cpu": "1"}}), 1);
    assert_eq!(scene.trace(1), "p -> a\n", "the first one's room is free again");
}

#[test]
fn the_same_refusal_is_told_once() {
    let mut scene = Scene::new();
    scene.node(one_cpu_node("a"), 0);
    scene.pod(json!({"metadata": {"name": "p"}, "requests": {"cpu": "9"}}), 0);
    let refusal = |decisions: Vec<Decision>| match decisions.into_iter().next() {
        Some(Decision::Unschedulable { pod, diagnosis }) => (pod, diagnosis),
        other => panic!("refused, not {other:?}"),
    };
    let (key, diagnosis) = refusal(scene.plan(0));
    assert!(scene.0.tell(&key, &diagnosis).is_some());
    let (key, diagnosis) = refusal(scene.plan(300));
    assert!(scene.0.tell(&key, &diagnosis).is_none());
    scene.node(one_cpu_node("b"), 301);
    let (key, diagnosis) = refusal(scene.plan(600));
    assert!(scene.0.tell(&key, &diagnosis).is_some(), "0/2 is another message");
}

//! Pod GC: removes pods that nobody else will: of nodes that are gone, being deleted without ever
//! having had a node, and the oldest finished ones beyond a threshold.

use crate::{Settings, pods};
use k8s_openapi::api::core::v1::Node;
use reconcile::{
    Change, Context, Controller, Existing, Key, Kind, Plan, Pod, Root, Wake, World, Write, kinds,
};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "pod_gc",
    component: "pod-garbage-collector",
    // The threshold is about all pods together.
    root: Root::Whole,
    wakes: &[(kinds::PODS, Wake::Map(left_behind)), (kinds::NODES, Wake::Map(node_gone))],
    workers: 1,
    plan,
    ..Controller::BASE
};

fn left_behind(world: &World, change: &Change) -> Vec<Key> {
    let Some(pod) = change.new_as::<Pod>() else { return Vec::new() };
    let ended = pods::is_terminal(pod) && !change.old_as::<Pod>().is_some_and(pods::is_terminal);
    if ended || is_orphan(world, pod) || never_ran(pod) { vec![Key::whole()] } else { Vec::new() }
}

fn node_gone(_: &World, change: &Change) -> Vec<Key> {
    if change.new.is_none() { vec![Key::whole()] } else { Vec::new() }
}

fn is_orphan(world: &World, pod: &Pod) -> bool {
    let node = pods::node_name(pod);
    node.is_some_and(|node| world.entry(&kinds::NODES, &Key::new("", node)).is_none())
}

fn never_ran(pod: &Pod) -> bool {
    pods::is_deleting(pod) && pods::node_name(pod).is_none()
}

fn plan(world: &World, _: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let mut deletes = Vec::new();
    let mut finished = Vec::new();
    for pod in world.list::<Pod>() {
        if is_orphan(world, pod) {
            let key = Key::new("", pods::node_name(pod).unwrap_or_default());
            let node = Existing { kind: Node::INFO, key, uid: String::new() };
            deletes.push(at_once(pod).unless([node]));
        } else if never_ran(pod) {
            deletes.push(at_once(pod));
        } else if pods::is_terminal(pod) && !pods::is_deleting(pod) {
            finished.push(pod);
        }
    }
    let threshold = world.fact::<Settings>().map(|settings| settings.terminated_pod_threshold);
    let surplus = finished.len().saturating_sub(threshold.unwrap_or(usize::MAX));
    finished.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    deletes.extend(finished.into_iter().take(surplus).map(at_once));
    plan.together(deletes);
    plan
}

/// Without waiting for an agent: there is none, or it has nothing left to stop.
fn at_once(pod: &Pod) -> Write {
    let mut delete = Write::delete(pod);
    delete.request.options.grace_period_seconds = Some(0);
    delete
}

#[cfg(test)]
mod tests {
    use super::CONTROLLER;
    use crate::testing::plan;
    use insta::assert_snapshot;

    #[test]
    fn pods_that_nobody_else_removes() {
        let pod = |name: &str, more: &str, node: &str, phase: &str| {
            format!(
                "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default{more}}}
spec: {{nodeName: '{node}', containers: []}}
status: {{phase: {phase}}}
"
            )
        };
        let deleted = ", deletionTimestamp: 2026-01-01T00:00:00Z";
        let made = |minute| format!(", creationTimestamp: '2026-01-01T00:0{minute}:00Z'");
        let world = [
            "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n".to_string(),
            pod("lives", "", "n1", "Running"),
            pod("ending", deleted, "n1", "Running"),
            pod("lost", "", "gone", "Running"),
            pod("never-ran", deleted, "", "Pending"),
            pod("waits", "", "", "Pending"),
            pod("finished-second", &made(2), "n1", "Succeeded"),
            pod("finished-first", &made(1), "n1", "Failed"),
        ];
        // The threshold is one finished pod.
        assert_snapshot!(plan(CONTROLLER, &world.concat(), "", ""));
    }
}

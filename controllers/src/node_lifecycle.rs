//! Node lifecycle: notices nodes that fell silent, taints nodes by their condition, and evicts pods
//! from nodes they do not tolerate. Measures silence by this process' own clock; never compares clocks.

use crate::{Heartbeats, Settings, pods};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::{
    Change, Context, Controller, Key, Note, Plan, Pod, Root, Wake, World, Write, kinds,
};
use serde_json::json;
use std::time::Duration;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "node_lifecycle",
    component: "node-controller",
    root: Root::Each(kinds::NODES),
    wakes: &[
        (kinds::NODES, Wake::Itself),
        (kinds::LEASES, Wake::Map(node_of_lease)),
        (kinds::PODS, Wake::Map(node_of_pod)),
    ],
    workers: 8,
    plan,
    ..Controller::BASE
};

const LEASES: &str = "kube-node-lease";
/// After so long a leader has heard what all masters that are up know of heartbeats.
// They ask each other each second; an answer takes less than another, or does not come.
const HEARD_OUT: Duration = Duration::from_secs(5);
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What each condition means for scheduling: its name, the status that counts, the taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// Conditions that only the node itself can know.
const FROM_NODE: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// A lease that comes back after silence is news; its steady renewals are only looked at when the
/// node is due.
fn node_of_lease(world: &World, change: &Change) -> Vec<Key> {
    let key = change.key();
    if &*key.namespace != LEASES {
        return Vec::new();
    }
    let node = Key::new("", key.name.clone());
    let ready = world.get::<Node>(&node).is_some_and(|node| ready_status(node) == "True");
    if ready && change.old.is_some() && change.new.is_some() { Vec::new() } else { vec![node] }
}

/// Pods that came to a node, changed their mind about it, or claim to be ready on it.
fn node_of_pod(world: &World, change: &Change) -> Vec<Key> {
    let Some(pod) = change.new_as::<Pod>() else { return Vec::new() };
    let Some(name) = pods::node_name(pod) else { return Vec::new() };
    let key = Key::new("", name);
    let healthy = world.get::<Node>(&key).is_some_and(|node| {
        ready_status(node) == "True" && evicting(node).next().is_none()
    });
    if healthy { Vec::new() } else { vec![key] }
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// `True`, `False` or `Unknown`; a node that never said so is not ready.
fn ready_status(node: &Node) -> &str {
    condition(node, "Ready").map_or("False", |ready| ready.status.as_str())
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten()
}

fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    taints(node).filter(|taint| taint.effect == "NoExecute")
}

fn plan(world: &World, key: &Key, context: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(node) = world.get::<Node>(key) else { return plan };
    if node.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let grace = world.fact::<Settings>().map(|settings| settings.node_monitor_grace_period);
    let grace = grace.unwrap_or(Duration::from_secs(40));
    let silent = silence(world, key, context);
    let mut judged = node.clone();
    if silent >= grace {
        mark_unknown(&mut judged, context.now);
    } else {
        plan.again_after(grace - silent);
    }
    if let Some(write) = Write::patch_status(node, &judged) {
        plan.write(write);
        let text = format!("Node {} status is now: NodeNotReady", key.name);
        if ready_status(node) == "True" {
            plan.event(Note::normal(node, "NodeNotReady", text));
        }
        // The taints follow when the cache shows the condition.
        return plan;
    }
    let mut tainted = node.clone();
    set_taints(&mut tainted, context.now);
    plan.write(Write::patch(node, &tainted));
    if ready_status(node) == "Unknown" {
        plan.together(unready_pods(world, &key.name, context.now));
    }
    evict(world, node, &mut plan, context.now);
    plan
}

/// How long nobody has seen a sign of life.
///
/// Heartbeats count from when any master heard them, also before this one led; only in the first
/// moments of a lead they count from its beginning, until the other masters have told theirs. What is
/// known by a written Lease alone counts from the beginning of the lead too: for a cluster that could
/// write nothing for a minute every node looked silent.
fn silence(world: &World, key: &Key, context: &Context) -> Duration {
    let lease = world.entry(&kinds::LEASES, &Key::new(LEASES, key.name.clone()));
    let lease = lease.filter(|entry| entry.typed::<Lease>().is_some());
    let sign = lease.or_else(|| world.entry(&kinds::NODES, key));
    let seen = sign.map_or(Duration::ZERO, |entry| entry.seen);
    let led = context.uptime.saturating_sub(context.leading_since);
    match world.fact::<Heartbeats>().and_then(|heartbeats| (heartbeats.0)(&key.name)) {
        Some(age) if led >= HEARD_OUT => age.min(context.uptime.saturating_sub(seen)),
        Some(_) => led,
        None => context.uptime.saturating_sub(seen.max(context.leading_since)),
    }
}

fn mark_unknown(node: &mut Node, now: Timestamp) {
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    for kind in FROM_NODE {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => (),
            Some(condition) => {
                condition.status = "Unknown".to_string();
                condition.reason = Some("NodeStatusUnknown".to_string());
                let text = "Kubelet stopped posting node status.";
                condition.message = Some(text.to_string());
                condition.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: kind.to_string(),
                status: "Unknown".to_string(),
                reason: Some("NodeStatusNeverUpdated".to_string()),
                message: Some("Kubelet never posted node status.".to_string()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
}

/// The taints that follow from the conditions; others are left alone.
fn set_taints(node: &mut Node, now: Timestamp) {
    let holds = |kind: &str, status: &str| {
        condition(node, kind).map_or(kind == "Ready" && status == "False", |c| c.status == status)
    };
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in BY_CONDITION {
        if holds(kind, status) {
            wanted.push((key, "NoSchedule"));
            if kind == "Ready" {
                wanted.push((key, "NoExecute"));
            }
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let is_ours = |taint: &Taint| {
        let schedule = taint.effect == "NoSchedule"
            && (taint.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(.., key)| taint.key == *key));
        schedule || (taint.effect == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&&*taint.key))
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(&taint.key, &taint.effect));
    let mut all: Vec<Taint> =
        taints(node).filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !all.iter().any(|taint| taint.key == key && taint.effect == effect) {
            all.push(Taint {
                key: key.to_string(),
                effect: effect.to_string(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    let spec = node.spec.get_or_insert_with(NodeSpec::default);
    spec.taints = Some(all).filter(|all| !all.is_empty());
}

/// Pods of a silent node that still count as ready: nobody can know.
fn unready_pods(world: &World, node: &str, now: Timestamp) -> Vec<Write> {
    let ready = world.pods_on(node).filter(|pod| pods::is_ready(pod) && !pods::is_terminal(pod));
    let unready = ready.filter_map(|pod| {
        let mut conditions = pod.status.as_ref()?.conditions.clone()?;
        let ready = conditions.iter_mut().find(|condition| condition.type_ == "Ready")?;
        ready.status = "False".to_string();
        ready.last_transition_time = Some(Time(now));
        let patch = json!({"status": {"conditions": conditions}});
        let write = Write::patch_if_unchanged(pod, patch).through_status();
        Some(write.on_ok(Note::warning(pod, "NodeNotReady", "Node is not ready")))
    });
    unready.collect()
}

/// Deletes the pods that do not tolerate the node's `NoExecute` taints, or not any longer.
fn evict(world: &World, node: &Node, plan: &mut Plan, now: Timestamp) {
    let taints: Vec<&Taint> = evicting(node).collect();
    if taints.is_empty() {
        return;
    }
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut writes = Vec::new();
    for pod in world.pods_on(name).filter(|pod| pods::is_active(pod)) {
        match time_left(pod, &taints, now) {
            None => (),
            Some(left) if !left.is_zero() => plan.again_after(left),
            Some(_) => {
                let key = reconcile::key_of(pod);
                let text = format!("Marking for deletion Pod {key}");
                let note = Note::normal(pod, "TaintManagerEviction", text);
                writes.push(Write::delete(pod).on_ok(note));
            }
        }
    }
    plan.together(writes);
}

/// How long the pod may stay; `None`: for ever.
fn time_left(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Option<Duration> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    let tolerations = tolerations.unwrap_or_default();
    let mut left: Option<Duration> = None;
    for taint in taints {
        let matching: Vec<&Toleration> =
            tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if matching.is_empty() {
            return Some(Duration::ZERO);
        }
        let Some(seconds) = matching.iter().filter_map(|one| one.toleration_seconds).min() else {
            continue;
        };
        // Both stamps are of this leader or of the one before it: to be read to the second.
        let added = taint.time_added.as_ref().map_or(now, |time| time.0);
        let made = pod.metadata.creation_timestamp.as_ref().map_or(added, |time| time.0);
        let end = added.max(made) + SignedDuration::from_secs(seconds.max(0));
        let rest = end.duration_since(now).try_into().unwrap_or(Duration::ZERO);
        left = Some(left.map_or(rest, |before| before.min(rest)));
    }
    left
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() && exists || key == taint.key)
        && (exists || value == taint.value.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::CONTROLLER;
    use crate::{
        Heartbeats,
        testing::{context, plan_in, world},
    };
    use insta::assert_snapshot;
    use reconcile::{Context, Key};
    use std::{sync::Arc, time::Duration};

    fn node(ready: &str, more: &str) -> String {
        format!(
            "apiVersion: v1
kind: Node
metadata: {{name: n1, creationTimestamp: 2026-01-01T00:00:00Z}}
spec: {{{more}}}
status: {{conditions: [{{type: Ready, status: '{ready}', reason: KubeletReady}}]}}
"
        )
    }

    const POD: &str = "
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: default, creationTimestamp: 2026-01-01T00:00:00Z}
spec:
  nodeName: n1
  containers: []
  tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300}]
status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}
";

    fn tainted_since(time: &str) -> String {
        let taint = |effect: &str| {
            format!("{{key: node.kubernetes.io/unreachable, effect: {effect}, timeAdded: {time}}}")
        };
        node("Unknown", &format!("taints: [{}, {}]", taint("NoSchedule"), taint("NoExecute")))
    }

    /// Everything in the world was last seen at 0; the process has led since `leading_since`.
    fn of(yaml: &[&str], uptime: u64, leading_since: u64) -> String {
        let context = Context {
            uptime: Duration::from_secs(uptime),
            leading_since: Duration::from_secs(leading_since),
            ..context()
        };
        plan_in(CONTROLLER, &yaml.concat(), "", "n1", &context)
    }

    #[test]
    fn a_node_heard_of_is_looked_at_again_when_it_would_be_due() {
        assert_eq!(of(&[&node("True", "")], 30, 0), "again after 10s\n");
    }

    #[test]
    fn a_silent_node_becomes_unknown() {
        assert_snapshot!(of(&[&node("True", "")], 40, 0));
    }

    #[test]
    fn a_new_leader_gives_every_node_a_full_grace_period() {
        assert_eq!(of(&[&node("True", "")], 100, 90), "again after 30s\n");
    }

    /// A heartbeat was heard `age` seconds ago; everything written was last seen at 0.
    fn heard(age: u64, uptime: u64, leading_since: u64) -> String {
        let mut world = world(&node("True", ""));
        world.set_fact(Heartbeats(Arc::new(move |_| Some(Duration::from_secs(age)))));
        let context = Context {
            uptime: Duration::from_secs(uptime),
            leading_since: Duration::from_secs(leading_since),
            ..context()
        };
        (CONTROLLER.plan)(&world, &Key::new("", "n1"), &context).to_string()
    }

    #[test]
    fn a_heartbeat_counts_though_no_lease_was_written() {
        assert_eq!(heard(10, 1000, 0), "again after 30s\n");
        assert!(heard(40, 1000, 0).contains("NodeStatusUnknown"));
    }

    #[test]
    fn a_new_leader_knows_how_long_a_node_was_silent_before() {
        assert_eq!(heard(35, 1000, 994), "again after 5s\n");
        assert_eq!(heard(90, 1000, 999), "again after 39s\n", "not before all were heard out");
    }

    #[test]
    fn an_unknown_node_is_tainted_and_its_pods_count_as_unready() {
        assert_snapshot!(of(&[&node("Unknown", ""), POD], 30, 0));
    }

    #[test]
    fn a_node_that_came_back_loses_its_taints() {
        let back = tainted_since("2026-01-01T00:00:00Z").replace("status: 'Unknown'", "status: 'True'");
        let text = of(&[&back, POD], 30, 0);
        assert!(text.contains("\"taints\":null"), "{text}");
    }

    #[test]
    fn pods_leave_when_they_tolerate_it_no_longer() {
        let unready = POD.replace("'True'", "'False'");
        let text = of(&[&tainted_since("2026-01-01T00:06:00Z"), &unready], 35, 0);
        assert_eq!(text, "again after 5s\n", "60 s of tolerance are left, 5 s of grace");
        let text = of(&[&tainted_since("2026-01-01T00:05:00Z"), &unready], 35, 0);
        assert!(text.contains("together delete pods default/p"), "{text}");
        assert!(text.contains("then Normal TaintManagerEviction"), "{text}");
        let forever = unready.replace(", tolerationSeconds: 300", "");
        let text = of(&[&tainted_since("2026-01-01T00:05:00Z"), &forever], 35, 0);
        assert_eq!(text, "again after 5s\n", "it tolerates the taint for ever");
    }

    #[test]
    fn an_unschedulable_node_is_tainted_too() {
        let text = of(&[&node("True", "unschedulable: true")], 30, 0);
        assert!(text.contains("node.kubernetes.io/unschedulable"), "{text}");
    }
}

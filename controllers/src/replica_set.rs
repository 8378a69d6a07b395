//! ReplicaSet: keeps `spec.replicas` pods of its template running.

use crate::{ownership, pods};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::{
    Cached, Change, Context, Controller, Failure, Key, Note, Plan, Pod, Root, Wake, World, Write, kinds,
    matches, owner_reference,
};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "replicaset",
    component: "replicaset-controller",
    root: Root::Each(kinds::REPLICA_SETS),
    wakes: &[(kinds::REPLICA_SETS, Wake::Itself), (kinds::PODS, Wake::Map(sets_of_pod))],
    workers: 16, // Hundreds of sets wake at once in a rollout; each waits for commits only.
    plan,
    ..Controller::BASE
};

/// Creates and deletes in one plan, as upstream bounds them.
const BURST_MAX: usize = 500;

fn sets_of_pod(world: &World, change: &Change) -> Vec<Key> {
    ownership::owners_of::<ReplicaSet>(world, change, |set, labels| {
        let selector = set.spec.as_ref().map(|spec| &spec.selector);
        selector.is_some_and(|selector| matches(selector, Some(labels)))
    })
}

fn plan(world: &World, key: &Key, context: &Context) -> Plan {
    let Some(set) = world.get::<ReplicaSet>(key) else { return Plan::nothing() };
    plan_as(world, set, set, context, |status| {
        Write::patch_status(set, &ReplicaSet { status: Some(status), ..set.clone() })
    })
}

/// The plan for `owner`, which wants what `set` says: `owner` itself, or how a kind of the same
/// meaning looks as a ReplicaSet. `write` is the write of its status, if that changed.
pub(crate) fn plan_as<O: Cached>(
    world: &World,
    owner: &O,
    set: &ReplicaSet,
    context: &Context,
    write: impl FnOnce(ReplicaSetStatus) -> Option<Write>,
) -> Plan {
    let mut plan = Plan::nothing();
    let Some(spec) = &set.spec else { return plan };
    let mut claim = ownership::claim::<_, Pod>(world, owner, &spec.selector, pods::is_active);
    if claim.settle(&mut plan) {
        return plan;
    }
    let active: Vec<&Pod> = claim.owned.iter().copied().filter(|pod| pods::is_active(pod)).collect();
    let wanted = spec.replicas.unwrap_or(1).max(0) as usize;
    if set.metadata.deletion_timestamp.is_none() {
        if active.len() < wanted {
            plan.slow_start(creates(owner, spec, (wanted - active.len()).min(BURST_MAX)));
        } else if active.len() > wanted {
            let surplus = (active.len() - wanted).min(BURST_MAX);
            plan.together(deletes(world, owner, &active, surplus, context.now));
        }
    }
    plan.finally(write(status(set, &claim.owned, &active, wanted, context)));
    if let Some(delay) = next_available(&active, spec.min_ready_seconds, context.now) {
        plan.again_after(delay);
    }
    plan
}

fn creates<O: Cached>(owner: &O, spec: &ReplicaSetSpec, count: usize) -> Vec<Write> {
    let name = owner.metadata().name.as_deref().unwrap_or_default();
    let namespace = owner.metadata().namespace.as_deref().unwrap_or_default();
    let empty = PodTemplateSpec::default();
    let template = spec.template.as_ref().unwrap_or(&empty);
    let pod =
        pods::from_template(template, namespace, format!("{name}-"), owner_reference(owner));
    let create = Write::create(&pod)
        .on_ok(Note::normal(owner, "SuccessfulCreate", "Created pod: {name}"))
        .on_error(Note::warning(owner, "FailedCreate", "Error creating: {error}"));
    vec![create; count]
}

fn deletes<O: Cached>(
    world: &World,
    owner: &O,
    active: &[&Pod],
    count: usize,
    now: Timestamp,
) -> Vec<Write> {
    let ranks = crowding(world, owner, active);
    let mut pods: Vec<&Pod> = active.to_vec();
    let rank = |pod: &Pod| {
        pods::node_name(pod).and_then(|node| ranks.get(node)).copied().unwrap_or_default()
    };
    pods.sort_by(|a, b| deletion_order(a, rank(a), b, rank(b), now));
    let delete = |pod: &&Pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        Write::delete(*pod)
            .on_ok(Note::normal(owner, "SuccessfulDelete", format!("Deleted pod: {name}")))
            .on_error(Note::warning(owner, "FailedDelete", "Error deleting: {error}"))
    };
    pods.iter().take(count).map(delete).collect()
}

/// How many active pods of the same workload each node has: of this set and of the sets with the
/// same controlling owner.
fn crowding<'a, O: Cached>(
    world: &'a World,
    set: &'a O,
    active: &[&'a Pod],
) -> HashMap<&'a str, usize> {
    let owner = set.metadata().owner_references.iter().flatten();
    let owner = owner.into_iter().find(|owner| owner.controller == Some(true));
    let mut related: Vec<&Pod> = Vec::new();
    match owner {
        None => related.extend(active),
        Some(owner) => {
            for sibling in world.controlled_by::<O>(&owner.uid) {
                let uid = sibling.metadata().uid.as_deref().unwrap_or_default();
                related.extend(world.controlled_by::<Pod>(uid).filter(|pod| pods::is_active(pod)));
            }
        }
    }
    let mut counts = HashMap::new();
    for node in related.into_iter().filter_map(pods::node_name) {
        *counts.entry(node).or_default() += 1;
    }
    counts
}

/// Upstream's order of preference for deletion: `Less` is deleted first.
fn deletion_order(a: &Pod, rank_a: usize, b: &Pod, rank_b: usize, now: Timestamp) -> Ordering {
    let assigned = |pod: &Pod| pods::node_name(pod).is_some();
    let phase = |pod: &Pod| match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready_age = |pod: &Pod| age_class(pods::ready_since(pod), now);
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let uid = |pod: &Pod| pod.metadata.uid.clone();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| ready_age(a).cmp(&ready_age(b)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| age_class(created(a), now).cmp(&age_class(created(b), now)))
        .then_with(|| uid(a).cmp(&uid(b)))
}

/// Ages are compared by order of magnitude, so that not always the youngest goes.
fn age_class(since: Option<Timestamp>, now: Timestamp) -> i64 {
    let nanoseconds = since.map_or(0, |since| now.as_nanosecond() - since.as_nanosecond());
    if nanoseconds <= 0 { -1 } else { i64::from(nanoseconds.ilog2()) }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|all| all.get("controller.kubernetes.io/pod-deletion-cost"));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// The largest restart count of its containers.
fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

fn status(
    set: &ReplicaSet,
    owned: &[&Pod],
    active: &[&Pod],
    wanted: usize,
    context: &Context,
) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let template = spec.and_then(|spec| spec.template.as_ref());
    let labels = template.and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let has_all_labels = |pod: &Pod| {
        let own = pod.metadata.labels.as_ref();
        labels.into_iter().flatten().all(|(key, value)| own.and_then(|o| o.get(key)) == Some(value))
    };
    let count = |holds: &dyn Fn(&Pod) -> bool| {
        let count = active.iter().filter(|pod| holds(pod)).count() as i32;
        Some(count).filter(|count| *count > 0)
    };
    let available =
        |pod: &Pod| pods::available_in(pod, min_ready, context.now) == Some(Duration::ZERO);
    let terminating = owned.iter().filter(|pod| pods::is_terminating(pod)).count() as i32;
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: count(&has_all_labels),
        ready_replicas: count(&pods::is_ready),
        available_replicas: count(&available),
        terminating_replicas: Some(terminating),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, active.len() != wanted, context),
    }
}

/// `ReplicaFailure` for as long as pods cannot be made or deleted.
fn conditions(
    set: &ReplicaSet,
    unfinished: bool,
    context: &Context,
) -> Option<Vec<ReplicaSetCondition>> {
    let before = set.status.as_ref().and_then(|status| status.conditions.clone());
    let mut conditions = before.unwrap_or_default();
    let current = conditions.iter().position(|condition| condition.type_ == "ReplicaFailure");
    let failure = context.failure.as_ref().filter(|failure| unfinished && is_replica_failure(failure));
    match (failure, current) {
        (Some(failure), None) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_string(),
            status: "True".to_string(),
            reason: Some(failure.reason.clone()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(context.now)),
        }),
        (None, Some(index)) => {
            conditions.remove(index);
        }
        _ => (),
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}

fn is_replica_failure(failure: &Failure) -> bool {
    matches!(failure.reason.as_str(), "FailedCreate" | "FailedDelete")
}

/// When the next ready pod becomes available.
fn next_available(
    active: &[&Pod],
    min_ready_seconds: Option<i32>,
    now: Timestamp,
) -> Option<Duration> {
    let left = active.iter().filter_map(|pod| {
        pods::available_in(pod, min_ready_seconds.unwrap_or(0), now)
    });
    left.filter(|left| !left.is_zero()).min()
}

#[cfg(test)]
mod tests {
    use super::CONTROLLER;
    use crate::testing::{context, failed, plan, plan_in};
    use insta::assert_snapshot;

    fn set(replicas: i32, more: &str) -> String {
        format!(
            "apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: web, namespace: default, generation: 1}}
spec:
  replicas: {replicas}
{more}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: web, image: a}}]}}
"
        )
    }

    /// A pod of the set; `fields` as YAML: `node`, `phase`, `ready` (since), `cost`, `restarts`.
    fn pod(name: &str, node: &str, phase: &str, ready: &str, cost: &str, more: &str) -> String {
        let ready = match ready {
            "" => String::new(),
            since => format!("{{type: Ready, status: 'True', lastTransitionTime: '{since}'}}"),
        };
        format!(
            "
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  creationTimestamp: 2026-01-01T00:00:00Z
  labels: {{app: web}}
  annotations: {{controller.kubernetes.io/pod-deletion-cost: '{cost}'}}
{more}
spec: {{nodeName: '{node}', containers: [{{name: web, image: a}}]}}
status: {{phase: {phase}, conditions: [{ready}]}}
"
        )
    }

    const OWNED: &str = "  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: uid-web, controller: true}]";

    fn owned(name: &str, node: &str, phase: &str, ready: &str, cost: &str) -> String {
        pod(name, node, phase, ready, cost, OWNED)
    }

    fn web(world: &[String]) -> String {
        plan(CONTROLLER, &world.concat(), "default", "web")
    }

    #[test]
    fn missing_pods_are_made() {
        assert_snapshot!(web(&[set(2, ""), owned("a", "n", "Running", "", "0")]));
    }

    #[test]
    fn ended_and_ending_pods_do_not_count() {
        let ending = OWNED.to_string() + "\n  deletionTimestamp: 2026-01-01T00:09:00Z";
        let world = [
            set(2, ""),
            owned("ended", "n", "Failed", "", "0"),
            pod("ending", "n", "Running", "", "0", &ending),
            owned("running", "n", "Running", "2026-01-01T00:05:00Z", "0"),
        ];
        let text = web(&world);
        assert_eq!(text.matches("create pods").count(), 1, "{text}");
        assert!(text.contains("\"terminatingReplicas\":1"), "{text}");
    }

    #[test]
    fn surplus_pods_go_in_upstreams_order() {
        let early = "2026-01-01T00:01:00Z";
        let world = [
            set(1, ""),
            owned("keep", "n1", "Running", early, "0"),
            owned("unassigned", "", "Pending", "", "0"),
            owned("pending", "n1", "Pending", "", "0"),
            owned("unready", "n1", "Running", "", "0"),
            owned("cheap", "n1", "Running", early, "-1"),
            owned("crowded", "n2", "Running", early, "0"),
            owned("crowded-too", "n2", "Running", early, "0"),
            owned("young", "n1", "Running", "2026-01-01T00:09:59Z", "0"),
        ];
        let text = web(&world);
        let order: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("together delete pods default/"))
            .collect();
        // Of n1, four pods are active: more than on n2, whatever state they are in.
        let want = ["unassigned", "pending", "unready", "cheap", "young", "keep", "crowded"];
        assert_eq!(order, want, "{text}");
    }

    #[test]
    fn a_matching_orphan_is_adopted_and_a_stranger_let_go() {
        let stranger = owned("b", "n", "Running", "", "0").replace("app: web}", "app: other}");
        let world = [set(1, ""), pod("a", "n", "Running", "", "0", ""), stranger];
        assert_snapshot!(web(&world));
    }

    #[test]
    fn ready_pods_become_available_after_min_ready_seconds() {
        let world =
            [set(1, "  minReadySeconds: 60"), owned("a", "n", "Running", "2026-01-01T00:09:15Z", "0")];
        let text = web(&world);
        assert!(text.contains("\"readyReplicas\":1") && !text.contains("available"), "{text}");
        assert!(text.ends_with("again after 15s\n"), "{text}");
    }

    #[test]
    fn a_refused_create_shows_in_the_status_until_it_succeeds() {
        let refused = failed("FailedCreate", "quota");
        let text = plan_in(CONTROLLER, &set(1, ""), "default", "web", &refused);
        assert!(text.contains("\"type\":\"ReplicaFailure\""), "{text}");
        let text = plan_in(CONTROLLER, &set(1, ""), "default", "web", &context());
        assert!(!text.contains("ReplicaFailure"), "{text}");
    }
}

//! Disruption: how many pods of each PodDisruptionBudget may be away now. The eviction subresource
//! takes from `disruptionsAllowed`; this counts it anew from the pods there are.

use crate::pods::is_ready;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::{
    Change, Context, Controller, Key, Note, Plan, Pod, Root, Wake, World, Write, kinds, matches,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "disruption",
    component: "controllermanager",
    root: Root::Each(kinds::POD_DISRUPTION_BUDGETS),
    wakes: &[
        (kinds::POD_DISRUPTION_BUDGETS, Wake::Itself),
        (kinds::PODS, Wake::Map(budgets_of_pod)),
        (kinds::DEPLOYMENTS, Wake::Map(budgets_of_namespace)),
        (kinds::REPLICA_SETS, Wake::Map(budgets_of_namespace)),
        (kinds::REPLICATION_CONTROLLERS, Wake::Map(budgets_of_namespace)),
        (kinds::STATEFUL_SETS, Wake::Map(budgets_of_namespace)),
    ],
    plan,
    ..Controller::BASE
};

/// How long an evicted pod may stay before it counts again (upstream's `DeletionTimeout`).
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| matches(selector, pod.metadata.labels.as_ref()))
}

fn budgets_of_pod(world: &World, change: &Change) -> Vec<Key> {
    let pods: Vec<&Pod> = change.old_as().into_iter().chain(change.new_as()).collect();
    let budgets = world.in_namespace::<PodDisruptionBudget>(&change.key().namespace);
    let concerned = budgets.filter(|budget| pods.iter().any(|pod| selects(budget, pod)));
    concerned.map(reconcile::key_of).collect()
}

fn budgets_of_namespace(world: &World, change: &Change) -> Vec<Key> {
    let budgets = world.in_namespace::<PodDisruptionBudget>(&change.key().namespace);
    budgets.map(reconcile::key_of).collect()
}

fn plan(world: &World, key: &Key, context: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(budget) = world.get::<PodDisruptionBudget>(key) else { return plan };
    let pods = world.in_namespace::<Pod>(&key.namespace);
    let pods: Vec<&Pod> = pods.filter(|pod| selects(budget, pod)).collect();
    let mut changed = budget.clone();
    match expected(world, budget, &pods) {
        Ok(expected) => {
            let (disrupted, recheck) = disrupted(budget, &pods, context.now);
            if let Some(at) = recheck {
                let left = Duration::try_from(at.duration_since(context.now));
                plan.again_after(left.unwrap_or(Duration::ZERO));
            }
            let healthy = healthy(&pods, &disrupted);
            let spare = healthy - expected.healthy;
            // While nothing is expected nothing may go: the first pods may be on their way.
            let allowed = if expected.pods <= 0 { 0 } else { spare.max(0) };
            changed.status = Some(PodDisruptionBudgetStatus {
                current_healthy: Some(healthy),
                desired_healthy: Some(expected.healthy),
                expected_pods: Some(expected.pods),
                disruptions_allowed: Some(allowed),
                disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
                observed_generation: budget.metadata.generation,
                conditions: budget.status.as_ref().and_then(|status| status.conditions.clone()),
            });
            let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
            set_condition(&mut changed, allowed > 0, reason, String::new(), context.now);
        }
        Err(why) => {
            changed.status.get_or_insert_default().disruptions_allowed = Some(0);
            set_condition(&mut changed, false, "SyncFailed", why.clone(), context.now);
            if changed != *budget {
                let text =
                    format!("Failed to calculate the number of expected pods: {why}");
                plan.event(Note::warning(budget, "CalculateExpectedPodCountFailed", text));
            }
        }
    }
    if pods.is_empty() && changed != *budget {
        plan.event(Note::normal(budget, "NoPods", "No matching pods found"));
    }
    plan.write(Write::patch_status(budget, &changed));
    plan
}

struct Expected {
    /// As many as those who own the pods want.
    pods: i32,
    /// As many as must be healthy.
    healthy: i32,
}

fn expected(
    world: &World,
    budget: &PodDisruptionBudget,
    pods: &[&Pod],
) -> Result<Expected, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    let scaled = |of: &IntOrString, total: i32| {
        let value = match of {
            IntOrString::Int(number) => Value::from(*number),
            IntOrString::String(text) => Value::from(text.as_str()),
        };
        k8s::intstr::scaled(&value, total.into(), true).map(|scaled| scaled as i32)
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let pods = scale(world, pods)?;
            Ok(Expected { pods, healthy: (pods - scaled(most, pods)?).max(0) })
        }
        (None, Some(IntOrString::Int(least))) => {
            Ok(Expected { pods: pods.len() as i32, healthy: *least })
        }
        (None, Some(least)) => {
            let pods = scale(world, pods)?;
            Ok(Expected { pods, healthy: scaled(least, pods)? })
        }
        (None, None) => Ok(Expected { pods: 0, healthy: 0 }),
    }
}

/// What all that own the pods want together, each counted once; pods without an owner count for
/// nothing.
fn scale(world: &World, pods: &[&Pod]) -> Result<i32, String> {
    let mut owners: BTreeMap<String, i32> = BTreeMap::new();
    for pod in pods {
        let references = pod.metadata.owner_references.iter().flatten();
        let Some(owner) = references.into_iter().find(|owner| owner.controller == Some(true))
        else {
            continue;
        };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let Some((uid, replicas)) = replicas(world, namespace, owner) else {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            return Err(format!("found no controllers for pod {name:?}"));
        };
        owners.insert(uid, replicas);
    }
    Ok(owners.values().sum())
}

/// The owner in the end (a ReplicaSet's Deployment) and its replicas.
fn replicas(world: &World, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
    let key = Key::new(namespace, owner.name.as_str());
    let same = |uid: &Option<String>| uid.as_deref() == Some(owner.uid.as_str());
    let uid = owner.uid.clone();
    let group = owner.api_version.split('/').next().unwrap_or_default();
    match (group, owner.kind.as_str()) {
        ("apps", "ReplicaSet") => {
            let set = world.get::<ReplicaSet>(&key).filter(|set| same(&set.metadata.uid))?;
            let above = set.metadata.owner_references.iter().flatten();
            let mut above = above.filter(|owner| owner.controller == Some(true));
            match above.find(|owner| owner.kind == "Deployment") {
                Some(deployment) => replicas(world, namespace, deployment),
                None => Some((uid, set.spec.as_ref()?.replicas.unwrap_or(1))),
            }
        }
        ("apps", "Deployment") => {
            let found = world.get::<Deployment>(&key).filter(|it| same(&it.metadata.uid))?;
            Some((uid, found.spec.as_ref()?.replicas.unwrap_or(1)))
        }
        ("apps", "StatefulSet") => {
            let found = world.get::<StatefulSet>(&key).filter(|it| same(&it.metadata.uid))?;
            Some((uid, found.spec.as_ref()?.replicas.unwrap_or(1)))
        }
        ("v1", "ReplicationController") => {
            let found = world.get::<ReplicationController>(&key);
            let found = found.filter(|it| same(&it.metadata.uid))?;
            Some((uid, found.spec.as_ref()?.replicas.unwrap_or(1)))
        }
        _ => None,
    }
}

/// The evicted pods that are still to go, and when the first of them should have gone.
fn disrupted(
    budget: &PodDisruptionBudget,
    pods: &[&Pod],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Timestamp>) {
    let alive: BTreeSet<&str> = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect();
    let told = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    let due = told.into_iter().flatten().filter(|(name, evicted)| {
        alive.contains(name.as_str()) && evicted.0 + DELETION_TIMEOUT >= now
    });
    let due: BTreeMap<String, Time> =
        due.map(|(name, evicted)| (name.clone(), evicted.clone())).collect();
    let recheck = due.values().map(|evicted| evicted.0 + DELETION_TIMEOUT).min();
    (due, recheck)
}

fn healthy(pods: &[&Pod], disrupted: &BTreeMap<String, Time>) -> i32 {
    let counted = pods.iter().filter(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pod.metadata.deletion_timestamp.is_none() && !disrupted.contains_key(name) && is_ready(pod)
    });
    counted.count() as i32
}

fn set_condition(
    budget: &mut PodDisruptionBudget,
    allowed: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let status = budget.status.get_or_insert_default();
    let observed_generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let word = if allowed { "True" } else { "False" };
    let kind = "DisruptionAllowed";
    let since = conditions.iter().find(|one| one.type_ == kind && one.status == word);
    let since = since.map_or(Time(now), |one| one.last_transition_time.clone());
    conditions.retain(|one| one.type_ != kind);
    conditions.push(Condition {
        type_: kind.to_string(),
        status: word.to_string(),
        reason: reason.to_string(),
        message,
        last_transition_time: since,
        observed_generation,
    });
}

#[cfg(test)]
mod tests {
    use super::CONTROLLER;
    use crate::testing::plan;

    fn budget(spec: &str, status: &str) -> String {
        format!(
            "apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: web, namespace: dev, generation: 2}}
spec: {{selector: {{matchLabels: {{app: web}}}}, {spec}}}
status: {status}
---
"
        )
    }

    fn pods(count: usize, owner: &str) -> String {
        let pod = |n: usize| {
            format!(
                "apiVersion: v1
kind: Pod
metadata:
  {{name: web-{n}, namespace: dev, labels: {{app: web}}, ownerReferences: [{owner}]}}
spec: {{containers: []}}
status: {{phase: Running, conditions: [{{type: Ready, status: 'True'}}]}}
---
"
            )
        };
        (1..=count).map(pod).collect()
    }

    const SET: &str = "apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web, namespace: dev}
spec: {replicas: 4, selector: {matchLabels: {app: web}}}
---
";
    const OWNER: &str =
        "{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: uid-web, controller: true}";

    fn of(yaml: &[&str]) -> String {
        plan(CONTROLLER, &yaml.concat(), "dev", "web")
    }

    #[test]
    fn a_number_is_of_the_pods_there_are() {
        insta::assert_snapshot!(of(&[&budget("minAvailable: 2", "{}"), &pods(3, "")]));
    }

    #[test]
    fn a_share_is_of_what_the_owners_want() {
        insta::assert_snapshot!(of(&[&budget("maxUnavailable: 50%", "{}"), &pods(3, OWNER), SET]));
    }

    #[test]
    fn an_evicted_pod_is_waited_for() {
        let status = "{disruptedPods: {web-1: 2026-01-01T00:09:00Z, web-2: 2026-01-01T00:01:00Z}}";
        insta::assert_snapshot!(of(&[&budget("minAvailable: 1", status), &pods(3, "")]));
    }

    #[test]
    fn what_cannot_be_counted_may_not_go() {
        let owner = OWNER.replace("ReplicaSet", "Widget");
        let text = of(&[&budget("maxUnavailable: 1", "{}"), &pods(1, &owner)]);
        assert!(text.contains("SyncFailed") && text.contains("found no controllers for pod"), "{text}");
        let none = of(&[&budget("minAvailable: 1", "{}")]);
        assert!(none.contains("No matching pods found"), "{none}");
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let status = "{currentHealthy: 3, desiredHealthy: 2, expectedPods: 3, disruptionsAllowed: 1, observedGeneration: 2, conditions: [{type: DisruptionAllowed, status: 'True', reason: SufficientPods, message: '', lastTransitionTime: 2026-01-01T00:00:00Z, observedGeneration: 2}]}";
        assert_eq!(of(&[&budget("minAvailable: 2", status), &pods(3, "")]), "nothing\n");
    }
}

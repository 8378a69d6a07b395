//! ReplicationController: what a ReplicaSet does, for the kind that came before it and selects by
//! equality alone.

use crate::{ownership, replica_set};
use k8s_openapi::api::apps::v1::{
    ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use reconcile::{Change, Context, Controller, Key, Plan, Root, Wake, World, Write, kinds, matches};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "replicationcontroller",
    component: "replication-controller",
    root: Root::Each(kinds::REPLICATION_CONTROLLERS),
    wakes: &[
        (kinds::REPLICATION_CONTROLLERS, Wake::Itself),
        (kinds::PODS, Wake::Map(controllers_of_pod)),
    ],
    workers: 4, // Few clusters still have many of these; each waits for commits only.
    plan,
    ..Controller::BASE
};

fn controllers_of_pod(world: &World, change: &Change) -> Vec<Key> {
    ownership::owners_of::<ReplicationController>(world, change, |owner, labels| {
        matches(&selector(owner), Some(labels))
    })
}

fn plan(world: &World, key: &Key, context: &Context) -> Plan {
    let Some(owner) = world.get::<ReplicationController>(key) else { return Plan::nothing() };
    let set = as_set(owner);
    replica_set::plan_as(world, owner, &set, context, |status| {
        let status = Some(as_ours(status));
        Write::patch_status(owner, &ReplicationController { status, ..owner.clone() })
    })
}

/// Never empty: the server takes it from the template's labels, and refuses one without any.
fn selector(owner: &ReplicationController) -> LabelSelector {
    let labels = owner.spec.as_ref().and_then(|spec| spec.selector.clone());
    LabelSelector { match_labels: labels, match_expressions: None }
}

fn as_set(owner: &ReplicationController) -> ReplicaSet {
    let spec = owner.spec.as_ref().map(|spec| ReplicaSetSpec {
        min_ready_seconds: spec.min_ready_seconds,
        replicas: spec.replicas,
        selector: selector(owner),
        template: spec.template.clone(),
    });
    let conditions = |all: &Vec<ReplicationControllerCondition>| {
        let all = all.iter().cloned().map(|one| ReplicaSetCondition {
            type_: one.type_,
            status: one.status,
            reason: one.reason,
            message: one.message,
            last_transition_time: one.last_transition_time,
        });
        all.collect()
    };
    let status = owner.status.as_ref().map(|status| ReplicaSetStatus {
        conditions: status.conditions.as_ref().map(conditions),
        ..ReplicaSetStatus::default()
    });
    ReplicaSet { metadata: owner.metadata.clone(), spec, status }
}

fn as_ours(status: ReplicaSetStatus) -> ReplicationControllerStatus {
    let conditions = |all: Vec<ReplicaSetCondition>| {
        let all = all.into_iter().map(|one| ReplicationControllerCondition {
            type_: one.type_,
            status: one.status,
            reason: one.reason,
            message: one.message,
            last_transition_time: one.last_transition_time,
        });
        all.collect()
    };
    ReplicationControllerStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        conditions: status.conditions.map(conditions),
    }
}

#[cfg(test)]
mod tests {
    use super::CONTROLLER;
    use crate::testing::{context, failed, plan, plan_in};
    use insta::assert_snapshot;

    fn controller(replicas: i32, selector: &str) -> String {
        format!(
            "apiVersion: v1
kind: ReplicationController
metadata: {{name: web, namespace: default, generation: 1}}
spec:
  replicas: {replicas}
  selector: {selector}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: web, image: a}}]}}
"
        )
    }

    fn pod(name: &str, label: &str, more: &str) -> String {
        format!(
            "
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  labels: {{app: {label}}}
{more}
spec: {{nodeName: n1, containers: [{{name: web, image: a}}]}}
status: {{phase: Running, conditions: []}}
"
        )
    }

    const OWNED: &str = "  ownerReferences: [{apiVersion: v1, kind: ReplicationController, name: web, uid: uid-web, controller: true}]";

    fn web(world: &[String]) -> String {
        plan(CONTROLLER, &world.concat(), "default", "web")
    }

    #[test]
    fn missing_pods_are_made_and_counted() {
        assert_snapshot!(web(&[controller(3, "{app: web}"), pod("a", "web", OWNED)]));
    }

    #[test]
    fn a_matching_orphan_is_adopted_and_a_stranger_let_go() {
        let world = [controller(1, "{app: web}"), pod("a", "web", ""), pod("b", "other", OWNED)];
        assert_snapshot!(web(&world));
    }

    #[test]
    fn surplus_pods_go() {
        let owned = ["a", "b", "c"].map(|name| pod(name, "web", OWNED));
        let text = web(&[vec![controller(1, "{app: web}")], owned.to_vec()].concat());
        assert_eq!(text.matches("together delete pods default/").count(), 2, "{text}");
    }

    #[test]
    fn a_refused_create_shows_in_the_status_until_it_succeeds() {
        let world = controller(1, "{app: web}");
        let text = plan_in(CONTROLLER, &world, "default", "web", &failed("FailedCreate", "quota"));
        assert!(text.contains("\"type\":\"ReplicaFailure\""), "{text}");
        let text = plan_in(CONTROLLER, &world, "default", "web", &context());
        assert!(!text.contains("ReplicaFailure"), "{text}");
    }
}

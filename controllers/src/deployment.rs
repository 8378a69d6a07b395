//! Deployment: one ReplicaSet per template; moves pods from the old ones to the new one within
//! `maxSurge` and `maxUnavailable`, and tells how far it is.

mod progress;
mod rollout;
mod sets;

use crate::{ownership, pods};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use reconcile::{
    Change, Context, Controller, Key, Note, Plan, Pod, Root, Wake, World, Write, kinds, matches,
};
use rollout::Rollout;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "deployment",
    component: "deployment-controller",
    root: Root::Each(kinds::DEPLOYMENTS),
    wakes: &[
        (kinds::DEPLOYMENTS, Wake::Itself),
        (kinds::REPLICA_SETS, Wake::Map(deployments_of_set)),
        (kinds::PODS, Wake::Map(deployments_of_ended_pod)),
    ],
    workers: 8,
    plan,
    ..Controller::BASE
};

fn deployments_of_set(world: &World, change: &Change) -> Vec<Key> {
    ownership::owners_of::<Deployment>(world, change, |deployment, labels| {
        let spec = deployment.spec.as_ref();
        spec.is_some_and(|spec| matches(&spec.selector, Some(labels)))
    })
}

/// The end of a pod is news for a deployment that recreates: it waits for all old pods to be gone.
fn deployments_of_ended_pod(world: &World, change: &Change) -> Vec<Key> {
    if change.new_as::<Pod>().is_some_and(|pod| !pods::is_terminal(pod)) {
        return Vec::new();
    }
    let set = change.either().and_then(|entry| entry.meta.controller());
    let set = set.filter(|owner| owner.kind == "ReplicaSet");
    let set = set.and_then(|owner| world.by_uid(&owner.uid)).map(|(_, entry)| entry);
    let owner = set.and_then(|set| set.meta.controller());
    let owner = owner.filter(|owner| owner.kind == "Deployment");
    let key = owner.map(|owner| Key::new(change.key().namespace.clone(), owner.name.as_str()));
    key.into_iter().collect()
}

fn plan(world: &World, key: &Key, context: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(deployment) = world.get::<Deployment>(key) else { return plan };
    let Some(spec) = &deployment.spec else { return plan };
    if spec.selector == Default::default() {
        let why = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.event(Note::warning(deployment, "SelectingAll", why));
        return plan;
    }
    let mut claim =
        ownership::claim::<_, ReplicaSet>(world, deployment, &spec.selector, |_| true);
    if claim.settle(&mut plan) {
        return plan;
    }
    let mut rollout = Rollout::new(world, deployment, spec, claim.owned);
    rollout.decide();
    finish(plan, rollout, context)
}

/// The writes in the order that keeps every state between two of them true: sets first, the
/// deployment's annotation, then its status.
fn finish(mut plan: Plan, rollout: Rollout<'_>, context: &Context) -> Plan {
    let deployment = rollout.deployment;
    let (changed, delay) = progress::status(&rollout, context);
    for write in rollout.writes {
        plan.write(write);
    }
    for note in rollout.notes {
        plan.event(note);
    }
    let mut annotated = deployment.clone();
    annotated.metadata.annotations = rollout.annotations;
    let annotate = Write::patch(deployment, &annotated).map(Write::through_status);
    let moves = annotate.is_some();
    plan.write(annotate);
    let described = Deployment { status: Some(changed), ..deployment.clone() };
    let describe = Write::patch_status(deployment, &described);
    // The annotation's patch has just moved the revision the guard would ask for. This controller
    // is the only writer of the status, and the fence lets only one of it write.
    plan.finally(if moves { describe.map(Write::unguarded) } else { describe });
    if let Some(delay) = delay {
        plan.again_after(delay);
    }
    plan
}

#[cfg(test)]
mod tests;

//! The status: counts, and the conditions `kubectl rollout status` reads.

use super::rollout::{Rollout, is_recreate};
use super::sets;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::Context;
use std::time::Duration;

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";

/// No deadline at all, as `kubectl` and upstream understand it.
const NO_DEADLINE: i32 = i32::MAX;

/// The status after this step, and when it has to be looked at again because a deadline ends.
pub(super) fn status(
    rollout: &Rollout<'_>,
    context: &Context,
) -> (DeploymentStatus, Option<Duration>) {
    let deployment = rollout.deployment;
    let mut status = counts(rollout);
    if rollout.collision {
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    }
    let mut conditions = Conditions {
        list: status.conditions.take().unwrap_or_default(),
        now: context.now,
    };
    availability(rollout, &status, &mut conditions);
    let deadline = rollout.spec.progress_deadline_seconds.filter(|s| *s != NO_DEADLINE);
    match deadline {
        None => conditions.remove(PROGRESSING),
        Some(_) if deployment.metadata.deletion_timestamp.is_some() => (),
        Some(seconds) => progress(rollout, &status, &mut conditions, seconds),
    }
    failures(rollout, &mut conditions);
    let again = deadline.and_then(|seconds| deadline_left(rollout, &conditions, &status, seconds));
    conditions.list.sort_by_key(|condition| order(&condition.type_));
    status.conditions = Some(conditions.list).filter(|list| !list.is_empty());
    (status, again)
}

/// Everything but the conditions, which are as they were.
pub(super) fn counts(rollout: &Rollout<'_>) -> DeploymentStatus {
    let deployment = rollout.deployment;
    let before = deployment.status.clone().unwrap_or_default();
    let all = || rollout.new.iter().chain(&rollout.old);
    let sum = |count: fn(&ReplicaSet) -> i32| all().map(count).sum::<i32>();
    let positive = |number: i32| Some(number).filter(|number| *number > 0);
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
    let terminating =
        |set: &ReplicaSet| set.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0);
    let available = sum(sets::available);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: positive(sum(actual)),
        updated_replicas: positive(rollout.new.as_ref().map_or(0, actual)),
        ready_replicas: positive(sum(ready)),
        available_replicas: positive(available),
        unavailable_replicas: positive(sum(sets::replicas) - available),
        terminating_replicas: Some(sum(terminating)),
        collision_count: before.collision_count,
        conditions: before.conditions,
    }
}

fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// As many new pods as wanted, all available, and no others.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let is_wanted = |count: Option<i32>| count.unwrap_or(0) == wanted;
    is_wanted(status.updated_replicas)
        && is_wanted(status.replicas)
        && is_wanted(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

fn availability(rollout: &Rollout<'_>, status: &DeploymentStatus, conditions: &mut Conditions) {
    let down = if is_recreate(rollout.spec) { 0 } else { rollout.max_unavailable };
    if status.available_replicas.unwrap_or(0) >= rollout.wanted() - down {
        let text = "Deployment has minimum availability.";
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", text);
    } else {
        let text = "Deployment does not have minimum availability.";
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", text);
    }
}

fn progress(
    rollout: &Rollout<'_>,
    status: &DeploymentStatus,
    conditions: &mut Conditions,
    deadline_seconds: i32,
) {
    let deployment = rollout.deployment;
    let reason = conditions.reason(PROGRESSING);
    if rollout.paused() {
        if reason.as_deref() != Some("DeploymentPaused") {
            conditions.set(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused");
        }
        return;
    }
    if reason.as_deref() == Some("DeploymentPaused") {
        conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed");
        return;
    }
    let name = match &rollout.new {
        Some(set) => set.metadata.name.as_deref().unwrap_or_default(),
        None => "",
    };
    if rollout.created {
        let text = format!("Created new replica set {name:?}");
        conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", &text);
        return;
    }
    let subject = if name.is_empty() {
        format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default())
    } else {
        format!("ReplicaSet {name:?}")
    };
    let settled = status.replicas == status.updated_replicas
        && reason.as_deref() == Some("NewReplicaSetAvailable");
    if settled {
        return;
    }
    if is_complete(deployment, status) {
        let text = format!("{subject} has successfully progressed.");
        conditions.set(PROGRESSING, "True", "NewReplicaSetAvailable", &text);
    } else if has_moved(deployment, status) {
        conditions.refresh(PROGRESSING, "ReplicaSetUpdated", &format!("{subject} is progressing."));
    } else if conditions.timed_out(deadline_seconds) {
        let text = format!("{subject} has timed out progressing.");
        conditions.set(PROGRESSING, "False", "ProgressDeadlineExceeded", &text);
    } else if reason.is_none() && rollout.new.is_some() {
        let text = format!("Found new replica set {name:?}");
        conditions.set(PROGRESSING, "True", "FoundNewReplicaSet", &text);
    }
}

/// Something got further since the status was last written.
fn has_moved(deployment: &Deployment, now: &DeploymentStatus) -> bool {
    let before = deployment.status.clone().unwrap_or_default();
    let number = |count: Option<i32>| count.unwrap_or(0);
    let old = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(now.updated_replicas) > number(before.updated_replicas)
        || old(now) < old(&before)
        || number(now.ready_replicas) > number(before.ready_replicas)
        || number(now.available_replicas) > number(before.available_replicas)
}

/// A set that cannot make its pods is the deployment's failure; the new set's comes first.
fn failures(rollout: &Rollout<'_>, conditions: &mut Conditions) {
    let failure = |set: &ReplicaSet| -> Option<ReplicaSetCondition> {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == FAILURE).cloned()
    };
    match rollout.new.iter().chain(&rollout.old).find_map(failure) {
        None => conditions.remove(FAILURE),
        Some(failure) => {
            let reason = failure.reason.unwrap_or_default();
            let message = failure.message.unwrap_or_default();
            conditions.set(FAILURE, &failure.status, &reason, &message);
        }
    }
}

/// When the progress deadline ends, while it runs.
fn deadline_left(
    rollout: &Rollout<'_>,
    conditions: &Conditions,
    status: &DeploymentStatus,
    seconds: i32,
) -> Option<Duration> {
    let condition = conditions.get(PROGRESSING)?;
    let reason = condition.reason.as_deref().unwrap_or_default();
    let over = matches!(reason, "NewReplicaSetAvailable" | "ProgressDeadlineExceeded");
    if rollout.paused() || over || is_complete(rollout.deployment, status) {
        return None;
    }
    let updated = condition.last_update_time.as_ref()?.0;
    // One second more: time stamps have whole seconds.
    let end = updated + SignedDuration::from_secs(i64::from(seconds) + 1);
    let left = end.duration_since(conditions.now);
    Some(left.try_into().unwrap_or(Duration::from_secs(1)))
}

fn order(kind: &str) -> usize {
    [AVAILABLE, PROGRESSING, FAILURE].iter().position(|one| *one == kind).unwrap_or(3)
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    fn reason(&self, kind: &str) -> Option<String> {
        self.get(kind).map(|condition| condition.reason.clone().unwrap_or_default())
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition.type_ != kind);
    }

    /// Nothing happens if status and reason are as they were.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let current = self.get(kind);
        if let Some(current) = current
            && current.status == status
            && current.reason.as_deref() == Some(reason)
        {
            return;
        }
        let same = current.filter(|current| current.status == status);
        let since = same.and_then(|current| current.last_transition_time.clone());
        self.put(kind, status, reason, message, since);
    }

    /// True, updated now whatever it was.
    fn refresh(&mut self, kind: &str, reason: &str, message: &str) {
        let same = self.get(kind).filter(|current| current.status == "True");
        let since = same.and_then(|current| current.last_transition_time.clone());
        self.put(kind, "True", reason, message, since);
    }

    fn put(&mut self, kind: &str, status: &str, reason: &str, message: &str, since: Option<Time>) {
        self.remove(kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_string(),
            status: status.to_string(),
            reason: Some(reason.to_string()),
            message: Some(message.to_string()),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(since.unwrap_or(Time(self.now))),
        });
    }

    fn timed_out(&self, seconds: i32) -> bool {
        let Some(current) = self.get(PROGRESSING) else { return false };
        match current.reason.as_deref() {
            Some("NewReplicaSetAvailable") => false,
            Some("ProgressDeadlineExceeded") => true,
            _ => current.last_update_time.as_ref().is_some_and(|updated| {
                updated.0 + SignedDuration::from_secs(seconds.into()) < self.now
            }),
        }
    }
}

//! `pods/eviction`: a deletion that respects disruption budgets. What a budget gives is taken from it
//! in the transaction that deletes the pod, so that no two evictions can have the same.

use crate::{
    admission::{self, Operation},
    encode, memo,
    pipeline::{Along, Body, Call, Core, Reply, Type, What, meta},
};
use k8s::{Cause, Object, Resource, Status, Verb, selector::LabelSelector};
use raft_store::{Guard, Op, Stored, Write};
use serde_json::{Value, json};
use std::sync::Arc;

const BUDGETS: &str = "policy/poddisruptionbudgets";
/// Evicted pods that a budget may wait for (upstream's `MaxDisruptedPodSize`).
const DISRUPTED_MAX: usize = 2000;

pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    let wanted =
        Type { schema: "policy.v1.Eviction", api_version: "policy/v1".into(), kind: "Eviction" };
    let validation = call.options.field_validation.as_deref();
    let (mut eviction, warnings) = core.decode(&wanted, &call.body, validation)?;
    if !eviction.name().is_empty() && eviction.name() != call.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let cx = core.admission(&call, Operation::Create, None);
    admission::mutate(&cx, &mut eviction).await?;
    admission::validate(&cx, &eviction).await?;
    // A budget is judged as it is now, not as this member last saw it.
    core.barrier().await?;
    let deletion = deletion(call, &eviction)?;
    let along = |pod: &Object| judge(core, pod);
    core.delete_along(&deletion, &along).await?;
    let success = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    let success = Object::from_value(success).expect("an object literal");
    Ok(Reply { what: What::Other(success), created: true, warnings })
}

/// The deletion that the eviction asks for.
fn deletion(call: Call, eviction: &Object) -> Result<Call, Status> {
    let mut options = call.options.clone();
    if let Some(grace) = eviction.int_at("/deleteOptions/gracePeriodSeconds") {
        options.grace_period_seconds = Some(grace);
    }
    let text = |pointer: &str| {
        Some(eviction.str_at(pointer)).filter(|text| !text.is_empty()).map(str::to_string)
    };
    options.propagation_policy =
        text("/deleteOptions/propagationPolicy").or(options.propagation_policy);
    options.precondition_uid =
        options.precondition_uid.or(text("/deleteOptions/preconditions/uid"));
    options.precondition_revision =
        options
            .precondition_revision
            .or(text("/deleteOptions/preconditions/resourceVersion")
                .and_then(|text| text.parse().ok()));
    match eviction.at("/deleteOptions/dryRun").and_then(Value::as_array).map(Vec::as_slice) {
        None | Some([]) => {}
        Some([only]) if only == "All" => options.dry_run = true,
        Some(other) => {
            let why = format!("Invalid value: {}: supported values: \"All\"", json!(other));
            return Err(Status::bad_request(why));
        }
    }
    Ok(Call { verb: Verb::Delete, subresource: String::new(), body: Body::None, options, ..call })
}

/// Whether the pod may go now, and what goes with it.
fn judge(core: &Core, pod: &Object) -> Result<Along, Status> {
    let phase = pod.str_at("/status/phase");
    let gone = matches!(phase, "Succeeded" | "Failed" | "Pending" | "");
    if gone || pod.deletion_timestamp().is_some() {
        return Ok(Along { writes: Vec::new(), mark: Some(mark) });
    }
    let budgets = core.view.range(BUDGETS, &format!("{}/", pod.namespace()));
    let budgets: Vec<Arc<Stored>> =
        budgets.into_iter().filter(|budget| selects(&memo::object(budget), pod)).collect();
    let writes = match budgets.as_slice() {
        [] => Vec::new(),
        [budget] => take(budget, pod)?.into_iter().collect(),
        _ => {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction \
                       subresource does not support.";
            return Err(Status::new(500, "", why));
        }
    };
    Ok(Along { writes, mark: Some(mark) })
}

fn selects(budget: &Object, pod: &Object) -> bool {
    let selector = budget.at("/spec/selector").filter(|selector| !selector.is_null());
    let selector = selector.and_then(|selector| LabelSelector::from_value(selector).ok());
    selector.is_some_and(|selector| selector.matches_object(pod))
}

/// Of a pod, or a node.
pub(crate) fn is_ready(object: &Object) -> bool {
    let conditions =
        object.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    ready.any(|condition| condition["status"] == "True")
}

/// Takes one disruption from the budget; `None`: the pod costs nothing.
fn take(stored: &Stored, pod: &Object) -> Result<Option<Write>, Status> {
    let mut budget = memo::parse(stored);
    let number = |field: &str| budget.int_at(&format!("/status/{field}")).unwrap_or(0);
    let (current, desired) = (number("currentHealthy"), number("desiredHealthy"));
    if !is_ready(pod) {
        // What is not healthy is not guarded, once enough others are or the budget says so.
        let always = budget.str_at("/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
        if always || (current >= desired && desired > 0) {
            return Ok(None);
        }
    }
    let name = budget.name().to_string();
    let too_many = |cause: String, seconds: Option<u32>| {
        let why = "Cannot evict pod as it would violate the pod's disruption budget.";
        let mut status = Status::new(429, "TooManyRequests", why);
        status.retry_after_seconds = seconds;
        let (reason, field) = ("DisruptionBudget".to_string(), String::new());
        status.causes.push(Cause { reason, message: cause, field });
        status
    };
    if number("observedGeneration") < budget.generation() {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many(cause, Some(10)));
    }
    let resource = Resource::new("policy", "", "poddisruptionbudget");
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(&resource, &name, "pdb disruptions allowed is negative"));
    }
    let disrupted = budget.at("/status/disruptedPods").and_then(Value::as_object);
    if disrupted.is_some_and(|pods| pods.len() > DISRUPTED_MAX) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&resource, &name, why));
    }
    if allowed == 0 {
        let cause = match failed_sync(&budget) {
            Some(why) => format!(
                "The disruption budget {name} does not allow evicting pods currently because it \
                 failed sync: {why}"
            ),
            None => format!(
                "The disruption budget {name} needs {desired} healthy pods and has {current} \
                 currently"
            ),
        };
        return Err(too_many(cause, None));
    }
    spend(&mut budget, pod.name(), allowed - 1);
    encode::strip(&mut budget);
    let body = encode::body(&budget);
    let guard = Guard::At(stored.revision);
    Ok(Some(Write { key: stored.key.clone(), guard, op: Op::Put(body) }))
}

fn failed_sync(budget: &Object) -> Option<String> {
    let conditions = budget.at("/status/conditions")?.as_array()?;
    let failed = conditions.iter().find(|condition| {
        condition["type"] == "DisruptionAllowed" && condition["reason"] == "SyncFailed"
    })?;
    Some(failed["message"].as_str().unwrap_or_default().to_string())
}

/// One less is allowed, and the pod is expected to go.
fn spend(budget: &mut Object, pod: &str, left: i64) {
    let generation = budget.int_at("/status/observedGeneration").unwrap_or(0);
    let status = budget.map_mut("status");
    status.insert("disruptionsAllowed".into(), left.into());
    if let Some(pods) = crate::kinds::common::made(status, "disruptedPods") {
        pods.insert(pod.into(), meta::now().into());
    }
    if left > 0 {
        return;
    }
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "DisruptionAllowed");
        conditions.push(json!({
            "type": "DisruptionAllowed",
            "status": "False",
            "reason": "InsufficientPods",
            "message": "",
            "observedGeneration": generation,
            "lastTransitionTime": meta::now(),
        }));
    }
}

/// The evicted pod says why it ends (KEP-3329).
fn mark(pod: &mut Object) {
    let conditions = pod.map_mut("status").entry("conditions").or_insert_with(|| json!([]));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "DisruptionTarget");
        conditions.push(json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
            "lastProbeTime": null,
            "lastTransitionTime": meta::now(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Server};
    use raft_store::{Key, Revision, Store};

    fn pod(ready: &str) -> Object {
        let status =
            json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] });
        let metadata = json!({ "name": "web-1", "namespace": "dev", "labels": { "app": "web" } });
        Object::from_value(json!({ "metadata": metadata, "status": status })).expect("an object")
    }

    fn budget(more: Value, status: Value) -> Stored {
        let mut spec = json!({ "selector": { "matchLabels": { "app": "web" } } });
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        let metadata = json!({ "name": "b", "namespace": "dev", "generation": 1 });
        let body = json!({ "metadata": metadata, "spec": spec, "status": status }).to_string();
        Stored::new(Key::new(BUDGETS, "dev/b"), Revision(7), Revision(7), body.into())
    }

    fn outcome(ready: &str, more: Value, status: Value) -> String {
        match take(&budget(more, status), &pod(ready)) {
            Ok(None) => "costs nothing".to_string(),
            Ok(Some(write)) => {
                let Op::Put(body) = write.op else { panic!("no put") };
                let object: Object = serde_json::from_slice(&body).expect("JSON");
                let pods = object.at("/status/disruptedPods").and_then(Value::as_object);
                let left = object.int_at("/status/disruptionsAllowed");
                format!("{left:?} left, waits for {:?}", pods.map(|pods| pods.len()))
            }
            Err(status) => {
                let causes: Vec<String> = status
                    .causes
                    .iter()
                    .map(|cause| format!("{}: {}", cause.reason, cause.message))
                    .collect();
                format!("{} {} [{}]", status.code, status.message, causes.join(", "))
            }
        }
    }

    fn status(allowed: i64, current: i64, observed: i64) -> Value {
        json!({
            "disruptionsAllowed": allowed, "currentHealthy": current, "desiredHealthy": 2,
            "observedGeneration": observed,
        })
    }

    #[test]
    fn a_budget_is_asked_as_upstream_asks_it() {
        let always = json!({ "unhealthyPodEvictionPolicy": "AlwaysAllow" });
        let mut failed = status(0, 1, 1);
        failed["conditions"] = json!([
            { "type": "DisruptionAllowed", "reason": "SyncFailed", "message": "no scale" },
        ]);
        let lines = [
            outcome("True", json!({}), status(1, 3, 1)),
            outcome("True", json!({}), status(0, 2, 1)),
            outcome("True", json!({}), status(1, 3, 0)),
            outcome("True", json!({}), status(-1, 3, 1)),
            outcome("True", json!({}), failed),
            outcome("False", json!({}), status(0, 2, 1)),
            outcome("False", json!({}), status(0, 1, 1)),
            outcome("False", always, status(0, 1, 1)),
        ];
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[tokio::test]
    async fn a_pod_that_has_ended_is_guarded_by_nobody() {
        let server = Server::new(Config::new(Store::in_memory()));
        let mut ended = pod("True");
        ended.map_mut("status").insert("phase".into(), "Succeeded".into());
        let along = judge(&server.core, &ended).expect("may go");
        assert!(along.writes.is_empty() && along.mark.is_some());
    }
}

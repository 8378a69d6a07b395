//! MutatingAdmissionPolicy: requests changed by expressions (KEP-3962).

use super::{
    compiled::{Binding, Mutation, Policy, text},
    inputs::{Authorizer, Documents, Inputs, conditions_hold},
    invocations::{Invocation, Part, concerned},
};
use crate::admission::{Cx, Operation, webhook};
use k8s::{Cause, Object, Status};
use kcel::{Budget, RUNTIME_BUDGET, Value};
use serde_json::Value as Json;
use std::collections::BTreeSet;

/// Which policies have their turn.
#[derive(Clone, Copy, Debug)]
pub(in crate::admission) enum Round<'a> {
    First,
    /// The object changed since: those of the first round that want to see it again.
    Again(&'a Invoked),
}

/// Policies with `reinvocationPolicy: IfNeeded` that had their turn, with binding and parameter.
pub(in crate::admission) type Invoked = BTreeSet<[String; 4]>;

/// What a round made of an object.
#[derive(Debug, Default)]
pub(in crate::admission) struct Rounded {
    pub(in crate::admission) changed: bool,
    pub(in crate::admission) invoked: Invoked,
}

/// Why a mutation is not made.
enum Failed {
    /// The failure policy decides.
    Policy(String),
    Request(Status),
}

/// Policies come in the order of their names, each on what the last one made.
pub(in crate::admission) fn mutate(
    cx: &Cx<'_>,
    object: &mut Object,
    round: Round<'_>,
) -> Result<Rounded, Status> {
    let mut rounded = Rounded::default();
    if matches!(cx.operation, Operation::Delete | Operation::Connect) {
        // There is nothing to change.
        return Ok(rounded);
    }
    let concerned = concerned(cx, Part::Mutating, object)?;
    let mut refused: Vec<(String, &str)> = Vec::new();
    for misfit in &concerned.misfits {
        refused.push((denied(&misfit.policy, misfit.binding.as_deref(), &misfit.why), ""));
    }
    for invocation in &concerned.invocations {
        let key = key(invocation);
        if matches!(round, Round::Again(invoked) if !invoked.contains(&key)) {
            continue;
        }
        let Changed { new, had_its_turn, failed } = change(cx, object, invocation)?;
        if let Some(new) = new {
            rounded.changed = true;
            *object = new;
        }
        if had_its_turn && invocation.policy.again {
            rounded.invoked.insert(key);
        }
        if invocation.policy.must_work {
            let (policy, binding) = (&invocation.policy, &invocation.binding);
            let denials = failed.iter().map(|why| (denied(policy, Some(binding), why), "Invalid"));
            refused.extend(denials);
        }
    }
    if refused.is_empty() { Ok(rounded) } else { Err(refusal(cx, object, refused)) }
}

fn key(invocation: &Invocation<'_>) -> [String; 4] {
    let of_param = |field| {
        let param = invocation.param.as_ref();
        param.map(|param| text(param, field)).unwrap_or_default()
    };
    let (policy, binding) = (&invocation.policy.name, &invocation.binding.name);
    [policy.clone(), binding.clone(), of_param("/metadata/namespace"), of_param("/metadata/name")]
}

fn denied(policy: &Policy, binding: Option<&Binding>, why: &str) -> String {
    match binding {
        Some(binding) => format!(
            "policy '{}' with binding '{}' denied request: {why}",
            policy.name, binding.name
        ),
        None => format!("policy {:?} denied request: {why}", policy.name),
    }
}

/// The first refusal speaks for all; each is a cause.
fn refusal(cx: &Cx<'_>, object: &Object, refused: Vec<(String, &str)>) -> Status {
    let mut status = cx.forbidden(object, "admission request denied by policy");
    if let Some((message, reason)) = refused.first() {
        status.message.clone_from(message);
        if !reason.is_empty() {
            status.reason = reason.to_string();
        }
    }
    status.causes.extend(refused.into_iter().map(|(message, _)| Cause {
        message,
        reason: String::new(),
        field: String::new(),
    }));
    status
}

/// What a policy makes of an object with one parameter.
#[derive(Default)]
struct Changed {
    /// `None`: it is the same.
    new: Option<Object>,
    /// The match conditions hold.
    had_its_turn: bool,
    failed: Vec<String>,
}

/// All mutations, each on what the last one made. One that fails hinders no other: perhaps failures
/// are to be ignored.
fn change(cx: &Cx<'_>, object: &Object, invocation: &Invocation<'_>) -> Result<Changed, Status> {
    let mut changed = Changed::default();
    let mut documents = Documents::new(cx, invocation.version, object);
    match applies(cx, invocation, &documents) {
        Ok(true) => changed.had_its_turn = true,
        Ok(false) => return Ok(changed),
        Err(why) => {
            changed.failed.push(why);
            return Ok(changed);
        }
    }
    for mutation in &invocation.policy.mutations {
        let before = changed.new.as_ref().unwrap_or(object);
        match mutated(cx, before, invocation, &documents, mutation) {
            Ok(after) => {
                documents = Documents::new(cx, invocation.version, &after);
                changed.new = Some(after);
            }
            Err(Failed::Policy(why)) => changed.failed.push(why),
            Err(Failed::Request(status)) => return Err(status),
        }
    }
    changed.new = changed.new.filter(|new| new != object);
    Ok(changed)
}

fn applies(
    cx: &Cx<'_>,
    invocation: &Invocation<'_>,
    documents: &Documents,
) -> Result<bool, String> {
    let policy = &*invocation.policy;
    let authorizer = Authorizer { cx };
    let inputs = Inputs::new(documents, invocation.param.as_ref(), &authorizer, &policy.variables);
    conditions_hold(&policy.conditions, &inputs.vars(), policy.must_work)
}

/// The object one mutation makes.
fn mutated(
    cx: &Cx<'_>,
    before: &Object,
    invocation: &Invocation<'_>,
    documents: &Documents,
    mutation: &Mutation,
) -> Result<Object, Failed> {
    let authorizer = Authorizer { cx };
    let variables = &invocation.policy.variables;
    let inputs = Inputs::new(documents, invocation.param.as_ref(), &authorizer, variables);
    let vars = inputs.vars();
    let mut budget = Budget::new(RUNTIME_BUDGET);
    let value = mutation.expression.evaluate(&vars, &mut budget);
    let value = value.and_then(|value| value).map_err(Failed::Policy)?;
    let document = documents.object().clone();
    let read = |document| webhook::object(cx, invocation.version, before, document);
    if mutation.applies {
        let document = apply(cx, invocation, document, &value).map_err(Failed::Policy)?;
        read(document).map_err(|status| Failed::Policy(status.message))
    } else {
        // Upstream takes a patch that makes nonsense for an error of the server's, whatever the
        // failure policy.
        read(patch(document, &value).map_err(Failed::Policy)?).map_err(Failed::Request)
    }
}

fn apply(
    cx: &Cx<'_>,
    invocation: &Invocation<'_>,
    mut document: Json,
    value: &Value<'_>,
) -> Result<Json, String> {
    value.check_object_names().map_err(|why| format!("type mismatch: {why}"))?;
    let configuration = value.to_json().map_err(|error| error.to_string())?;
    let place =
        cx.kind.place(invocation.version).ok_or("nothing is known of this kind's fields")?;
    k8s::apply::overlay(place, &mut document, configuration)
        .map_err(|why| format!("error applying patch: {why}"))?;
    Ok(document)
}

/// RFC 6902, operation by operation. A `test` that fails leaves the object as it was.
fn patch(document: Json, value: &Value<'_>) -> Result<Json, String> {
    value.check_object_names().map_err(|why| format!("type mismatch: {why}"))?;
    let operations = value.to_json().map_err(|error| {
        format!(
            "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}"
        )
    })?;
    let mut patched = document.clone();
    for operation in operations.as_array().into_iter().flatten() {
        let tests = operation.get("op").and_then(Json::as_str) == Some("test");
        match k8s::patch::json(patched, &Json::Array(vec![operation.clone()])) {
            Ok(next) => patched = next,
            Err(_) if tests => return Ok(document),
            Err(error) => return Err(format!("JSON Patch: {}", error.status().message)),
        }
    }
    Ok(patched)
}

//! ValidatingAdmissionPolicy: requests refused by expressions (KEP-3488).

use super::{
    compiled::{Annotation, Binding, Policy, Validation},
    inputs::{Authorizer, Documents, Inputs, conditions_hold},
    invocations::{Invocation, Part, Shown, concerned},
};
use crate::admission::Cx;
use k8s::{Cause, Object, Status};
use kcel::{Budget, MESSAGE_BYTES_MAX, RUNTIME_BUDGET, Value, Vars};
use serde_json::json;
use std::collections::BTreeMap;

/// Bytes of an audit annotation; the rest is cut (upstream's `maxAuditAnnotationValueLength`).
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;

/// Why a request is refused.
struct Denied {
    message: String,
    reason: String,
}

/// What one evaluation says against a request.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    index: usize,
    message: String,
    /// Empty: `Invalid`.
    reason: String,
}

/// What a policy says with one parameter.
#[derive(Debug, Default)]
struct Verdict {
    failures: Vec<Failure>,
    annotations: Vec<(String, String)>,
    /// Annotations that could not be made.
    broken: Vec<String>,
}

pub(in crate::admission) fn validate(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    let concerned = concerned(cx, Part::Validating, object)?;
    let mut denied: Vec<Denied> = Vec::new();
    for misfit in concerned.misfits {
        let binding = misfit.binding.as_deref();
        denied.push(Denied::new(&misfit.policy, binding, &misfit.why, ""));
    }
    let mut shown = Shown::default();
    let mut published: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for invocation in &concerned.invocations {
        let documents = shown.of(cx, invocation.version, object);
        let verdict = evaluate(cx, invocation, documents);
        act(cx, invocation, &verdict, &mut denied);
        for (key, value) in verdict.annotations {
            let values = published.entry((invocation.policy.name.clone(), key)).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    for ((policy, key), values) in published {
        cx.notes.annotate(format!("{policy}/{key}"), values.join(", "));
    }
    match denied.into_iter().next() {
        Some(denied) => Err(denied.status(cx, object)),
        None => Ok(()),
    }
}

/// Does what the binding wants done about failures.
fn act(cx: &Cx<'_>, invocation: &Invocation<'_>, verdict: &Verdict, denied: &mut Vec<Denied>) {
    let (policy, binding) = (&invocation.policy, &invocation.binding);
    for failure in &verdict.failures {
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => denied.push(Denied::new(
                    policy,
                    Some(binding),
                    &failure.message,
                    &failure.reason,
                )),
                "Warn" => cx.notes.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    policy.name, binding.name, failure.message
                )),
                "Audit" => cx.notes.annotate(
                    "validation.policy.admission.k8s.io/validation_failure",
                    json!([{
                        "message": failure.message,
                        "policy": binding.policy,
                        "binding": binding.name,
                        "expressionIndex": failure.index,
                        "validationActions": binding.actions,
                    }])
                    .to_string(),
                ),
                _ => {}
            }
        }
    }
    for why in &verdict.broken {
        denied.push(Denied::new(policy, Some(binding), why, ""));
    }
}

impl Denied {
    fn new(policy: &Policy, binding: Option<&Binding>, why: &str, reason: &str) -> Denied {
        let name = &policy.name;
        let by = match binding {
            Some(binding) => format!("'{name}' with binding '{}'", binding.name),
            None => format!("'{name}'"),
        };
        Denied {
            message: format!("ValidatingAdmissionPolicy {by} denied request: {why}"),
            reason: reason.to_string(),
        }
    }

    fn status(self, cx: &Cx<'_>, object: &Object) -> Status {
        let mut status = cx.forbidden(object, &self.message);
        let (reason, code) = match self.reason.as_str() {
            "Forbidden" => ("Forbidden", 403),
            "Unauthorized" => ("Unauthorized", 401),
            "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
            _ => ("Invalid", 422),
        };
        (status.reason, status.code) = (reason.into(), code);
        let (reason, field) = (String::new(), String::new());
        status.causes.push(Cause { reason, message: self.message, field });
        status
    }
}

fn evaluate(cx: &Cx<'_>, invocation: &Invocation<'_>, documents: &Documents) -> Verdict {
    let policy = &*invocation.policy;
    let authorizer = Authorizer { cx };
    let param = invocation.param.as_ref();
    let inputs = Inputs::new(documents, param, &authorizer, &policy.variables);
    let vars = inputs.vars();
    let mut verdict = Verdict::default();
    match conditions_hold(&policy.conditions, &vars, policy.must_work) {
        Ok(true) => {}
        Ok(false) => return verdict,
        Err(why) => {
            verdict.fail(policy, 0, why);
            return verdict;
        }
    }
    if let Err(why) = validations(policy, &vars, &mut verdict) {
        verdict.failures.clear();
        verdict.fail(policy, 0, why);
        return verdict;
    }
    let mut budget = Budget::new(RUNTIME_BUDGET);
    for annotation in &policy.annotations {
        if let Err(why) = annotate(policy, annotation, &vars, &mut budget, &mut verdict) {
            verdict.failures.clear();
            verdict.annotations.clear();
            verdict.fail(policy, 0, why);
            break;
        }
    }
    verdict
}

impl Verdict {
    /// Something could not be evaluated: the failure policy decides.
    fn fail(&mut self, policy: &Policy, index: usize, message: String) {
        if policy.must_work {
            self.failures.push(Failure { index, message, reason: String::new() });
        }
    }
}

/// `Err`: the budget is used up.
fn validations<'a>(
    policy: &'a Policy,
    vars: &Vars<'a>,
    verdict: &mut Verdict,
) -> Result<(), String> {
    let mut budget = Budget::new(RUNTIME_BUDGET);
    let mut results = Vec::new();
    for validation in &policy.validations {
        results.push(validation.expression.evaluate(vars, &mut budget)?);
    }
    for (index, (validation, result)) in policy.validations.iter().zip(results).enumerate() {
        match result {
            Ok(Value::Bool(true)) => {}
            Ok(_) => match message(validation, vars, &mut budget) {
                Ok(message) => {
                    let reason = validation.reason.clone();
                    verdict.failures.push(Failure { index, message, reason });
                }
                Err(why) => verdict.fail(policy, index, format!("failed messageExpression: {why}")),
            },
            Err(why) => verdict.fail(policy, index, why),
        }
    }
    Ok(())
}

/// What is said of a failed validation: the expression's message, the fixed one, or the expression.
fn message<'a>(
    validation: &'a Validation,
    vars: &Vars<'a>,
    budget: &mut Budget,
) -> Result<String, String> {
    if let Some(expression) = &validation.message_expression
        && let Ok(value) = expression.evaluate(vars, budget)?
        && let Some(text) = value.as_str().map(str::trim)
        && !text.is_empty()
        && text.len() <= MESSAGE_BYTES_MAX
        && !text.contains('\n')
    {
        return Ok(text.to_string());
    }
    if !validation.message.is_empty() {
        return Ok(validation.message.clone());
    }
    Ok(format!("failed expression: {}", validation.expression.source.trim()))
}

/// `Err`: the budget is used up.
fn annotate<'a>(
    policy: &'a Policy,
    annotation: &'a Annotation,
    vars: &Vars<'a>,
    budget: &mut Budget,
    verdict: &mut Verdict,
) -> Result<(), String> {
    match annotation.expression.evaluate(vars, budget)? {
        Ok(Value::Null) => {}
        Ok(value) => match value.as_str().map(str::trim) {
            Some("") => {}
            Some(text) => {
                let mut end = text.len().min(ANNOTATION_BYTES_MAX);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                verdict.annotations.push((annotation.key.clone(), text[..end].to_string()));
            }
            None => verdict.broken.push(format!(
                "valueExpression '{}' resulted in unsupported return type. Return type must be \
                 either string or null.",
                annotation.expression.source
            )),
        },
        Err(why) if policy.must_work => verdict.broken.push(why),
        Err(_) => {}
    }
    Ok(())
}

//! Asking: mutating webhooks one after the other, each on what the last one made; validating ones
//! all at once.

use super::{
    Part,
    client::Failed,
    matching::{Invocation, met, selected},
    review::{self, Question},
};
use crate::admission::Cx;
use bytes::Bytes;
use k8s::{Object, Status};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Instant};

/// Why a request does not go on.
enum Refused {
    /// No answer, or none that means anything: the failure policy decides.
    Failed(Failed),
    /// The webhook's own no.
    Denied(Status),
    /// Ours: the webhook cannot be asked, or asks for what cannot be done.
    Unfit(Status),
}

/// Asks the mutating webhooks. `again` runs the steps before them anew on an object that these
/// (`changed`) or the webhooks changed; then those that want it are asked once more (upstream's
/// reinvocation).
pub(in crate::admission) async fn mutate(
    cx: &Cx<'_>,
    object: &mut Object,
    invocations: Vec<Invocation>,
    changed: bool,
    again: impl Fn(&mut Object) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut round = Round::default();
    for (at, invocation) in invocations.iter().enumerate() {
        if selected(cx, &invocation.hook, Some(&*object))? && met(cx, invocation, Some(&*object))? {
            let changed = ask_mutating(cx, object, invocation, 0).await?;
            round.asked(at, invocation.hook.again, changed);
        }
    }
    if !round.changed && !changed {
        return Ok(());
    }
    let before = object.clone();
    again(object)?;
    if *object != before {
        round.all_again();
    }
    while let Some(at) = round.next() {
        let invocation = &invocations[at];
        if selected(cx, &invocation.hook, Some(&*object))? && met(cx, invocation, Some(&*object))? {
            let changed = ask_mutating(cx, object, invocation, 1).await?;
            round.asked(at, false, changed);
        }
    }
    Ok(())
}

/// Who was asked, and who is to be asked again because another changed the object later.
#[derive(Default)]
struct Round {
    changed: bool,
    may_again: BTreeSet<usize>,
    again: BTreeSet<usize>,
}

impl Round {
    fn asked(&mut self, at: usize, may_again: bool, changed: bool) {
        if changed {
            self.changed = true;
            self.all_again();
        }
        if may_again {
            self.may_again.insert(at);
        }
    }

    fn all_again(&mut self) {
        self.again.append(&mut self.may_again);
    }

    fn next(&mut self) -> Option<usize> {
        self.again.pop_first()
    }
}

async fn ask_mutating(
    cx: &Cx<'_>,
    object: &mut Object,
    invocation: &Invocation,
    round: usize,
) -> Result<bool, Status> {
    let hook = &invocation.hook;
    let key = format!("{}round_{round}_index_{}", Part::Mutating.annotation(), invocation.index);
    let began = Instant::now();
    let result = change(cx, object, invocation, round).await;
    let changed = matches!(result, Ok(true));
    let mutation =
        json!({ "configuration": hook.configuration, "webhook": hook.name, "mutated": changed });
    cx.notes.annotate(key.clone(), mutation.to_string());
    match settle(cx, Part::Mutating, invocation, began, result.map(|_| ()))? {
        Verdict::Yes => {}
        Verdict::FailedOpen => cx.notes.annotate(format!("failed-open.{key}"), &*hook.name),
    }
    Ok(changed)
}

/// Asks one webhook and does what it wants; true if the object is another afterwards.
async fn change(
    cx: &Cx<'_>,
    object: &mut Object,
    invocation: &Invocation,
    round: usize,
) -> Result<bool, Refused> {
    // On delete there is nothing to change.
    let deletes = cx.operation == crate::admission::Operation::Delete;
    let patch = ask(cx, Part::Mutating, invocation, Some(&*object).filter(|_| !deletes)).await?;
    if patch.is_empty() {
        return Ok(false);
    }
    let hook = &invocation.hook;
    if deletes {
        let why = format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this \
             operation",
            hook.name
        );
        return Err(Refused::Unfit(Status::internal(why)));
    }
    let said = json!({
        "configuration": hook.configuration, "webhook": hook.name,
        "patch": patch, "patchType": "JSONPatch",
    });
    let key = format!("patch.webhook.admission.k8s.io/round_{round}_index_{}", invocation.index);
    let document = review::document(cx, &invocation.version, object);
    let patched = review::patched(document, patch).map_err(Refused::Unfit)?;
    let new = review::object(cx, &invocation.version, object, patched).map_err(Refused::Unfit)?;
    cx.notes.annotate(key, said.to_string());
    let changed = new != *object;
    *object = new;
    Ok(changed)
}

/// Asks the validating webhooks, all at the same time; the first refusal in their order counts.
pub(in crate::admission) async fn validate(
    cx: &Cx<'_>,
    object: &Object,
    invocations: Vec<Invocation>,
) -> Result<(), Status> {
    let deletes = cx.operation == crate::admission::Operation::Delete;
    let object = Some(object).filter(|_| !deletes);
    let mut concerned = Vec::new();
    for invocation in &invocations {
        if selected(cx, &invocation.hook, object)? && met(cx, invocation, object)? {
            concerned.push(invocation);
        }
    }
    let asked = concerned.into_iter().enumerate().map(|(at, invocation)| async move {
        let began = Instant::now();
        let result = ask(cx, Part::Validating, invocation, object).await.map(|_| ());
        let verdict = settle(cx, Part::Validating, invocation, began, result)?;
        if matches!(verdict, Verdict::FailedOpen) {
            let prefix = Part::Validating.annotation();
            let key = format!("failed-open.{prefix}round_0_index_{at}");
            cx.notes.annotate(key, &*invocation.hook.name);
        }
        Ok::<(), Status>(())
    });
    futures::future::join_all(asked).await.into_iter().collect()
}

/// One question and its answer: the patch the webhook wants, if it lets the request pass.
async fn ask(
    cx: &Cx<'_>,
    part: Part,
    invocation: &Invocation,
    object: Option<&Object>,
) -> Result<Vec<Value>, Refused> {
    let hook = &invocation.hook;
    if cx.dry_run && !hook.dry_run {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Refused::Unfit(Status::bad_request(why)));
    }
    if hook.review.is_none() {
        let why = "could not create admission objects: webhook does not accept known \
                   AdmissionReview versions (v1, v1beta1)";
        return Err(Refused::Failed(Failed { why: why.into(), code: 400 }));
    }
    let question = Question { invocation, uid: uuid::Uuid::new_v4().to_string(), object };
    let body = Bytes::from(question.body(cx).to_string());
    let called = cx.machine.webhooks.post(&hook.server, body, hook.timeout).await;
    let bytes = called.map_err(|failed| {
        let why = format!("failed to call webhook: {}", failed.why);
        Refused::Failed(Failed { why, ..failed })
    })?;
    let answer = question.read(part, &bytes).map_err(|why| {
        let known = why.starts_with("received undecodable patch");
        let head = if known { "" } else { "received invalid webhook response: " };
        Refused::Failed(Failed::new(format!("{head}{why}")))
    })?;
    for (key, value) in answer.annotations {
        cx.notes.annotate(format!("{}/{key}", hook.name), value);
    }
    answer.warnings.into_iter().for_each(|warning| cx.notes.warn(warning));
    if !answer.allowed {
        return Err(Refused::Denied(review::refusal(&hook.name, &answer.result)));
    }
    Ok(answer.patch)
}

enum Verdict {
    Yes,
    /// There was no answer, and `failurePolicy: Ignore` lets the request go on without.
    FailedOpen,
}

/// What an outcome means for the request, counted.
fn settle(
    cx: &Cx<'_>,
    part: Part,
    invocation: &Invocation,
    began: Instant,
    result: Result<(), Refused>,
) -> Result<Verdict, Status> {
    let hook = &invocation.hook;
    let metrics = &cx.machine.metrics;
    let (code, error_type) = match &result {
        Ok(()) => (200, ""),
        Err(Refused::Failed(failed)) if hook.may_fail => (failed.code, ""),
        Err(Refused::Failed(failed)) => (failed.code, "calling_webhook_error"),
        Err(Refused::Denied(status)) => (status.code, "no_error"),
        Err(Refused::Unfit(_)) => (0, "apiserver_internal_error"),
    };
    let call = (part.metric(), &*hook.name, cx.operation);
    metrics.webhook(call, code, error_type, began);
    match result {
        Ok(()) => Ok(Verdict::Yes),
        Err(Refused::Failed(failed)) if hook.may_fail => {
            tracing::warn!(webhook = hook.name, why = failed.why, "failed open");
            metrics.failed_open(part.metric(), &hook.name);
            Ok(Verdict::FailedOpen)
        }
        Err(refused) => {
            cx.notes.settle();
            Err(match refused {
                Refused::Failed(failed) => {
                    tracing::warn!(webhook = hook.name, why = failed.why, "failed closed");
                    let name = &hook.name;
                    Status::internal(format!("failed calling webhook {name:?}: {}", failed.why))
                }
                Refused::Denied(status) | Refused::Unfit(status) => status,
            })
        }
    }
}

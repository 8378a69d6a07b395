//! The scheduler's edge: takes changes from the cache, plans while this process leads, sends
//! bindings in batches and tells users of pods that fit nowhere.

use super::diagnosis::Diagnosis;
use super::inbox::{Inbox, KINDS};
use super::metrics::Metrics;
use super::plan::Decision;
use super::pod::{Pod, PodKey};
use super::state::{Outcome, State};
use jiff::Timestamp;
use k8s::{Api, Object, PatchType, Request, Status};
use reconcile::{Cache, CacheBuilder, Gate, Key, Note, Recorder, Subject, kinds};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Only pods that ask for a scheduler of this name are placed.
pub const PROFILE: &str = "default-scheduler";

/// Pods planned in one go. 256: one log entry of some 60 KB, and well under 50 ms of planning at
/// 5,000 nodes, so that news and a lost leadership are heard in between.
const BATCH_MAX: usize = 256;
/// Batches under way at the same time: one being replicated, one being answered, and a spare.
const IN_FLIGHT_MAX: usize = 3;
/// Questions about what became of a binding, before it counts as failed.
const QUESTIONS_MAX: u32 = 5;
const QUESTION_PAUSE: Duration = Duration::from_millis(200);

/// Schedules until `shutdown`: watches what it needs, and acts only while the gate is open.
pub async fn run(
    api: Arc<dyn Api>,
    gate: Gate,
    registry: &prometheus::Registry,
    shutdown: CancellationToken,
) {
    let (cache, inbox) = Inbox::of(CacheBuilder::new(api.clone(), registry));
    let cache = cache.build();
    let mut tasks = JoinSet::new();
    let (watching, stop) = (cache.clone(), shutdown.clone());
    tasks.spawn(async move { watching.run(stop).await });
    run_in(cache, inbox, api, gate, registry, shutdown).await;
    tasks.shutdown().await;
}

/// The same in a cache that somebody else keeps, and that tells `inbox` of its changes.
pub(crate) async fn run_in(
    cache: Arc<Cache>,
    inbox: Inbox,
    api: Arc<dyn Api>,
    gate: Gate,
    registry: &prometheus::Registry,
    shutdown: CancellationToken,
) {
    let (recorder, writer) = Recorder::new(cache.metrics());
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(api.clone(), gate.clone(), shutdown.clone()));
    let driver = Driver {
        api,
        gate,
        cache,
        inbox,
        state: State::new(PROFILE),
        metrics: Arc::new(Metrics::new(registry)),
        recorder,
        started: Instant::now(),
        in_flight: JoinSet::new(),
        term: None,
    };
    driver.run(shutdown).await;
    tasks.shutdown().await;
}

struct Driver {
    api: Arc<dyn Api>,
    gate: Gate,
    cache: Arc<Cache>,
    inbox: Inbox,
    state: State,
    metrics: Arc<Metrics>,
    recorder: Recorder,
    started: Instant,
    in_flight: JoinSet<Answers>,
    /// The term in which the present plans are made.
    term: Option<u64>,
}

/// What became of a batch of bindings.
struct Answers {
    term: u64,
    began: Duration,
    outcomes: Vec<(PodKey, String, Outcome)>,
}

impl Driver {
    async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.listen();
            self.lead();
            self.metrics.set_depth(self.state.depth());
            let timer = self.state.next_timer().map(|at| self.started + at);
            let more = self.may_plan();
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.inbox.arrived() => (),
                () = self.gate.changed() => (),
                Some(answers) = self.in_flight.join_next() => match answers {
                    Ok(answers) => self.settle(answers),
                    Err(error) => tracing::error!(%error, "a batch of bindings was lost"),
                },
                () = sleep_until(timer) => (),
                () = std::future::ready(()), if more => tokio::task::yield_now().await,
            }
        }
        self.in_flight.shutdown().await;
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn listen(&mut self) {
        let now = self.now();
        for change in self.inbox.take() {
            self.state.observe(change, now);
        }
        self.state.wake(now);
    }

    /// Follows the gate, and plans one batch if this process leads.
    fn lead(&mut self) {
        let term = self.gate.observe();
        if term != self.term {
            self.state.retire(self.now());
            self.term = term;
            tracing::info!(?term, "scheduling starts or ends with leadership");
        }
        if !self.may_plan() {
            return;
        }
        let Some(term) = self.term else { return };
        let began = self.now();
        let decisions = self.state.plan(BATCH_MAX, began);
        let spent = self.now().saturating_sub(began);
        self.metrics.algorithm_seconds.observe(spent.as_secs_f64());
        self.carry_out(decisions, term, began);
    }

    /// Only with a complete picture: a node or a pod not heard of yet would be planned over.
    fn may_plan(&self) -> bool {
        self.term.is_some()
            && self.in_flight.len() < IN_FLIGHT_MAX
            && self.state.has_work(self.now())
            && self.complete()
    }

    fn complete(&self) -> bool {
        let world = self.cache.read();
        KINDS.iter().all(|kind| world.complete(kind))
    }

    fn carry_out(&mut self, decisions: Vec<Decision>, term: u64, began: Duration) {
        let fence = self.gate.fence(term);
        let mut bindings = Vec::new();
        let mut conditions = Vec::new();
        for decision in decisions {
            match decision {
                Decision::Bind { pod, uid, node } => bindings.push((pod, uid, node)),
                Decision::Unschedulable { pod, diagnosis } => {
                    self.count(began, "unschedulable");
                    conditions.extend(self.explain(&pod, &diagnosis));
                }
            }
        }
        conditions.iter_mut().for_each(|request: &mut Request| request.fence = fence);
        if bindings.is_empty() && conditions.is_empty() {
            return;
        }
        if !bindings.is_empty() {
            self.metrics.batch_pods.observe(bindings.len() as f64);
        }
        let batch = Batch { api: self.api.clone(), fence, bindings, conditions };
        self.in_flight.spawn(async move {
            let outcomes = batch.send().await;
            Answers { term, began, outcomes }
        });
    }

    fn settle(&mut self, answers: Answers) {
        let now = self.now();
        let stale = self.term != Some(answers.term);
        for (key, node, outcome) in answers.outcomes {
            if stale && outcome != Outcome::Bound {
                // Given back when the term ended; whoever has taken it since decides.
                continue;
            }
            let bound = outcome == Outcome::Bound;
            self.count(answers.began, if bound { "scheduled" } else { "error" });
            if let Some(done) = self.state.settle(&key, outcome, now) {
                self.metrics.attempts_per_pod.observe(f64::from(done.attempts));
                let attempts =
                    if done.attempts > 15 { "16+".into() } else { done.attempts.to_string() };
                let sli = self.metrics.sli_seconds.with_label_values(&[attempts.as_str()]);
                sli.observe(done.waited.as_secs_f64());
                let message = format!("Successfully assigned {key} to {node}");
                self.note(&done.pod, false, "Scheduled", message);
            }
        }
    }

    fn count(&self, began: Duration, result: &str) {
        let labels = [result, PROFILE];
        let spent = self.now().saturating_sub(began);
        self.metrics.attempts.with_label_values(&labels).inc();
        self.metrics.attempt_seconds.with_label_values(&labels).observe(spent.as_secs_f64());
    }

    /// Tells the user once why a pod has no node: an event, and the condition if it says otherwise.
    fn explain(&mut self, key: &PodKey, diagnosis: &Diagnosis) -> Option<Request> {
        for plugin in &diagnosis.plugins {
            self.metrics.refusals.with_label_values(&[plugin]).inc();
        }
        let pod = self.state.tell(key, diagnosis)?;
        let message = diagnosis.message();
        self.note(&pod, true, "FailedScheduling", message.clone());
        condition(&pod, &message, Timestamp::now())
    }

    fn note(&self, pod: &Pod, warning: bool, reason: &'static str, message: String) {
        let subject = Subject {
            kind: kinds::PODS,
            key: Key::new(pod.key.namespace.as_str(), pod.key.name.as_str()),
            uid: pod.uid.clone(),
            resource_version: pod.revision.to_string(),
        };
        let note = Note { subject, warning, reason, message };
        self.recorder.record(PROFILE, note, Timestamp::now());
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The status patch that says a pod is unschedulable; `None` if its status says just that.
fn condition(pod: &Pod, message: &str, now: Timestamp) -> Option<Request> {
    let (status, told) = pod.condition.clone().unwrap_or_default();
    if status == "False" && told == message {
        return None;
    }
    let mut condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    });
    if status != "False" {
        condition["lastTransitionTime"] = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    }
    let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
    let (namespace, name) = (&pod.key.namespace, &pod.key.name);
    let pods = kinds::PODS.resource();
    let request = Request::patch(pods, namespace, name, PatchType::StrategicMerge, patch);
    Some(request.subresource("status"))
}

/// Writes of one plan.
struct Batch {
    api: Arc<dyn Api>,
    fence: Option<u64>,
    /// Pod, its uid, node.
    bindings: Vec<(PodKey, String, String)>,
    conditions: Vec<Request>,
}

impl Batch {
    async fn send(self) -> Vec<(PodKey, String, Outcome)> {
        let mut requests: Vec<Request> = self.bindings.iter().map(binding).collect();
        requests.iter_mut().for_each(|request| request.fence = self.fence);
        requests.extend(self.conditions);
        let answers = self.api.batch(requests).await;
        let (bound, told) = answers.split_at(self.bindings.len().min(answers.len()));
        for status in told.iter().filter_map(|answer| answer.as_ref().err()) {
            tracing::debug!(%status, "PodScheduled condition not written");
        }
        let mut outcomes = Vec::with_capacity(bound.len());
        for ((pod, uid, node), answer) in self.bindings.into_iter().zip(bound) {
            let outcome = match answer {
                Ok(_) => Outcome::Bound,
                Err(status) => failure(&*self.api, &pod, &uid, &node, status).await,
            };
            outcomes.push((pod, node, outcome));
        }
        outcomes
    }
}

fn binding((pod, uid, node): &(PodKey, String, String)) -> Request {
    let body: Value = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let object = Object::from_value(body).expect("made as an object");
    let mut request = Request::create(kinds::PODS.resource(), object).subresource("binding");
    request.name = pod.name.clone();
    request
}

/// What a refused binding means. Where the write may or may not have happened, the pod itself is
/// asked: its room must not be given away as long as it may be there.
async fn failure(api: &dyn Api, pod: &PodKey, uid: &str, node: &str, status: &Status) -> Outcome {
    tracing::warn!(%pod, node, %status, "binding refused");
    if status.is_not_found() {
        return Outcome::Gone;
    }
    if !status.is_retryable() {
        return Outcome::Failed;
    }
    for _ in 0..QUESTIONS_MAX {
        let request = Request::get(kinds::PODS.resource(), &pod.namespace, &pod.name);
        match api.call(request).await {
            Ok(now) if now.uid() != uid => return Outcome::Gone,
            Ok(now) if now.str_at("/spec/nodeName") == node => return Outcome::Bound,
            Ok(_) => return Outcome::Failed,
            Err(status) if status.is_not_found() => return Outcome::Gone,
            Err(_) => tokio::time::sleep(QUESTION_PAUSE).await,
        }
    }
    Outcome::Failed
}

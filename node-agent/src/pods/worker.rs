//! One pod: observes it, plans, and carries the plan out. What takes time runs beside the loop and
//! reports back; the loop itself only decides.

use super::{
    Context,
    backoff::Backoff,
    check::Target,
    container::{
        all_containers, ephemeral_containers, ephemeral_target, find_container, hash, shape,
    },
    jobs::{self, Done, Outcome, Trouble},
    plan::{self, Action, Instant, Known, Life, Observed, Phase, Sandbox, Stop},
    probes::{Finding, News, Prober},
    status::{self, Seen, Summary},
    writer::StatusWriter,
};
use crate::runtime::{ContainerStatus, Error, SandboxStatus, State};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// How often a pod is looked at when nothing happens; also how soon a changed ConfigMap or Secret
/// is in its volumes.
const RESYNC: Duration = Duration::from_secs(20);
/// Findings that may queue: a few per container.
const FINDINGS_MAX: usize = 32;
/// A container that could not be created for want of something else is tried again then.
const CONFIG_RETRY: Duration = Duration::from_secs(5);

/// For this long a failed pull is shown as such, then as the back-off it leads to.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(3);

/// Exit code of a container whose program could not be started, as containerd reports it.
const START_FAILED: i32 = 128;

/// What the manager tells a worker.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) pod: Arc<Pod>,
    /// The object is gone from the API: end the pod and report to nobody.
    pub(crate) orphaned: bool,
}

/// What the worker remembers of a container between looks.
#[derive(Default)]
struct Record {
    current: Option<ContainerStatus>,
    last: Option<(String, State)>,
    next_attempt: u32,
    busy: bool,
    waiting: Option<(String, String)>,
    /// Of exits, and of starts that failed.
    backoff: Backoff,
    image_backoff: Backoff,
    /// When pulling failed last.
    pull_failed: Option<Instant>,
    not_before: Instant,
    started: bool,
    ready: bool,
    condemned: Option<String>,
    prober: Option<AbortOnDropHandle<()>>,
    /// The exit that the back-off has been computed for.
    counted_exit: Option<String>,
}

pub(crate) struct Worker {
    context: Arc<Context>,
    orders: watch::Receiver<Order>,
    wake: Arc<Notify>,
    pod: Arc<Pod>,
    uid: String,
    orphaned: bool,
    records: BTreeMap<String, Record>,
    sandbox: Sandbox,
    pod_ip: Option<String>,
    /// A job on the whole pod is under way.
    busy: bool,
    prepare_backoff: Duration,
    prepare_not_before: Instant,
    prepared: bool,
    /// The end of the grace period, for kills under way.
    deadline: watch::Sender<Option<tokio::time::Instant>>,
    /// Set when the pod's own time is over.
    failure: Option<(String, String)>,
    /// The API had a final phase when this worker began: nothing is run and nothing is reported.
    ended_before: bool,
    started_at: Timestamp,
    jobs: JoinSet<Done>,
    findings: (mpsc::Sender<Finding>, mpsc::Receiver<Finding>),
    writer: StatusWriter,
    refreshed: Instant,
    reported_running: bool,
}

impl Worker {
    pub(crate) fn new(
        context: Arc<Context>,
        orders: watch::Receiver<Order>,
        wake: Arc<Notify>,
    ) -> Worker {
        let pod = orders.borrow().pod.clone();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let writer = StatusWriter::new(context.api.clone(), &pod);
        let started_at = pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref())
            .map_or_else(Timestamp::now, |time| time.0);
        let mut worker = Worker {
            context,
            orders,
            wake,
            uid,
            orphaned: false,
            records: BTreeMap::new(),
            sandbox: Sandbox::Missing,
            pod_ip: None,
            busy: false,
            prepare_backoff: Duration::ZERO,
            prepare_not_before: Duration::ZERO,
            prepared: false,
            deadline: watch::Sender::new(None),
            failure: None,
            ended_before: false,
            started_at,
            jobs: JoinSet::new(),
            findings: mpsc::channel(FINDINGS_MAX),
            writer,
            refreshed: Duration::ZERO,
            reported_running: false,
            pod,
        };
        worker.recall();
        worker
    }

    /// Restart counts and final states that only the API still knows.
    fn recall(&mut self) {
        let status = self.pod.status.clone().unwrap_or_default();
        self.ended_before = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let init = status.init_container_statuses.into_iter().flatten();
        let ephemeral = status.ephemeral_container_statuses.into_iter().flatten();
        let main = status.container_statuses.into_iter().flatten();
        for known in init.chain(main).chain(ephemeral) {
            let record = self.records.entry(known.name.clone()).or_default();
            let restarts = u32::try_from(known.restart_count).unwrap_or_default();
            record.next_attempt =
                if known.container_id.is_some() { restarts + 1 } else { restarts };
            let ended = known.state.and_then(|state| state.terminated);
            if let (Some(ended), Some(id)) = (ended, known.container_id) {
                let id = id.rsplit('/').next().unwrap_or_default().to_string();
                let state = State::Exited {
                    code: ended.exit_code,
                    signal: ended.signal,
                    started_at: ended.started_at.map(|time| time.0),
                    finished_at: ended.finished_at.map_or(self.started_at, |time| time.0),
                    oom_killed: ended.reason.as_deref() == Some("OOMKilled"),
                    message: ended.message.unwrap_or_default(),
                };
                let spec = find_container(&self.pod, &known.name);
                record.current = Some(ContainerStatus {
                    id,
                    name: known.name,
                    attempt: restarts,
                    image: known.image,
                    image_id: known.image_id,
                    spec_hash: spec.as_ref().map(hash).unwrap_or_default(),
                    log: Default::default(),
                    state,
                });
            }
        }
    }

    /// Until the pod is gone.
    pub(crate) async fn run(mut self) {
        loop {
            self.observe().await;
            let observed = self.observed();
            let actions = plan::plan(&self.shape(), &observed);
            let mut wake_at = self.context.now() + RESYNC;
            for action in actions {
                match action {
                    Action::Wake(at) => wake_at = wake_at.min(at),
                    Action::Finish if self.orphaned => return self.forget().await,
                    action => self.begin(action),
                }
            }
            if self.orphaned && self.sandbox == Sandbox::Missing && self.jobs.is_empty() {
                return self.forget().await;
            }
            self.publish();
            self.refresh_volumes();
            if let Some(at) = self.active_deadline() {
                wake_at = wake_at.min(at);
            }
            let shown = self.records.values().filter_map(|record| record.pull_failed);
            for at in shown.map(|failed| failed + PULL_ERROR_SHOWN) {
                if at > self.context.now() {
                    wake_at = wake_at.min(at);
                }
            }
            let pause = wake_at.saturating_sub(self.context.now()).max(Duration::from_millis(1));
            tokio::select! {
                changed = self.orders.changed() => if changed.is_err() { return },
                Some(done) = self.jobs.join_next() => {
                    let finished = matches!(&done, Ok(Done { outcome: Outcome::Finished, .. }));
                    match done {
                        Ok(done) => self.settle(done),
                        Err(error) => tracing::error!(pod = self.uid, %error, "job died"),
                    }
                    if finished {
                        return self.forget().await;
                    }
                }
                Some(finding) = self.findings.1.recv() => self.note(finding),
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            self.take_orders();
        }
    }

    fn take_orders(&mut self) {
        let order = self.orders.borrow_and_update().clone();
        self.pod = order.pod;
        self.orphaned |= order.orphaned;
        if let Some(stop) = self.stop() {
            let end = tokio::time::Instant::now() + stop.grace;
            // A later deletion may shorten the grace, never lengthen it.
            self.deadline.send_if_modified(|deadline| {
                let shorter = deadline.is_none_or(|old| end < old);
                if shorter {
                    *deadline = Some(end);
                }
                shorter
            });
        }
    }

    fn spec(&self) -> PodSpec {
        self.pod.spec.clone().unwrap_or_default()
    }

    fn shape(&self) -> plan::Shape {
        shape(&self.spec())
    }

    fn stop(&self) -> Option<Stop> {
        let grace =
            |seconds: Option<i64>| Duration::from_secs(seconds.unwrap_or(0).max(0).unsigned_abs());
        if self.orphaned {
            // Deleted by force: nobody waits for it any more.
            return Some(Stop { grace: Duration::from_secs(1), delete: true });
        }
        if self.pod.metadata.deletion_timestamp.is_some() {
            let grace = grace(self.pod.metadata.deletion_grace_period_seconds);
            return Some(Stop { grace, delete: true });
        }
        let grace = self.shape().grace;
        let over = self.failure.is_some() || self.ended_before;
        over.then_some(Stop { grace, delete: false })
    }

    /// When `activeDeadlineSeconds` is over, if that is still to come.
    fn active_deadline(&self) -> Option<Instant> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let age = Timestamp::now().duration_since(self.started_at).as_secs();
        let left = u64::try_from(seconds - age).ok()?;
        Some(self.context.now() + Duration::from_secs(left))
    }

    /// Brings the records up to what the runtime says.
    async fn observe(&mut self) {
        let overdue =
            |seconds: i64| Timestamp::now().duration_since(self.started_at).as_secs() >= seconds;
        if self.spec().active_deadline_seconds.is_some_and(overdue) && self.failure.is_none() {
            let text = "Pod was active on the node longer than the specified deadline";
            self.failure = Some(("DeadlineExceeded".to_string(), text.to_string()));
        }
        match self.context.runtime.sandbox(&self.uid).await {
            Ok(found) => self.take_in(found),
            Err(Error::NotFound(_)) => self.sandbox = Sandbox::Missing,
            Err(error) => tracing::warn!(pod = self.uid, error = error.text(), "sandbox state"),
        }
        if self.sandbox == Sandbox::Ready && self.pod_ip.is_none() && !self.busy {
            self.pod_ip = self.context.address_of(&self.pod).await;
            self.prepared = self.pod_ip.is_some();
        }
    }

    fn take_in(&mut self, found: SandboxStatus) {
        self.sandbox = if found.ready { Sandbox::Ready } else { Sandbox::Lost };
        let spec = self.spec();
        let mut wanted: Vec<Container> = all_containers(&spec).cloned().collect();
        wanted.extend(ephemeral_containers(&spec));
        for container in &wanted {
            let record = self.records.entry(container.name.clone()).or_default();
            let mut all = found.containers.iter().filter(|one| one.name == container.name).rev();
            let Some(newest) = all.next() else { continue };
            let ended = |known: &ContainerStatus| matches!(known.state, State::Exited { .. });
            if record.current.as_ref().is_some_and(|known| {
                // An end is final: what is torn down later only knows less of it. And a start that
                // failed is newer than what the runtime has.
                (known.id == newest.id && ended(known)) || known.attempt > newest.attempt
            }) {
                continue;
            }
            if let Some(before) = all.next() {
                record.last = Some((before.id.clone(), before.state.clone()));
            }
            let same = record.current.as_ref().is_some_and(|current| current.id == newest.id);
            if !same && record.current.is_some() {
                record.started = false;
                record.ready = false;
                record.condemned = None;
                record.prober = None;
            }
            record.next_attempt = newest.attempt + 1;
            record.current = Some(newest.clone());
        }
        for container in &wanted {
            self.after_look(&container.name, hash(container));
        }
    }

    /// Starts probing what runs and counts exits of what ended.
    fn after_look(&mut self, name: &str, hash: u64) {
        let now = self.context.now();
        let Some(record) = self.records.get_mut(name) else { return };
        let Some(current) = record.current.clone() else { return };
        match &current.state {
            State::Running { .. } => {
                record.waiting = None;
                if current.spec_hash != hash && record.condemned.is_none() {
                    let why = format!("Container {name} definition changed, will be restarted");
                    record.condemned = Some(why);
                }
                if record.prober.is_none() && self.pod_ip.is_some() {
                    self.probe(name, &current.id);
                }
            }
            State::Exited { .. } => {
                record.prober = None;
                record.started = false;
                record.ready = false;
                record.condemned = None;
                if record.counted_exit.as_deref() != Some(&current.id) && !record.busy {
                    record.counted_exit = Some(current.id.clone());
                    record.not_before = record.backoff.not_before(now);
                }
            }
            State::Created => {}
        }
    }

    fn probe(&mut self, name: &str, id: &str) {
        let Some(container) = find_container(&self.pod, name) else { return };
        let prober = Prober {
            target: self.target(id, container),
            pod: self.pod.clone(),
            events: self.context.events.clone(),
            findings: self.findings.0.clone(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(prober.run()));
        if let Some(record) = self.records.get_mut(name) {
            record.prober = Some(task);
        }
    }

    fn target(&self, id: &str, container: Container) -> Target {
        Target {
            runtime: self.context.runtime.clone(),
            pod_uid: self.uid.clone(),
            container_id: id.to_string(),
            ip: self.pod_ip.clone().unwrap_or_default(),
            container: Arc::new(container),
        }
    }

    fn note(&mut self, finding: Finding) {
        let Some(record) = self.records.get_mut(&finding.container) else { return };
        let current = record.current.as_ref().map(|current| current.id.as_str());
        if current != Some(finding.container_id.as_str()) {
            return;
        }
        match finding.news {
            News::Started => record.started = true,
            News::Ready(ready) => record.ready = ready,
            News::Condemned(why) => record.condemned = Some(why),
        }
    }

    fn observed(&self) -> Observed {
        let known = |record: &Record| Known {
            state: match record.current.as_ref().map(|current| &current.state) {
                None | Some(State::Created) => Life::Absent,
                Some(State::Running { .. }) => Life::Running,
                Some(State::Exited { code, .. }) => Life::Exited(*code),
            },
            busy: record.busy,
            started: record.started,
            condemned: record.condemned.clone(),
            not_before: record.not_before,
        };
        let sandbox = match self.sandbox {
            // Preparation has not come to its end yet.
            Sandbox::Ready if !self.prepared => Sandbox::Missing,
            other => other,
        };
        let stopping = self.stop().is_some();
        Observed {
            now: self.context.now(),
            stop: self.stop(),
            sandbox: if stopping { self.sandbox } else { sandbox },
            busy: self.busy,
            prepare_not_before: self.prepare_not_before,
            containers: self
                .records
                .iter()
                .map(|(name, record)| (name.clone(), known(record)))
                .collect(),
        }
    }

    fn begin(&mut self, action: Action) {
        tracing::debug!(pod = self.uid, ?action, "begin");
        let (context, pod) = (self.context.clone(), self.pod.clone());
        match action {
            Action::Prepare => {
                self.busy = true;
                self.jobs.spawn(jobs::prepare(context, pod));
            }
            Action::Reset => {
                self.busy = true;
                self.prepared = false;
                self.pod_ip = None;
                self.jobs.spawn(jobs::teardown(context, pod, true));
            }
            Action::Teardown => {
                self.busy = true;
                self.prepared = false;
                self.jobs.spawn(jobs::teardown(context, pod, false));
            }
            Action::Start(name) => self.start(&name),
            Action::Kill { name, why, grace } => self.kill(&name, why, grace),
            Action::Finish => {
                self.busy = true;
                let last = (!self.ended_before).then(|| self.status());
                let finish = self.writer.finish(last);
                self.jobs.spawn(jobs::finish(finish));
            }
            Action::Wake(_) => {}
        }
    }

    fn start(&mut self, name: &str) {
        let Some(container) = find_container(&self.pod, name) else { return };
        let target = ephemeral_target(&self.pod, name).and_then(|name| self.records.get(name));
        let target = target.and_then(|record| record.current.as_ref());
        let running = target.filter(|current| current.state.is_running());
        let processes_of = running.map(|current| current.id.clone());
        let Some(record) = self.records.get_mut(name) else { return };
        record.busy = true;
        let attempt = record.next_attempt;
        if let Some(State::Exited { .. }) = record.current.as_ref().map(|current| &current.state) {
            record.backoff.tried(self.context.now());
        }
        let keep = record.current.as_ref().map(|current| current.id.clone());
        let start = jobs::Start {
            context: self.context.clone(),
            pod: self.pod.clone(),
            container,
            attempt,
            keep,
            ip: self.pod_ip.clone().unwrap_or_default(),
            processes_of,
        };
        self.jobs.spawn(start.run());
    }

    fn kill(&mut self, name: &str, why: String, grace: Duration) {
        let Some(container) = find_container(&self.pod, name) else { return };
        let Some(record) = self.records.get_mut(name) else { return };
        let Some(id) = record.current.as_ref().map(|current| current.id.clone()) else { return };
        record.busy = true;
        record.ready = false;
        record.prober = None;
        let kill = jobs::Kill {
            context: self.context.clone(),
            pod: self.pod.clone(),
            why,
            grace,
            deadline: self.deadline.subscribe(),
            target: self.target(&id, container),
        };
        self.jobs.spawn(kill.run());
    }

    /// Takes in how a job ended.
    fn settle(&mut self, done: Done) {
        let now = self.context.now();
        if matches!(done.outcome, Outcome::Refreshed) {
            return;
        }
        if let Some(name) = &done.container
            && let Some(record) = self.records.get_mut(name)
        {
            record.busy = false;
        } else {
            self.busy = false;
        }
        match (done.outcome, done.container) {
            (Outcome::Prepared { ip }, _) => {
                self.pod_ip = Some(ip);
                self.prepared = true;
                self.prepare_backoff = Duration::ZERO;
            }
            (Outcome::NotPrepared, _) => {
                // Half a second, doubled up to half a minute.
                let next = (self.prepare_backoff * 2).max(Duration::from_millis(500));
                self.prepare_backoff = next.min(Duration::from_secs(30));
                self.prepare_not_before = now + self.prepare_backoff;
            }
            (Outcome::TornDown, _) => self.sandbox = Sandbox::Missing,
            (Outcome::Reset, _) => self.reset(),
            (Outcome::Started, Some(name)) => {
                if let Some(record) = self.records.get_mut(&name) {
                    record.waiting = None;
                    record.image_backoff = Backoff::default();
                }
            }
            (Outcome::NotStarted(trouble), Some(name)) => self.trouble(&name, trouble, now),
            _ => {}
        }
    }

    /// The sandbox is gone with all that ran in it: init containers are run again.
    fn reset(&mut self) {
        self.sandbox = Sandbox::Missing;
        for record in self.records.values_mut() {
            if let Some(current) = record.current.take() {
                record.last = Some((current.id, current.state));
            }
            record.prober = None;
            record.started = false;
            record.ready = false;
        }
    }

    fn trouble(&mut self, name: &str, trouble: Trouble, now: Instant) {
        let Some(record) = self.records.get_mut(name) else { return };
        if let Some(id) = trouble.started {
            // As if it had run and ended at once: the restart policy decides what follows.
            record.waiting = None;
            let time = Timestamp::now();
            let failed = ContainerStatus {
                id,
                name: name.to_string(),
                attempt: record.next_attempt,
                image: String::new(),
                image_id: String::new(),
                spec_hash: 0,
                log: Default::default(),
                state: State::Exited {
                    code: START_FAILED,
                    signal: None,
                    started_at: None,
                    finished_at: time,
                    oom_killed: false,
                    message: trouble.message,
                },
            };
            record.next_attempt += 1;
            if let Some(before) = record.current.replace(failed) {
                record.last = Some((before.id, before.state));
            }
            record.not_before = record.backoff.not_before(now);
            record.counted_exit = record.current.as_ref().map(|current| current.id.clone());
            return;
        }
        record.waiting = Some((trouble.reason.to_string(), trouble.message));
        record.not_before = if trouble.image {
            record.image_backoff.tried(now);
            record.pull_failed = Some(now);
            now + record.image_backoff.delay()
        } else {
            now + CONFIG_RETRY
        };
    }

    /// Brings ConfigMaps and Secrets in volumes up to date now and then.
    fn refresh_volumes(&mut self) {
        let now = self.context.now();
        let due = self.prepared && !self.busy && self.stop().is_none();
        if !due || now < self.refreshed + RESYNC {
            return;
        }
        self.refreshed = now;
        let needs =
            super::sources::Needs::of_volumes(self.spec().volumes.as_deref().unwrap_or(&[]));
        if needs != super::sources::Needs::default() {
            let ip = self.pod_ip.clone().unwrap_or_default();
            self.jobs.spawn(jobs::refresh(self.context.clone(), self.pod.clone(), ip));
        }
    }

    fn publish(&mut self) {
        if self.orphaned || self.ended_before {
            return;
        }
        let status = self.status();
        if status.phase.as_deref() == Some("Running") && !self.reported_running {
            self.reported_running = true;
            let created = self.pod.metadata.creation_timestamp.as_ref();
            if let Some(created) = created {
                let age = Timestamp::now().duration_since(created.0).as_secs_f64();
                self.context.metrics.pod_start.observe(age.max(0.0));
            }
        }
        self.writer.send(status);
    }

    fn status(&self) -> PodStatus {
        let (shape, observed) = (self.shape(), self.observed());
        let containers =
            self.records.iter().map(|(name, record)| (name.clone(), self.seen(name, record)));
        let mut phase = plan::phase(&shape, &observed);
        let stopped = observed.containers.values().all(|known| known.state != Life::Running);
        if self.failure.is_some() && stopped {
            phase = Phase::Failed;
        }
        if observed.stop.is_some_and(|stop| stop.delete)
            && stopped
            && self.sandbox == Sandbox::Missing
            && plan::begun(&shape, &observed)
        {
            // Nothing comes back any more: what ended has ended for good.
            let ok = shape.main.iter().all(|name| {
                observed.containers.get(name).is_some_and(|known| known.state == Life::Exited(0))
            });
            phase = if ok { Phase::Succeeded } else { Phase::Failed };
        }
        let summary = Summary {
            phase,
            reason: self.failure.clone(),
            containers: containers.collect(),
            initialized: plan::initialized(&shape, &observed),
            sandbox_ready: self.sandbox == Sandbox::Ready && self.prepared,
            pod_ip: self.pod_ip.clone(),
            host_ip: self.context.node_ip.to_string(),
            started_at: self.started_at,
            now: Timestamp::now(),
        };
        status::build(&self.pod, &summary)
    }

    fn seen(&self, name: &str, record: &Record) -> Seen {
        let current = record.current.as_ref();
        let state = current.map(|current| current.state.clone());
        let mut waiting = record.waiting.clone();
        let now = self.context.now();
        if let (None, Some(State::Exited { code, .. })) = (&waiting, &state)
            && now < record.not_before
            && self.stop().is_none()
            && self.comes_back(name, *code)
        {
            let seconds = record.backoff.delay().as_secs();
            let meta = &self.pod.metadata;
            let text = format!(
                "back-off {seconds}s restarting failed container={name} pod={}_{}({})",
                meta.name.as_deref().unwrap_or_default(),
                meta.namespace.as_deref().unwrap_or_default(),
                self.uid
            );
            self.context.events.container(
                &self.pod,
                name,
                true,
                "BackOff",
                format!(
                    "Back-off restarting failed container {name} in pod {}_{}({})",
                    meta.name.as_deref().unwrap_or_default(),
                    meta.namespace.as_deref().unwrap_or_default(),
                    self.uid
                ),
            );
            waiting = Some(("CrashLoopBackOff".to_string(), text));
        }
        if let Some((reason, message)) = &mut waiting
            && reason == "ErrImagePull"
            && record.pull_failed.is_some_and(|failed| now >= failed + PULL_ERROR_SHOWN)
        {
            *reason = "ImagePullBackOff".to_string();
            *message = format!("Back-off pulling image: {message}");
        }
        let is_init = self.shape().init.iter().any(|step| step.name == name && !step.sidecar);
        let done = is_init && matches!(state, Some(State::Exited { code: 0, .. }));
        Seen {
            id: current.map(|current| current.id.clone()),
            image_id: current.map(|current| current.image_id.clone()).unwrap_or_default(),
            ready: record.ready || done,
            state,
            last: record.last.clone(),
            waiting,
            restarts: current.map_or(record.next_attempt, |current| current.attempt),
            started: record.started,
        }
    }

    fn comes_back(&self, name: &str, code: i32) -> bool {
        let shape = self.shape();
        if shape.ephemeral.iter().any(|own| own == name) {
            return false;
        }
        match shape.init.iter().find(|step| step.name == name) {
            Some(step) if step.sidecar => true,
            Some(_) => code != 0 && shape.restart != plan::Restart::Never,
            None => match shape.restart {
                plan::Restart::Always => true,
                plan::Restart::OnFailure => code != 0,
                plan::Restart::Never => false,
            },
        }
    }

    /// Removes the last traces: the logs.
    async fn forget(self) {
        let directory = self.context.log_directory(&self.pod);
        let _ = tokio::fs::remove_dir_all(directory).await;
    }
}

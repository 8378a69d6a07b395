//! Wake, plan, act: one dispatcher per controller decides, tasks of its own carry the plans out.
//! Nothing is planned or sent unless this process leads.

use crate::events::{Recorder, Writer};
use crate::queue::Queue;
use crate::{Cache, Context, Controller, Failure, Gate, Key, KindInfo, Metrics};
use crate::{Note, Plan, Step, World, Write};
use jiff::Timestamp;
use k8s::{Api, Object, Request, Revision, Status, Verb};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A root waits no longer than this for the cache to show its own last write. The watch is at most
/// milliseconds behind; a write whose event never comes must not stop the root for ever.
const OWN_WRITE_WAIT: Duration = Duration::from_secs(10);

/// How long a write under way may take to be answered after the lead was lost.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

/// How often a create under a name chosen here is repeated while its outcome is unknown.
const REPEATS_MAX: u32 = 3;

/// Runs controllers over one cache.
pub struct Runner {
    cache: Arc<Cache>,
    gate: Gate,
    dispatchers: Vec<Dispatcher>,
    recorder: Recorder,
    writer: Writer,
}

impl Runner {
    pub fn new(cache: Arc<Cache>, gate: Gate) -> Runner {
        let (recorder, writer) = Recorder::new(cache.metrics());
        Runner { cache, gate, dispatchers: Vec::new(), recorder, writer }
    }

    /// Adds a controller that writes as whoever `api` is.
    pub fn add(&mut self, controller: Controller, api: Arc<dyn Api>) {
        let metrics = self.cache.metrics();
        let queue = Arc::new(Queue::new(controller.name, metrics.clone()));
        let (woken, gate) = (queue.clone(), self.gate.clone());
        self.cache.listen(Arc::new(move |world, change| {
            // Who does not lead forgets nothing: on gaining the lead every root is queued.
            if gate.term().is_some() {
                for key in controller.woken_by(world, change) {
                    woken.add(key);
                }
            }
        }));
        self.dispatchers.push(Dispatcher {
            controller,
            hands: Arc::new(Hands {
                controller,
                api,
                cache: self.cache.clone(),
                gate: self.gate.clone(),
                recorder: self.recorder.clone(),
                metrics,
            }),
            queue,
            leading: None,
            ready: false,
            running: JoinSet::new(),
            running_keys: HashMap::new(),
            parked: HashMap::new(),
            wrote: HashMap::new(),
            failures: HashMap::new(),
        });
    }

    /// Wakes every root of a controller, for instance because a fact changed.
    pub fn waker(&self, name: &str) -> Option<impl Fn() + Send + Sync + 'static> {
        let dispatcher = self.dispatchers.iter().find(|one| one.controller.name == name)?;
        let (controller, queue) = (dispatcher.controller, dispatcher.queue.clone());
        let cache = self.cache.clone();
        Some(move || {
            let roots = controller.roots(&cache.read());
            roots.into_iter().for_each(|key| queue.add(key));
        })
    }

    /// Runs until `shutdown`; a controller's panic outside its plan is passed on. `events_api` is
    /// whom Events are written as.
    pub async fn run(self, events_api: Arc<dyn Api>, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        for dispatcher in self.dispatchers {
            tasks.spawn(dispatcher.run(shutdown.clone()));
        }
        tasks.spawn(self.writer.run(events_api, self.gate, shutdown));
        drop(self.recorder);
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

/// What the cache must show before a root is planned again.
#[derive(Clone, Debug, PartialEq)]
enum Awaited {
    AtLeast(KindInfo, Revision),
    /// For a write whose answer names no revision: this version of the object is history.
    Left(KindInfo, Key, Revision),
}

impl Awaited {
    fn shown_by(&self, world: &World) -> bool {
        match self {
            Awaited::AtLeast(kind, revision) => world.progress(kind) >= *revision,
            Awaited::Left(kind, key, revision) => {
                world.entry(kind, key).is_none_or(|entry| entry.meta.revision != *revision)
            }
        }
    }
}

struct Parked {
    since: Instant,
    awaited: Vec<Awaited>,
}

/// What became of one plan.
struct Done {
    key: Key,
    wrote: Vec<Awaited>,
    requeue_after: Option<Duration>,
    outcome: Outcome,
}

enum Outcome {
    Complete,
    /// Somebody else was faster: plan anew from what they did.
    Moved,
    Failed {
        reason: String,
        status: Box<Status>,
    },
    /// The lead is lost; what is left of the plan was dropped.
    Dropped,
}

struct Dispatcher {
    controller: Controller,
    hands: Arc<Hands>,
    queue: Arc<Queue>,
    /// The term, and the uptime at which it began here.
    leading: Option<(u64, Duration)>,
    /// Everything the controller looks at is complete.
    ready: bool,
    running: JoinSet<Done>,
    running_keys: HashMap<tokio::task::Id, (Key, Instant)>,
    parked: HashMap<Key, Parked>,
    /// Each root's own last writes that the cache may not have shown yet.
    wrote: HashMap<Key, Vec<Awaited>>,
    failures: HashMap<Key, Failure>,
}

impl Dispatcher {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut gate = self.hands.gate.clone();
        let mut progress = self.hands.cache.progress();
        self.lead(gate.observe()).await;
        loop {
            progress.borrow_and_update();
            self.ready = self.ready || self.is_ready();
            let active = self.leading.is_some() && self.ready;
            if active {
                self.unpark();
                self.start_ready();
            }
            let free = active && self.running.len() < self.controller.workers;
            let watching = self.leading.is_some() && (!self.ready || !self.parked.is_empty());
            let deadline = self.parked.values().map(|parked| parked.since + OWN_WRITE_WAIT).min();
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = gate.changed() => self.lead(gate.observe()).await,
                Some(done) = self.running.join_next_with_id(), if !self.running.is_empty() => {
                    self.ended(done);
                }
                () = self.queue.wait(), if free => (),
                Ok(()) = progress.changed(), if watching => (),
                () = until(deadline), if active && deadline.is_some() => (),
            }
        }
        self.running.shutdown().await;
    }

    /// Takes notice that the term changed, or ended and began again unseen: whatever was under way
    /// is dropped, and every root is planned anew.
    async fn lead(&mut self, term: Option<u64>) {
        self.drain().await;
        self.parked.clear();
        self.failures.clear();
        self.queue.clear();
        self.leading = term.map(|term| (term, self.hands.cache.uptime()));
        if self.leading.is_some() {
            let roots = self.controller.roots(&self.hands.cache.read());
            tracing::debug!(controller = self.controller.name, ?term, roots = roots.len(), "leads");
            roots.into_iter().for_each(|key| self.queue.add(key));
        }
    }

    /// Ends the plans under way: each stops before its next write, and what it has written is
    /// remembered. A write that is not answered in time is left to the fence.
    async fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_WAIT;
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(deadline, self.running.join_next_with_id()).await
        {
            self.ended(ended);
        }
        self.running.shutdown().await;
        self.running_keys.clear();
    }

    fn is_ready(&self) -> bool {
        let world = self.hands.cache.read();
        match self.controller.wakes_any {
            Some(_) => world.all_complete(),
            None => self.controller.needs().all(|kind| world.complete(&kind)),
        }
    }

    fn start_ready(&mut self) {
        while self.running.len() < self.controller.workers {
            let Some(key) = self.queue.take(Instant::now()) else { return };
            let awaited = self.still_awaited(&key);
            if awaited.is_empty() {
                self.plan(key);
            } else {
                self.parked.insert(key, Parked { since: Instant::now(), awaited });
            }
        }
    }

    fn still_awaited(&mut self, key: &Key) -> Vec<Awaited> {
        let Some(mut awaited) = self.wrote.remove(key) else { return Vec::new() };
        let world = self.hands.cache.read();
        awaited.retain(|one| !one.shown_by(&world));
        awaited
    }

    /// Plans the roots whose own writes the cache shows by now, and those that waited too long.
    fn unpark(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let world = self.hands.cache.read();
        let mut due = Vec::new();
        for (key, parked) in &mut self.parked {
            parked.awaited.retain(|one| !one.shown_by(&world));
            if parked.awaited.is_empty() || parked.since.elapsed() >= OWN_WRITE_WAIT {
                due.push(key.clone());
            }
        }
        drop(world);
        for key in due {
            let Some(parked) = self.parked.remove(&key) else { continue };
            let name = &[self.controller.name];
            let waited = parked.since.elapsed().as_secs_f64();
            self.hands.metrics.own_write_wait.with_label_values(name).observe(waited);
            if !parked.awaited.is_empty() {
                self.hands.metrics.own_write_timeouts.with_label_values(name).inc();
                let awaited = &parked.awaited;
                tracing::warn!(controller = name[0], %key, ?awaited, "own write not seen in time");
            }
            self.plan(key);
        }
    }

    /// The pure part, at once; the rest as a task.
    fn plan(&mut self, key: Key) {
        let Some((term, leading_since)) = self.leading else { return };
        let started = Instant::now();
        let context = Context {
            now: Timestamp::now(),
            uptime: self.hands.cache.uptime(),
            leading_since,
            failure: self.failures.get(&key).cloned(),
        };
        let plan = self.hands.plan(&key, &context);
        let Some(plan) = plan else {
            let failure = self.failed("Panic", "the plan panicked", &key, Duration::ZERO);
            self.failures.insert(key.clone(), failure);
            self.queue.done(&key);
            return;
        };
        if plan.steps.is_empty() {
            let outcome = Outcome::Complete;
            let requeue_after = plan.requeue_after;
            self.settle(Done { key, wrote: Vec::new(), requeue_after, outcome }, started);
            return;
        }
        let hands = self.hands.clone();
        let owner = key.clone();
        let task = self.running.spawn(async move { hands.carry_out(key, plan, term).await });
        self.running_keys.insert(task.id(), (owner, started));
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Done), tokio::task::JoinError>) {
        match ended {
            Ok((id, done)) => {
                let started = self.running_keys.remove(&id).map(|(_, started)| started);
                self.settle(done, started.unwrap_or_else(Instant::now));
            }
            Err(error) => {
                if let Some((key, started)) = self.running_keys.remove(&error.id()) {
                    let status = Status::internal(&error);
                    let status = Box::new(status);
                    let outcome = Outcome::Failed { reason: "Panic".into(), status };
                    let wrote = Vec::new();
                    self.settle(Done { key, wrote, requeue_after: None, outcome }, started);
                }
            }
        }
    }

    fn settle(&mut self, done: Done, started: Instant) {
        let Done { key, wrote, requeue_after, outcome } = done;
        let worked = started.elapsed().as_secs_f64();
        let name = &[self.controller.name];
        self.hands.metrics.work_duration.with_label_values(name).observe(worked);
        if !wrote.is_empty() {
            self.wrote.insert(key.clone(), wrote);
        }
        match outcome {
            Outcome::Complete => {
                self.failures.remove(&key);
                self.queue.forget_failures(&key);
                if let Some(delay) = requeue_after {
                    self.queue.add_after(key.clone(), delay);
                }
            }
            Outcome::Moved => {
                self.queue.retry(key.clone(), Duration::ZERO, rand::random());
            }
            Outcome::Failed { reason, status } => {
                let at_least = Duration::from_secs(status.retry_after_seconds.unwrap_or(0).into());
                let failure = self.failed(&reason, &status.message, &key, at_least);
                let attempts = failure.attempts;
                tracing::warn!(controller = name[0], %key, %status, attempts, "plan failed");
                self.failures.insert(key.clone(), failure);
            }
            Outcome::Dropped => (),
        }
        self.queue.done(&key);
    }

    fn failed(&self, reason: &str, message: &str, key: &Key, at_least: Duration) -> Failure {
        let attempts = self.queue.retry(key.clone(), at_least, rand::random());
        Failure { reason: reason.to_string(), message: message.to_string(), attempts }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What carries plans out: shared by the tasks of one controller.
struct Hands {
    controller: Controller,
    api: Arc<dyn Api>,
    cache: Arc<Cache>,
    gate: Gate,
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

/// Why a plan stopped.
enum Stop {
    LeadLost,
    Refused { status: Status, reason: Option<&'static str> },
}

impl Hands {
    /// `None`: it panicked. One root that no plan can be made for must not stop all others.
    fn plan(&self, key: &Key, context: &Context) -> Option<Plan> {
        let started = Instant::now();
        let world = self.cache.read();
        let plan = catch_unwind(AssertUnwindSafe(|| (self.controller.plan)(&world, key, context)));
        drop(world);
        let name = &[self.controller.name];
        let took = started.elapsed().as_secs_f64();
        self.metrics.plan_duration.with_label_values(name).observe(took);
        if plan.is_err() {
            self.metrics.panics.with_label_values(name).inc();
            tracing::error!(controller = name[0], %key, "plan panicked");
        }
        plan.ok()
    }

    async fn carry_out(&self, key: Key, plan: Plan, term: u64) -> Done {
        let mut wrote = Vec::new();
        let mut stopped: Option<Stop> = None;
        for step in plan.steps {
            let result = match (step, &stopped) {
                (_, Some(Stop::LeadLost)) => break,
                (Step::Finally(write), _) => self.send(vec![write], term, &mut wrote).await,
                (_, Some(_)) => continue,
                (Step::Event(note), None) => {
                    self.record(note);
                    continue;
                }
                (Step::Write(write), None) => self.send(vec![write], term, &mut wrote).await,
                (Step::Together(writes), None) => self.send(writes, term, &mut wrote).await,
                (Step::SlowStart(writes), None) => self.slow_start(writes, term, &mut wrote).await,
            };
            stopped = stopped.or(result.err());
        }
        let outcome = match stopped {
            None => Outcome::Complete,
            Some(Stop::LeadLost) => Outcome::Dropped,
            Some(Stop::Refused { status, .. }) if moved(&status) => Outcome::Moved,
            Some(Stop::Refused { status, reason }) => {
                let reason = reason.unwrap_or(&status.reason).to_string();
                Outcome::Failed { reason, status: Box::new(status) }
            }
        };
        Done { key, wrote, requeue_after: plan.requeue_after, outcome }
    }

    async fn slow_start(
        &self,
        mut writes: Vec<Write>,
        term: u64,
        wrote: &mut Vec<Awaited>,
    ) -> Result<(), Stop> {
        let mut size = 1;
        while !writes.is_empty() {
            let rest = writes.split_off(size.min(writes.len()));
            self.send(writes, term, wrote).await?;
            writes = rest;
            size *= 2;
        }
        Ok(())
    }

    /// Sends all at once; the first refusal is the result, after all have been answered.
    async fn send(
        &self,
        mut writes: Vec<Write>,
        term: u64,
        wrote: &mut Vec<Awaited>,
    ) -> Result<(), Stop> {
        for write in &mut writes {
            write.request.fence = self.gate.fence(term);
            choose_name(&mut write.request);
        }
        let writes = self.still_wanted(writes).await?;
        if self.gate.term() != Some(term) {
            return Err(Stop::LeadLost);
        }
        if writes.is_empty() {
            return Ok(());
        }
        let before: Vec<Option<Revision>> = writes.iter().map(|write| self.known(write)).collect();
        let requests: Vec<Request> = writes.iter().map(|write| write.request.clone()).collect();
        let answers = match <[Request; 1]>::try_from(requests) {
            Ok([one]) => vec![self.api.call(one).await],
            Err(many) => self.api.batch(many).await,
        };
        let mut first = Ok(());
        for ((write, before), answer) in writes.iter().zip(before).zip(answers) {
            let result = self.answered(write, before, answer, term, wrote).await;
            first = first.and(result);
        }
        first
    }

    /// Without the writes that some existing object stands against.
    async fn still_wanted(&self, writes: Vec<Write>) -> Result<Vec<Write>, Stop> {
        let mut wanted = Vec::with_capacity(writes.len());
        'writes: for write in writes {
            for one in &write.unless {
                let key = &one.key;
                let get = Request::get(one.kind.resource(), &key.namespace, &key.name);
                match self.api.call(get).await {
                    Ok(found) if one.uid.is_empty() || found.uid() == one.uid => continue 'writes,
                    Ok(_) => (),
                    Err(status) if status.is_not_found() => (),
                    Err(status) => return Err(Stop::Refused { status, reason: None }),
                }
            }
            wanted.push(write);
        }
        Ok(wanted)
    }

    async fn answered(
        &self,
        write: &Write,
        before: Option<Revision>,
        answer: Result<Object, Status>,
        term: u64,
        wrote: &mut Vec<Awaited>,
    ) -> Result<(), Stop> {
        let answer = match answer {
            Err(status) if status.is_retryable() && named_here(&write.request) => {
                self.repeat(write, status, term).await?
            }
            other => other,
        };
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(status) if status.reason.is_empty() => "unknown",
            Err(status) => &status.reason,
        };
        let labels = &[self.controller.name, write.verb(), outcome];
        self.metrics.writes.with_label_values(labels).inc();
        tracing::debug!(controller = self.controller.name, outcome, %write);
        match answer {
            Ok(object) => {
                wrote.extend(self.awaited(write, before, &object));
                if let Some(note) = &write.on_ok {
                    self.record(filled(note, "{name}", written_name(&write.request, &object)));
                }
                Ok(())
            }
            Err(_) if self.gate.term() != Some(term) => Err(Stop::LeadLost),
            Err(status) if is_done(&write.request, &status) => Ok(()),
            Err(status) => {
                let note = write.on_error.as_ref().filter(|_| !moved(&status));
                if let Some(note) = note {
                    self.record(filled(note, "{error}", &status.message));
                }
                Err(Stop::Refused { reason: note.map(|note| note.reason), status })
            }
        }
    }

    /// Sends a create again whose outcome got lost: its name was chosen here, so `AlreadyExists`
    /// tells that it had succeeded.
    async fn repeat(
        &self,
        write: &Write,
        first: Status,
        term: u64,
    ) -> Result<Result<Object, Status>, Stop> {
        let mut last = first;
        for attempt in 0..REPEATS_MAX {
            tokio::time::sleep(crate::Backoff::CONNECT.delay(attempt, rand::random())).await;
            if self.gate.term() != Some(term) {
                return Err(Stop::LeadLost);
            }
            match self.api.call(write.request.clone()).await {
                Err(status) if status.is_already_exists() => {
                    let request = &write.request;
                    let name = body_text(request, "name");
                    let get = Request::get(request.resource.clone(), &request.namespace, &name);
                    return Ok(self.api.call(get).await);
                }
                Err(status) if status.is_retryable() => last = status,
                other => return Ok(other),
            }
        }
        Ok(Err(last))
    }

    /// The revision the cache has of what is written.
    fn known(&self, write: &Write) -> Option<Revision> {
        let world = self.cache.read();
        if !world.watches(&write.kind) || write.request.name.is_empty() {
            return None;
        }
        let request = &write.request;
        let key = Key::new(request.namespace.as_str(), request.name.as_str());
        world.entry(&write.kind, &key).map(|entry| entry.meta.revision)
    }

    fn awaited(&self, write: &Write, before: Option<Revision>, answer: &Object) -> Option<Awaited> {
        // A collection's revision is that of the list, not of a change to it.
        let collection = write.request.verb == Verb::DeleteCollection;
        if collection || !self.cache.read().watches(&write.kind) {
            return None;
        }
        let request = &write.request;
        match answer.revision() {
            Some(revision) if before.is_none_or(|before| revision > before) => {
                Some(Awaited::AtLeast(write.kind, revision))
            }
            // It was being deleted already, or nothing changed.
            Some(_) if request.verb != Verb::Delete || answer.deletion_timestamp().is_some() => {
                None
            }
            _ => {
                let key = Key::new(request.namespace.as_str(), request.name.as_str());
                before.map(|before| Awaited::Left(write.kind, key, before))
            }
        }
    }

    fn record(&self, note: Note) {
        self.recorder.record(self.controller.component, note, Timestamp::now());
    }
}

/// Somebody else's write came first; what they wrote is on its way through the watch.
fn moved(status: &Status) -> bool {
    status.is_conflict() || status.is_not_found() || status.is_already_exists()
}

/// Refusals that leave nothing to be done: what was to be deleted is gone or is another object by
/// now; what was to be made has no place, because its namespace is going.
fn is_done(request: &Request, status: &Status) -> bool {
    let unconditional = request.options.precondition_revision.is_none();
    let gone = status.is_not_found() || (status.is_conflict() && unconditional);
    let deleted = request.verb == Verb::Delete && gone;
    let homeless = status.causes.iter().any(|cause| cause.reason == "NamespaceTerminating");
    deleted || homeless
}

fn filled(note: &Note, placeholder: &str, text: &str) -> Note {
    Note { message: note.message.replace(placeholder, text), ..note.clone() }
}

fn written_name<'a>(request: &'a Request, answer: &'a Object) -> &'a str {
    if request.name.is_empty() { answer.name() } else { &request.name }
}

fn body_text(request: &Request, field: &str) -> String {
    let body = request.body.as_ref();
    body.and_then(|body| body["metadata"][field].as_str()).unwrap_or_default().to_string()
}

fn named_here(request: &Request) -> bool {
    request.verb == Verb::Create && !body_text(request, "generateName").is_empty()
}

/// Upstream's alphabet for generated names: no vowels and no look-alikes.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Longest prefix kept of `generateName`, so that the name is at most 63 bytes.
const PREFIX_MAX: usize = 58;

fn choose_name(request: &mut Request) {
    if !named_here(request) || !body_text(request, "name").is_empty() {
        return;
    }
    let mut name = body_text(request, "generateName");
    name.truncate(PREFIX_MAX);
    for _ in 0..5 {
        name.push(ALPHABET[rand::random_range(0..ALPHABET.len())] as char);
    }
    if let Some(body) = &mut request.body {
        body["metadata"]["name"] = name.into();
    }
}

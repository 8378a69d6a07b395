//! Writes Kubernetes Events for users: repeats of one are counted in it instead of being new ones.

use crate::{Gate, Metrics, Note};
use jiff::Timestamp;
use k8s::{Api, Object, PatchType, Request, Resource};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Notes waiting to be written. A burst beyond it is dropped and counted: events inform, they do not
/// hold up work.
const WAITING_MAX: usize = 1024;

/// Events remembered for counting; upstream remembers 4096 too.
const REMEMBERED_MAX: usize = 4096;

const EVENTS: Resource = Resource::new("", "v1", "events");

/// The sending half; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<(&'static str, Note, Timestamp)>,
    metrics: Arc<Metrics>,
}

impl Recorder {
    pub fn new(metrics: Arc<Metrics>) -> (Recorder, Writer) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Recorder { sender, metrics }, Writer { receiver, known: HashMap::new() })
    }

    /// Takes a note to be written; dropped and counted if too many wait.
    pub fn record(&self, component: &'static str, note: Note, now: Timestamp) {
        if self.sender.try_send((component, note, now)).is_err() {
            self.metrics.events_dropped.with_label_values(&[component]).inc();
        }
    }
}

/// What makes two notes the same event.
type Sameness = (&'static str, String, &'static str, String);

#[derive(Clone)]
struct Known {
    name: String,
    count: u64,
    last: Timestamp,
}

/// The one task that writes them.
pub struct Writer {
    receiver: mpsc::Receiver<(&'static str, Note, Timestamp)>,
    known: HashMap<Sameness, Known>,
}

impl Writer {
    /// Writes what is recorded, while the gate is open, until `shutdown`.
    pub async fn run(mut self, api: Arc<dyn Api>, gate: Gate, shutdown: CancellationToken) {
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => return,
                next = self.receiver.recv() => next,
            };
            let Some((component, note, now)) = next else { return };
            let Some(term) = gate.term() else { continue };
            self.write(&*api, gate.fence(term), component, &note, now).await;
        }
    }

    async fn write(
        &mut self,
        api: &dyn Api,
        fence: Option<u64>,
        component: &'static str,
        note: &Note,
        now: Timestamp,
    ) {
        let sameness = (component, note.subject.uid.clone(), note.reason, note.message.clone());
        if let Some(known) = self.known.get_mut(&sameness) {
            known.count += 1;
            known.last = now;
            let mut request = repeat(note, known);
            request.fence = fence;
            match api.call(request).await {
                Ok(_) => return,
                // Events expire; this one starts over.
                Err(status) if status.is_not_found() => {
                    self.known.remove(&sameness);
                }
                Err(status) => return refused(note, &status),
            }
        }
        let name = event_name(note, component, now);
        let mut request = Request::create(EVENTS, event(note, component, &name, now));
        request.fence = fence;
        match api.call(request).await {
            Ok(_) => self.remember(sameness, Known { name, count: 1, last: now }),
            Err(status) => refused(note, &status),
        }
    }

    fn remember(&mut self, sameness: Sameness, known: Known) {
        if self.known.len() >= REMEMBERED_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.last);
            let oldest = oldest.map(|(sameness, _)| sameness.clone());
            oldest.map(|oldest| self.known.remove(&oldest));
        }
        self.known.insert(sameness, known);
    }
}

fn refused(note: &Note, status: &k8s::Status) {
    tracing::debug!(%note, %status, "event not written");
}

/// Events about cluster-scoped objects live in `default`, as upstream has them.
fn namespace(note: &Note) -> &str {
    if note.subject.key.namespace.is_empty() { "default" } else { &note.subject.key.namespace }
}

fn event_name(note: &Note, component: &str, now: Timestamp) -> String {
    let mut hasher = DefaultHasher::new();
    (component, &note.subject.uid, note.reason, &note.message).hash(&mut hasher);
    now.as_nanosecond().hash(&mut hasher);
    format!("{}.{:016x}", note.subject.key.name, hasher.finish())
}

fn event(note: &Note, component: &str, name: &str, now: Timestamp) -> Object {
    let subject = &note.subject;
    let mut involved = json!({
        "kind": subject.kind.kind,
        "name": &*subject.key.name,
        "uid": subject.uid,
        "apiVersion": subject.kind.api_version(),
        "resourceVersion": subject.resource_version,
    });
    if !subject.key.namespace.is_empty() {
        involved["namespace"] = json!(&*subject.key.namespace);
    }
    let value = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace(note)},
        "involvedObject": involved,
        "reason": note.reason,
        "message": note.message,
        "type": if note.warning { "Warning" } else { "Normal" },
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
        "firstTimestamp": seconds(now),
        "lastTimestamp": seconds(now),
        "eventTime": null,
        "count": 1,
    });
    Object::from_value(value).expect("made as an object")
}

fn repeat(note: &Note, known: &Known) -> Request {
    let patch: Value = json!({"count": known.count, "lastTimestamp": seconds(known.last)});
    Request::patch(EVENTS, namespace(note), &known.name, PatchType::Merge, patch)
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

//! Events about pods and the node, as `kubectl describe` shows them: sent behind the work, counted
//! when they repeat, dropped rather than waited for.

use jiff::Timestamp;
use k8s::{Api, Object, PatchType, Request, Resource};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

const EVENTS: Resource = Resource::new("", "v1", "events");

/// Events that may queue while the API is away; more are dropped.
const QUEUE_MAX: usize = 1024;
/// Different events remembered for counting.
const REMEMBERED_MAX: usize = 4096;

/// Sends events; cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Note>,
    _task: Arc<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Note {
    about: Value,
    namespace: String,
    warning: bool,
    reason: &'static str,
    message: String,
    time: Timestamp,
}

impl Events {
    pub(crate) fn new(api: Arc<dyn Api>, node_name: String) -> Events {
        let (queue, notes) = mpsc::channel(QUEUE_MAX);
        let task = tokio::spawn(send_all(api, node_name, notes));
        Events { queue, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    pub(crate) fn warning(&self, pod: &Pod, reason: &'static str, message: String) {
        self.send(about_pod(pod, None), pod, true, reason, message);
    }

    pub(crate) fn container(
        &self,
        pod: &Pod,
        container: &str,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        self.send(about_pod(pod, Some(container)), pod, warning, reason, message);
    }

    pub(crate) fn node(&self, name: &str, uid: &str, reason: &'static str, message: String) {
        let about = json!({"kind": "Node", "apiVersion": "v1", "name": name, "uid": uid});
        let namespace = "default".to_string();
        self.queue_up(Note {
            about,
            namespace,
            warning: false,
            reason,
            message,
            time: Timestamp::now(),
        });
    }

    fn send(&self, about: Value, pod: &Pod, warning: bool, reason: &'static str, message: String) {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        self.queue_up(Note { about, namespace, warning, reason, message, time: Timestamp::now() });
    }

    fn queue_up(&self, note: Note) {
        if let Err(error) = self.queue.try_send(note) {
            tracing::warn!(%error, "event dropped");
        }
    }
}

fn about_pod(pod: &Pod, container: Option<&str>) -> Value {
    let meta = &pod.metadata;
    let mut about = json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
    });
    if let Some(container) = container {
        let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let field = if init.into_iter().any(|one| one.name == container) {
            "initContainers"
        } else {
            "containers"
        };
        about["fieldPath"] = json!(format!("spec.{field}{{{container}}}"));
    }
    about
}

/// Name and count of events already in the API, oldest first.
#[derive(Default)]
struct Seen {
    counts: BTreeMap<String, (String, u32)>,
    order: VecDeque<String>,
}

async fn send_all(api: Arc<dyn Api>, node_name: String, mut notes: mpsc::Receiver<Note>) {
    let mut seen = Seen::default();
    while let Some(note) = notes.recv().await {
        let key = format!(
            "{}{}{}{}",
            note.about["uid"], note.about["fieldPath"], note.reason, note.message
        );
        if let Some((name, count)) = seen.counts.get_mut(&key) {
            *count += 1;
            let patch = json!({"count": count, "lastTimestamp": whole_seconds(note.time)});
            let request = Request::patch(EVENTS, &note.namespace, name, PatchType::Merge, patch);
            match api.call(request).await {
                Err(status) if status.is_not_found() => drop(seen.counts.remove(&key)),
                _ => continue,
            }
        }
        let (name, object) = event(&note, &node_name);
        match api.call(Request::create(EVENTS, object)).await {
            Ok(_) => remember(&mut seen, key, name),
            Err(status) => tracing::debug!(%status, reason = note.reason, "event refused"),
        }
    }
}

fn remember(seen: &mut Seen, key: String, name: String) {
    seen.order.push_back(key.clone());
    seen.counts.insert(key, (name, 1));
    if seen.order.len() > REMEMBERED_MAX
        && let Some(oldest) = seen.order.pop_front()
    {
        seen.counts.remove(&oldest);
    }
}

fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn event(note: &Note, node_name: &str) -> (String, Object) {
    let subject = note.about["name"].as_str().unwrap_or_default();
    let name = format!("{subject}.{:x}", note.time.as_nanosecond());
    let time = whole_seconds(note.time);
    let value = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": note.namespace},
        "involvedObject": note.about,
        "reason": note.reason,
        "message": note.message,
        "type": if note.warning { "Warning" } else { "Normal" },
        "source": {"component": "kubelet", "host": node_name},
        "reportingComponent": "kubelet",
        "reportingInstance": node_name,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    });
    (name, Object::from_value(value).unwrap_or_default())
}

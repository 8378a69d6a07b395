//! The pods bound to this node: one worker each, fed by a watch, and what they share.

mod amount;
mod backoff;
mod check;
mod container;
mod env;
mod events;
mod files;
mod jobs;
mod plan;
mod probes;
mod sources;
mod status;
mod tokens;
mod volumes;
mod worker;
mod writer;

pub(crate) use events::Events;
pub(crate) use files::Dns;
pub(crate) use sources::Library;
pub(crate) use writer::PODS;

use crate::{images::Images, metrics::Metrics, runtime::Runtime};
use async_trait::async_trait;
use env::Facts;
use futures::StreamExt;
use k8s::{Api, Object, Revision, Status, WatchEvent, WatchRequest};
use k8s_openapi::api::core::v1::Pod;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, broadcast, watch},
    task::JoinSet,
};
use volumes::Volumes;
use worker::{Order, Worker};

/// Joins pods to the cluster's network.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// The pod's address, once it can be reached there. Idempotent.
    async fn attach(&self, pod: &Pod, namespace: &Path) -> Result<String, String>;

    async fn detach(&self, pod: &Pod) -> Result<(), String>;

    /// Lets go of every pod that is not among these uids.
    async fn retain(&self, living: &BTreeSet<String>) -> Result<(), String>;

    /// The address an earlier [`PodNetwork::attach`] gave, if the pod still has it.
    fn address(&self, uid: &str) -> Option<String>;

    /// Pods can be joined and services reached.
    fn is_ready(&self) -> bool;
}

/// CPU and memory of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) cpus: i64,
    pub(crate) memory_bytes: i64,
}

/// What all pods of the node share.
pub(crate) struct Context {
    pub(crate) api: Arc<dyn Api>,
    /// Reads what pods refer to.
    pub(crate) library: Library,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<Images>,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) node_name: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) dns: Dns,
    pub(crate) capacity: Capacity,
    pub(crate) started: tokio::time::Instant,
}

impl Context {
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn volumes(&self, pod: &Pod) -> Volumes {
        Volumes::new(&self.data_dir, pod.metadata.uid.as_deref().unwrap_or_default())
    }

    fn etc_directory(&self, uid: &str) -> PathBuf {
        self.data_dir.join("etc").join(uid)
    }

    /// `logs/NAMESPACE_NAME_UID`.
    pub(crate) fn log_directory(&self, pod: &Pod) -> PathBuf {
        let meta = &pod.metadata;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let name = format!("{}_{}_{}", text(&meta.namespace), text(&meta.name), text(&meta.uid));
        self.data_dir.join("logs").join(name)
    }

    /// `CONTAINER/ATTEMPT.log` below the pod's.
    pub(crate) fn log_file(&self, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
        self.log_directory(pod).join(container).join(format!("{attempt}.log"))
    }

    fn facts(&self, pod_ip: &str) -> Facts {
        Facts {
            pod_ip: pod_ip.to_string(),
            host_ip: self.node_ip.to_string(),
            node_cpu_milli: self.capacity.cpus * 1000,
            node_memory_bytes: self.capacity.memory_bytes,
        }
    }

    /// The address of a pod whose sandbox was found running.
    async fn address_of(&self, pod: &Pod) -> Option<String> {
        if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
            return Some(self.node_ip.to_string());
        }
        self.network.address(pod.metadata.uid.as_deref().unwrap_or_default())
    }
}

/// Every pod bound to this node, as last seen.
#[derive(Clone, Default)]
pub(crate) struct Table(Arc<Mutex<BTreeMap<String, Arc<Pod>>>>);

impl Table {
    pub(crate) fn all(&self) -> Vec<Arc<Pod>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.all().into_iter().find(|pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.metadata.name.as_deref() == Some(name)
        })
    }

    fn put(&self, uid: &str, pod: Option<Arc<Pod>>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pod {
            Some(pod) => table.insert(uid.to_string(), pod),
            None => table.remove(uid),
        };
    }
}

struct Handle {
    orders: watch::Sender<Order>,
    wake: Arc<Notify>,
}

type Changes = broadcast::Receiver<crate::runtime::Change>;

/// Feeds the workers.
pub(crate) struct Manager {
    context: Arc<Context>,
    table: Table,
    workers: BTreeMap<String, Handle>,
    tasks: JoinSet<()>,
    uids: HashMap<tokio::task::Id, String>,
    /// Up to which every change has been seen; `None` until the first list is complete.
    seen: Option<Revision>,
}

/// Pause before a broken watch is started again.
const WATCH_RETRY: Duration = Duration::from_millis(500);

impl Manager {
    pub(crate) fn new(context: Arc<Context>, table: Table) -> Manager {
        Manager {
            context,
            table,
            workers: BTreeMap::new(),
            tasks: JoinSet::new(),
            uids: HashMap::new(),
            seen: None,
        }
    }

    /// Until dropped. Pods keep running without it.
    pub(crate) async fn run(mut self) {
        let mut changes = self.context.runtime.changes();
        loop {
            if let Err(status) = self.follow(&mut changes).await {
                tracing::warn!(%status, "watch of pods");
                if status.is_expired() {
                    self.seen = None;
                }
            }
            let pause = tokio::time::sleep(WATCH_RETRY);
            self.tend_until(&mut changes, pause).await;
        }
    }

    async fn follow(&mut self, changes: &mut Changes) -> Result<(), Status> {
        let request = WatchRequest {
            resource: PODS,
            namespace: String::new(),
            label_selector: None,
            field_selector: Some(format!("spec.nodeName={}", self.context.node_name)),
            after: self.seen,
        };
        let mut listed: Option<Vec<String>> = self.seen.is_none().then(Vec::new);
        let api = self.context.api.clone();
        let mut events = self.tend_until(changes, api.watch(request)).await?;
        loop {
            match self.tend_until(changes, events.next()).await {
                None => return Ok(()),
                Some(event) => self.take(event?, &mut listed).await,
            }
        }
    }

    /// Waits for `work`, and looks after the workers meanwhile: masters may be away for long.
    async fn tend_until<T>(&mut self, changes: &mut Changes, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            let running = i64::try_from(self.workers.len()).unwrap_or(i64::MAX);
            self.context.metrics.running_pods.set(running);
            tokio::select! {
                done = &mut work => return done,
                Some(ended) = self.tasks.join_next_with_id() => {
                    let id = match ended {
                        Ok((id, ())) => id,
                        Err(error) => {
                            tracing::error!(%error, "a pod's worker died");
                            error.id()
                        }
                    };
                    if let Some(uid) = self.uids.remove(&id) {
                        self.ended(&uid);
                    }
                },
                change = changes.recv() => match change {
                    Ok(change) => if let Some(handle) = self.workers.get(&change.pod_uid) {
                        handle.wake.notify_one();
                    },
                    // Hints were lost: look at all.
                    Err(_) => self.workers.values().for_each(|handle| handle.wake.notify_one()),
                },
            }
        }
    }

    async fn take(&mut self, event: WatchEvent, listed: &mut Option<Vec<String>>) {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                match listed {
                    // Not every change up to this one has been seen before the first list ends.
                    Some(listed) => listed.push(object.uid().to_string()),
                    None => self.saw(object.revision()),
                }
                self.update(&object, false);
            }
            WatchEvent::Deleted(object) => {
                if listed.is_none() {
                    self.saw(object.revision());
                }
                self.update(&object, true);
            }
            WatchEvent::Bookmark { revision, initial_events_end } => {
                if initial_events_end && let Some(listed) = listed.take() {
                    self.reconcile(&listed).await;
                }
                if listed.is_none() {
                    self.saw(Some(revision));
                }
            }
        }
    }

    fn saw(&mut self, revision: Option<Revision>) {
        self.seen = revision.max(self.seen);
    }

    fn update(&mut self, object: &Object, deleted: bool) {
        let uid = object.uid().to_string();
        let pod: Pod = match serde_json::from_value(object.clone().into_value()) {
            Ok(pod) => pod,
            Err(error) => {
                tracing::error!(pod = object.name(), %error, "unreadable pod");
                return;
            }
        };
        let order = Order { pod: Arc::new(pod), orphaned: deleted };
        if let Some(handle) = self.workers.get(&uid) {
            self.table.put(&uid, (!deleted).then(|| order.pod.clone()));
            let _ = handle.orders.send(order);
            return;
        }
        if deleted {
            self.table.put(&uid, None);
            return;
        }
        self.table.put(&uid, Some(order.pod.clone()));
        self.spawn(uid, order);
    }

    fn spawn(&mut self, uid: String, order: Order) {
        let wake = Arc::new(Notify::new());
        let (orders, receiver) = watch::channel(order);
        let worker = Worker::new(self.context.clone(), receiver, wake.clone());
        self.workers.insert(uid.clone(), Handle { orders, wake });
        let task = self.tasks.spawn(worker.run());
        self.uids.insert(task.id(), uid);
    }

    fn ended(&mut self, uid: &str) {
        self.workers.remove(uid);
        self.table.put(uid, None);
    }

    /// After a full list: what is not in it is gone from the API, and what the runtime has beyond
    /// that nobody wants any more.
    async fn reconcile(&mut self, listed: &[String]) {
        let listed: BTreeSet<&String> = listed.iter().collect();
        for (uid, handle) in &self.workers {
            if !listed.contains(uid) {
                handle.orders.send_modify(|order| order.orphaned = true);
            }
        }
        let mut found = self.context.runtime.sandboxes().await.unwrap_or_default();
        found.retain(|one| !self.workers.contains_key(&one.spec.uid));
        let mut living: BTreeSet<String> = self.workers.keys().cloned().collect();
        living.extend(found.iter().map(|one| one.spec.uid.clone()));
        if let Err(why) = self.context.network.retain(&living).await {
            tracing::warn!(why, "addresses of pods that are gone");
        }
        for sandbox in found {
            tracing::info!(pod = sandbox.spec.name, uid = sandbox.spec.uid, "killing an orphan");
            let order = Order { pod: Arc::new(orphan(&sandbox.spec)), orphaned: true };
            self.spawn(sandbox.spec.uid, order);
        }
    }
}

/// As much of a pod as is needed to end it.
fn orphan(spec: &crate::runtime::SandboxSpec) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.uid = Some(spec.uid.clone());
    pod.metadata.name = Some(spec.name.clone());
    pod.metadata.namespace = Some(spec.namespace.clone());
    pod.spec = Some(k8s_openapi::api::core::v1::PodSpec {
        host_network: Some(spec.host_network),
        ..Default::default()
    });
    pod
}

/// Undoes the mounts in the volumes of all pods, and removes them.
pub(crate) fn remove_volumes(data_dir: &Path) {
    for entry in std::fs::read_dir(data_dir.join("volumes")).into_iter().flatten().flatten() {
        if let Some(uid) = entry.file_name().to_str()
            && let Err(error) = Volumes::new(data_dir, uid).remove()
        {
            tracing::warn!(uid, %error, "volumes not removed");
        }
    }
}

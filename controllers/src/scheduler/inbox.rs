//! Between the cache, which tells of changes under its lock, and the scheduler, which takes them when
//! it can. Holds at most one entry for each object, so it needs no bound of its own.

use super::node::Facts;
use super::pod::{Pod, PodKey};
use super::selector::Selector;
use super::state::Change;
use k8s::Object;
use k8s_openapi::api::core::v1 as core;
use reconcile::{CacheBuilder, Derived, Key, Kind, KindInfo, View, kinds};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// What the scheduler looks at.
pub(crate) const KINDS: [KindInfo; 4] =
    [kinds::NAMESPACES, kinds::NODES, kinds::PODS, kinds::SERVICES];

/// Clones share what is in it: one is the cache's view, another the driver's.
#[derive(Clone, Default)]
pub(crate) struct Inbox(Arc<Shared>);

#[derive(Default)]
struct Shared {
    changes: Mutex<Changes>,
    arrived: Notify,
}

/// Newest change by object, and the objects in the order in which they first changed.
#[derive(Default)]
struct Changes {
    newest: BTreeMap<(KindInfo, Key), (u64, reconcile::Change)>,
    count: u64,
}

impl View for Inbox {
    fn observe(&mut self, change: &reconcile::Change) {
        if !KINDS.contains(&change.kind) {
            return;
        }
        let mut changes = self.lock();
        changes.count += 1;
        let count = changes.count;
        let slot = changes.newest.entry((change.kind, change.key().clone()));
        slot.and_modify(|(_, newest)| *newest = change.clone())
            .or_insert_with(|| (count, change.clone()));
        drop(changes);
        self.0.arrived.notify_one();
    }
}

impl Inbox {
    /// Has a cache watch what the scheduler looks at, and tell an inbox of it.
    pub(crate) fn of(cache: CacheBuilder) -> (CacheBuilder, Inbox) {
        let inbox = Inbox::default();
        let cache = cache.kinds(KINDS).derive(kinds::PODS, pod).view(inbox.clone());
        (cache, inbox)
    }

    /// Resolves once there is something to take that came after the last [`Inbox::take`].
    pub(crate) async fn arrived(&self) {
        self.0.arrived.notified().await;
    }

    /// Everything in it, in order of arrival.
    pub(crate) fn take(&self) -> Vec<Change> {
        let newest = std::mem::take(&mut self.lock().newest);
        let mut changes: Vec<_> = newest.into_values().collect();
        changes.sort_by_key(|(count, _)| *count);
        changes.into_iter().filter_map(|(_, change)| parse(change)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.0.changes.lock().expect("nothing panics while it holds the lock")
    }
}

/// The cache keeps less of a pod than the scheduler asks for.
fn pod(object: &Object) -> Option<Derived> {
    match core::Pod::decode(object) {
        Ok(pod) => Some(Arc::new(Pod::of(&pod)?)),
        Err(error) => {
            let (namespace, name) = (object.namespace(), object.name());
            tracing::error!(namespace, name, %error, "a pod does not decode; it is not scheduled");
            None
        }
    }
}

fn parse(change: reconcile::Change) -> Option<Change> {
    let key = change.key().clone();
    let name = key.name.to_string();
    let of_namespace =
        || PodKey { namespace: key.namespace.to_string(), name: key.name.to_string() };
    if change.kind == kinds::PODS {
        let key = of_namespace();
        let pod = change.new.and_then(|entry| entry.into_derived::<Pod>());
        Some(Change::Pod(key, pod.map(|pod| Box::new(Arc::unwrap_or_clone(pod)))))
    } else if change.kind == kinds::NODES {
        let facts = change.new_as::<core::Node>().and_then(Facts::of).map(|(_, facts)| facts);
        Some(Change::Node(name, facts))
    } else if change.kind == kinds::NAMESPACES {
        let namespace = change.new_as::<core::Namespace>();
        let labels = namespace.map(|one| one.metadata.labels.clone().unwrap_or_default());
        Some(Change::Namespace(name, labels))
    } else if change.kind == kinds::SERVICES {
        let spec = change.new_as::<core::Service>().and_then(|service| service.spec.as_ref());
        let selector = spec.and_then(|spec| spec.selector.as_ref()).filter(|all| !all.is_empty());
        Some(Change::Service(of_namespace(), selector.map(Selector::of_labels)))
    } else {
        None
    }
}

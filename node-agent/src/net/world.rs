//! The services, endpoints and nodes of the cluster as this node last heard of them. It stays as it
//! is while no master answers.

use super::routes::Node;
use crate::proxy::{Service, Services, Slice};
use futures::{StreamExt, future::BoxFuture};
use k8s::{Api, Object, Resource, Revision, Status, WatchEvent, WatchRequest};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};
use tokio::sync::watch;

const SERVICES: Resource = Resource::new("", "v1", "services");
const SLICES: Resource = Resource::new("discovery.k8s.io", "v1", "endpointslices");
const NODES: Resource = Resource::new("", "v1", "nodes");
/// Pause before a watch that failed is begun again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Objects by `namespace/name`, or `name`.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) services: Services,
    pub(super) nodes: BTreeMap<String, Node>,
    services_complete: bool,
    slices_complete: bool,
    pub(super) nodes_complete: bool,
}

impl World {
    /// Rules made before would take away what an earlier agent had set up.
    pub(super) fn services_complete(&self) -> bool {
        self.services_complete && self.slices_complete
    }
}

/// The world, and word of its changes.
#[derive(Clone)]
pub(super) struct Shared {
    world: Arc<RwLock<World>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared { world: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marked as changed from the start.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        let mut receiver = self.changed.subscribe();
        receiver.mark_changed();
        receiver
    }

    /// Wakes everyone who plans from the world.
    pub(super) fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.write().unwrap_or_else(PoisonError::into_inner));
        self.touch();
    }

    /// The watches that keep the world true; each runs until dropped.
    pub(super) fn follow(&self, api: &Arc<dyn Api>) -> [BoxFuture<'static, ()>; 3] {
        let (services, slices, nodes) = (self.clone(), self.clone(), self.clone());
        [
            Box::pin(follow(api.clone(), SERVICES, move |update| services.services(update))),
            Box::pin(follow(api.clone(), SLICES, move |update| slices.slices(update))),
            Box::pin(follow(api.clone(), NODES, move |update| nodes.nodes(update))),
        ]
    }

    fn services(&self, update: Update) {
        self.change(|world| {
            world.services_complete = true;
            update.apply(&mut world.services.services, |object| Service::read(object).ok());
        });
    }

    fn slices(&self, update: Update) {
        self.change(|world| {
            world.slices_complete = true;
            update.apply(&mut world.services.slices, |object| Slice::read(object).ok());
        });
    }

    /// Nodes change with every heartbeat that touches their status; only what routing needs of them
    /// is a change here.
    fn nodes(&self, update: Update) {
        let mut nodes = self.read().nodes.clone();
        update.apply(&mut nodes, |object| Some(Node::read(object)));
        let world = self.read();
        if world.nodes != nodes || !world.nodes_complete {
            drop(world);
            self.change(|world| {
                world.nodes_complete = true;
                world.nodes = nodes;
            });
        }
    }
}

/// What a watch says, in two words instead of four.
enum Update {
    /// Everything there is.
    All(Vec<Arc<Object>>),
    Set(Arc<Object>),
    Remove(Arc<Object>),
}

impl Update {
    fn apply<T>(self, map: &mut BTreeMap<String, T>, read: impl Fn(&Object) -> Option<T>) {
        let entry = |object: &Arc<Object>| {
            let value = read(object);
            if value.is_none() {
                tracing::warn!(object = key(object), "unreadable object left out");
            }
            Some((key(object), value?))
        };
        match self {
            Update::All(objects) => *map = objects.iter().filter_map(entry).collect(),
            Update::Set(object) => map.extend(entry(&object)),
            Update::Remove(object) => drop(map.remove(&key(&object))),
        }
    }
}

fn key(object: &Object) -> String {
    match object.namespace() {
        "" => object.name().to_string(),
        namespace => format!("{namespace}/{}", object.name()),
    }
}

/// Tells `apply` of everything there is, then of each change, for ever.
async fn follow(api: Arc<dyn Api>, resource: Resource, apply: impl Fn(Update)) {
    let mut after = None;
    loop {
        if let Err(status) = follow_once(api.as_ref(), &resource, &mut after, &apply).await {
            tracing::debug!(%resource, %status, "watch ended");
            if status.is_expired() {
                after = None;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

async fn follow_once(
    api: &dyn Api,
    resource: &Resource,
    after: &mut Option<Revision>,
    apply: &impl Fn(Update),
) -> Result<(), Status> {
    let request = WatchRequest {
        resource: resource.clone(),
        namespace: String::new(),
        label_selector: None,
        field_selector: None,
        after: *after,
    };
    let mut events = api.watch(request).await?;
    let mut initial = after.is_none().then(Vec::new);
    while let Some(event) = events.next().await {
        let (object, update): (_, fn(Arc<Object>) -> Update) = match event? {
            WatchEvent::Bookmark { revision, initial_events_end } => {
                if initial_events_end && let Some(objects) = initial.take() {
                    apply(Update::All(objects));
                }
                if initial.is_none() {
                    *after = Some(revision);
                }
                continue;
            }
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, Update::Set),
            WatchEvent::Deleted(object) => (object, Update::Remove),
        };
        match &mut initial {
            Some(objects) => objects.push(object),
            None => {
                *after = object.revision().or(*after);
                apply(update(object));
            }
        }
    }
    Ok(())
}

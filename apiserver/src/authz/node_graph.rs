//! Which node may see what because of its pods: an index over the applied state, brought up to date
//! by the changes since it was last asked. Made when the first node asks.

use futures::FutureExt;
use raft_store::{Change, Store, Stored, Watch};
use serde::Deserialize;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

const PODS: &str = "pods";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Resource, namespace and name of what a pod refers to.
type Reference = (&'static str, String, String);

pub(super) struct Graph {
    store: Store,
    index: Mutex<Option<Index>>,
}

/// Up to date with the watch's position.
struct Index {
    store: Store,
    watch: Watch,
    nodes: HashMap<String, OnNode>,
    /// Where each pod is counted, by path.
    pods: HashMap<Arc<str>, Placed>,
}

#[derive(Default)]
struct OnNode {
    pods: BTreeSet<Arc<str>>,
    /// How many pods refer to it.
    references: HashMap<Reference, usize>,
}

struct Placed {
    node: String,
    references: BTreeSet<Reference>,
}

impl Graph {
    pub(super) fn new(store: Store) -> Graph {
        Graph { store, index: Mutex::new(None) }
    }

    /// True if a pod on the node refers to it.
    pub(super) fn refers(
        &self,
        node: &str,
        resource: &'static str,
        namespace: &str,
        name: &str,
    ) -> bool {
        let reference = (resource, namespace.to_string(), name.to_string());
        self.ask(node, |on| on.references.contains_key(&reference)).unwrap_or(false)
    }

    pub(super) fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        let path: Arc<str> = format!("{namespace}/{name}").into();
        self.ask(node, |on| on.pods.contains(&path)).unwrap_or(false)
    }

    /// The volume claims of the node's pods, as namespace and name.
    pub(super) fn claims(&self, node: &str) -> Vec<(String, String)> {
        let claims = |on: &OnNode| {
            let all = on.references.keys().filter(|(kind, ..)| *kind == "persistentvolumeclaims");
            all.map(|(_, namespace, name)| (namespace.clone(), name.clone())).collect()
        };
        self.ask(node, claims).unwrap_or_default()
    }

    /// `None`: nothing is on the node.
    fn ask<T>(&self, node: &str, question: impl FnOnce(&OnNode) -> T) -> Option<T> {
        let mut slot = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let current = slot.as_mut().is_some_and(Index::catch_up);
        if !current {
            *slot = Index::build(&self.store);
        }
        slot.as_ref()?.nodes.get(node).map(question)
    }
}

impl Index {
    /// `None` while the store is stopping.
    fn build(store: &Store) -> Option<Index> {
        let watch = store.watch(PODS, "", store.revision()).ok()?;
        let store = store.clone();
        let mut index = Index { store, watch, nodes: HashMap::new(), pods: HashMap::new() };
        // At least as new as the watch's beginning: what comes twice counts once.
        for stored in index.store.clone().range(PODS, "", None, None).items {
            index.put(&stored);
        }
        Some(index)
    }

    /// Takes in what has been applied since; false if that is not known any more.
    fn catch_up(&mut self) -> bool {
        let now = self.store.revision();
        loop {
            let changes = self.watch.next().now_or_never();
            match changes {
                // Nothing new, or only on disk: then the changes are too many to be worth reading.
                None => return self.watch.position() >= now,
                Some(Ok(changes)) => changes.iter().for_each(|change| self.take(change)),
                Some(Err(_)) => return false,
            }
        }
    }

    fn take(&mut self, change: &Change) {
        match &change.new {
            Some(new) => self.put(new),
            None => self.remove(&change.key().path),
        }
    }

    fn put(&mut self, stored: &Stored) {
        self.remove(&stored.key.path);
        let Some(placed) = place(stored) else { return };
        let on = self.nodes.entry(placed.node.clone()).or_default();
        on.pods.insert(stored.key.path.clone());
        for reference in &placed.references {
            *on.references.entry(reference.clone()).or_default() += 1;
        }
        self.pods.insert(stored.key.path.clone(), placed);
    }

    fn remove(&mut self, path: &Arc<str>) {
        let Some(placed) = self.pods.remove(path) else { return };
        let Some(on) = self.nodes.get_mut(&placed.node) else { return };
        on.pods.remove(path);
        for reference in placed.references {
            if let Some(count) = on.references.get_mut(&reference) {
                *count -= 1;
                if *count == 0 {
                    on.references.remove(&reference);
                }
            }
        }
        if on.pods.is_empty() {
            self.nodes.remove(&placed.node);
        }
    }
}

/// Where a pod is and what it refers to; `None` if it gives its node nothing: a pod without a node,
/// or one that the node made up itself.
fn place(stored: &Stored) -> Option<Placed> {
    let pod: Pod = serde_json::from_slice(&stored.body).ok()?;
    if pod.spec.node_name.is_empty() || pod.metadata.annotations.contains_key(MIRROR) {
        return None;
    }
    let namespace = pod.metadata.namespace;
    let mut references = BTreeSet::new();
    let mut refer = |resource: &'static str, name: Option<String>| {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            references.insert((resource, namespace.clone(), name));
        }
    };
    let spec = pod.spec;
    refer("serviceaccounts", Some(spec.service_account_name));
    spec.image_pull_secrets.into_iter().for_each(|it| refer("secrets", it.name));
    let containers =
        spec.init_containers.into_iter().chain(spec.containers).chain(spec.ephemeral_containers);
    for container in containers {
        for from in container.env_from {
            refer("secrets", from.secret_ref.and_then(|it| it.name));
            refer("configmaps", from.config_map_ref.and_then(|it| it.name));
        }
        for from in container.env.into_iter().filter_map(|variable| variable.value_from) {
            refer("secrets", from.secret_key_ref.and_then(|it| it.name));
            refer("configmaps", from.config_map_key_ref.and_then(|it| it.name));
        }
    }
    for volume in spec.volumes {
        if volume.ephemeral.is_some() {
            let claim = format!("{}-{}", pod.metadata.name, volume.name);
            refer("persistentvolumeclaims", Some(claim));
        }
        refer(
            "persistentvolumeclaims",
            volume.persistent_volume_claim.and_then(|it| it.claim_name),
        );
        refer("configmaps", volume.config_map.and_then(|it| it.name));
        for source in [volume.secret, volume.azure_file].into_iter().flatten() {
            refer("secrets", source.secret_name);
        }
        let mounted = [
            volume.cephfs,
            volume.cinder,
            volume.flex_volume,
            volume.iscsi,
            volume.rbd,
            volume.scale_io,
            volume.storageos,
        ];
        for source in mounted.into_iter().flatten() {
            refer("secrets", source.secret_ref.and_then(|it| it.name));
        }
        let csi = volume.csi.and_then(|csi| csi.node_publish_secret_ref);
        refer("secrets", csi.and_then(|it| it.name));
        for source in volume.projected.into_iter().flat_map(|projected| projected.sources) {
            refer("secrets", source.secret.and_then(|it| it.name));
            refer("configmaps", source.config_map.and_then(|it| it.name));
        }
    }
    spec.resource_claims.into_iter().for_each(|it| refer("resourceclaims", it.resource_claim_name));
    let made = pod.status.resource_claim_statuses;
    made.into_iter().for_each(|it| refer("resourceclaims", it.resource_claim_name));
    Some(Placed { node: spec.node_name, references })
}

/// The part of a pod that is looked at; the rest is skipped while reading.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Metadata,
    spec: Spec,
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    annotations: HashMap<String, serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    resource_claim_statuses: Vec<Claim>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
    service_account_name: String,
    image_pull_secrets: Vec<Named>,
    init_containers: Vec<Container>,
    containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
    volumes: Vec<Volume>,
    resource_claims: Vec<Claim>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Claim {
    resource_claim_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    env: Vec<Variable>,
    env_from: Vec<EnvironmentSource>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Variable {
    value_from: Option<EnvironmentSource>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EnvironmentSource {
    secret_ref: Option<Named>,
    config_map_ref: Option<Named>,
    secret_key_ref: Option<Named>,
    config_map_key_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    name: String,
    ephemeral: Option<serde::de::IgnoredAny>,
    persistent_volume_claim: Option<ClaimVolume>,
    config_map: Option<Named>,
    secret: Option<SecretVolume>,
    azure_file: Option<SecretVolume>,
    cephfs: Option<Mounted>,
    cinder: Option<Mounted>,
    flex_volume: Option<Mounted>,
    iscsi: Option<Mounted>,
    rbd: Option<Mounted>,
    #[serde(rename = "scaleIO")]
    scale_io: Option<Mounted>,
    storageos: Option<Mounted>,
    csi: Option<Csi>,
    projected: Option<Projected>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClaimVolume {
    claim_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SecretVolume {
    secret_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mounted {
    secret_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Csi {
    node_publish_secret_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Projected {
    sources: Vec<Source>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Source {
    secret: Option<Named>,
    config_map: Option<Named>,
}

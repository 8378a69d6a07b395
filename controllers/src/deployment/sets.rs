//! The ReplicaSets of a deployment: which is the new one, what a new one looks like, how they are
//! numbered and sized in annotations.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Whole, owner_reference};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

pub(super) const HASH_LABEL: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a deployment that are its own and not its sets'.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

type Annotations = BTreeMap<String, String>;

/// The oldest set that has the deployment's template, its hash label aside.
pub(super) fn newest<'a>(spec: &DeploymentSpec, sets: &[&'a ReplicaSet]) -> Option<&'a ReplicaSet> {
    let wanted = without_hash(&spec.template);
    let same = |set: &&&ReplicaSet| {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.is_some_and(|template| without_hash(template) == wanted)
    };
    let found = sets.iter().filter(same);
    found.copied().min_by_key(|set| (created(set), set.metadata.name.clone()))
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(meta) = &mut template.metadata {
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    }
    template.metadata = template.metadata.filter(|meta| *meta != ObjectMeta::default());
    template
}

pub(super) fn created(set: &ReplicaSet) -> Timestamp {
    set.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// A name for the template: any two templates differ in it, for all practical purposes; the number
/// of collisions seen moves on to the next.
pub(super) fn template_hash(deployment: &Deployment, spec: &DeploymentSpec) -> String {
    let wrapper = Deployment {
        metadata: ObjectMeta::default(),
        spec: Some(DeploymentSpec { template: spec.template.clone(), ..Default::default() }),
        status: None,
    };
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let mut hasher = Sha256::new();
    hasher.update(serde_json::Value::Object(wrapper.encode().0).to_string());
    hasher.update(collisions.unwrap_or(0).to_le_bytes());
    // Upstream's alphabet and about its length: no vowels, so no words.
    let alphabet = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = hasher.finalize();
    digest.iter().take(10).map(|byte| alphabet[usize::from(*byte) % alphabet.len()] as char).collect()
}

/// The set for the deployment's present template.
pub(super) fn make(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    hash: &str,
    replicas: i32,
    max_surge: i32,
    revision: i64,
) -> ReplicaSet {
    let meta = &deployment.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_string(), hash.to_string());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    let match_labels = selector.match_labels.get_or_insert_default();
    match_labels.insert(HASH_LABEL.to_string(), hash.to_string());
    let mut annotations = Annotations::new();
    inherit(&mut annotations, deployment);
    annotations.insert(REVISION.to_string(), revision.to_string());
    size_annotations(&mut annotations, spec, max_surge);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Copies the deployment's annotations that its sets share.
fn inherit(annotations: &mut Annotations, deployment: &Deployment) {
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
}

/// Brings the new set's annotations up to date; `revision` is one above all old sets'.
pub(super) fn renew(set: &mut ReplicaSet, deployment: &Deployment, revision: i64) {
    let before = revision_of(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    inherit(annotations, deployment);
    if before < revision {
        let old = annotations.insert(REVISION.to_string(), revision.to_string());
        if let Some(old) = old.filter(|old| !old.is_empty()) {
            let history = annotations.entry(REVISION_HISTORY.to_string()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&old);
        }
    }
}

pub(super) fn revision_of(set: &ReplicaSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(REVISION)?.parse().ok()).unwrap_or(0)
}

pub(super) fn set_size_annotations(set: &mut ReplicaSet, spec: &DeploymentSpec, max_surge: i32) {
    size_annotations(set.metadata.annotations.get_or_insert_default(), spec, max_surge);
}

/// How big the deployment was when the set was last sized: the base of proportional scaling.
fn size_annotations(annotations: &mut Annotations, spec: &DeploymentSpec, max_surge: i32) {
    let replicas = spec.replicas.unwrap_or(1);
    annotations.insert(DESIRED.to_string(), replicas.to_string());
    annotations.insert(MAX.to_string(), (replicas + max_surge).to_string());
}

pub(super) fn desired_annotation(set: &ReplicaSet) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(DESIRED)?.parse().ok()
}

pub(super) fn max_annotation(set: &ReplicaSet) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(MAX)?.parse().ok()
}

pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

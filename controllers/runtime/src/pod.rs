//! What plans know of a pod, and no more: every master holds all pods, and the API's struct of one
//! takes six times its bytes, mostly for fields that only the node and the scheduler look at. It
//! cannot be encoded, so that nobody writes a pod back without the fields it lacks; who plans by one
//! more field adds it here.

use k8s_openapi::api::core::v1::{
    ContainerPort, PersistentVolumeClaimVolumeSource, PodCondition, PodIP, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// A pod as plans see it. Its metadata and every struct of k8s-openapi in it are complete.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Pod {
    #[serde(default)]
    pub metadata: ObjectMeta,
    pub spec: Option<PodSpec>,
    pub status: Option<PodStatus>,
}

/// The part of `spec` that plans read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    pub containers: Option<Vec<Container>>,
    pub init_containers: Option<Vec<Container>>,
    pub hostname: Option<String>,
    pub node_name: Option<String>,
    pub subdomain: Option<String>,
    pub tolerations: Option<Vec<Toleration>>,
    pub volumes: Option<Vec<Volume>>,
}

/// The part of `spec.containers[]` that plans read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub ports: Option<Vec<ContainerPort>>,
    pub restart_policy: Option<String>,
}

/// The part of `spec.volumes[]` that plans read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    pub ephemeral: Option<Ephemeral>,
}

/// A volume with a claim of its own, named after pod and volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Ephemeral {}

/// The part of `status` that plans read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    pub conditions: Option<Vec<PodCondition>>,
    pub container_statuses: Option<Vec<ContainerStatus>>,
    pub phase: Option<String>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIP>>,
}

/// The part of `status.containerStatuses[]` that plans read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    pub restart_count: i32,
}

impl k8s_openapi::Resource for Pod {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = k8s_openapi::NamespaceResourceScope;
}

impl k8s_openapi::Metadata for Pod {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::Pod;
    use crate::Kind;
    use k8s::Object;
    use serde_json::json;

    /// 10,000 pods are on every master: see `docs/performance.md`.
    #[test]
    fn it_stays_small() {
        assert!(size_of::<Pod>() <= 768, "{} bytes", size_of::<Pod>());
    }

    #[test]
    fn what_plans_read_is_read_and_the_rest_is_not_kept() {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "a", "namespace": "n", "labels": {"app": "web"}},
            "spec": {
                "nodeName": "n1",
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}],
                "initContainers": [{"name": "s", "restartPolicy": "Always", "env": []}],
                "volumes": [
                    {"name": "token", "projected": {"sources": []}},
                    {"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                    {"name": "data", "persistentVolumeClaim": {"claimName": "d"}},
                ],
            },
            "status": {
                "phase": "Running",
                "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}],
                "containerStatuses": [{"name": "c", "restartCount": 3, "state": {"running": {}}}],
            },
        });
        let pod = Pod::decode(&Object::from_value(value).expect("an object")).expect("a pod");
        insta::assert_debug_snapshot!((pod.spec, pod.status));
    }
}

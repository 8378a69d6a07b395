//! Worlds and workloads made by number, for measuring the planner: nothing in them is random, so two
//! runs plan the same.

use super::{Facts, Pod, World};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the pods of a workload ask besides resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing; as replicas of one set they are spread softly.
    Basic,
    /// Zones kept level by a hard constraint.
    Spread,
    /// No two on one node.
    AntiAffinity,
}

impl Ask {
    pub const ALL: [Ask; 3] = [Ask::Basic, Ask::Spread, Ask::AntiAffinity];

    /// As it stands in printed figures.
    pub fn name(self) -> &'static str {
        match self {
            Ask::Basic => "basic",
            Ask::Spread => "topology-spread",
            Ask::AntiAffinity => "anti-affinity",
        }
    }
}

/// `nodes` nodes of 32 cpus, 128 GiB and 110 pods in ten zones.
pub fn hollow_world(nodes: usize) -> World {
    let mut world = World::default();
    for index in 0..nodes {
        let name = format!("node-{index:05}");
        let labels = [
            ("kubernetes.io/hostname".to_string(), name.clone()),
            ("topology.kubernetes.io/zone".to_string(), format!("zone-{}", index % 10)),
        ];
        let node = core::Node {
            metadata: ObjectMeta {
                name: Some(name),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            },
            status: Some(core::NodeStatus {
                allocatable: Some(quantities(&[
                    ("cpu", "32"),
                    ("memory", "128Gi"),
                    ("pods", "110"),
                ])),
                ..core::NodeStatus::default()
            }),
            ..core::Node::default()
        };
        if let Some((name, facts)) = Facts::of(&node) {
            world.set_node(&name, facts);
        }
    }
    world
}

/// `pods` replicas of workloads of 500 each.
pub fn workload(pods: usize, ask: Ask) -> Vec<Arc<Pod>> {
    let pod = |index: usize| {
        let app = format!("app-{}", index / 500);
        let labels: BTreeMap<_, _> = [("app".to_string(), app.clone())].into();
        let mut pod = core::Pod {
            metadata: ObjectMeta {
                name: Some(format!("{app}-{index:06}")),
                namespace: Some("bench".into()),
                uid: Some(index.to_string()),
                labels: Some(labels.clone()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "apps/v1".into(),
                    kind: "ReplicaSet".into(),
                    name: app.clone(),
                    uid: app,
                    controller: Some(true),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: Some(core::PodSpec {
                containers: vec![core::Container {
                    name: "c".into(),
                    image: Some("registry/app:1".into()),
                    resources: Some(core::ResourceRequirements {
                        requests: Some(quantities(&[("cpu", "100m"), ("memory", "256Mi")])),
                        ..core::ResourceRequirements::default()
                    }),
                    ..core::Container::default()
                }],
                ..core::PodSpec::default()
            }),
            ..core::Pod::default()
        };
        if let Some(spec) = &mut pod.spec {
            ask_for(spec, ask, labels);
        }
        Pod::of(&pod).map(Arc::new)
    };
    (0..pods).filter_map(pod).collect()
}

fn ask_for(spec: &mut core::PodSpec, ask: Ask, labels: BTreeMap<String, String>) {
    let selector = Some(LabelSelector { match_labels: Some(labels), match_expressions: None });
    match ask {
        Ask::Basic => (),
        Ask::Spread => {
            spec.topology_spread_constraints = Some(vec![core::TopologySpreadConstraint {
                label_selector: selector,
                max_skew: 1,
                topology_key: "topology.kubernetes.io/zone".into(),
                when_unsatisfiable: "DoNotSchedule".into(),
                ..core::TopologySpreadConstraint::default()
            }]);
        }
        Ask::AntiAffinity => {
            let term = core::PodAffinityTerm {
                label_selector: selector,
                topology_key: "kubernetes.io/hostname".into(),
                ..core::PodAffinityTerm::default()
            };
            spec.affinity = Some(core::Affinity {
                pod_anti_affinity: Some(core::PodAntiAffinity {
                    required_during_scheduling_ignored_during_execution: Some(vec![term]),
                    ..core::PodAntiAffinity::default()
                }),
                ..core::Affinity::default()
            });
        }
    }
}

fn quantities(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    pairs.iter().map(|(name, amount)| (name.to_string(), Quantity(amount.to_string()))).collect()
}

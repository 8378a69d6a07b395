//! A node as the scheduler sees it: what its object says, and what the pods on it have taken.

use super::pod::{HostPort, Pod};
use super::resources::{self, Resources};
use super::selector::Labels;
use k8s_openapi::api::core::v1 as core;
use std::{collections::BTreeMap, sync::Arc};

/// What the Node object says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub labels: Arc<Labels>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub pods_max: i64,
    /// Size in bytes by image name.
    pub images: Arc<BTreeMap<String, i64>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

/// What the pods on a node have taken, kept by addition and subtraction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    pub requests: Resources,
    /// Cpu and memory with something assumed for pods that ask for none: only for scores.
    pub requests_assumed: Resources,
    pub pods: i64,
    /// One entry per pod and port.
    pub ports: Vec<HostPort>,
}

/// A node that a pod may be put on.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    pub name: &'a str,
    pub facts: &'a Facts,
    pub used: &'a Used,
    /// How many nodes have each image, and how many nodes there are.
    pub images: &'a BTreeMap<String, usize>,
    pub nodes: usize,
}

impl Facts {
    /// Name and facts; `None` for an object without a name.
    pub fn of(node: &core::Node) -> Option<(String, Facts)> {
        let spec = node.spec.as_ref();
        let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        let status = node.status.as_ref();
        let allocatable =
            status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let images = status.and_then(|status| status.images.as_ref()).into_iter().flatten();
        let images = images.flat_map(|image| {
            let size = image.size_bytes.unwrap_or_default();
            image.names.iter().flatten().map(move |name| (name.clone(), size))
        });
        let facts = Facts {
            labels: Arc::new(node.metadata.labels.clone().unwrap_or_default()),
            taints: taints.map(Taint::of).collect(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or_default(),
            allocatable: Resources::of(allocatable),
            pods_max: resources::count(allocatable, "pods"),
            images: Arc::new(images.collect()),
        };
        Some((node.metadata.name.clone()?, facts))
    }
}

impl Taint {
    fn of(taint: &core::Taint) -> Taint {
        Taint {
            key: taint.key.clone(),
            value: taint.value.clone().unwrap_or_default(),
            effect: taint.effect.clone(),
        }
    }
}

impl Used {
    pub(crate) fn add(&mut self, pod: &Pod) {
        self.requests.add(&pod.shape.requests);
        self.requests_assumed.add(&pod.shape.requests_assumed);
        self.pods += 1;
        self.ports.extend(pod.shape.ports.iter().cloned());
    }

    /// `pod` was added before.
    pub(crate) fn remove(&mut self, pod: &Pod) {
        self.requests.sub(&pod.shape.requests);
        self.requests_assumed.sub(&pod.shape.requests_assumed);
        self.pods -= 1;
        assert!(self.pods >= 0, "{} was counted when it came", pod.key);
        for port in &pod.shape.ports {
            let at = self.ports.iter().position(|used| used == port);
            self.ports.swap_remove(at.expect("its port was counted when it came"));
        }
    }
}

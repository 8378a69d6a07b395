//! A pod as the scheduler sees it: parsed once per change, shared by everything that looks at it.

use super::resources::{self, Resources};
use super::selector::{Labels, Requirement, Selector};
use k8s::Revision;
use k8s_openapi::api::core::v1 as core;
use std::{collections::BTreeSet, fmt, sync::Arc};

/// Namespace first, so that an ordered map holds each namespace's pods together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub key: PodKey,
    pub uid: String,
    pub revision: Revision,
    pub labels: Labels,
    pub priority: i32,
    /// `spec.nodeName`, once bound.
    pub node: Option<String>,
    pub scheduler: String,
    /// `Succeeded` or `Failed`: its resources are free again.
    pub finished: bool,
    pub deleting: bool,
    /// It has scheduling gates (KEP-3521).
    pub gated: bool,
    /// Kind and uid of the controlling owner.
    pub controller: Option<(String, String)>,
    pub shape: Arc<Shape>,
    pub spread: Vec<Spread>,
    pub terms: Vec<Term>,
    /// `status.conditions[PodScheduled]`: status and message, as last written.
    pub condition: Option<(String, String)>,
}

/// Everything of a pod that one node alone can be judged by. Pods of one workload share it, so a
/// verdict about a node is worked out once for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    pub node_selector: Selector,
    /// Any of these; `None`: no required node affinity.
    pub node_required: Option<Vec<NodeTerm>>,
    pub node_preferred: Vec<(i64, NodeTerm)>,
    pub tolerations: Vec<Toleration>,
    pub ports: Vec<HostPort>,
    pub requests: Resources,
    /// With something assumed for what is not requested: only for scores.
    pub requests_assumed: Resources,
    /// One for each container, with a tag.
    pub images: Vec<String>,
}

/// `nodeSelectorTerms[]`: all of it must hold; an empty one matches no node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    pub labels: Vec<Requirement>,
    /// Only `metadata.name` exists.
    pub fields: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// Empty with `exists`: every key.
    pub key: String,
    pub exists: bool,
    pub value: String,
    /// Empty: every effect.
    pub effect: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// `0.0.0.0` takes the port on every address.
    pub address: String,
    pub protocol: String,
    pub port: i32,
}

/// `topologySpreadConstraints[]` (KEP-895, 3022, 3094, 3243).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    pub topology_key: String,
    pub max_skew: i64,
    /// `DoNotSchedule`.
    pub hard: bool,
    pub selector: Selector,
    pub min_domains: usize,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

/// What a pod affinity term does to the node it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pull {
    Require,
    Forbid,
    /// The weight; negative for anti-affinity.
    Prefer(i64),
}

/// One term of inter-pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    pub pull: Pull,
    pub topology_key: String,
    pub selector: Selector,
    pub namespaces: BTreeSet<String>,
    pub namespace_selector: Option<Selector>,
}

impl Pod {
    /// `None` for an object without a name.
    pub fn of(pod: &core::Pod) -> Option<Pod> {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref()?;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let owners = meta.owner_references.iter().flatten();
        let controller = owners.filter(|owner| owner.controller == Some(true));
        let revision = meta.resource_version.as_deref().and_then(|text| text.parse().ok());
        Some(Pod {
            uid: meta.uid.clone().unwrap_or_default(),
            revision: revision.unwrap_or_default(),
            priority: spec.priority.unwrap_or_default(),
            node: spec.node_name.clone().filter(|name| !name.is_empty()),
            scheduler: spec.scheduler_name.clone().unwrap_or_default(),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            deleting: meta.deletion_timestamp.is_some(),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            controller: controller.map(|owner| (owner.kind.clone(), owner.uid.clone())).next(),
            shape: Arc::new(Shape::of(spec)),
            spread: spread(spec, &labels),
            terms: terms(spec, &namespace, &labels),
            condition: scheduled_condition(pod),
            key: PodKey { namespace, name: meta.name.clone()? },
            labels,
        })
    }
}

impl Shape {
    pub(crate) fn of(spec: &core::PodSpec) -> Shape {
        let selector = spec.node_selector.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref().and_then(|all| all.node_affinity.as_ref());
        let required = affinity
            .and_then(|all| all.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred = affinity
            .and_then(|all| all.preferred_during_scheduling_ignored_during_execution.as_ref());
        let preferred = preferred.into_iter().flatten();
        let images = spec.containers.iter().filter_map(|container| container.image.as_deref());
        Shape {
            node_selector: Selector::of_labels(&selector),
            node_required: required
                .map(|all| all.node_selector_terms.iter().map(NodeTerm::of).collect()),
            node_preferred: preferred
                .map(|term| (i64::from(term.weight), NodeTerm::of(&term.preference)))
                .collect(),
            tolerations: spec.tolerations.iter().flatten().map(Toleration::of).collect(),
            ports: host_ports(spec),
            requests: resources::requests(spec),
            requests_assumed: resources::requests_assumed(spec),
            images: images.map(tagged).collect(),
        }
    }
}

impl NodeTerm {
    fn of(term: &core::NodeSelectorTerm) -> NodeTerm {
        let parse = |list: &Option<Vec<core::NodeSelectorRequirement>>| {
            list.iter().flatten().map(Requirement::from).collect()
        };
        NodeTerm { labels: parse(&term.match_expressions), fields: parse(&term.match_fields) }
    }
}

impl Toleration {
    fn of(from: &core::Toleration) -> Toleration {
        Toleration {
            key: from.key.clone().unwrap_or_default(),
            exists: from.operator.as_deref() == Some("Exists"),
            value: from.value.clone().unwrap_or_default(),
            effect: from.effect.clone().unwrap_or_default(),
        }
    }
}

fn host_ports(spec: &core::PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| resources::is_sidecar(container));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|one| one.ports.iter().flatten());
    let wanted = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let or = |text: &Option<String>, default: &str| {
            text.clone().filter(|text| !text.is_empty()).unwrap_or(default.into())
        };
        Some(HostPort {
            address: or(&port.host_ip, "0.0.0.0"),
            protocol: or(&port.protocol, "TCP"),
            port: number,
        })
    });
    wanted.collect()
}

/// The image name with `:latest` where it has neither tag nor digest.
fn tagged(image: &str) -> String {
    let slash = image.rfind('/').unwrap_or_default();
    if image[slash..].contains(':') { image.to_string() } else { format!("{image}:latest") }
}

fn spread(spec: &core::PodSpec, labels: &Labels) -> Vec<Spread> {
    let parse = |from: &core::TopologySpreadConstraint| {
        let mut selector = Selector::of(from.label_selector.as_ref());
        require(&mut selector, from.match_label_keys.as_deref(), labels, Requirement::equals);
        Spread {
            topology_key: from.topology_key.clone(),
            max_skew: i64::from(from.max_skew),
            hard: from.when_unsatisfiable == "DoNotSchedule",
            selector,
            min_domains: from.min_domains.and_then(|n| n.try_into().ok()).unwrap_or(1),
            honor_affinity: from.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: from.node_taints_policy.as_deref() == Some("Honor"),
        }
    };
    spec.topology_spread_constraints.iter().flatten().map(parse).collect()
}

/// Adds `matchLabelKeys` or `mismatchLabelKeys`: the pod's own values of these labels.
fn require(
    selector: &mut Selector,
    keys: Option<&[String]>,
    labels: &Labels,
    how: fn(&str, &str) -> Requirement,
) {
    let pairs = keys.into_iter().flatten().filter_map(|key| Some((key, labels.get(key)?)));
    for (key, value) in pairs {
        let requirement = how(key, value);
        if !selector.0.contains(&requirement) {
            selector.0.push(requirement);
        }
    }
}

fn terms(spec: &core::PodSpec, namespace: &str, labels: &Labels) -> Vec<Term> {
    let Some(affinity) = &spec.affinity else { return Vec::new() };
    let mut found = Vec::new();
    let mut add = |pull, from: &core::PodAffinityTerm| {
        found.push(term(pull, from, namespace, labels));
    };
    if let Some(affinity) = &affinity.pod_affinity {
        for from in affinity.required_during_scheduling_ignored_during_execution.iter().flatten() {
            add(Pull::Require, from);
        }
        for from in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
            add(Pull::Prefer(from.weight.into()), &from.pod_affinity_term);
        }
    }
    if let Some(affinity) = &affinity.pod_anti_affinity {
        for from in affinity.required_during_scheduling_ignored_during_execution.iter().flatten() {
            add(Pull::Forbid, from);
        }
        for from in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
            add(Pull::Prefer(-i64::from(from.weight)), &from.pod_affinity_term);
        }
    }
    found
}

fn term(pull: Pull, from: &core::PodAffinityTerm, namespace: &str, labels: &Labels) -> Term {
    let mut selector = Selector::of(from.label_selector.as_ref());
    require(&mut selector, from.match_label_keys.as_deref(), labels, Requirement::equals);
    require(&mut selector, from.mismatch_label_keys.as_deref(), labels, Requirement::differs);
    let mut namespaces: BTreeSet<String> = from.namespaces.iter().flatten().cloned().collect();
    if namespaces.is_empty() && from.namespace_selector.is_none() {
        namespaces.insert(namespace.to_string());
    }
    Term {
        pull,
        topology_key: from.topology_key.clone(),
        selector,
        namespaces,
        namespace_selector: from.namespace_selector.as_ref().map(|one| Selector::of(Some(one))),
    }
}

fn scheduled_condition(pod: &core::Pod) -> Option<(String, String)> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let found = conditions.find(|condition| condition.type_ == "PodScheduled")?;
    Some((found.status.clone(), found.message.clone().unwrap_or_default()))
}

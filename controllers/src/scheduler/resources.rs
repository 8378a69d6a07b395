//! Amounts of cpu, memory and everything else that is counted: what a pod asks, what a node has.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Assumed for a container without a cpu request when nodes are scored (never when they are
/// filtered), so that pods without requests still count; upstream's figure.
const CPU_MILLI_ASSUMED: i64 = 100;
/// Likewise for memory, in bytes.
const MEMORY_ASSUMED: i64 = 200 << 20;

/// Quantities by resource; arithmetic saturates, so hostile sizes cannot wrap into small ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Huge pages and extended resources, in whole units.
    pub others: BTreeMap<String, i64>,
}

pub(crate) type Quantities = BTreeMap<String, Quantity>;

impl Resources {
    pub(crate) fn of(quantities: Option<&Quantities>) -> Resources {
        let mut resources = Resources::default();
        for (name, quantity) in quantities.into_iter().flatten() {
            resources.set(name, amount(name, quantity));
        }
        resources
    }

    fn set(&mut self, name: &str, amount: i64) {
        match name {
            "cpu" => self.cpu_milli = amount,
            "memory" => self.memory = amount,
            "ephemeral-storage" => self.ephemeral_storage = amount,
            "pods" => (),
            _ => drop(self.others.insert(name.to_string(), amount)),
        }
    }

    pub fn add(&mut self, more: &Resources) {
        self.cpu_milli = self.cpu_milli.saturating_add(more.cpu_milli);
        self.memory = self.memory.saturating_add(more.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_add(more.ephemeral_storage);
        for (name, amount) in &more.others {
            let sum = self.others.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    pub fn sub(&mut self, less: &Resources) {
        self.cpu_milli = self.cpu_milli.saturating_sub(less.cpu_milli);
        self.memory = self.memory.saturating_sub(less.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_sub(less.ephemeral_storage);
        for (name, amount) in &less.others {
            let sum = self.others.entry(name.clone()).or_default();
            *sum = sum.saturating_sub(*amount);
            if *sum == 0 {
                self.others.remove(name);
            }
        }
    }

    /// The larger of the two, resource by resource.
    fn max(&mut self, other: &Resources) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.others {
            let most = self.others.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }

    pub fn is_zero(&self) -> bool {
        *self == Resources::default()
    }
}

/// Milli-units for cpu, whole units rounded up for the rest; 0 for text that is no quantity.
fn amount(name: &str, quantity: &Quantity) -> i64 {
    let Ok(parsed) = quantity.0.parse::<k8s::quantity::Quantity>() else { return 0 };
    if name == "cpu" { parsed.milli_value() } else { parsed.value() }
}

/// `status.allocatable.pods` and its like: a whole number of a resource.
pub(crate) fn count(quantities: Option<&Quantities>, name: &str) -> i64 {
    quantities.and_then(|all| all.get(name)).map_or(0, |quantity| amount(name, quantity))
}

/// What the pod takes of a node from start to end: its containers and sidecars together, or the
/// hungriest init container with the sidecars started before it, whichever is more, plus overhead
/// (KEP-753). A pod-level request replaces the sum (KEP-2837).
pub(crate) fn requests(spec: &PodSpec) -> Resources {
    total(spec, |container| {
        Resources::of(container.resources.as_ref().and_then(|all| all.requests.as_ref()))
    })
}

/// As [`requests`], with something assumed for containers that name no cpu or memory.
pub(crate) fn requests_assumed(spec: &PodSpec) -> Resources {
    total(spec, |container| {
        let requests = container.resources.as_ref().and_then(|all| all.requests.as_ref());
        let mut resources = Resources::of(requests);
        let named = |name| requests.is_some_and(|all| all.contains_key(name));
        if !named("cpu") {
            resources.cpu_milli = CPU_MILLI_ASSUMED;
        }
        if !named("memory") {
            resources.memory = MEMORY_ASSUMED;
        }
        resources
    })
}

fn total(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut now = of(container);
        if is_sidecar(container) {
            sidecars.add(&now);
            starting.max(&sidecars);
        } else {
            now.add(&sidecars);
            starting.max(&now);
        }
    }
    running.add(&sidecars);
    running.max(&starting);
    let whole_pod = spec.resources.as_ref().and_then(|all| all.requests.as_ref());
    for (name, quantity) in whole_pod.into_iter().flatten() {
        running.set(name, amount(name, quantity));
    }
    running.add(&Resources::of(spec.overhead.as_ref()));
    running
}

/// An init container that keeps running beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

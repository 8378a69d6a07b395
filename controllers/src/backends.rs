//! Which pods stand behind a service, at which ports: the part that EndpointSlices and Endpoints have
//! in common.

use crate::pods;
use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::{Change, Key, Pod, World, key_of};
use std::collections::BTreeMap;

/// One pod behind a service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Backend<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) address: &'a str,
    pub(crate) ports: Vec<Port>,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// The name DNS gives it in a headless service.
    pub(crate) hostname: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) port: i32,
    pub(crate) app_protocol: Option<String>,
}

/// The selector of a service whose backends are pods.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|selector| !selector.is_empty() && !external)
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

pub(crate) fn publishes_unready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// The pods of a service that have an address of the family and have not ended, by name.
pub(crate) fn of<'a>(world: &'a World, service: &'a Service, family: &str) -> Vec<Backend<'a>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let pods = world.in_namespace::<Pod>(namespace).filter(|pod| selects(selector, pod));
    pods.filter_map(|pod| backend(service, pod, family)).collect()
}

fn backend<'a>(service: &'a Service, pod: &'a Pod, family: &str) -> Option<Backend<'a>> {
    if pods::is_terminal(pod) {
        return None;
    }
    let spec = pod.spec.as_ref();
    let subdomain = spec.and_then(|spec| spec.subdomain.as_deref());
    let named = subdomain.is_some() && subdomain == service.metadata.name.as_deref();
    let hostname = spec.and_then(|spec| spec.hostname.as_deref()).filter(|_| named);
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    let mut ports: Vec<Port> = ports.filter_map(|port| port_of(port, pod)).collect();
    ports.sort();
    Some(Backend {
        pod,
        address: address(pod, family)?,
        ports,
        serving: pods::is_ready(pod),
        terminating: pods::is_deleting(pod),
        hostname,
    })
}

fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let many = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut all = many.chain(status.pod_ip.as_deref());
    all.find(|ip| !ip.is_empty() && ip.contains(':') == (family == "IPv6"))
}

fn port_of(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_string());
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: number,
        app_protocol: port.app_protocol.clone(),
    })
}

/// Containers first, then init containers that keep running beside them.
fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().flatten().chain(sidecars);
    let ports = containers.flat_map(|one| one.ports.iter().flatten());
    let mut matching = ports.filter(|port| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    matching.next().map(|port| port.container_port)
}

pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_string()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The services that select a pod, before or after its change. Changes of a pod that cannot be seen
/// in an endpoint wake nobody.
pub(crate) fn services_of_pod(world: &World, change: &Change) -> Vec<Key> {
    let (old, new) = (change.old_as::<Pod>(), change.new_as::<Pod>());
    if let (Some(old), Some(new)) = (old, new)
        && visible(old) == visible(new)
    {
        return Vec::new();
    }
    let services = world.in_namespace::<Service>(&change.key().namespace);
    let selecting = services.filter(|service| {
        selector(service)
            .is_some_and(|selector| old.into_iter().chain(new).any(|pod| selects(selector, pod)))
    });
    selecting.map(key_of).collect()
}

type Visible<'a> = (
    Option<&'a BTreeMap<String, String>>,
    (Option<&'a str>, Option<&'a str>),
    (bool, bool, bool),
    Option<&'a str>,
);

fn visible(pod: &Pod) -> Visible<'_> {
    (
        pod.metadata.labels.as_ref(),
        (address(pod, "IPv4"), address(pod, "IPv6")),
        (pods::is_ready(pod), pods::is_deleting(pod), pods::is_terminal(pod)),
        pods::node_name(pod),
    )
}

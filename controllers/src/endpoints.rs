//! Endpoints: the older, one-object view of a service's pods, for tools that still read it.

use crate::backends::{self, Backend, Port};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Context, Controller, Key, Plan, Root, Wake, World, Write, kinds};
use std::collections::BTreeMap;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "endpoint",
    component: "endpoint-controller",
    root: Root::Each(kinds::SERVICES),
    wakes: &[
        (kinds::SERVICES, Wake::Itself),
        (kinds::PODS, Wake::Map(backends::services_of_pod)),
        (kinds::ENDPOINTS, Wake::Itself),
    ],
    plan,
    ..Controller::BASE
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Upstream's bound; beyond it only EndpointSlices know all.
const ADDRESSES_MAX: usize = 1000;

fn plan(world: &World, key: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let present = world.get::<Endpoints>(key);
    let service = world.get::<Service>(key);
    let service = service.filter(|service| service.metadata.deletion_timestamp.is_none());
    let Some(service) = service else {
        let ours = present.filter(|present| {
            let labels = present.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == MANAGER)
        });
        plan.write(ours.map(Write::delete));
        return plan;
    };
    if backends::selector(service).is_none() {
        return plan;
    }
    let family = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref()?.first().cloned());
    let mut backends = backends::of(world, service, family.as_deref().unwrap_or("IPv4"));
    backends.retain(|one| !one.terminating || backends::publishes_unready(service));
    let truncated = backends.len() > ADDRESSES_MAX;
    backends.truncate(ADDRESSES_MAX);
    let mut wanted = present.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    wanted.metadata.labels = Some(labels(service));
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_string(), "truncated".to_string());
    }
    wanted.metadata.annotations = wanted.metadata.annotations.filter(|all| !all.is_empty());
    wanted.subsets = subsets(service, &backends);
    plan.write(match present {
        Some(present) => Write::patch(present, &wanted),
        None => Some(Write::create(&wanted)),
    });
    plan
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_string(), MANAGER.to_string());
    labels.remove(HEADLESS);
    if backends::is_headless(service) {
        labels.insert(HEADLESS.to_string(), String::new());
    }
    labels
}

fn subsets(service: &Service, backends: &[Backend<'_>]) -> Option<Vec<EndpointSubset>> {
    let mut groups: BTreeMap<&[Port], (Vec<EndpointAddress>, Vec<EndpointAddress>)> =
        BTreeMap::new();
    for backend in backends {
        let (ready, not_ready) = groups.entry(&backend.ports).or_default();
        let ready_now = backend.serving || backends::publishes_unready(service);
        if ready_now { ready } else { not_ready }.push(address(backend));
    }
    let some = |mut list: Vec<EndpointAddress>| {
        list.sort_by(|a, b| a.ip.cmp(&b.ip));
        Some(list).filter(|list| !list.is_empty())
    };
    let subset = |(ports, (ready, not_ready)): (&[Port], _)| EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(not_ready),
        ports: Some(ports.iter().map(port).collect()).filter(|ports: &Vec<_>| !ports.is_empty()),
    };
    Some(groups.into_iter().map(subset).collect()).filter(|all: &Vec<_>| !all.is_empty())
}

fn address(backend: &Backend<'_>) -> EndpointAddress {
    EndpointAddress {
        ip: backend.address.to_string(),
        hostname: backend.hostname.map(str::to_string),
        node_name: crate::pods::node_name(backend.pod).map(str::to_string),
        target_ref: Some(backends::reference(backend.pod)),
    }
}

fn port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        protocol: Some(port.protocol.clone()),
        port: port.port,
        app_protocol: port.app_protocol.clone(),
    }
}

//! The endpoints of Service `default/kubernetes`: the masters that serve the API now.

use crate::ApiAddresses;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as OldPort, EndpointSubset, Endpoints, Namespace,
};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Change, Context, Controller, Key, Plan, Root, Wake, World, Write, kinds};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "kubernetes_service",
    component: "kubernetes-service-controller",
    root: Root::Whole,
    wakes: &[
        (kinds::ENDPOINTS, Wake::Map(whole_if_ours)),
        (kinds::ENDPOINT_SLICES, Wake::Map(whole_if_ours)),
        (kinds::NAMESPACES, Wake::Map(whole_if_default)),
    ],
    workers: 1,
    plan,
    ..Controller::BASE
};

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

fn whole_if_ours(_: &World, change: &Change) -> Vec<Key> {
    let key = change.key();
    let ours = &*key.namespace == NAMESPACE && key.name.starts_with(NAME);
    if ours { vec![Key::whole()] } else { Vec::new() }
}

fn whole_if_default(_: &World, change: &Change) -> Vec<Key> {
    if &*change.key().name == NAMESPACE { vec![Key::whole()] } else { Vec::new() }
}

fn plan(world: &World, _: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(ApiAddresses(addresses)) = world.fact::<ApiAddresses>() else { return plan };
    // Nobody reaches a master at loopback (`coxswain dev --nodes 0`), and Endpoints refuse it.
    let addresses: Vec<&SocketAddr> =
        addresses.iter().filter(|address| !address.ip().is_loopback()).collect();
    // No address is no news: the last ones known stay.
    if addresses.is_empty() || world.get::<Namespace>(&Key::new("", NAMESPACE)).is_none() {
        return plan;
    }
    let mut by_port: BTreeMap<u16, BTreeSet<&SocketAddr>> = BTreeMap::new();
    for address in addresses {
        by_port.entry(address.port()).or_default().insert(address);
    }
    let mut writes = vec![endpoints(world, &by_port)];
    let mut names = BTreeSet::new();
    for (index, (port, masters)) in by_port.iter().enumerate() {
        // One slice has one set of ports; usually all masters serve on the same.
        let name = if index == 0 { NAME.to_string() } else { format!("{NAME}-{port}") };
        writes.push(slice(world, &name, *port, masters));
        names.insert(name);
    }
    let present = world.in_namespace::<EndpointSlice>(NAMESPACE).filter(|slice| {
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        service.is_some_and(|service| service == NAME) && !names.contains(name)
    });
    writes.extend(present.map(|slice| Some(Write::delete(slice))));
    plan.together(writes.into_iter().flatten().collect());
    plan
}

fn endpoints(world: &World, by_port: &BTreeMap<u16, BTreeSet<&SocketAddr>>) -> Option<Write> {
    let subset = |(port, masters): (&u16, &BTreeSet<&SocketAddr>)| EndpointSubset {
        addresses: Some(masters.iter().map(|master| old_address(master)).collect()),
        not_ready_addresses: None,
        ports: Some(vec![OldPort {
            name: Some("https".to_string()),
            port: i32::from(*port),
            protocol: Some("TCP".to_string()),
            app_protocol: None,
        }]),
    };
    let subsets: Vec<EndpointSubset> = by_port.iter().map(subset).collect();
    match world.get::<Endpoints>(&Key::new(NAMESPACE, NAME)) {
        Some(present) => {
            let wanted = Endpoints { subsets: Some(subsets), ..present.clone() };
            Write::patch(present, &wanted)
        }
        None => {
            let skip = "endpointslice.kubernetes.io/skip-mirror";
            let metadata = meta(NAME, skip, "true");
            Some(Write::create(&Endpoints { metadata, subsets: Some(subsets) }))
        }
    }
}

fn old_address(master: &SocketAddr) -> EndpointAddress {
    EndpointAddress { ip: master.ip().to_string(), ..EndpointAddress::default() }
}

fn slice(
    world: &World,
    name: &str,
    port: u16,
    masters: &BTreeSet<&SocketAddr>,
) -> Option<Write> {
    let v6 = masters.iter().all(|master| master.is_ipv6());
    let endpoint = |master: &&SocketAddr| Endpoint {
        addresses: vec![master.ip().to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..Default::default() }),
        ..Endpoint::default()
    };
    let wanted = EndpointSlice {
        metadata: meta(name, SERVICE_NAME, NAME),
        address_type: if v6 { "IPv6" } else { "IPv4" }.to_string(),
        endpoints: Some(masters.iter().filter(|m| m.is_ipv6() == v6).map(endpoint).collect()),
        ports: Some(vec![EndpointPort {
            name: Some("https".to_string()),
            port: Some(i32::from(port)),
            protocol: Some("TCP".to_string()),
            app_protocol: None,
        }]),
    };
    match world.get::<EndpointSlice>(&Key::new(NAMESPACE, name)) {
        None => Some(Write::create(&wanted)),
        Some(present) => {
            let (endpoints, ports) = (wanted.endpoints, wanted.ports);
            Write::patch(present, &EndpointSlice { endpoints, ports, ..present.clone() })
        }
    }
}

fn meta(name: &str, label: &str, value: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(NAMESPACE.to_string()),
        name: Some(name.to_string()),
        labels: Some(BTreeMap::from([(label.to_string(), value.to_string())])),
        ..ObjectMeta::default()
    }
}

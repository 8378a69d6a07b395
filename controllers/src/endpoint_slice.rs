//! EndpointSlices: the addresses of a service's pods, in slices of at most 100, changed as little as
//! possible.

use crate::backends::{self, Backend, Port};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{
    Change, Context, Controller, Key, Note, Plan, Root, Wake, World, Write, kinds,
    owner_reference,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "endpoint_slice",
    component: "endpoint-slice-controller",
    root: Root::Each(kinds::SERVICES),
    wakes: &[
        (kinds::SERVICES, Wake::Itself),
        (kinds::PODS, Wake::Map(backends::services_of_pod)),
        (kinds::ENDPOINT_SLICES, Wake::Map(service_of_slice)),
    ],
    reads: &[kinds::NODES],
    plan,
    ..Controller::BASE
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Upstream's default for `--max-endpoints-per-slice`.
const ENDPOINTS_PER_SLICE: usize = 100;

fn label<'a>(slice: &'a EndpointSlice, key: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn service_of_slice(_: &World, change: &Change) -> Vec<Key> {
    let slices = [change.old_as::<EndpointSlice>(), change.new_as::<EndpointSlice>()];
    let ours = slices.into_iter().flatten().filter(|s| label(s, MANAGED_BY) == Some(MANAGER));
    let names = ours.filter_map(|slice| label(slice, SERVICE_NAME));
    names.map(|name| Key::new(change.key().namespace.clone(), name)).collect()
}

fn plan(world: &World, key: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(service) = world.get::<Service>(key) else { return plan };
    let going = service.metadata.deletion_timestamp.is_some();
    if going || backends::selector(service).is_none() {
        return plan;
    }
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone());
    let families = families.filter(|families| !families.is_empty());
    let families = families.unwrap_or_else(|| vec!["IPv4".to_string()]);
    let mut writes = Vec::new();
    let slices = world.in_namespace::<EndpointSlice>(&key.namespace);
    let ours: Vec<&EndpointSlice> = slices
        .filter(|slice| label(slice, SERVICE_NAME) == Some(&*key.name))
        .filter(|slice| label(slice, MANAGED_BY) == Some(MANAGER))
        .filter(|slice| slice.metadata.deletion_timestamp.is_none())
        .collect();
    for family in &families {
        let present = ours.iter().copied().filter(|slice| slice.address_type == *family);
        let wanted = backends::of(world, service, family);
        writes.extend(reconcile(world, service, family, present.collect(), wanted));
    }
    let strays = ours.iter().filter(|slice| !families.contains(&slice.address_type));
    writes.extend(strays.map(|slice| Write::delete(*slice)));
    plan.together(writes.into_iter().map(|write| with_note(service, write)).collect());
    plan
}

fn with_note(service: &Service, write: Write) -> Write {
    let text = "Error updating Endpoint Slices for Service: {error}";
    write.on_error(Note::warning(service, "FailedToUpdateEndpointSlices", text))
}

/// A slice on its way from what it is to what it shall be.
struct Draft<'a> {
    before: Option<&'a EndpointSlice>,
    ports: Vec<Port>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn reconcile<'a>(
    world: &World,
    service: &Service,
    family: &str,
    present: Vec<&'a EndpointSlice>,
    wanted: Vec<Backend<'_>>,
) -> Vec<Write> {
    // Pods may differ in where a named port leads: one group of slices for each set of ports.
    let mut groups: BTreeMap<Vec<Port>, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for backend in &wanted {
        let uid = backend.pod.metadata.uid.clone().unwrap_or_default();
        let endpoint = endpoint(world, service, backend);
        groups.entry(backend.ports.clone()).or_default().insert(uid, endpoint);
    }
    let mut drafts: Vec<Draft<'a>> = present.into_iter().map(draft).collect();
    for draft in &mut drafts {
        keep_wanted(draft, groups.get_mut(&draft.ports));
    }
    for (ports, missing) in groups {
        place(&mut drafts, &ports, missing.into_values().collect());
    }
    // A service without endpoints keeps one empty slice, so that its absence means something.
    if drafts.iter().all(|draft| draft.endpoints.is_empty()) {
        match drafts.first_mut() {
            Some(_) => (),
            None => drafts.push(Draft {
                before: None,
                ports: Vec::new(),
                endpoints: Vec::new(),
                changed: true,
            }),
        }
        let mut spare = drafts.split_off(1);
        spare.retain(|draft| draft.before.is_some());
        let mut writes: Vec<Write> =
            spare.iter().filter_map(|draft| draft.before).map(Write::delete).collect();
        writes.extend(drafts.iter().filter_map(|draft| write(service, family, draft)));
        return writes;
    }
    let (empty, filled): (Vec<_>, Vec<_>) =
        drafts.into_iter().partition(|draft| draft.endpoints.is_empty());
    let mut writes: Vec<Write> =
        filled.iter().filter_map(|draft| write(service, family, draft)).collect();
    writes.extend(empty.iter().filter_map(|draft| draft.before).map(Write::delete));
    writes
}

fn draft(slice: &EndpointSlice) -> Draft<'_> {
    let ports = slice.ports.iter().flatten().map(|port| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_string()),
        port: port.port.unwrap_or_default(),
        app_protocol: port.app_protocol.clone(),
    });
    let mut ports: Vec<Port> = ports.collect();
    ports.sort();
    let endpoints = slice.endpoints.clone().unwrap_or_default();
    Draft { before: Some(slice), ports, endpoints, changed: false }
}

/// Drops what is wanted no longer, brings up to date what is, and takes that out of `wanted`.
fn keep_wanted(draft: &mut Draft<'_>, wanted: Option<&mut BTreeMap<String, Endpoint>>) {
    let mut none = BTreeMap::new();
    let wanted = wanted.unwrap_or(&mut none);
    let before = draft.endpoints.clone();
    let mut kept = Vec::with_capacity(before.len());
    for endpoint in &before {
        let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
        kept.extend(uid.and_then(|uid| wanted.remove(uid)));
    }
    draft.changed |= kept != before;
    draft.endpoints = kept;
}

/// Puts new endpoints where a slice changes anyway, then where there is room, then in new slices.
fn place(drafts: &mut Vec<Draft<'_>>, ports: &[Port], mut missing: Vec<Endpoint>) {
    missing.sort_by(|a, b| target_name(a).cmp(&target_name(b)));
    missing.reverse();
    let mut order: Vec<usize> =
        (0..drafts.len()).filter(|index| drafts[*index].ports == ports).collect();
    order.sort_by_key(|index| (!drafts[*index].changed, drafts[*index].endpoints.len()));
    for index in order {
        let draft = &mut drafts[index];
        while draft.endpoints.len() < ENDPOINTS_PER_SLICE
            && let Some(endpoint) = missing.pop()
        {
            draft.endpoints.push(endpoint);
            draft.changed = true;
        }
    }
    missing.reverse();
    for chunk in missing.chunks(ENDPOINTS_PER_SLICE) {
        let (ports, endpoints) = (ports.to_vec(), chunk.to_vec());
        drafts.push(Draft { before: None, ports, endpoints, changed: true });
    }
}

fn target_name(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.name.as_deref()
}

fn endpoint(world: &World, service: &Service, backend: &Backend<'_>) -> Endpoint {
    let node = crate::pods::node_name(backend.pod);
    let zone = node.and_then(|node| world.get::<Node>(&Key::new("", node)));
    let zone = zone.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
    let ready = backends::publishes_unready(service) || (backend.serving && !backend.terminating);
    Endpoint {
        addresses: vec![backend.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: backend.hostname.map(str::to_string),
        node_name: node.map(str::to_string),
        target_ref: Some(backends::reference(backend.pod)),
        zone,
        ..Endpoint::default()
    }
}

fn write(service: &Service, family: &str, draft: &Draft<'_>) -> Option<Write> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let labels = labels(service, &name);
    let Some(before) = draft.before else {
        return Some(Write::create(&EndpointSlice {
            metadata: ObjectMeta {
                namespace: service.metadata.namespace.clone(),
                generate_name: Some(format!("{name}-")),
                labels: Some(labels),
                owner_references: Some(vec![owner_reference(service)]),
                ..ObjectMeta::default()
            },
            address_type: family.to_string(),
            endpoints: Some(draft.endpoints.clone()),
            ports: Some(ports(&draft.ports)).filter(|ports| !ports.is_empty()),
        }));
    };
    let mut after = before.clone();
    after.metadata.labels = Some(labels);
    if draft.changed {
        after.endpoints = Some(draft.endpoints.clone());
    }
    Write::patch(before, &after)
}

fn ports(ports: &[Port]) -> Vec<EndpointPort> {
    let port = |port: &Port| EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(port).collect()
}

/// The service's labels and ours.
fn labels(service: &Service, name: &str) -> BTreeMap<String, String> {
    let ours = BTreeSet::from([SERVICE_NAME, MANAGED_BY, HEADLESS]);
    let theirs = service.metadata.labels.clone().unwrap_or_default();
    let mut labels: BTreeMap<String, String> =
        theirs.into_iter().filter(|(key, _)| !ours.contains(key.as_str())).collect();
    labels.insert(SERVICE_NAME.to_string(), name.to_string());
    labels.insert(MANAGED_BY.to_string(), MANAGER.to_string());
    if backends::is_headless(service) {
        labels.insert(HEADLESS.to_string(), String::new());
    }
    labels
}

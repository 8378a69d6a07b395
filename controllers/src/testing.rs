//! Worlds from YAML and plans as text, for the tests of plans.

use crate::{ApiAddresses, RootCa, Settings};
use jiff::Timestamp;
use k8s::Object;
use reconcile::{Context, Controller, Failure, Key, KindInfo, World, kinds};
use std::time::Duration;

/// The time at which plans are made in tests.
pub(crate) const NOW: &str = "2026-01-01T00:10:00Z";

/// A kind that is only known by its metadata.
pub(crate) const SECRETS: KindInfo =
    KindInfo { group: "", version: "v1", plural: "secrets", kind: "Secret", namespaced: true };

const KINDS: &[KindInfo] = &[
    kinds::CLUSTER_ROLES,
    kinds::CONFIG_MAPS,
    kinds::DEPLOYMENTS,
    kinds::ENDPOINTS,
    kinds::ENDPOINT_SLICES,
    kinds::LEASES,
    kinds::NAMESPACES,
    kinds::NODES,
    kinds::PERSISTENT_VOLUMES,
    kinds::PERSISTENT_VOLUME_CLAIMS,
    kinds::PODS,
    kinds::POD_DISRUPTION_BUDGETS,
    kinds::REPLICATION_CONTROLLERS,
    kinds::REPLICA_SETS,
    kinds::SERVICES,
    kinds::SERVICE_ACCOUNTS,
    kinds::STATEFUL_SETS,
    SECRETS,
];

/// A complete world of the YAML documents; uid and resourceVersion are made up where absent.
pub(crate) fn world(yaml: &str) -> World {
    let yaml = format!("\n{yaml}");
    let documents = yaml.split("\n---\n").filter(|document| !document.trim().is_empty());
    let objects: Vec<Object> =
        documents.enumerate().map(|(index, text)| object(index, text)).collect();
    let mut world = World::of(KINDS.iter().copied(), &objects);
    world.set_fact(Settings {
        cluster_cidr: "10.244.0.0/16".to_string(),
        node_cidr_mask: 24,
        node_monitor_grace_period: Duration::from_secs(40),
        terminated_pod_threshold: 1,
    });
    world.set_fact(RootCa("CERTIFICATE".to_string()));
    // The second is nobody's business but its own machine's.
    let addresses = ["10.90.0.11:6443", "127.0.0.1:6443"];
    world.set_fact(ApiAddresses(addresses.map(|text| text.parse().expect("an address")).into()));
    world
}

fn object(index: usize, text: &str) -> Object {
    let value = k8s::decode::yaml_to_value(text.as_bytes());
    let value = value.unwrap_or_else(|error| panic!("not YAML: {error}\n{text}"));
    let mut object = Object::from_value(value).expect("a YAML mapping");
    let name = object.name().to_string();
    let meta = object.metadata_mut();
    meta.entry("uid").or_insert_with(|| format!("uid-{name}").into());
    meta.entry("resourceVersion").or_insert_with(|| (index + 1).to_string().into());
    object
}

pub(crate) fn context() -> Context {
    let now: Timestamp = NOW.parse().expect("a time");
    Context { now, uptime: Duration::from_secs(100), ..Context::default() }
}

/// What `controller` plans for one root, as text.
pub(crate) fn plan(controller: Controller, yaml: &str, namespace: &str, name: &str) -> String {
    plan_in(controller, yaml, namespace, name, &context())
}

pub(crate) fn plan_in(
    controller: Controller,
    yaml: &str,
    namespace: &str,
    name: &str,
    context: &Context,
) -> String {
    let world = world(yaml);
    let text = (controller.plan)(&world, &Key::new(namespace, name), context).to_string();
    if text.is_empty() { "nothing\n".to_string() } else { text }
}

pub(crate) fn failed(reason: &str, message: &str) -> Context {
    let failure = Failure { reason: reason.into(), message: message.into(), attempts: 1 };
    Context { failure: Some(failure), ..context() }
}

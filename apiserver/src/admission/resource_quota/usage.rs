//! How much of what an object uses (upstream's quota evaluators).

use crate::admission::resources::{
    self, List, Side, add, containers, is_extended, is_foreign, list, of_container, of_pod,
};
use k8s::{
    Object,
    quantity::{Format, Quantity},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Kinds that are also counted by their plural alone.
const PLAIN: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// Where the amounts a storage class has to itself end.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// What a pod uses besides being one.
const COMPUTE: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// A pod in a namespace that limits one of these must say how much it wants of it.
const TO_BE_NAMED: &[&str] =
    &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// `count/pods`, `count/deployments.apps`.
fn count_name(space: &str) -> String {
    match space.rsplit_once('/') {
        Some((group, plural)) => format!("count/{plural}.{group}"),
        None => format!("count/{space}"),
    }
}

/// Whether objects of `space` use the resource `name` of a quota.
pub(super) fn tracks(space: &str, name: &str) -> bool {
    if name.starts_with("count/") {
        return name == count_name(space);
    }
    if name == space {
        return PLAIN.contains(&space);
    }
    match space {
        "pods" => {
            COMPUTE.contains(&name)
                || name.starts_with("hugepages-")
                || name.starts_with("requests.hugepages-")
                || (name.starts_with("requests.") && is_foreign(name) && !name.contains(OF_CLASS))
        }
        "services" => matches!(name, "services.nodeports" | "services.loadbalancers"),
        "persistentvolumeclaims" => name == "requests.storage" || name.contains(OF_CLASS),
        _ => false,
    }
}

/// The spaces whose objects use something of what is named.
pub(super) fn spaces<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut spaces = BTreeSet::new();
    for name in names {
        if let Some(counted) = name.strip_prefix("count/") {
            spaces.insert(match counted.split_once('.') {
                Some((plural, group)) => format!("{group}/{plural}"),
                None => counted.to_string(),
            });
        }
        spaces.extend(PLAIN.iter().filter(|space| tracks(space, name)).map(|it| it.to_string()));
    }
    spaces
}

/// True if objects of `space` use nothing but a place each: they need not be looked at.
pub(super) fn is_plain(space: &str) -> bool {
    !matches!(space, "persistentvolumeclaims" | "pods" | "services")
}

fn number(value: i64) -> Quantity {
    Quantity::new(value, Format::DecimalSI)
}

/// What an object of `space` uses of everything.
pub(super) fn of(space: &str, object: &Object, now: jiff::Timestamp) -> List {
    let mut usage = List::from([(count_name(space), number(1))]);
    match space {
        "pods" if counts(object, now) => {
            let mut requests = of_pod(object, Side::Requests);
            let mut limits = of_pod(object, Side::Limits);
            let overhead = list(object.at("/spec/overhead"));
            add(&mut requests, &overhead);
            let limited = overhead.into_iter().filter(|(name, _)| limits.contains_key(name));
            let limited: List = limited.collect();
            add(&mut limits, &limited);
            usage.extend(of_compute(&requests, &limits));
        }
        "pods" => {}
        "services" => usage.extend(of_service(object)),
        "persistentvolumeclaims" => usage.extend(of_claim(object)),
        _ if PLAIN.contains(&space) => {
            usage.insert(space.to_string(), number(1));
        }
        _ => {}
    }
    usage
}

/// False for a pod that has ended, or that should have: it uses only its place in the store.
fn counts(pod: &Object, now: jiff::Timestamp) -> bool {
    if matches!(pod.str_at("/status/phase"), "Succeeded" | "Failed") {
        return false;
    }
    let grace = pod.int_at("/metadata/deletionGracePeriodSeconds");
    let deleted = pod.deletion_timestamp().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match (deleted, grace) {
        (Some(at), Some(grace)) => now <= at + jiff::SignedDuration::from_secs(grace),
        _ => true,
    }
}

fn of_compute(requests: &List, limits: &List) -> List {
    let mut usage = List::from([("pods".to_string(), number(1))]);
    for (name, amount) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                usage.insert(name.clone(), *amount);
                usage.insert(format!("requests.{name}"), *amount);
            }
            huge if huge.starts_with("hugepages-") => {
                usage.insert(name.clone(), *amount);
                usage.insert(format!("requests.{name}"), *amount);
            }
            device if is_extended(device) => {
                usage.insert(format!("requests.{name}"), *amount);
            }
            _ => {}
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

fn of_service(service: &Object) -> List {
    let ports = service.at("/spec/ports").and_then(Value::as_array);
    let all = ports.map_or(0, Vec::len) as i64;
    let set = ports.into_iter().flatten().filter(|port| {
        port.get("nodePort").and_then(Value::as_i64).is_some_and(|number| number != 0)
    });
    let kind = service.str_at("/spec/type");
    let frugal = service.at("/spec/allocateLoadBalancerNodePorts") == Some(&Value::Bool(false));
    let node_ports = match kind {
        "NodePort" => all,
        "LoadBalancer" if frugal => set.count() as i64,
        "LoadBalancer" => all,
        _ => 0,
    };
    List::from([
        ("services".to_string(), number(1)),
        ("services.loadbalancers".to_string(), number(i64::from(kind == "LoadBalancer"))),
        ("services.nodeports".to_string(), number(node_ports)),
    ])
}

fn of_claim(claim: &Object) -> List {
    let mut usage = List::from([("persistentvolumeclaims".to_string(), number(1))]);
    let asked = list(claim.at("/spec/resources/requests")).get("storage").copied();
    // While a claim is being made larger or smaller, the larger of both counts (KEP-1790).
    let given = list(claim.at("/status/allocatedResources")).get("storage").copied();
    let storage = asked.into_iter().chain(given).max();
    if let Some(storage) = storage {
        usage.insert("requests.storage".into(), storage);
    }
    let class = match claim.annotation("volume.beta.kubernetes.io/storage-class") {
        Some(class) => class,
        None => claim.str_at("/spec/storageClassName"),
    };
    if !class.is_empty() {
        usage.insert(format!("{class}{OF_CLASS}persistentvolumeclaims"), number(1));
        if let Some(storage) = storage {
            usage.insert(format!("{class}{OF_CLASS}requests.storage"), storage);
        }
    }
    usage
}

/// What the containers of a pod must say and do not, in upstream's words.
pub(super) fn unnamed(pod: &Object, restricted: &BTreeSet<&str>) -> Option<String> {
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let wanted = || TO_BE_NAMED.iter().filter(|name| restricted.contains(**name));
    let all = ["containers", "initContainers"].into_iter().flat_map(|field| containers(pod, field));
    for container in all {
        let requests = of_container(container, Side::Requests);
        let limits = of_container(container, Side::Limits);
        let said = of_compute(&requests, &limits);
        for name in wanted().filter(|name| !said.contains_key(**name)) {
            let who = container.get("name").and_then(Value::as_str).unwrap_or_default();
            missing.entry(*name).or_default().insert(who);
        }
    }
    let texts: Vec<String> = missing
        .into_iter()
        .map(|(name, who)| {
            let who: Vec<&str> = who.into_iter().collect();
            format!("{name} for: {}", who.join(","))
        })
        .collect();
    (!texts.is_empty()).then(|| format!("must specify {}", texts.join("; ")))
}

/// `cpu=1,pods=2`: a list as upstream prints it.
pub(super) fn pretty(list: &List) -> String {
    let parts: Vec<String> = list.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    parts.join(",")
}

/// The amounts whose names are in `names`.
pub(super) fn masked(list: &List, names: &BTreeSet<&str>) -> List {
    let kept = list.iter().filter(|(name, _)| names.contains(name.as_str()));
    kept.map(|(name, amount)| (name.clone(), *amount)).collect()
}

/// How much more `new` is than `old`, where it is more.
pub(super) fn increase(new: &List, old: &List) -> List {
    let more = new.iter().map(|(name, amount)| {
        let before = old.get(name).copied().unwrap_or(Quantity::ZERO);
        (name.clone(), amount.sub(before))
    });
    more.filter(|(_, amount)| amount.sign() > 0).collect()
}

/// The sum of two lists.
pub(super) fn sum(left: &List, right: &List) -> List {
    let mut sum = left.clone();
    resources::add(&mut sum, right);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn usage(space: &str, object: Value) -> String {
        let object = Object::from_value(object).expect("an object");
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        pretty(&of(space, &object, now))
    }

    #[test]
    fn objects_use_what_upstream_says() {
        let resources = json!({
            "requests": {
                "cpu": "100m", "memory": "1Gi", "ephemeral-storage": "30Gi",
                "example.com/gpu": "2", "hugepages-2Mi": "4Mi",
            },
            "limits": { "cpu": "200m", "example.com/gpu": "2" },
        });
        let spec = json!({
            "containers": [{ "name": "a", "resources": resources }],
            "overhead": { "cpu": "10m", "memory": "16Mi" },
        });
        let dead = json!({
            "deletionTimestamp": "2025-12-31T23:59:00Z", "deletionGracePeriodSeconds": 30,
        });
        let claim = json!({
            "storageClassName": "fast", "resources": { "requests": { "storage": "5Gi" } },
        });
        let ports = json!([{ "port": 80 }, { "port": 81, "nodePort": 30000 }]);
        let lines = [
            usage("pods", json!({ "spec": spec })),
            usage("pods", json!({ "spec": spec, "status": { "phase": "Failed" } })),
            usage("pods", json!({ "spec": spec, "metadata": dead })),
            usage("services", json!({ "spec": { "type": "NodePort", "ports": ports } })),
            usage(
                "services",
                json!({ "spec": {
                "type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false,
            } }),
            ),
            usage("services", json!({ "spec": { "type": "ClusterIP", "ports": ports } })),
            usage("persistentvolumeclaims", json!({ "spec": claim })),
            usage("secrets", json!({})),
            usage("apps/deployments", json!({})),
            usage("example.com/widgets", json!({})),
        ];
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn every_name_of_a_quota_finds_its_objects() {
        let names = [
            "count/widgets.example.com",
            "count/pods",
            "limits.cpu",
            "requests.example.com/gpu",
            "gold.storageclass.storage.k8s.io/requests.storage",
            "services.nodeports",
            "secrets",
            "unheard-of",
        ];
        let found: Vec<String> = names
            .into_iter()
            .map(|name| format!("{name}: {:?}", spaces(std::iter::once(name))))
            .collect();
        insta::assert_snapshot!(found.join("\n"));
    }
}

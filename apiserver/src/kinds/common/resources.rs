//! Names and amounts of resources: what containers ask for, what nodes have, what quotas count.

use super::field::{At, Errors, NOT_NEGATIVE};
use k8s::{names as rules, quantity::Quantity};

/// Whose resources a name stands for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Whose {
    Container,
    /// A pod as a whole (`spec.resources`, KEP-2837).
    Pod,
    Quota,
    Any,
}

const CONTAINER: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
const POD: [&str; 3] = ["cpu", "hugepages-", "memory"];
/// What is counted in whole things.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// What a quota may limit besides what is counted.
const COMPUTE: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];

pub(crate) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Kubernetes' own, not a device's.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && rules::is_qualified_name(&format!("requests.{name}")).is_empty()
}

/// True if more may be allowed than asked for: of time and memory, not of devices.
pub(crate) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

pub(crate) fn is_quota_name(name: &str) -> bool {
    COUNTED.contains(&name) || COMPUTE.contains(&name) || is_quota_huge_page(name)
}

fn is_quota_huge_page(name: &str) -> bool {
    is_huge_page(name.strip_prefix("requests.").unwrap_or(name))
}

/// A name of a resource, told at `at`.
pub(crate) fn validate_name(name: &str, at: &At<'_, '_>, whose: Whose, errors: &mut Errors) {
    let before = errors.0.len();
    for detail in rules::is_qualified_name(name) {
        errors.invalid_value(at, name, detail);
    }
    let plain = !name.contains('/');
    let malformed = errors.0.len() > before;
    if !malformed && plain && !is_quota_name(name) && name != "storage" {
        errors.invalid_value(at, name, "must be a standard resource type or fully qualified");
    }
    match whose {
        Whose::Any => (),
        Whose::Container if plain => {
            if !CONTAINER.contains(&name) && !is_huge_page(name) {
                errors.invalid_value(at, name, "must be a standard resource for containers");
            }
        }
        Whose::Container => {
            if !is_native(name) && !is_extended(name) {
                errors.invalid_value(at, name, "doesn't follow extended resource name standard");
            }
        }
        Whose::Pod => {
            let known = matches!(name, "cpu" | "memory") || is_huge_page(name);
            if errors.0.len() == before && !known {
                errors.not_supported_value(at, name, &POD);
            }
        }
        Whose::Quota => {
            if plain && !is_quota_name(name) {
                errors.invalid_value(at, name, "must be a standard resource for quota");
            }
        }
    }
}

/// An amount of a resource: not below zero, and whole where things are counted.
pub(crate) fn validate_amount(name: &str, at: &At<'_, '_>, errors: &mut Errors) {
    let Some(amount) = at.quantity() else { return };
    if amount.sign() < 0 {
        errors.invalid_value(at, amount.to_string(), NOT_NEGATIVE);
    }
    if (COUNTED.contains(&name) || is_extended(name)) && amount.milli_value() % 1000 != 0 {
        errors.invalid_value(at, amount.to_string(), "must be an integer");
    }
}

/// A map of amounts with names of one sort.
pub(crate) fn validate_named_amounts(map: &At<'_, '_>, whose: Whose, errors: &mut Errors) {
    for (name, at) in map.entries() {
        validate_name(name, &at, whose, errors);
        validate_amount(name, &at, errors);
    }
}

/// An amount of storage that is there: not below zero.
pub(crate) fn validate_basic(at: &At<'_, '_>, errors: &mut Errors) {
    if let Some(amount) = at.quantity().filter(|amount| amount.value() < 0) {
        errors.invalid_value(at, amount.value(), "must be a valid resource quantity");
    }
}

/// `requests`, `limits` and `claims` of a container or a pod; `claims` of the pod by name.
pub(crate) fn validate_requirements(
    resources: &At<'_, '_>,
    whose: Whose,
    pod_claims: &[&str],
    errors: &mut Errors,
) {
    let (limits, requests) = (resources.field("limits"), resources.field("requests"));
    for (name, at) in limits.entries() {
        validate_name(name, &at, whose, errors);
        validate_amount(name, &at, errors);
        huge_pages(name, &at, errors);
    }
    for (name, at) in requests.entries() {
        validate_name(name, &at, whose, errors);
        validate_amount(name, &at, errors);
        within_limit(name, &at, resources, errors);
        huge_pages(name, &at, errors);
    }
    let names = || limits.entries().chain(requests.entries()).map(|(name, _)| name);
    if names().any(is_huge_page) && !names().any(|name| matches!(name, "cpu" | "memory")) {
        errors.forbidden(resources, "HugePages require cpu or memory");
    }
    claims(&resources.field("claims"), pod_claims, errors);
}

fn within_limit(name: &str, asked: &At<'_, '_>, resources: &At<'_, '_>, errors: &mut Errors) {
    let (limits, requests) = (resources.field("limits"), resources.field("requests"));
    let Some(amount) = asked.quantity() else { return };
    let Some(limit) = limits.key(name).quantity() else {
        if !may_overcommit(name) {
            errors.required(&limits, "Limit must be set for non overcommitable resources");
        }
        return;
    };
    let detail = if amount != limit && !may_overcommit(name) {
        format!("must be equal to {name} limit of {limit}")
    } else if amount > limit {
        format!("must be less than or equal to {name} limit of {limit}")
    } else {
        return;
    };
    errors.invalid_value(&requests, amount.to_string(), detail);
}

/// Huge pages come in whole pages.
fn huge_pages(name: &str, at: &At<'_, '_>, errors: &mut Errors) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let Some(amount) = at.quantity() else { return };
    let size = Quantity::parse(size).map_or(0, |size| size.value());
    if size <= 0 || amount.value() % size != 0 {
        let detail = format!("{amount} is not positive integer multiple of {name}");
        errors.invalid_value(at, amount.to_string(), detail);
    }
}

fn claims(claims: &At<'_, '_>, pod_claims: &[&str], errors: &mut Errors) {
    let mut names: Vec<String> = Vec::new();
    for claim in claims.items() {
        let (name, request) = (claim.field("name").text(), claim.field("request"));
        if name.is_empty() {
            errors.required(&claim, "");
            continue;
        }
        if names.iter().any(|other| other == name) {
            errors.duplicate_value(&claim, name);
        } else {
            let mut key = name.to_string();
            if !request.text().is_empty() {
                errors.label(&request);
                key = format!("{name}/{}", request.text());
            }
            let whole = request.text().is_empty();
            let part = |other: &String| other.split_once('/').is_some_and(|(c, _)| c == name);
            if names.contains(&key) {
                errors.duplicate_value(&claim, key.clone());
            } else if whole && names.iter().any(part) {
                errors.duplicate_value(&claim, name);
            }
            names.push(key);
        }
        if !pod_claims.contains(&name) {
            let mut known = pod_claims.to_vec();
            known.sort_unstable();
            let rest = match known.as_slice() {
                [] => " which is empty".to_string(),
                known => format!(": {}", known.join(", ")),
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{rest}");
            errors.not_found_value(&claim, name, detail);
        }
    }
}

//! Requests and limits, and the quality of service that follows from them.

use super::{
    super::{
        field::{At, Errors, NOT_NEGATIVE},
        print,
    },
    volumes::quantity,
};
use k8s::{Object, names as rules, quantity::Quantity};

const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

pub(super) fn validate(resources: &At<'_, '_>, errors: &mut Errors) {
    let (limits, requests) = (resources.field("limits"), resources.field("requests"));
    for map in [&limits, &requests] {
        for (name, at) in map.entries() {
            validate_name(name, &at, errors);
            validate_quantity(&at, errors);
        }
    }
    for (name, request) in requests.entries() {
        let limit = limits.key(name);
        let (Some(Ok(asked)), Some(Ok(most))) = (quantity(&request), quantity(&limit)) else {
            if is_extended(name) && !limit.exists() {
                errors.required(&limits, "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        let detail = if is_extended(name) && asked != most {
            format!("must be equal to {name} limit of {most}")
        } else if asked > most {
            format!("must be less than or equal to {name} limit of {most}")
        } else {
            continue;
        };
        errors.invalid_value(&requests, asked.to_string(), detail);
    }
}

/// A resource that cannot be given twice: devices, huge pages.
fn is_extended(name: &str) -> bool {
    name.starts_with("hugepages-") || (name.contains('/') && !name.contains("kubernetes.io/"))
}

fn validate_name(name: &str, at: &At<'_, '_>, errors: &mut Errors) {
    let wrong = rules::is_qualified_name(name);
    if !wrong.is_empty() {
        wrong.into_iter().for_each(|detail| errors.invalid_value(at, name, detail));
    } else if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with("hugepages-") {
        errors.invalid_value(at, name, "must be a standard resource type or fully qualified");
        errors.invalid_value(at, name, "must be a standard resource for containers");
    }
}

fn validate_quantity(at: &At<'_, '_>, errors: &mut Errors) {
    match quantity(at) {
        Some(Ok(value)) if value.sign() < 0 => {
            errors.invalid_value(at, value.to_string(), NOT_NEGATIVE);
        }
        Some(Err(wrong)) => errors.invalid(at, wrong.to_string()),
        _ => (),
    }
}

/// A map of quantities, such as a node's capacity: none below zero.
pub(crate) fn validate_quantities(map: &At<'_, '_>, errors: &mut Errors) {
    for (_, at) in map.entries() {
        validate_quantity(&at, errors);
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by cpu and memory of all containers.
pub(crate) fn qos_class(pod: &Object) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    let pointers = ["/spec/containers", "/spec/initContainers"];
    for container in pointers.iter().flat_map(|pointer| print::list(pod, pointer)) {
        for resource in ["cpu", "memory"] {
            let amount = |kind: &str| {
                let value = container.get("resources")?.get(kind)?.get(resource)?;
                let parsed = Quantity::parse(
                    value.as_str().map_or(value.to_string(), String::from).as_str(),
                );
                parsed.ok().filter(|quantity| !quantity.is_zero())
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

//! Resources of a pod as a whole: what its containers come to, and the quality of service that
//! follows.

use super::{
    super::{
        field::{At, Errors},
        print,
        resources::{self, Whose},
    },
    os::LISTS,
};
use k8s::{Object, quantity::Quantity};
use serde_json::Value;
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;

/// `spec.resources` (KEP-2837), and that the containers fit into it.
pub(super) fn validate(spec: &At<'_, '_>, claims: &[&str], errors: &mut Errors) {
    let own = spec.field("resources");
    if !own.exists() {
        return;
    }
    if spec.field("os").field("name").text() == "windows" {
        return errors.forbidden(&own, "may not be set for a windows pod");
    }
    if own.field("claims").exists() {
        let detail = "claims may not be set for Resources at pod-level";
        errors.forbidden(&own.field("claims"), detail);
    }
    resources::validate_requirements(&own, Whose::Pod, claims, errors);
    let (requests, limits) = (own.field("requests"), own.field("limits"));
    let Some(value) = spec.value() else { return };
    for (name, amount) in sum(value, "requests") {
        let at = requests.key(&name);
        if let Some(whole) = at.quantity().filter(|whole| amount > *whole) {
            let detail = format!(
                "must be greater than or equal to aggregate container requests of {amount}"
            );
            errors.invalid_value(&at, whole.to_string(), detail);
        }
    }
    for (name, amount) in sum(value, "limits") {
        let at = limits.key(&name);
        let huge = resources::is_huge_page(&name);
        if let Some(whole) = at.quantity().filter(|whole| huge && amount > *whole) {
            let detail =
                format!("must be greater than or equal to aggregate container limits of {amount}");
            errors.invalid_value(&at, whole.to_string(), detail);
        }
    }
    for (place, container) in spec.field("containers").items().enumerate() {
        for (name, at) in container.field("resources").field("limits").entries() {
            let (Some(limit), Some(whole)) = (at.quantity(), limits.key(name).quantity()) else {
                continue;
            };
            if limit > whole {
                // Upstream begins this path at the resources of the pod.
                let path = format!("{own}.containers[{place}][{name}].limits");
                let detail = format!("must be less than or equal to pod limits of {whole}");
                errors.0.push(k8s::FieldError::invalid(path, limit.to_string().into(), detail));
            }
        }
    }
}

fn amounts(resources: Option<&Value>, kind: &str) -> Amounts {
    let map = resources.and_then(|resources| resources.get(kind)?.as_object());
    map.into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), amount(value)?)))
        .collect()
}

fn amount(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).map_or(*amount, |sum| sum.add(*amount));
        to.insert(name.clone(), sum);
    }
}

/// What the containers of a pod spec come to at most at once: the main ones and those that stay, or
/// one init container with those that stayed before it.
pub(super) fn sum(spec: &Value, kind: &str) -> Amounts {
    let list = |field: &str| spec.get(field).and_then(Value::as_array).into_iter().flatten();
    let of = |container: &Value| amounts(container.get("resources"), kind);
    let mut total = Amounts::new();
    list("containers").for_each(|container| add(&mut total, &of(container)));
    let (mut stay, mut most) = (Amounts::new(), Amounts::new());
    for container in list("initContainers") {
        let own = of(container);
        let mut together = stay.clone();
        add(&mut together, &own);
        if print::field(container, "restartPolicy") == "Always" {
            add(&mut total, &own);
            add(&mut stay, &own);
        }
        for (name, amount) in together {
            let entry = most.entry(name).or_insert(amount);
            *entry = (*entry).max(amount);
        }
    }
    for (name, amount) in most {
        let entry = total.entry(name).or_insert(amount);
        *entry = (*entry).max(amount);
    }
    total
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by cpu and memory.
pub(crate) fn qos_class(pod: &Object) -> &'static str {
    let own = pod.at("/spec/resources");
    let count = |kind: &str| amounts(own, kind).len();
    let (mut requests, mut limits, mut guaranteed) = (Amounts::new(), Amounts::new(), true);
    let mut count_in = |resources: Option<&Value>| {
        let compute = |kind: &str| {
            let mut amounts = amounts(resources, kind);
            amounts.retain(|name, amount| {
                matches!(name.as_str(), "cpu" | "memory") && amount.sign() > 0
            });
            amounts
        };
        let limit = compute("limits");
        guaranteed &= limit.len() == 2;
        add(&mut requests, &compute("requests"));
        add(&mut limits, &limit);
    };
    if count("requests") + count("limits") > 0 {
        count_in(own);
    } else {
        for list in LISTS.into_iter().take(2) {
            print::list(pod, &format!("/spec/{list}"))
                .iter()
                .for_each(|container| count_in(container.get("resources")));
        }
    }
    let equal = requests.iter().all(|(name, amount)| limits.get(name) == Some(amount));
    match requests.is_empty() && limits.is_empty() {
        true => "BestEffort",
        false if guaranteed && equal && requests.len() == limits.len() => "Guaranteed",
        false => "Burstable",
    }
}

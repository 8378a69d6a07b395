//! What pods ask for, added up (KEP-753 for sidecars, KEP-2837 for pod-level resources).

use k8s::{Object, quantity::Quantity};
use serde_json::Value;
use std::{borrow::Cow, collections::BTreeMap};

/// `ResourceList`: amounts by resource name.
pub(crate) type List = BTreeMap<String, Quantity>;

/// Which half of `resources`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Requests,
    Limits,
}

impl Side {
    pub(super) fn field(self) -> &'static str {
        match self {
            Side::Requests => "requests",
            Side::Limits => "limits",
        }
    }
}

/// The amounts in a map; what is no quantity is left to validation.
pub(crate) fn list(map: Option<&Value>) -> List {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect()
}

pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    let text = match value {
        Value::String(text) => Cow::Borrowed(text.as_str()),
        Value::Number(number) => Cow::Owned(number.to_string()),
        _ => return None,
    };
    Quantity::parse(&text).ok()
}

/// As the API writes them.
pub(crate) fn to_value(list: &List) -> Value {
    let entries = list.iter().map(|(name, amount)| (name.clone(), amount.to_string().into()));
    Value::Object(entries.collect())
}

pub(crate) fn add(to: &mut List, more: &List) {
    for (name, amount) in more {
        let slot = to.entry(name.clone()).or_insert(Quantity::ZERO);
        *slot = slot.add(*amount);
    }
}

fn raise(to: &mut List, other: &List) {
    for (name, amount) in other {
        let slot = to.entry(name.clone()).or_insert(*amount);
        *slot = (*slot).max(*amount);
    }
}

/// The containers in a list of the pod's spec.
pub(super) fn containers<'a>(pod: &'a Object, field: &str) -> impl Iterator<Item = &'a Value> {
    let spec = pod.0.get("spec");
    spec.and_then(|spec| spec.get(field)?.as_array()).into_iter().flatten()
}

pub(super) fn of_container(container: &Value, side: Side) -> List {
    list(container.get("resources").and_then(|resources| resources.get(side.field())))
}

/// All of a pod: its containers together, but at least what its init containers need in their turn;
/// what the pod itself says of cpu, memory and huge pages comes first. Without overhead.
pub(super) fn of_pod(pod: &Object, side: Side) -> List {
    let mut sum = List::new();
    for container in containers(pod, "containers") {
        add(&mut sum, &of_container(container, side));
    }
    let (mut sidecars, mut peak) = (List::new(), List::new());
    for container in containers(pod, "initContainers") {
        let own = of_container(container, side);
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut with_sidecars = own;
            add(&mut with_sidecars, &sidecars);
            raise(&mut peak, &with_sidecars);
        }
    }
    raise(&mut sum, &peak);
    let spoken = list(pod.at("/spec/resources").and_then(|resources| resources.get(side.field())));
    let known = |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
    sum.extend(spoken.into_iter().filter(|(name, _)| known(name)));
    sum
}

/// A device or the like, by upstream's `IsExtendedResourceName`.
pub(super) fn is_extended(name: &str) -> bool {
    is_foreign(name) && !name.starts_with("requests.")
}

/// Not of Kubernetes' own (upstream's `!IsNativeResource`).
pub(super) fn is_foreign(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sidecars_add_and_init_containers_raise() {
        let container = |cpu: &str| json!({ "resources": { "requests": { "cpu": cpu } } });
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({
            "containers": [container("200m"), container("300m")],
            "initContainers": [container("1"), sidecar, container("550m")],
        });
        let mut pod = Object::from_value(json!({ "spec": spec })).expect("an object");
        let cpu = |pod: &Object| of_pod(pod, Side::Requests)["cpu"].to_string();
        assert_eq!(cpu(&pod), "1");
        pod.0["spec"]["initContainers"][0] = container("10m");
        assert_eq!(cpu(&pod), "650m");
        pod.0["spec"]["resources"] = json!({ "requests": { "cpu": "2", "example.com/gpu": "1" } });
        assert_eq!(cpu(&pod), "2");
        assert!(!of_pod(&pod, Side::Requests).contains_key("example.com/gpu"));
    }
}

//! Cells of tables: pure functions of an object and the time of printing.

use jiff::Timestamp;
use k8s::Object;
use serde_json::{Map, Value};

/// `metadata.creationTimestamp` as an age.
pub(crate) fn age(object: &Object, now: Timestamp) -> Value {
    since(object.str_at("/metadata/creationTimestamp"), now).into()
}

/// How long before `now` the RFC 3339 `time` was; `<unknown>` if there is none.
pub(crate) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human_duration(now.as_second() - time.as_second()),
        Err(_) => "<unknown>".into(),
    }
}

/// A duration the way kubectl shows it: two units at most, the finer one only while it matters.
pub(crate) fn human_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// The text at a pointer, `<none>` if absent or empty.
pub(crate) fn text_or_none(object: &Object, pointer: &str) -> Value {
    text_or(object, pointer, "<none>")
}

/// The text at a pointer, or `otherwise`.
pub(crate) fn text_or(object: &Object, pointer: &str, otherwise: &str) -> Value {
    match object.str_at(pointer) {
        "" => otherwise.into(),
        text => text.into(),
    }
}

pub(crate) fn text(object: &Object, pointer: &str) -> Value {
    object.str_at(pointer).into()
}

pub(crate) fn int(object: &Object, pointer: &str) -> Value {
    object.int_at(pointer).unwrap_or(0).into()
}

pub(crate) fn boolean(object: &Object, pointer: &str) -> bool {
    object.at(pointer).and_then(Value::as_bool).unwrap_or(false)
}

/// How many entries the list or map at a pointer has.
pub(crate) fn count(object: &Object, pointer: &str) -> usize {
    match object.at(pointer) {
        Some(Value::Array(list)) => list.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    }
}

/// The entries of the list at a pointer.
pub(crate) fn list<'a>(object: &'a Object, pointer: &str) -> &'a [Value] {
    object.at(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text of a field of a value, empty if absent.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Text or number as text: an IntOrString, or a quantity.
pub(crate) fn scalar(value: Option<&Value>, otherwise: &str) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => otherwise.into(),
    }
}

/// `a,b` of one field of every entry of a list.
pub(crate) fn join_field(entries: &[Value], name: &str) -> String {
    entries.iter().map(|entry| field(entry, name)).collect::<Vec<_>>().join(",")
}

/// Names of the containers of the pod spec at a pointer.
pub(crate) fn containers(object: &Object, pod_spec: &str) -> Value {
    join_field(list(object, &format!("{pod_spec}/containers")), "name").into()
}

/// Images of the containers of the pod spec at a pointer.
pub(crate) fn images(object: &Object, pod_spec: &str) -> Value {
    join_field(list(object, &format!("{pod_spec}/containers")), "image").into()
}

/// `a=b,c=d` in order of the keys; `<none>` if there are none.
pub(crate) fn labels(map: Option<&Value>) -> String {
    let map = map.and_then(Value::as_object);
    match map.filter(|map| !map.is_empty()) {
        Some(map) => pairs(map).join(","),
        None => "<none>".into(),
    }
}

fn pairs(map: &Map<String, Value>) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let mut pairs: Vec<String> =
        map.iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
    pairs.sort();
    pairs
}

/// A `metav1.LabelSelector` on one line; `<none>` if it selects everything or nothing.
pub(crate) fn selector(selector: Option<&Value>) -> String {
    let mut parts: Vec<(String, String)> = Vec::new();
    let Some(selector) = selector else { return "<none>".into() };
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten()
    {
        parts.push((key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    for expression in expressions.into_iter().flatten() {
        let key = field(expression, "key");
        let values = expression.get("values").and_then(Value::as_array);
        let mut values: Vec<&str> =
            values.into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match field(expression, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_string(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".into(),
        };
        parts.push((key.to_string(), part));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    match parts.is_empty() {
        true => "<none>".into(),
        false => parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(","),
    }
}

/// `a,b,c + 2 more...`
pub(crate) fn at_most_three(entries: &[String]) -> String {
    match entries.len() {
        0..=3 => entries.join(","),
        count => format!("{} + {} more...", entries[..3].join(","), count - 3),
    }
}

/// Addresses of `status.loadBalancer`, sorted, without repetition.
pub(crate) fn load_balancer(object: &Object) -> Value {
    let entries = list(object, "/status/loadBalancer/ingress").iter();
    let mut addresses: Vec<&str> = entries
        .map(|entry| match field(entry, "ip") {
            "" => field(entry, "hostname"),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.join(",").into()
}

/// `deployment.apps/web`: the owner that controls the object; `<none>` without one.
pub(crate) fn controller(object: &Object) -> Value {
    let owners = object.owner_references();
    let Some(owner) = owners.into_iter().find(|owner| owner.controller) else {
        return "<none>".into();
    };
    let kind = owner.kind.to_lowercase();
    match owner.api_version.split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", owner.name).into(),
        None => format!("{kind}/{}", owner.name).into(),
    }
}

/// `ClusterRole/edit`
pub(crate) fn rbac_role(object: &Object) -> Value {
    format!("{}/{}", object.str_at("/roleRef/kind"), object.str_at("/roleRef/name")).into()
}

/// The subjects of one kind, service accounts as `namespace/name`.
pub(crate) fn rbac_subjects(object: &Object, kind: &str) -> Value {
    let subjects =
        list(object, "/subjects").iter().filter(|subject| field(subject, "kind") == kind);
    let names = subjects.map(|subject| match kind {
        "ServiceAccount" => format!("{}/{}", field(subject, "namespace"), field(subject, "name")),
        _ => field(subject, "name").to_string(),
    });
    names.collect::<Vec<_>>().join(", ").into()
}

/// `v1/ConfigMap`: what parameterises an admission policy.
pub(crate) fn policy_kind(object: &Object) -> Value {
    match object.at("/spec/paramKind") {
        Some(kind) => format!("{}/{}", field(kind, "apiVersion"), field(kind, "kind")).into(),
        None => "<unset>".into(),
    }
}

/// `namespace/name` of the parameters of an admission policy binding.
pub(crate) fn param_ref(object: &Object) -> Value {
    let Some(param) = object.at("/spec/paramRef") else { return "<unset>".into() };
    match (field(param, "name"), field(param, "namespace"), param.get("selector")) {
        ("", _, None) => "<unset>".into(),
        // Upstream shows the selector in the way Go prints a struct.
        ("", _, Some(chosen)) => selector(Some(chosen)).into(),
        (name, "", _) => format!("*/{name}").into(),
        (name, namespace, _) => format!("{namespace}/{name}").into(),
    }
}

/// The class of a volume or claim, which the annotation of old names first.
pub(crate) fn storage_class(object: &Object) -> Value {
    let old = object.annotation("volume.beta.kubernetes.io/storage-class");
    old.unwrap_or_else(|| object.str_at("/spec/storageClassName")).into()
}

/// Upstream's short words for access modes, in its order.
pub(crate) fn access_modes(modes: &[Value]) -> Value {
    let order = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let shown = order.iter().filter(|(mode, _)| modes.iter().any(|m| m.as_str() == Some(mode)));
    shown.map(|(_, short)| *short).collect::<Vec<_>>().join(",").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_have_two_units_at_most() {
        let shown: Vec<String> = [
            -5, -1, 0, 119, 120, 125, 599, 600, 10799, 10800, 12000, 28800, 172799, 172800, 180000,
            691200, 63071999, 63072000, 63158400, 252288000,
        ]
        .into_iter()
        .map(human_duration)
        .collect();
        insta::assert_snapshot!(shown.join(" "), @"<invalid> 0s 0s 119s 2m 2m5s 9m59s 10m 179m 3h 3h20m 8h 47h 2d 2d2h 8d 729d 2y 2y1d 8y");
    }

    #[test]
    fn a_selector_on_one_line() {
        let selector_value = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["b", "a"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        });
        insta::assert_snapshot!(selector(Some(&selector_value)), @"app=web,!old,tier in (a,b)");
        insta::assert_snapshot!(selector(None), @"<none>");
        insta::assert_snapshot!(labels(Some(&json!({"b": "2", "a": "1"}))), @"a=1,b=2");
    }
}

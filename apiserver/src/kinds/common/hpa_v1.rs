//! HorizontalPodAutoscalers of `autoscaling/v1`, made of those of `v2` and back. What v1 has no field
//! for goes through annotations, as upstream does it, so that nothing is lost on the way.

use super::{child, print};
use k8s::Object;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// The one metric that v1 knows: how busy the cpu is.
fn is_cpu(metric: &Value, side: &str) -> bool {
    let percent = metric.pointer(&format!("/resource/{side}/averageUtilization"));
    print::field(metric, "type") == "Resource"
        && metric.pointer("/resource/name").and_then(Value::as_str) == Some("cpu")
        && percent.is_some_and(|percent| !percent.is_null())
}

fn take_list(map: &mut Map<String, Value>, field: &str) -> Vec<Value> {
    match map.remove(field) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

pub(crate) fn from_v2(mut object: Object) -> Object {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = child(&mut object.0, "spec") {
        let metrics = take_list(spec, "metrics");
        if let Some(metric) = metrics.iter().find(|metric| is_cpu(metric, "target")) {
            let percent = metric["resource"]["target"]["averageUtilization"].clone();
            spec.insert("targetCPUUtilizationPercentage".into(), percent);
        }
        let others = metrics.into_iter().filter(|metric| !is_cpu(metric, "target"));
        let others: Vec<Value> = others.map(|metric| old_metric(metric, "target")).collect();
        if !others.is_empty() {
            notes.push((METRICS, others.into()));
        }
        if let Some(behavior) = spec.remove("behavior").filter(Value::is_object) {
            notes.push((BEHAVIOR, old_behavior(behavior)));
        }
    }
    if let Some(status) = child(&mut object.0, "status") {
        let current = take_list(status, "currentMetrics");
        if let Some(metric) = current.iter().rfind(|metric| is_cpu(metric, "current")) {
            let percent = metric["resource"]["current"]["averageUtilization"].clone();
            status.insert("currentCPUUtilizationPercentage".into(), percent);
        }
        if !current.is_empty() {
            let old = current.into_iter().map(|metric| old_metric(metric, "current"));
            notes.push((CURRENT, old.collect::<Vec<_>>().into()));
        }
        let conditions = take_list(status, "conditions");
        if !conditions.is_empty() {
            notes.push((CONDITIONS, conditions.into()));
        }
        for count in ["currentReplicas", "desiredReplicas"] {
            status.entry(count).or_insert_with(|| 0.into());
        }
    }
    let metadata = object.metadata_mut();
    drop_notes(metadata);
    for (key, value) in notes {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        annotations[key] = value.to_string().into();
    }
    object
}

/// Go writes the fields of the internal type, which has no names for JSON.
fn old_behavior(behavior: Value) -> Value {
    const NAMES: [(&str, &str); 9] = [
        ("scaleUp", "ScaleUp"),
        ("scaleDown", "ScaleDown"),
        ("stabilizationWindowSeconds", "StabilizationWindowSeconds"),
        ("selectPolicy", "SelectPolicy"),
        ("policies", "Policies"),
        ("tolerance", "Tolerance"),
        ("type", "Type"),
        ("value", "Value"),
        ("periodSeconds", "PeriodSeconds"),
    ];
    renamed(behavior, &|name| NAMES.iter().find(|(new, _)| *new == name).map(|(_, old)| *old))
}

fn renamed(value: Value, name: &dyn Fn(&str) -> Option<&'static str>) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.into_iter().map(|(key, value)| {
                let new = name(&key).map_or(key, String::from);
                (new, renamed(value, name))
            });
            Value::Object(entries.collect())
        }
        Value::Array(list) => list.into_iter().map(|entry| renamed(entry, name)).collect(),
        other => other,
    }
}

/// The JSON of Go takes names in either case.
fn new_behavior(behavior: Value) -> Value {
    match behavior {
        Value::Object(map) => {
            let entries = map.into_iter().filter(|(_, value)| !value.is_null());
            let lower = |key: &str| {
                let mut chars = key.chars();
                let first = chars.next().map(|c| c.to_ascii_lowercase());
                first.into_iter().chain(chars).collect::<String>()
            };
            Value::Object(entries.map(|(key, value)| (lower(&key), new_behavior(value))).collect())
        }
        Value::Array(list) => list.into_iter().map(new_behavior).collect(),
        other => other,
    }
}

/// A metric of v2 as v1 wrote them before it had none; `side` is `target` or `current`.
fn old_metric(mut metric: Value, side: &str) -> Value {
    let (prefix, value) = match side {
        "target" => ("target", "targetValue"),
        _ => ("current", "currentValue"),
    };
    let Some(map) = metric.as_object_mut() else { return metric };
    for (field, source) in map.iter_mut().filter(|(_, source)| source.is_object()) {
        let Some(source) = source.as_object_mut() else { continue };
        let amounts = source.remove(side).unwrap_or_default();
        let amount = |name: &str| amounts.get(name).filter(|amount| !amount.is_null()).cloned();
        let mut put = |name: String, amount: Option<Value>| {
            if let Some(amount) = amount {
                source.insert(name, amount);
            }
        };
        match field.as_str() {
            "resource" | "containerResource" => {
                put(format!("{prefix}AverageUtilization"), amount("averageUtilization"));
                put(format!("{prefix}AverageValue"), amount("averageValue"));
            }
            "object" => {
                put(value.to_string(), Some(amount("value").unwrap_or_else(|| "0".into())));
                put("averageValue".into(), amount("averageValue"));
            }
            "external" => {
                put(value.to_string(), amount("value"));
                put(format!("{prefix}AverageValue"), amount("averageValue"));
            }
            _ => put(format!("{prefix}AverageValue"), amount("averageValue")),
        }
        if let Some(described) = source.remove("describedObject") {
            source.insert("target".into(), described);
        }
        if let Some(Value::Object(identifier)) = source.remove("metric") {
            let selector = if field == "external" { "metricSelector" } else { "selector" };
            for (from, to) in [("name", "metricName"), ("selector", selector)] {
                if let Some(value) = identifier.get(from) {
                    source.insert(to.into(), value.clone());
                }
            }
        }
    }
    metric
}

/// The way back.
fn new_metric(mut metric: Value, side: &str) -> Value {
    let prefix = side;
    let value = format!("{side}Value");
    let Some(map) = metric.as_object_mut() else { return metric };
    for (field, source) in map.iter_mut().filter(|(_, source)| source.is_object()) {
        let Some(source) = source.as_object_mut() else { continue };
        if let Some(described) = source.remove("target") {
            source.insert("describedObject".into(), described);
        }
        let mut amounts = Map::new();
        for (from, to) in [
            (format!("{prefix}AverageUtilization"), "averageUtilization"),
            (format!("{prefix}AverageValue"), "averageValue"),
            ("averageValue".to_string(), "averageValue"),
            (value.clone(), "value"),
        ] {
            if let Some(amount) = source.remove(&from).filter(|amount| !amount.is_null()) {
                amounts.insert(to.into(), amount);
            }
        }
        if side == "target" {
            amounts.insert("type".into(), target_type(field, &amounts).into());
        }
        source.insert(side.into(), amounts.into());
        let mut identifier = Map::new();
        for (from, to) in
            [("metricName", "name"), ("metricSelector", "selector"), ("selector", "selector")]
        {
            if let Some(value) = source.remove(from).filter(|value| !value.is_null()) {
                identifier.insert(to.into(), value);
            }
        }
        if !identifier.is_empty() {
            source.insert("metric".into(), identifier.into());
        }
    }
    metric
}

fn target_type(field: &str, amounts: &Map<String, Value>) -> &'static str {
    let (value, average) = (amounts.contains_key("value"), amounts.contains_key("averageValue"));
    match field {
        "resource" | "containerResource" if amounts.contains_key("averageUtilization") => {
            "Utilization"
        }
        "object" if !average => "Value",
        "external" if value => "Value",
        _ => "AverageValue",
    }
}

pub(crate) fn to_v2(mut object: Object) -> Object {
    let note = |key: &str| serde_json::from_str::<Value>(object.annotation(key)?).ok();
    let (metrics, current) = (note(METRICS), note(CURRENT));
    let (behavior, conditions) = (note(BEHAVIOR), note(CONDITIONS));
    let list = |value: Option<Value>, side: &str| -> Vec<Value> {
        let Some(Value::Array(list)) = value else { return Vec::new() };
        list.into_iter().map(|metric| new_metric(metric, side)).collect()
    };
    let cpu = |side: &str, percent: Value| {
        let mut amounts = json!({ "averageUtilization": percent });
        if side == "target" {
            amounts["type"] = "Utilization".into();
        }
        json!({ "type": "Resource", "resource": { "name": "cpu", side: amounts } })
    };
    let (wanted, had_current) = (list(metrics, "target"), current.is_some());
    let measured = list(current, "current");
    let spec = object.map_mut("spec");
    let percent = spec.remove("targetCPUUtilizationPercentage").filter(Value::is_number);
    let mut metrics = wanted;
    metrics.extend(percent.map(|percent| cpu("target", percent)));
    if !metrics.is_empty() {
        spec.insert("metrics".into(), metrics.into());
    }
    let empty = |value: &Value| value.as_object().is_none_or(Map::is_empty);
    if let Some(behavior) = behavior.filter(|behavior| !empty(behavior)) {
        spec.insert("behavior".into(), new_behavior(behavior));
    }
    if let Some(status) = child(&mut object.0, "status") {
        let percent = status.remove("currentCPUUtilizationPercentage").filter(Value::is_number);
        let own: Vec<Value> = percent.map(|percent| cpu("current", percent)).into_iter().collect();
        let current = if had_current { measured } else { own };
        if !current.is_empty() {
            status.insert("currentMetrics".into(), current.into());
        }
        if let Some(Value::Array(conditions)) = conditions {
            status.insert("conditions".into(), conditions.into());
        }
    }
    drop_notes(object.metadata_mut());
    object
}

fn drop_notes(metadata: &mut Map<String, Value>) {
    let Some(annotations) = child(metadata, "annotations") else { return };
    for key in [METRICS, CURRENT, BEHAVIOR, CONDITIONS] {
        annotations.remove(key);
    }
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_and_back_loses_nothing() {
        let object = |value: Value| Object::from_value(value).expect("an object");
        let v2 = json!({
            "metadata": { "name": "web", "annotations": { "own": "x" } },
            "spec": {
                "maxReplicas": 5,
                "scaleTargetRef": { "kind": "Deployment", "name": "web" },
                "metrics": [
                    { "type": "Pods", "pods": {
                        "metric": { "name": "packets", "selector": { "matchLabels": { "a": "b" } } },
                        "target": { "type": "AverageValue", "averageValue": "10" },
                    } },
                    { "type": "Object", "object": {
                        "describedObject": { "kind": "Service", "name": "web" },
                        "metric": { "name": "hits" },
                        "target": { "type": "Value", "value": "7" },
                    } },
                    { "type": "External", "external": {
                        "metric": { "name": "queue", "selector": {} },
                        "target": { "type": "AverageValue", "averageValue": "3" },
                    } },
                    { "type": "Resource", "resource": {
                        "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 70 },
                    } },
                ],
                "behavior": { "scaleDown": {
                    "selectPolicy": "Min",
                    "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 15 }],
                } },
            },
            "status": {
                "currentReplicas": 2,
                "desiredReplicas": 3,
                "currentMetrics": [{ "type": "Resource", "resource": {
                    "name": "cpu", "current": { "averageUtilization": 66, "averageValue": "1" },
                } }],
                "conditions": [{ "type": "AbleToScale", "status": "True" }],
            },
        });
        let v1 = from_v2(object(v2.clone()));
        insta::assert_snapshot!(
            serde_json::to_string_pretty(&v1.clone().into_value()).expect("JSON")
        );
        assert_eq!(to_v2(v1).into_value(), v2);
    }
}

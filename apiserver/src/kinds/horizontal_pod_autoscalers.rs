//! HorizontalPodAutoscalers: replicas by metrics.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors},
        print, set_default,
    },
};
use k8s::{FieldError, Object};
use serde_json::{Value, json};

pub(super) const KIND: KindDef = KindDef {
    group: "autoscaling",
    versions: &["v2"],
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    short_names: &["hpa"],
    categories: &["all"],
    schema: "autoscaling.v2.HorizontalPodAutoscaler",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Reference", |o, _| reference(o)),
        Column::text("Targets", |o, _| targets(o)),
        Column::text("MinPods", |o, _| print::scalar(o.at("/spec/minReplicas"), "<unset>").into()),
        Column::integer("MaxPods", |o, _| print::int(o, "/spec/maxReplicas")),
        Column::integer("Replicas", |o, _| print::int(o, "/status/currentReplicas")),
        Column::AGE,
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    default,
    validate,
    ..KindDef::BASE
};

fn reference(object: &Object) -> Value {
    let target = |field: &str| object.str_at(&format!("/spec/scaleTargetRef/{field}"));
    format!("{}/{}", target("kind"), target("name")).into()
}

/// `cpu: 10%/80%, …`; `<unknown>` while nothing has been measured.
fn targets(object: &Object) -> Value {
    let current = print::list(object, "/status/currentMetrics");
    let shown = print::list(object, "/spec/metrics").iter().enumerate().map(|(at, metric)| {
        let kind = print::field(metric, "type");
        let source = match kind {
            "Resource" => metric.get("resource"),
            "ContainerResource" => metric.get("containerResource"),
            "Pods" => metric.get("pods"),
            "Object" => metric.get("object"),
            _ => metric.get("external"),
        };
        let source = source.unwrap_or(&Value::Null);
        let now =
            current.get(at).and_then(|metric| metric.as_object()?.values().find(|v| v.is_object()));
        let name = print::field(source, "name");
        let target = amount(source.get("target"));
        let current =
            now.and_then(|now| now.get("current")).map_or("<unknown>".into(), |v| amount(Some(v)));
        if name.is_empty() {
            format!("{current}/{target}")
        } else {
            format!("{name}: {current}/{target}")
        }
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { "<none>".into() } else { shown.join(", ").into() }
}

fn amount(value: Option<&Value>) -> String {
    let Some(value) = value else { return "<auto>".into() };
    if let Some(percent) = value.get("averageUtilization").and_then(Value::as_i64) {
        return format!("{percent}%");
    }
    match value.get("averageValue") {
        Some(average) => format!("{} (avg)", print::scalar(Some(average), "")),
        None => print::scalar(value.get("value"), "<unknown>"),
    }
}

/// Without metrics, 80 % of the requested cpu.
fn default(autoscaler: &mut Object) {
    let spec = autoscaler.map_mut("spec");
    set_default(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let target = json!({ "type": "Utilization", "averageUtilization": 80 });
        let metric = json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } });
        spec.insert("metrics".into(), json!([metric]));
    }
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let (least, most) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    let floor = least.int().unwrap_or(1);
    if floor < 1 {
        errors.invalid(&least, "must be greater than or equal to 1");
    }
    match most.int().unwrap_or(0) {
        ..1 => errors.invalid_value(&most, most.int().unwrap_or(0), "must be greater than 0"),
        ceiling if ceiling < floor => {
            errors.invalid(&most, "must be greater than or equal to `minReplicas`");
        }
        _ => (),
    }
    let target = spec.field("scaleTargetRef");
    errors.needs_text(&target.field("kind"));
    errors.needs_text(&target.field("name"));
    errors.0
}

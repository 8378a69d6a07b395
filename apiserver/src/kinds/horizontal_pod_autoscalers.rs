//! HorizontalPodAutoscalers: replicas by metrics.

use super::{common::{self, print}, Column, KindDef, Subresource};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "autoscaling",
    versions: &["v2"],
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    short_names: &["hpa"],
    categories: &["all"],
    schema: "autoscaling.v2.HorizontalPodAutoscaler",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME,
Column::text("Reference", |o, _| reference(o)),
Column::text("Targets", |o, _| targets(o)),
Column::text("MinPods", |o, _| print::scalar(o.at("/spec/minReplicas"), "<unset>").into()),
Column::integer("MaxPods", |o, _| print::int(o, "/spec/maxReplicas")),
Column::integer("Replicas", |o, _| print::int(o, "/status/currentReplicas")),
Column::AGE],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
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
        let now = current.get(at).and_then(|metric| metric.as_object()?.values().find(|v| v.is_object()));
        let name = print::field(source, "name");
        let target = amount(source.get("target"));
        let current = now.and_then(|now| now.get("current")).map_or("<unknown>".into(), |v| amount(Some(v)));
        if name.is_empty() { format!("{current}/{target}") } else { format!("{name}: {current}/{target}") }
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

//! HorizontalPodAutoscalers: replicas by metrics.

use super::{
    Column, Foreign, KindDef, Subresource,
    common::{
        self, child,
        field::{At, Errors, NOT_NEGATIVE},
        hpa_v1, print,
        resources::{self, Whose},
        set_default,
    },
};
use k8s::{FieldError, Object};
use serde_json::{Map, Value, json};

pub(super) const KIND: KindDef = KindDef {
    group: "autoscaling",
    versions: &["v2", "v1"],
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
        Column::text("MaxPods", |o, _| print::int(o, "/spec/maxReplicas")),
        Column::text("Replicas", |o, _| print::int(o, "/status/currentReplicas")),
        Column::AGE,
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    foreign: &[Foreign {
        version: "v1",
        schema: "autoscaling.v1.HorizontalPodAutoscaler",
        from_stored: hpa_v1::from_v2,
        to_stored: hpa_v1::to_v2,
    }],
    default,
    validate,
    validate_status,
    ..KindDef::BASE
};

fn reference(object: &Object) -> Value {
    let target = |field: &str| object.str_at(&format!("/spec/scaleTargetRef/{field}"));
    format!("{}/{}", target("kind"), target("name")).into()
}

/// `cpu: 10%/80%, 5/10 (avg) + 1 more...`; `<unknown>` while nothing has been measured.
fn targets(object: &Object) -> Value {
    const SHOWN: usize = 2;
    let current = print::list(object, "/status/currentMetrics");
    let metrics = print::list(object, "/spec/metrics");
    let shown: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(at, metric)| target(metric, current.get(at).unwrap_or(&Value::Null)))
        .collect();
    match shown.len() {
        0 => "<none>".into(),
        1..=SHOWN => shown.join(", ").into(),
        count => format!("{} + {} more...", shown[..SHOWN].join(", "), count - SHOWN).into(),
    }
}

fn target(metric: &Value, current: &Value) -> String {
    const UNKNOWN: &str = "<unknown>";
    let field = match print::field(metric, "type") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".into(),
    };
    let (want, have) = (metric.get(field), current.get(field));
    let wanted = |name: &str| want?.get("target")?.get(name);
    let had = |name: &str| have?.get("current")?.get(name);
    let name = want.map_or("", |want| print::field(want, "name"));
    let average = wanted("averageValue");
    match field {
        "resource" | "containerResource" => match average {
            Some(average) => {
                let (now, of) = (print::scalar(had("averageValue"), UNKNOWN), Some(average));
                format!("{name}: {now}/{}", print::scalar(of, ""))
            }
            None => {
                let percent = |value: Option<&Value>, otherwise: &str| match value {
                    Some(value) => format!("{}%", print::scalar(Some(value), "")),
                    None => otherwise.to_string(),
                };
                let now = percent(had("averageUtilization"), UNKNOWN);
                format!("{name}: {now}/{}", percent(wanted("averageUtilization"), "<auto>"))
            }
        },
        "pods" => {
            let now = print::scalar(had("averageValue"), UNKNOWN);
            format!("{now}/{}", print::scalar(average, ""))
        }
        _ => match average {
            Some(average) => {
                let now = print::scalar(had("averageValue"), UNKNOWN);
                format!("{now}/{} (avg)", print::scalar(Some(average), ""))
            }
            None => {
                let now = print::scalar(had("value"), UNKNOWN);
                format!("{now}/{}", print::scalar(wanted("value"), ""))
            }
        },
    }
}

/// Without metrics, 80 % of the requested cpu; rules of behaviour are filled up from upstream's.
fn default(autoscaler: &mut Object) {
    let spec = autoscaler.map_mut("spec");
    set_default(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let target = json!({ "type": "Utilization", "averageUtilization": 80 });
        let metric = json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } });
        spec.insert("metrics".into(), json!([metric]));
    }
    let Some(behavior) = child(spec, "behavior") else { return };
    let percent = json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
    let pods = json!({ "type": "Pods", "value": 4, "periodSeconds": 15 });
    rules(behavior, "scaleUp", json!([pods, percent]));
    rules(behavior, "scaleDown", json!([percent]));
}

fn rules(behavior: &mut Map<String, Value>, direction: &str, policies: Value) {
    if let Some(rules) = common::made(behavior, direction) {
        if direction == "scaleUp" {
            set_default(rules, "stabilizationWindowSeconds", 0);
        }
        common::set_text(rules, "selectPolicy", "Max");
        set_default(rules, "policies", policies);
    }
}

/// Half an hour and an hour: upstream's longest period and longest look back.
const PERIOD_SECONDS_MAX: i64 = 1800;
const WINDOW_SECONDS_MAX: i64 = 3600;

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let (least, most) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    if least.int().is_some_and(|least| least < 1) {
        errors.invalid(&least, "must be greater than or equal to 1");
    }
    let ceiling = most.int().unwrap_or(0);
    match ceiling {
        0 => errors.required(&most, "must be set and greater than 0"),
        ..0 => errors.invalid(&most, "must be greater than or equal to 1"),
        _ => (),
    }
    if least.int().is_some_and(|least| ceiling < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.invalid_value(&most, ceiling, detail);
    }
    reference_to(&spec.field("scaleTargetRef"), &mut errors);
    for metric in spec.field("metrics").items() {
        validate_metric(&metric, &mut errors);
    }
    let behavior = spec.field("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        validate_rules(&behavior.field(direction), &mut errors);
    }
    errors.0
}

/// A `CrossVersionObjectReference`.
fn reference_to(at: &At<'_, '_>, errors: &mut Errors) {
    errors.needs_segment(&at.field("kind"));
    errors.needs_segment(&at.field("name"));
    let version = at.field("apiVersion");
    if version.text().split('/').count() > 2 {
        let detail = format!("unexpected GroupVersion string: {}", version.text());
        errors.invalid(&version, detail);
    }
}

/// Each type of metric and the field that tells of it, in upstream's order of checks.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

fn validate_metric(metric: &At<'_, '_>, errors: &mut Errors) {
    let kind = metric.field("type");
    if kind.text().is_empty() {
        errors.required(&kind, "must specify a metric source type");
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text()).map(|(_, field)| *field);
    if expected.is_none() {
        errors.not_supported_value(&kind, kind.text(), &TYPES);
    }
    let given: Vec<&'static str> = SOURCES
        .iter()
        .map(|(_, field)| *field)
        .filter(|field| metric.field(field).exists())
        .collect();
    if let Some(first) = given.first() {
        source(first, &metric.field(first), errors);
    }
    match expected {
        Some(field) if !metric.field(field).exists() => {
            let detail = "must populate information for the given metric source";
            errors.required(&metric.field(field), detail);
        }
        Some(_) => (),
        None => errors.not_supported_value(&kind, kind.text(), &TYPES),
    }
    if given.len() != 1 {
        for field in given.into_iter().filter(|field| Some(*field) != expected) {
            errors.forbidden(&metric.field(field), "must populate the given metric source only");
        }
    }
}

fn source(kind: &str, source: &At<'_, '_>, errors: &mut Errors) {
    let (metric, target) = (source.field("metric"), source.field("target"));
    let (value, average) = (target.field("value"), target.field("averageValue"));
    let utilization = target.field("averageUtilization");
    match kind {
        "object" => reference_to(&source.field("describedObject"), errors),
        "resource" | "containerResource" => {
            let name = source.field("name");
            if name.text().is_empty() {
                errors.required(&name, "must specify a resource name");
            } else if kind == "containerResource" {
                resources::validate_name(name.text(), &name, Whose::Container, errors);
            }
            let container = source.field("container");
            if kind == "containerResource" && container.text().is_empty() {
                errors.required(&container, "must specify a container");
            } else if kind == "containerResource" {
                errors.label(&container);
            }
        }
        _ => (),
    }
    if matches!(kind, "object" | "external" | "pods") {
        identifier(&metric.field("name"), errors);
    }
    validate_target(&target, errors);
    match kind {
        "object" if !value.exists() && !average.exists() => {
            errors.required(&average, "must set either a target value or averageValue");
        }
        "external" if !value.exists() && !average.exists() => {
            let detail = "must set either a target value for metric or a per-pod target";
            errors.required(&average, detail);
        }
        "external" if value.exists() && average.exists() => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.forbidden(&value, detail);
        }
        "pods" if !average.exists() => {
            errors.required(&average, "must specify a positive target averageValue");
        }
        "resource" | "containerResource" => match (utilization.exists(), average.exists()) {
            (false, false) => {
                let detail = "must set either a target raw value or a target utilization";
                errors.required(&utilization, detail);
            }
            (true, true) => {
                let detail = "may not set both a target raw value and a target utilization";
                errors.forbidden(&average, detail);
            }
            _ => (),
        },
        _ => (),
    }
}

fn identifier(name: &At<'_, '_>, errors: &mut Errors) {
    match name.text() {
        "" => errors.required(name, "must specify a metric name"),
        text => errors.invalid_each(name, k8s::names::is_path_segment_name(text)),
    }
}

fn validate_target(target: &At<'_, '_>, errors: &mut Errors) {
    let kind = target.field("type");
    if kind.text().is_empty() {
        errors.required(&kind, "must specify a metric target type");
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.invalid_value(&kind, kind.text(), detail);
    }
    for field in ["value", "averageValue"] {
        let at = target.field(field);
        if at.quantity().is_some_and(|amount| amount.sign() <= 0) {
            errors.invalid(&at, "must be positive");
        }
    }
    let utilization = target.field("averageUtilization");
    if utilization.int().is_some_and(|percent| percent < 1) {
        errors.invalid(&utilization, "must be greater than 0");
    }
}

fn validate_rules(rules: &At<'_, '_>, errors: &mut Errors) {
    if !rules.exists() {
        return;
    }
    let window = rules.field("stabilizationWindowSeconds");
    match window.int() {
        Some(..0) => errors.invalid(&window, "must be greater than or equal to zero"),
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => {
            let detail = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            errors.invalid(&window, detail);
        }
        _ => (),
    }
    errors.one_of(&rules.field("selectPolicy"), &["Disabled", "Max", "Min"], false);
    let policies = rules.field("policies");
    if policies.count() == 0 {
        errors.required(&policies, "must specify at least one Policy");
    }
    for policy in policies.items() {
        let (kind, period) = (policy.field("type"), policy.field("periodSeconds"));
        if !matches!(kind.text(), "Pods" | "Percent") {
            errors.not_supported_value(&kind, kind.text(), &["Percent", "Pods"]);
        }
        errors.positive(&policy.field("value"));
        errors.positive(&period);
        if period.int().is_some_and(|seconds| seconds > PERIOD_SECONDS_MAX) {
            let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            errors.invalid(&period, detail);
        }
    }
    let tolerance = rules.field("tolerance");
    if let Some(amount) = tolerance.quantity().filter(|amount| amount.sign() < 0) {
        errors.invalid_value(&tolerance, amount.to_string(), NOT_NEGATIVE);
    }
}

fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    for count in ["currentReplicas", "desiredReplicas"] {
        errors.not_negative(&status.field(count));
    }
    errors.0
}

//! Jobs: pods that run to their end.

use super::{
    Column, KindDef, SelectableField, Subresource,
    common::{
        self, child,
        field::{At, Errors},
        labels, made, pod_spec, print, set_default, set_text, workload,
    },
};
use jiff::Timestamp;
use k8s::{FieldError, Object};
use serde_json::{Map, Value};

pub(super) const KIND: KindDef = KindDef {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    categories: &["all"],
    schema: "batch.v1.Job",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Status", |o, _| status(o)),
        Column::text("Completions", |o, _| completions(o)),
        Column::text("Duration", duration),
        Column::AGE,
        Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
        Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
        Column::text("Selector", |o, _| print::selector(o.at("/spec/selector")).into()).wide(),
    ],
    selectable: &[SelectableField::text("status.successful", |o| {
        o.int_at("/status/succeeded").unwrap_or(0).to_string()
    })],
    prepare_update: common::keep_status,
    generation: true,
    default,
    prepare_create,
    validate,
    ..KindDef::BASE
};

fn status(object: &Object) -> Value {
    let conditions = print::list(object, "/status/conditions");
    let has = |kind: &str| {
        conditions
            .iter()
            .any(|c| print::field(c, "type") == kind && print::field(c, "status") == "True")
    };
    let word = match () {
        _ if has("Complete") => "Complete",
        _ if has("Failed") => "Failed",
        _ if object.deletion_timestamp().is_some() => "Terminating",
        _ if has("Suspended") => "Suspended",
        _ if has("FailureTarget") => "FailureTarget",
        _ if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        _ => "Running",
    };
    word.into()
}

fn completions(object: &Object) -> Value {
    let succeeded = object.int_at("/status/succeeded").unwrap_or(0);
    if let Some(completions) = object.int_at("/spec/completions") {
        return format!("{succeeded}/{completions}").into();
    }
    match object.int_at("/spec/parallelism").unwrap_or(0) {
        parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}").into(),
        _ => format!("{succeeded}/1").into(),
    }
}

fn duration(object: &Object, now: Timestamp) -> Value {
    let Ok(start) = object.str_at("/status/startTime").parse::<Timestamp>() else {
        return "".into();
    };
    let end = object.str_at("/status/completionTime").parse().unwrap_or(now);
    print::human_duration(end.as_second() - start.as_second()).into()
}

fn default(job: &mut Object) {
    let spec = job.map_mut("spec");
    default_spec(spec);
    let labels = child(spec, "template")
        .and_then(|template| child(template, "metadata")?.get("labels").cloned());
    let bare = job.labels().next().is_none();
    if let (Some(labels), true) = (labels, bare) {
        set_default(job.metadata_mut(), "labels", labels);
    }
}

/// Of a Job; a CronJob's template gets the pod's part only.
fn default_spec(spec: &mut Map<String, Value>) {
    if spec.get("completions").is_none_or(Value::is_null)
        && spec.get("parallelism").is_none_or(Value::is_null)
    {
        spec.insert("completions".into(), 1.into());
    }
    set_default(spec, "parallelism", 1);
    let rules = spec.get("podFailurePolicy").is_some();
    set_default(spec, "backoffLimit", 6);
    set_text(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    set_text(spec, "podReplacementPolicy", if rules { "Failed" } else { "TerminatingOrFailed" });
    workload::default_template(spec);
}

const OWNER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// A job selects the pods that carry its uid, so the core has set that before.
fn prepare_create(job: &mut Object) {
    common::drop_status(job);
    let (uid, name) = (job.uid().to_string(), job.name().to_string());
    let spec = job.map_mut("spec");
    if spec.get("manualSelector").and_then(Value::as_bool).unwrap_or(false) {
        return;
    }
    let template = made(spec, "template").and_then(|template| made(template, "metadata"));
    if let Some(labels) = template.and_then(|metadata| made(metadata, "labels")) {
        for (key, value) in
            [(OWNER_UID, &uid), ("controller-uid", &uid), (JOB_NAME, &name), ("job-name", &name)]
        {
            labels.insert(key.into(), value.clone().into());
        }
    }
    if let Some(labels) = made(spec, "selector").and_then(|selector| made(selector, "matchLabels"))
    {
        labels.insert(OWNER_UID.into(), uid.into());
    }
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        errors.not_negative(&spec.field(field));
    }
    errors.one_of(&spec.field("completionMode"), &["Indexed", "NonIndexed"], false);
    let selector = spec.field("selector");
    if !selector.exists() {
        errors.required(&selector, "");
    }
    labels::validate_selector(&selector, &mut errors);
    let template = spec.field("template");
    pod_spec::validate_any_template(&template, &mut errors);
    let pods = template.field("spec");
    let policy = pods.field("restartPolicy");
    if policy.text() == "Always" {
        let detail = "valid values: \"OnFailure\", \"Never\"";
        errors.required(&policy, detail);
    }
    if let Some(old) = old {
        let was = At::top(old, "spec");
        for field in ["completions", "selector", "template", "completionMode"] {
            errors.immutable(&spec.field(field), &was.field(field));
        }
    }
    errors.0
}

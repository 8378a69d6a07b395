//! Jobs: pods that run to their end.

use super::{common::{self, print}, Column, KindDef, SelectableField, Subresource};
use k8s::Object;
use serde_json::Value;
use jiff::Timestamp;

pub(super) const KIND: KindDef = KindDef {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    categories: &["all"],
    schema: "batch.v1.Job",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME,
Column::text("Status", |o, _| status(o)),
Column::text("Completions", |o, _| completions(o)),
Column::text("Duration", duration),
Column::AGE,
Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
Column::text("Selector", |o, _| print::selector(o.at("/spec/selector")).into()).wide()],
    selectable: &[SelectableField::text("status.successful", |o| o.int_at("/status/succeeded").unwrap_or(0).to_string())],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    ..KindDef::BASE
};

fn status(object: &Object) -> Value {
    let conditions = print::list(object, "/status/conditions");
    let has = |kind: &str| {
        conditions.iter().any(|c| print::field(c, "type") == kind && print::field(c, "status") == "True")
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

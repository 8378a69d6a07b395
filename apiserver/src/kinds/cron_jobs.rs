//! CronJobs: Jobs made by the clock.

use super::{
    Column, KindDef, Subresource,
    common::{
        self, child,
        field::{At, Errors},
        pod_spec, print, set_default, set_text, workload,
    },
};
use jiff::Timestamp;
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "batch",
    kind: "CronJob",
    plural: "cronjobs",
    short_names: &["cj"],
    categories: &["all"],
    schema: "batch.v1.CronJob",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Schedule", |o, _| print::text(o, "/spec/schedule")),
        Column::text("Timezone", |o, _| print::text_or_none(o, "/spec/timeZone")),
        Column::boolean("Suspend", |o, _| {
            (if print::boolean(o, "/spec/suspend") { "True" } else { "False" }).into()
        }),
        Column::integer("Active", |o, _| print::count(o, "/status/active").into()),
        Column::text("Last Schedule", last_schedule),
        Column::AGE,
        Column::text("Containers", |o, _| {
            print::containers(o, "/spec/jobTemplate/spec/template/spec")
        })
        .wide(),
        Column::text("Images", |o, _| print::images(o, "/spec/jobTemplate/spec/template/spec"))
            .wide(),
        Column::text("Selector", |o, _| {
            print::selector(o.at("/spec/jobTemplate/spec/selector")).into()
        })
        .wide(),
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    default,
    validate,
    ..KindDef::BASE
};

fn last_schedule(object: &Object, now: Timestamp) -> Value {
    match object.str_at("/status/lastScheduleTime") {
        "" => "<none>".into(),
        time => print::since(time, now).into(),
    }
}

fn default(cron_job: &mut Object) {
    let spec = cron_job.map_mut("spec");
    set_text(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = child(spec, "jobTemplate").and_then(|template| child(template, "spec")) {
        workload::default_template(job);
    }
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let schedule = spec.field("schedule");
    if errors.needs_text(&schedule) {
        let fields = schedule.text().split_whitespace().count();
        if !schedule.text().starts_with('@') && fields != 5 {
            let detail =
                format!("expected exactly 5 fields, found {fields}: [{}]", schedule.text());
            errors.invalid(&schedule, detail);
        }
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"]
    {
        errors.not_negative(&spec.field(field));
    }
    errors.one_of(&spec.field("concurrencyPolicy"), &["Allow", "Forbid", "Replace"], true);
    let job = spec.field("jobTemplate");
    let job = job.field("spec");
    let template = job.field("template");
    pod_spec::validate_any_template(&template, &mut errors);
    let pods = template.field("spec");
    let policy = pods.field("restartPolicy");
    if policy.text() == "Always" {
        errors.required(&policy, "valid values: \"OnFailure\", \"Never\"");
    }
    errors.0
}

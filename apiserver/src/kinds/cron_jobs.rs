//! CronJobs: Jobs made by the clock.

use super::{
    Column, KindDef, Subresource,
    common::{
        self, child, cron,
        field::{At, Errors},
        job_spec, pod_spec, print, set_default, set_text, workload,
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
    warnings,
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

/// A job's name is the cron job's with a time of up to 11 characters.
const NAME_CHARS_MAX: usize = 52;

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let (schedule, zone) = (spec.field("schedule"), spec.field("timeZone"));
    if errors.needs_text(&schedule) {
        if let Err(why) = cron::check(schedule.text()) {
            errors.invalid(&schedule, why);
        }
        let had = old.is_some_and(|old| old.str_at("/spec/schedule").contains("TZ"));
        if schedule.text().contains("TZ") && !had {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.invalid(&schedule, detail);
        } else if schedule.text().contains("TZ") && zone.exists() {
            let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            errors.invalid(&schedule, detail);
        }
    }
    errors.not_negative(&spec.field("startingDeadlineSeconds"));
    let same_zone = old.is_some_and(|old| old.at("/spec/timeZone") == zone.value());
    if zone.exists() && !same_zone {
        time_zone(&zone, &mut errors);
    }
    errors.one_of(&spec.field("concurrencyPolicy"), &["Allow", "Forbid", "Replace"], true);
    let template = spec.field("jobTemplate");
    let job = template.field("spec");
    job_spec::validate(&job, &mut errors);
    let (selector, manual) = (job.field("selector"), job.field("manualSelector"));
    if selector.exists() {
        errors.invalid(&selector, "`selector` will be auto-generated");
    }
    if manual.flag() {
        errors.not_supported(&manual, &["nil", "false"]);
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.not_negative(&spec.field(field));
    }
    if old.is_none() && new.name().len() > NAME_CHARS_MAX {
        let detail = format!("must be no more than {NAME_CHARS_MAX} characters");
        errors.invalid(&At::top(new, "metadata").field("name"), detail);
    }
    errors.0
}

fn time_zone(zone: &At<'_, '_>, errors: &mut Errors) {
    const EXPLICIT: &str =
        "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
    match zone.text() {
        "" => errors.invalid(zone, "timeZone must be nil or non-empty string"),
        name if name.eq_ignore_ascii_case("local") => errors.invalid(zone, EXPLICIT),
        name => {
            if let Err(why) = cron::check_zone(name) {
                errors.invalid(zone, why);
            }
        }
    }
}

fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    let mut warnings = match old {
        None => workload::name_warnings(new),
        Some(_) => Vec::new(),
    };
    if old.is_none_or(|old| old.at("/spec") != new.at("/spec")) {
        let spec = At::top(new, "spec");
        let job = spec.field("jobTemplate");
        let job = job.field("spec");
        warnings.extend(pod_spec::template_warnings(&job.field("template")));
    }
    if new.str_at("/spec/schedule").contains("TZ") {
        warnings
            .push("cannot use TZ or CRON_TZ in spec.schedule, use timeZone field instead".into());
    }
    warnings
}

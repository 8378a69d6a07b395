//! CronJobs: Jobs made by the clock.

use super::{common::{self, print}, Column, KindDef, Subresource};
use k8s::Object;
use serde_json::Value;
use jiff::Timestamp;

pub(super) const KIND: KindDef = KindDef {
    group: "batch",
    kind: "CronJob",
    plural: "cronjobs",
    short_names: &["cj"],
    categories: &["all"],
    schema: "batch.v1.CronJob",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME,
Column::text("Schedule", |o, _| print::text(o, "/spec/schedule")),
Column::text("Timezone", |o, _| print::text_or_none(o, "/spec/timeZone")),
Column::boolean("Suspend", |o, _| (if print::boolean(o, "/spec/suspend") { "True" } else { "False" }).into()),
Column::integer("Active", |o, _| print::count(o, "/status/active").into()),
Column::text("Last Schedule", last_schedule),
Column::AGE,
Column::text("Containers", |o, _| print::containers(o, "/spec/jobTemplate/spec/template/spec")).wide(),
Column::text("Images", |o, _| print::images(o, "/spec/jobTemplate/spec/template/spec")).wide(),
Column::text("Selector", |o, _| print::selector(o.at("/spec/jobTemplate/spec/selector")).into()).wide()],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    ..KindDef::BASE
};

fn last_schedule(object: &Object, now: Timestamp) -> Value {
    match object.str_at("/status/lastScheduleTime") {
        "" => "<none>".into(),
        time => print::since(time, now).into(),
    }
}

//! DaemonSets: one pod on every node that fits.

use super::{common::{self, print}, Column, KindDef, Subresource};

pub(super) const KIND: KindDef = KindDef {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    short_names: &["ds"],
    categories: &["all"],
    schema: "apps.v1.DaemonSet",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME,
Column::integer("Desired", |o, _| print::int(o, "/status/desiredNumberScheduled")),
Column::integer("Current", |o, _| print::int(o, "/status/currentNumberScheduled")),
Column::integer("Ready", |o, _| print::int(o, "/status/numberReady")),
Column::integer("Up-to-date", |o, _| print::int(o, "/status/updatedNumberScheduled")),
Column::integer("Available", |o, _| print::int(o, "/status/numberAvailable")),
Column::text("Node Selector", |o, _| print::labels(o.at("/spec/template/spec/nodeSelector")).into()),
Column::AGE,
Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
Column::text("Selector", |o, _| print::selector(o.at("/spec/selector")).into()).wide()],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    ..KindDef::BASE
};

//! ReplicaSets: a number of equal pods.

use super::{common::{self, print}, Column, KindDef, SelectableField, Subresource};

pub(super) const KIND: KindDef = KindDef {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    short_names: &["rs"],
    categories: &["all"],
    schema: "apps.v1.ReplicaSet",
    subresources: &[Subresource::Status, Subresource::SCALE],
    columns: &[Column::NAME,
Column::integer("Desired", |o, _| print::int(o, "/spec/replicas")),
Column::integer("Current", |o, _| print::int(o, "/status/replicas")),
Column::integer("Ready", |o, _| print::int(o, "/status/readyReplicas")),
Column::AGE,
Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
Column::text("Selector", |o, _| print::selector(o.at("/spec/selector")).into()).wide()],
    selectable: &[SelectableField::text("status.replicas", |o| o.int_at("/status/replicas").unwrap_or(0).to_string())],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    ..KindDef::BASE
};

//! ReplicationControllers: what came before ReplicaSets.

use super::{common::{self, print}, Column, KindDef, SelectableField, Subresource};

pub(super) const KIND: KindDef = KindDef {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    short_names: &["rc"],
    categories: &["all"],
    schema: "core.v1.ReplicationController",
    subresources: &[Subresource::Status, Subresource::Scale { spec_replicas: "/spec/replicas", status_replicas: "/status/replicas", selector: "/spec/selector" }],
    columns: &[Column::NAME,
Column::integer("Desired", |o, _| print::int(o, "/spec/replicas")),
Column::integer("Current", |o, _| print::int(o, "/status/replicas")),
Column::integer("Ready", |o, _| print::int(o, "/status/readyReplicas")),
Column::AGE,
Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
Column::text("Selector", |o, _| print::labels(o.at("/spec/selector")).into()).wide()],
    selectable: &[SelectableField::text("status.replicas", |o| o.int_at("/status/replicas").unwrap_or(0).to_string())],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    ..KindDef::BASE
};

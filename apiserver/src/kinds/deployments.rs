//! Deployments: a set of equal pods and how it goes from one version to the next.

use super::{common::{self, print}, Column, KindDef, Subresource};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    short_names: &["deploy"],
    categories: &["all"],
    schema: "apps.v1.Deployment",
    subresources: &[Subresource::Status, Subresource::SCALE],
    columns: &[Column::NAME,
Column::text("Ready", |o, _| ready(o)),
Column::integer("Up-to-date", |o, _| print::int(o, "/status/updatedReplicas")),
Column::integer("Available", |o, _| print::int(o, "/status/availableReplicas")),
Column::AGE,
Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
Column::text("Selector", |o, _| print::selector(o.at("/spec/selector")).into()).wide()],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    ..KindDef::BASE
};

fn ready(object: &Object) -> Value {
    let ready = object.int_at("/status/readyReplicas").unwrap_or(0);
    format!("{ready}/{}", object.int_at("/spec/replicas").unwrap_or(0)).into()
}

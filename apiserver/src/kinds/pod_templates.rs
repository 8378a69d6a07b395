//! PodTemplates: a pod to be made later.

use super::{common::print, Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    kind: "PodTemplate",
    plural: "podtemplates",
    schema: "core.v1.PodTemplate",
    columns: &[Column::NAME,
Column::text("Containers", |o, _| print::containers(o, "/template/spec")),
Column::text("Images", |o, _| print::images(o, "/template/spec")),
Column::text("Pod Labels", |o, _| print::labels(o.at("/template/metadata/labels")).into())],
    generation: true,
    ..KindDef::BASE
};

//! PriorityClasses: names for the importance of pods.

use super::{common::print, Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    short_names: &["pc"],
    namespaced: false,
    schema: "scheduling.v1.PriorityClass",
    columns: &[Column::NAME,
Column::integer("Value", |o, _| print::int(o, "/value")),
Column::boolean("Global-Default", |o, _| print::boolean(o, "/globalDefault").into()),
Column::AGE,
Column::text("PreemptionPolicy", |o, _| print::text(o, "/preemptionPolicy"))],
    generation: true,
    ..KindDef::BASE
};

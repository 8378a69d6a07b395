//! ControllerRevisions: what a DaemonSet or StatefulSet looked like before.

use super::{common::print, Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    group: "apps",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    schema: "apps.v1.ControllerRevision",
    columns: &[Column::NAME,
Column::text("Controller", |o, _| print::controller(o)),
Column::integer("Revision", |o, _| print::int(o, "/revision")),
Column::AGE],
    ..KindDef::BASE
};

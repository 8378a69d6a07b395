//! PodDisruptionBudgets: how many pods may be away at once.

use super::{common::{self, print}, Column, KindDef, Subresource};

pub(super) const KIND: KindDef = KindDef {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    short_names: &["pdb"],
    schema: "policy.v1.PodDisruptionBudget",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME,
Column::text("Min Available", |o, _| print::scalar(o.at("/spec/minAvailable"), "N/A").into()),
Column::text("Max Unavailable", |o, _| print::scalar(o.at("/spec/maxUnavailable"), "N/A").into()),
Column::integer("Allowed Disruptions", |o, _| print::int(o, "/status/disruptionsAllowed")),
Column::AGE],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    unconditional_update: false,
    ..KindDef::BASE
};

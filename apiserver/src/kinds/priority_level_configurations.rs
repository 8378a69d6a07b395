//! PriorityLevelConfigurations: shares of the server for kinds of requests. Stored, not yet enforced.

use super::{
    Column, KindDef, Subresource,
    common::{self, print},
};

pub(super) const KIND: KindDef = KindDef {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    namespaced: false,
    schema: "flowcontrol.v1.PriorityLevelConfiguration",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Type", |o, _| print::text(o, "/spec/type")),
        Column::text("NominalConcurrencyShares", |o, _| {
            print::scalar(o.at("/spec/limited/nominalConcurrencyShares"), "<none>").into()
        }),
        Column::text("Queues", |o, _| {
            print::scalar(o.at("/spec/limited/limitResponse/queuing/queues"), "<none>").into()
        }),
        Column::text("HandSize", |o, _| {
            print::scalar(o.at("/spec/limited/limitResponse/queuing/handSize"), "<none>").into()
        }),
        Column::text("QueueLengthLimit", |o, _| {
            print::scalar(o.at("/spec/limited/limitResponse/queuing/queueLengthLimit"), "<none>")
                .into()
        }),
        Column::AGE,
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    unconditional_update: false,
    ..KindDef::BASE
};

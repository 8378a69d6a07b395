//! ServiceAccounts: identities of pods.

use super::{Column, KindDef, Subresource, common::print};

pub(super) const KIND: KindDef = KindDef {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    short_names: &["sa"],
    schema: "core.v1.ServiceAccount",
    subresources: &[Subresource::Named {
        name: "token",
        schema: "authentication.v1.TokenRequest",
        verbs: &["create"],
    }],
    columns: &[
        Column::NAME,
        Column::text("Secrets", |o, _| print::count(o, "/secrets").into()),
        Column::AGE,
    ],
    ..KindDef::BASE
};

//! ValidatingWebhookConfigurations: who is asked about requests. Stored, not yet called.

use super::{common::print, Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admissionregistration.v1.ValidatingWebhookConfiguration",
    columns: &[Column::NAME,
Column::integer("Webhooks", |o, _| print::count(o, "/webhooks").into()),
Column::AGE],
    generation: true,
    unconditional_update: false,
    ..KindDef::BASE
};

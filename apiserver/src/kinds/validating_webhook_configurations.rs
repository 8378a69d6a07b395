//! ValidatingWebhookConfigurations: who is asked about requests.

use super::{Column, KindDef, common::webhooks};

pub(super) const KIND: KindDef = KindDef {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admissionregistration.v1.ValidatingWebhookConfiguration",
    columns: &[
        Column::NAME,
        Column::integer("Webhooks", |o, _| webhooks::count(o)),
        Column::AGE,
    ],
    generation: true,
    unconditional_update: false,
    default: |configuration| webhooks::default(configuration, false),
    validate: |new, _| webhooks::validate(new),
    ..KindDef::BASE
};

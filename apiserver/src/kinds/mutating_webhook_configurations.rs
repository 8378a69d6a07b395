//! MutatingWebhookConfigurations: who is asked to change requests.

use super::{Column, KindDef, common::webhooks};

pub(super) const KIND: KindDef = KindDef {
    group: "admissionregistration.k8s.io",
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admissionregistration.v1.MutatingWebhookConfiguration",
    columns: &[
        Column::NAME,
        Column::integer("Webhooks", |o, _| webhooks::count(o)),
        Column::AGE,
    ],
    generation: true,
    unconditional_update: false,
    default: |configuration| webhooks::default(configuration, true),
    validate: |new, _| webhooks::validate(new),
    ..KindDef::BASE
};

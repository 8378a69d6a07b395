//! ValidatingWebhookConfigurations: who is asked about requests. Stored, not yet called.

use super::{
    Column, KindDef,
    common::{child, children, made, print, set_default, set_text},
};
use k8s::Object;

pub(super) const KIND: KindDef = KindDef {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    categories: &["api-extensions"],
    namespaced: false,
    schema: "admissionregistration.v1.ValidatingWebhookConfiguration",
    columns: &[
        Column::NAME,
        Column::integer("Webhooks", |o, _| print::count(o, "/webhooks").into()),
        Column::AGE,
    ],
    generation: true,
    unconditional_update: false,
    default,
    ..KindDef::BASE
};

fn default(configuration: &mut Object) {
    for webhook in children(&mut configuration.0, "webhooks") {
        set_text(webhook, "failurePolicy", "Fail");
        set_text(webhook, "matchPolicy", "Equivalent");
        made(webhook, "namespaceSelector");
        made(webhook, "objectSelector");
        set_default(webhook, "timeoutSeconds", 10);
        children(webhook, "rules").for_each(|rule| set_text(rule, "scope", "*"));
        let service = child(webhook, "clientConfig").and_then(|client| child(client, "service"));
        if let Some(service) = service {
            set_default(service, "port", 443);
        }
    }
}

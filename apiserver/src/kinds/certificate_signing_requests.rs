//! CertificateSigningRequests: X.509 certificates asked of a signer.

use super::{
    Column, KindDef, SelectableField, Subresource,
    common::{
        self,
        field::{At, Errors},
        print,
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    short_names: &["csr"],
    namespaced: false,
    schema: "certificates.v1.CertificateSigningRequest",
    subresources: &[
        Subresource::Status,
        Subresource::Named {
            name: "approval",
            schema: "certificates.v1.CertificateSigningRequest",
            verbs: &["get", "patch", "update"],
        },
    ],
    columns: &[
        Column::NAME,
        Column::AGE,
        Column::text("SignerName", |o, _| print::text(o, "/spec/signerName")),
        Column::text("Requestor", |o, _| print::text(o, "/spec/username")),
        Column::text("RequestedDuration", |o, _| duration(o)),
        Column::text("Condition", |o, _| condition(o)),
    ],
    selectable: &[SelectableField::text("spec.signerName", |o| {
        o.str_at("/spec/signerName").to_string()
    })],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    validate,
    ..KindDef::BASE
};

fn duration(object: &Object) -> Value {
    match object.int_at("/spec/expirationSeconds") {
        Some(seconds) => print::human_duration(seconds).into(),
        None => "<none>".into(),
    }
}

/// `Approved,Issued`, `Pending`, …
fn condition(object: &Object) -> Value {
    let mut words: Vec<&str> = Vec::new();
    let conditions = print::list(object, "/status/conditions");
    let has =
        |kind: &str| conditions.iter().any(|condition| print::field(condition, "type") == kind);
    match (has("Denied"), has("Approved")) {
        (true, _) => words.push("Denied"),
        (false, true) => words.push("Approved"),
        (false, false) => words.push("Pending"),
    }
    if has("Failed") {
        words.push("Failed");
    }
    if !object.str_at("/status/certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",").into()
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    errors.needs_text(&spec.field("request"));
    errors.needs_text(&spec.field("signerName"));
    let usages = spec.field("usages");
    if usages.count() == 0 {
        errors.required(&usages, "usages is required");
    }
    let seconds = spec.field("expirationSeconds");
    if seconds.int().is_some_and(|seconds| seconds < 600) {
        errors.invalid(&seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    errors.0
}

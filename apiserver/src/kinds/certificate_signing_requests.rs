//! CertificateSigningRequests: X.509 certificates asked of a signer.

use super::{
    Column, KindDef, NameRule, SelectableField, Subresource,
    common::{
        self,
        field::{At, Errors},
        print,
    },
};
use crate::certificates::{
    request::{self, Request},
    signers,
};
use k8s::{FieldError, Object, names};
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
    name: NameRule::PathSegment,
    prepare_create: common::drop_status,
    prepare_update,
    validate,
    validate_status,
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

/// What was asked and by whom stays as it is.
fn prepare_update(new: &mut Object, old: &Object) {
    common::keep_status(new, old);
    match old.0.get("spec") {
        Some(spec) => new.0.insert("spec".into(), spec.clone()),
        None => new.0.remove("spec"),
    };
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    // The spec of what exists cannot change; older rules may have let it in.
    if old.is_none() {
        validate_spec(new, &mut errors);
    }
    errors.0
}

fn validate_spec(new: &Object, errors: &mut Errors) {
    let spec = At::top(new, "spec");
    let request = spec.field("request");
    if let Err(why) = Request::of(new) {
        errors.invalid(&request, why);
    }
    let usages = spec.field("usages");
    if usages.count() == 0 {
        errors.required(&usages, "usages is required");
    }
    let known = signers::usage_names();
    let mut seen = Vec::new();
    for usage in usages.items() {
        if !known.contains(&usage.text()) {
            errors.not_supported(&usage, &known);
        } else if seen.contains(&usage.text().to_string()) {
            errors.duplicate(&usage);
        }
        seen.push(usage.text().to_string());
    }
    let signer = spec.field("signerName");
    if signer.text() == signers::LEGACY {
        errors.invalid(&signer, "the legacy signerName is not allowed via this API version");
    } else {
        signer_name(&signer, errors);
    }
    let seconds = spec.field("expirationSeconds");
    if seconds.int().is_some_and(|seconds| seconds < 600) {
        errors.invalid(&seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

/// `domain/path`, both of DNS labels (upstream's `ValidateSignerName`).
fn signer_name(signer: &At<'_, '_>, errors: &mut Errors) {
    const LONGEST: usize = 571; // A domain, a slash, a namespace, a dot and a name.
    let text = signer.text();
    if text.is_empty() {
        errors.required(signer, "");
        return;
    }
    let Some((domain, path)) = text.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        errors.invalid(signer, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
        return;
    };
    for detail in names::is_dns1123_subdomain(domain) {
        errors.invalid(signer, format!("validating label {domain:?}: {detail}"));
    }
    if !domain.contains('.') {
        errors.invalid(signer, "should be a domain with at least two segments separated by dots");
    }
    if path.is_empty() {
        errors.invalid(signer, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
    }
    for detail in path.split('.').filter(|part| !part.is_empty()).flat_map(names::is_dns1123_label)
    {
        errors.invalid(signer, detail);
    }
    if text.len() > LONGEST {
        errors.too_long(signer, LONGEST);
    }
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    let mut kinds: Vec<String> = Vec::new();
    for condition in status.field("conditions").items() {
        let kind = condition.field("type");
        errors.needs_text(&kind);
        let value = condition.field("status");
        let settles = matches!(kind.text(), "Approved" | "Denied" | "Failed");
        match value.text() {
            "" => errors.required(&value, ""),
            "True" => {}
            "False" | "Unknown" if !settles => {}
            _ if settles => errors.not_supported(&value, &["True"]),
            _ => errors.not_supported(&value, &["False", "True", "Unknown"]),
        }
        let other = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if kinds.iter().any(|known| known == other) {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(&kind, why);
        }
        if kinds.iter().any(|known| *known == kind.text()) {
            errors.duplicate(&kind);
        }
        kinds.push(kind.text().to_string());
    }
    let (certificate, was) = (status.field("certificate"), old.str_at("/status/certificate"));
    if !was.is_empty() && certificate.text() != was {
        let why = "updates may not modify existing certificate data";
        errors.0.push(FieldError::forbidden("status.certificate", why));
    } else if certificate.text() != was && !is_pem_certificate(certificate.text()) {
        errors.invalid_value(&certificate, "<certificate data>", "no valid CERTIFICATE PEM block");
    }
    errors.0
}

fn is_pem_certificate(text: &str) -> bool {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let block = request::pem(&bytes).filter(|(label, _)| label == "CERTIFICATE");
    block.is_some_and(|(_, der)| x509_parser::parse_x509_certificate(&der).is_ok())
}

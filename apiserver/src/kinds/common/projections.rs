//! Projected volumes: files from secrets, config maps, the pod itself, tokens and certificates.

use super::{
    field::{At, Errors},
    labels,
    pod_spec::field_sources,
    volume_sources::{key_to_path, mode, unreserved},
};
use k8s::names as rules;
use std::collections::BTreeSet;

/// Paths that are taken in one volume.
type Paths<'v> = BTreeSet<&'v str>;

pub(crate) fn validate(projected: &At<'_, '_>, errors: &mut Errors) {
    mode(&projected.field("defaultMode"), errors);
    let mut paths = Paths::new();
    for source in projected.field("sources").items() {
        let kinds = [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ];
        for kind in ["secret", "configMap"] {
            files(projected, &source.field(kind), &mut paths, errors);
        }
        let downward = source.field("downwardAPI");
        for item in downward.field("items").items() {
            downward_item(&downward, &item, errors);
            take(projected, item.field("path").text(), &mut paths, errors);
        }
        token(projected, &source.field("serviceAccountToken"), errors);
        trust_bundle(projected, &source.field("clusterTrustBundle"), &mut paths, errors);
        certificate(projected, &source.field("podCertificate"), &mut paths, errors);
        if kinds.into_iter().filter(|kind| source.field(kind).exists()).count() > 1 {
            errors.forbidden(&source, "may not specify more than 1 volume type per source");
        }
    }
}

/// Two files in one place are one too many; upstream tells it of the whole volume.
fn take<'v>(projected: &At<'_, '_>, path: &'v str, paths: &mut Paths<'v>, errors: &mut Errors) {
    if !path.is_empty() && !paths.insert(path) {
        errors.invalid_value(projected, path, "conflicting duplicate paths");
    }
}

fn files<'v>(
    projected: &At<'_, '_>,
    source: &At<'_, 'v>,
    paths: &mut Paths<'v>,
    errors: &mut Errors,
) {
    if !source.exists() {
        return;
    }
    let name = source.field("name");
    errors.needs_text(&name);
    for item in source.field("items").items() {
        key_to_path(&item, errors);
        let path = item.field("path").text();
        if !path.is_empty() && !paths.insert(path) {
            errors.invalid_value(projected, name.text(), "conflicting duplicate paths");
        }
    }
}

/// A file that says something of its pod. Upstream names the volume, not the item.
pub(crate) fn downward_item(volume: &At<'_, '_>, item: &At<'_, '_>, errors: &mut Errors) {
    let mut within = Errors::default();
    within.needs_text(&item.field("path"));
    unreserved(&item.field("path"), &mut within);
    let (field, resource) = (item.field("fieldRef"), item.field("resourceFieldRef"));
    match (field.exists(), resource.exists()) {
        (false, false) => {
            within.required(item, "one of fieldRef and resourceFieldRef is required");
        }
        (true, both) => {
            field_sources::field(&field, true, &mut within);
            if both {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                within.invalid_value(item, "resource", detail);
            }
        }
        (false, true) => field_sources::resource(&resource, true, &mut within),
    }
    mode(&item.field("mode"), &mut within);
    errors.adopt(within, item, volume);
}

fn token(projected: &At<'_, '_>, token: &At<'_, '_>, errors: &mut Errors) {
    if !token.exists() {
        return;
    }
    let seconds = token.field("expirationSeconds");
    let value = seconds.int().unwrap_or(0);
    if value < 600 {
        errors.invalid_value(&seconds, value, "may not specify a duration less than 10 minutes");
    }
    if value > 1 << 32 {
        errors.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
    }
    // Upstream names the path of the volume here.
    let path = token.field("path");
    let outer = format!("{projected}.path");
    let mut within = Errors::default();
    if within.needs_text(&path) {
        unreserved(&path, &mut within);
    }
    errors.adopt(within, &path, &outer);
}

fn trust_bundle<'v>(
    projected: &At<'_, '_>,
    bundle: &At<'_, 'v>,
    paths: &mut Paths<'v>,
    errors: &mut Errors,
) {
    if !bundle.exists() {
        return;
    }
    let (name, signer) = (bundle.field("name"), bundle.field("signerName"));
    let selector = bundle.field("labelSelector");
    match (name.exists(), signer.exists()) {
        (true, true) => {
            errors.invalid(bundle, "only one of name and signerName may be used");
        }
        (true, false) => {
            if name.text().is_empty() {
                errors.required(&name, "must be a valid object name");
            }
            for detail in rules::is_dns1123_subdomain(&name.text().replace(':', ".")) {
                errors.invalid(&name, format!("not a valid clustertrustbundlename: {detail}"));
            }
            if selector.exists() {
                errors.invalid(&selector, "labelSelector must be unset if name is specified");
            }
        }
        (false, true) => {
            if signer.text().is_empty() {
                errors.required(&signer, "must be a valid signer name");
            }
            signer_name(&signer, errors);
            labels::validate_selector(&selector, errors);
        }
        (false, false) => {
            errors.required(bundle, "either name or signerName must be specified");
        }
    }
    let path = bundle.field("path");
    errors.needs_text(&path);
    unreserved(&path, errors);
    take(projected, path.text(), paths, errors);
}

const KEY_TYPES: [&str; 6] =
    ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
/// 91 days, and a day for Kubernetes' own signers.
const CERTIFICATE_SECONDS_MAX: i64 = 91 * 24 * 60 * 60;
const OWN_CERTIFICATE_SECONDS_MAX: i64 = 24 * 60 * 60;

fn certificate<'v>(
    projected: &At<'_, '_>,
    certificate: &At<'_, 'v>,
    paths: &mut Paths<'v>,
    errors: &mut Errors,
) {
    if !certificate.exists() {
        return;
    }
    let signer = certificate.field("signerName");
    signer_name(&signer, errors);
    let key = certificate.field("keyType");
    if !KEY_TYPES.contains(&key.text()) {
        errors.not_supported(&key, &KEY_TYPES);
    }
    let seconds = certificate.field("maxExpirationSeconds");
    let domain = signer.text().split('/').next().unwrap_or_default();
    let own = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    let most = if own { OWN_CERTIFICATE_SECONDS_MAX } else { CERTIFICATE_SECONDS_MAX };
    match seconds.int() {
        Some(..3600) => {
            errors.invalid(&seconds, "if provided, maxExpirationSeconds must be >= 3600");
        }
        Some(value) if value > most => {
            errors
                .invalid(&seconds, format!("if provided, maxExpirationSeconds must be <= {most}"));
        }
        _ => (),
    }
    let fields = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    let mut any = false;
    for field in fields {
        let path = certificate.field(field);
        if !path.text().is_empty() {
            any = true;
            unreserved(&path, errors);
            take(projected, path.text(), paths, errors);
        }
    }
    if !any {
        let detail =
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.required(certificate, detail);
    }
}

/// `example.com/name`: a domain with a dot, and one path segment or more with dots.
fn signer_name(at: &At<'_, '_>, errors: &mut Errors) {
    let text = at.text();
    let Some((domain, path)) = text.split_once('/') else {
        let detail = match text {
            "" => return errors.required(at, ""),
            _ => "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        };
        return errors.invalid(at, detail);
    };
    if !domain.contains('.') {
        errors.invalid_value(
            at,
            domain,
            "should be a domain with at least two segments separated by dots",
        );
    }
    for detail in rules::is_dns1123_subdomain(domain) {
        errors.invalid_value(at, domain, format!("validating signer name domain: {detail}"));
    }
    for detail in path.split('.').flat_map(rules::is_dns1123_label) {
        errors.invalid_value(at, path, format!("validating signer name: {detail}"));
    }
}

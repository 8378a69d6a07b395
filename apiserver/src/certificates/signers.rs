//! The signers of Kubernetes: which requests each takes, and what usages mean in a certificate.

use super::request::Request;
use k8s::Object;
use serde_json::Value;

pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(crate) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// What a usage is in X.509: a bit of keyUsage, or an extended one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Usage {
    Bit(u8),
    Extended(&'static [u64]),
}

/// Every usage that `certificates.k8s.io/v1 KeyUsage` names.
const USAGES: &[(&str, Usage)] = &[
    ("any", Usage::Extended(&[2, 5, 29, 37, 0])),
    ("cert sign", Usage::Bit(5)),
    ("client auth", Usage::Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 2])),
    ("code signing", Usage::Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 3])),
    ("content commitment", Usage::Bit(1)),
    ("crl sign", Usage::Bit(6)),
    ("data encipherment", Usage::Bit(3)),
    ("decipher only", Usage::Bit(8)),
    ("digital signature", Usage::Bit(0)),
    ("email protection", Usage::Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 4])),
    ("encipher only", Usage::Bit(7)),
    ("ipsec end system", Usage::Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 5])),
    ("ipsec tunnel", Usage::Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 6])),
    ("ipsec user", Usage::Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 7])),
    ("key agreement", Usage::Bit(4)),
    ("key encipherment", Usage::Bit(2)),
    ("microsoft sgc", Usage::Extended(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3])),
    ("netscape sgc", Usage::Extended(&[2, 16, 840, 1, 113730, 4, 1])),
    ("ocsp signing", Usage::Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 9])),
    ("s/mime", Usage::Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 4])),
    ("server auth", Usage::Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 1])),
    ("signing", Usage::Bit(0)),
    ("timestamping", Usage::Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 8])),
];

/// The names of all usages, sorted.
pub(crate) fn usage_names() -> Vec<&'static str> {
    USAGES.iter().map(|(name, _)| *name).collect()
}

pub(super) fn usage(name: &str) -> Option<Usage> {
    USAGES.iter().find(|(known, _)| *known == name).map(|(_, usage)| *usage)
}

/// `spec.usages`
pub(super) fn usages(object: &Object) -> Vec<&str> {
    let list = object.at("/spec/usages").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

/// True if the signer is one of ours; others sign by themselves.
pub(super) fn is_ours(signer: &str) -> bool {
    matches!(signer, CLIENT | KUBELET_CLIENT | KUBELET_SERVING | LEGACY)
}

/// Why the object's signer does not take it.
pub(super) fn refusal(object: &Object, request: &Request) -> Option<String> {
    let usages = usages(object);
    match object.str_at("/spec/signerName") {
        CLIENT => api_client_refusal(&usages),
        KUBELET_CLIENT => kubelet_client_refusal(request, &usages),
        KUBELET_SERVING => kubelet_serving_refusal(request, &usages),
        LEGACY => None,
        other => Some(format!("unknown signer {other:?}")),
    }
}

fn api_client_refusal(usages: &[&str]) -> Option<String> {
    let known = ["digital signature", "key encipherment", "client auth"];
    let good = usages.contains(&"client auth") && usages.iter().all(|usage| known.contains(usage));
    (!good).then(|| {
        "invalid usages: usages for client certificates must include 'client auth' and may \
         include only 'digital signature', 'key encipherment'"
            .to_string()
    })
}

pub(super) fn kubelet_client_refusal(request: &Request, usages: &[&str]) -> Option<String> {
    of_no_node(request)
        .or_else(|| {
            let counts = [
                (request.dns_names.len(), "DNS"),
                (request.emails, "Email"),
                (request.addresses.len(), "IP"),
                (request.uris, "URI"),
            ];
            let named = counts.into_iter().find(|(count, _)| *count > 0);
            named.map(|(_, what)| format!("{what} subjectAltNames are not allowed"))
        })
        .or_else(|| wrong_usages(usages, "client auth"))
}

pub(super) fn kubelet_serving_refusal(request: &Request, usages: &[&str]) -> Option<String> {
    of_no_node(request)
        .or_else(|| match request {
            _ if request.dns_names.is_empty() && request.addresses.is_empty() => {
                Some("DNS or IP subjectAltName is required".to_string())
            }
            Request { emails: 1.., .. } => {
                Some("Email subjectAltNames are not allowed".to_string())
            }
            Request { uris: 1.., .. } => Some("URI subjectAltNames are not allowed".to_string()),
            _ => None,
        })
        .or_else(|| wrong_usages(usages, "server auth"))
}

fn of_no_node(request: &Request) -> Option<String> {
    if request.organizations != ["system:nodes"] {
        return Some("subject organization is not system:nodes".to_string());
    }
    (!request.common_name.starts_with("system:node:"))
        .then(|| "subject common name does not begin with system:node:".to_string())
}

/// A signature, perhaps key encipherment (RSA), and what it is for; nothing else.
fn wrong_usages(usages: &[&str], purpose: &str) -> Option<String> {
    let wanted = [purpose, "digital signature", "key encipherment"];
    let good = usages.contains(&purpose)
        && usages.contains(&"digital signature")
        && usages.iter().all(|usage| wanted.contains(usage));
    (!good).then(|| format!("usages did not match {}", wanted.join(" ")))
}

//! Client certificates: the common name is the user, organizations are the groups.

use super::service_account::EXTRA_CREDENTIAL_ID;
use crate::{certificates::fingerprint, identity::Identity};
use x509_parser::prelude::X509Certificate;

/// The attribute of a subject that carries the user's uid (upstream's
/// `AllowParsingUserUIDFromCertAuth`).
const UID_ATTRIBUTE: &str = "1.3.6.1.4.1.57683.2";

/// Whom a verified certificate names; `None` without a common name.
pub(crate) fn identity(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let user = common_name(&certificate)?;
    let subject = certificate.subject();
    let groups: Vec<&str> =
        subject.iter_organization().filter_map(|name| name.as_str().ok()).collect();
    let mut identity = Identity::authenticated(user, &groups);
    let uid =
        subject.iter_attributes().find(|part| part.attr_type().to_id_string() == UID_ATTRIBUTE);
    identity.uid = uid.and_then(|part| part.as_str().ok()).unwrap_or_default().to_string();
    let id = vec![format!("X509SHA256={}", fingerprint(der))];
    identity.extra.insert(EXTRA_CREDENTIAL_ID.to_string(), id);
    Some(identity)
}

/// The common name of a certificate.
pub(crate) fn name(der: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    common_name(&certificate).map(str::to_string)
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty()).then_some(name)
}

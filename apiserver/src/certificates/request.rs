//! What a CertificateSigningRequest asks for: the PKCS#10 request in it, read once.

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s::Object;
use std::net::IpAddr;
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

/// A PKCS#10 request as far as signers decide by it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) common_name: String,
    pub(crate) organizations: Vec<String>,
    pub(crate) dns_names: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) emails: usize,
    pub(crate) uris: usize,
    /// Alternative names of any other kind, and addresses that are none.
    pub(crate) others: usize,
    /// The subject as it was sent (DER).
    pub(super) subject: Vec<u8>,
    /// The key to be certified (DER).
    pub(super) public_key: Vec<u8>,
    /// The value of the extension subjectAltName as it was sent (DER).
    pub(super) alternative_names: Option<Vec<u8>>,
}

/// What PEM text holds: its label and its bytes.
pub(crate) fn pem(text: &[u8]) -> Option<(String, Vec<u8>)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(text).ok()?;
    Some((pem.label, pem.contents))
}

impl Request {
    /// Of the object's `spec.request`; the error is upstream's text.
    pub(crate) fn of(object: &Object) -> Result<Request, String> {
        let text = STANDARD.decode(object.str_at("/spec/request"));
        let text = text.map_err(|error| error.to_string())?;
        let der = match pem(&text) {
            Some((label, der)) if label == "CERTIFICATE REQUEST" => der,
            _ => return Err("PEM block type must be CERTIFICATE REQUEST".to_string()),
        };
        let (_, request) = X509CertificationRequest::from_der(&der)
            .map_err(|error| format!("x509: cannot read the certificate request: {error}"))?;
        Request::read(&request)
    }

    fn read(request: &X509CertificationRequest<'_>) -> Result<Request, String> {
        request
            .verify_signature()
            .map_err(|error| format!("x509: the request is not signed by its key: {error}"))?;
        let info = &request.certification_request_info;
        let subject = &info.subject;
        let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let organizations = subject.iter_organization().filter_map(|name| name.as_str().ok());
        let mut read = Request {
            common_name: common_name.unwrap_or_default().to_string(),
            organizations: organizations.map(str::to_string).collect(),
            subject: subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            ..Request::default()
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else {
                continue;
            };
            for extension in &asked.extensions {
                if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension()
                {
                    read.alternative_names = Some(extension.value.to_vec());
                    read.note(&names.general_names);
                }
            }
        }
        Ok(read)
    }

    fn note(&mut self, names: &[GeneralName<'_>]) {
        for name in names {
            match name {
                GeneralName::DNSName(name) => self.dns_names.push(name.to_string()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(address) => self.addresses.push(address),
                    None => self.others += 1,
                },
                GeneralName::RFC822Name(_) => self.emails += 1,
                GeneralName::URI(_) => self.uris += 1,
                _ => self.others += 1,
            }
        }
    }
}

/// As a certificate has it: four or sixteen bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

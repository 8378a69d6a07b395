//! The cluster's certificate authority at work: turns a request into a certificate. Writes the DER
//! itself, because subject, key and alternative names must come out exactly as they were sent
//! (`rcgen` keeps one organization of several, and groups are organizations).

use super::{
    request::{self, Request},
    signers::{self, Usage},
};
use jiff::Timestamp;
use rand::RngCore;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::ParsedExtension;

const SEQUENCE: u8 = 0x30;
const SET_BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Clocks differ: a certificate counts from a little before now (upstream's backdate).
const BACKDATE_SECONDS: i64 = 5 * 60;

/// The key that signs certificates, and the certificate that says so.
pub struct Authority {
    key: Key,
    /// The issuer's name (DER).
    name: Vec<u8>,
    key_id: Option<Vec<u8>>,
    /// Nothing it signs outlives it.
    not_after: i64,
}

enum Key {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Authority {
    /// Of a certificate and a PKCS#8 key as PEM. The error says what is wrong with them.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Authority, String> {
        let (_, der) = request::pem(certificate).ok_or("no certificate in it")?;
        let (_, own) = x509_parser::parse_x509_certificate(&der).map_err(|e| e.to_string())?;
        let key_id =
            own.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
        let key = PrivatePkcs8KeyDer::from_pem_slice(key)
            .map_err(|error| format!("no PKCS#8 private key in it: {error}"))?;
        Ok(Authority {
            key: Key::from_pkcs8(key.secret_pkcs8_der()).ok_or("not an EC or RSA key")?,
            name: own.subject().as_raw().to_vec(),
            key_id,
            not_after: own.validity().not_after.timestamp(),
        })
    }

    /// The certificate (PEM) for `request`, good for `seconds` at most.
    pub(super) fn sign(
        &self,
        request: &Request,
        usages: &[&str],
        seconds: i64,
        now: Timestamp,
    ) -> Result<String, String> {
        let now = now.as_second();
        let until = (now + seconds).min(self.not_after);
        let mut serial = [0; 16];
        rand::rng().fill_bytes(&mut serial);
        // Positive, and as long as it looks.
        serial[0] = serial[0] & 0x7f | 0x40;
        let algorithm = self.key.algorithm();
        let tbs = sequence(&[
            element(0xa0, &[element(INTEGER, &[vec![2]])]),
            element(INTEGER, &[serial.to_vec()]),
            algorithm.to_vec(),
            self.name.clone(),
            sequence(&[time(now - BACKDATE_SECONDS)?, time(until)?]),
            request.subject.clone(),
            request.public_key.clone(),
            element(0xa3, &[sequence(&self.extensions(request, usages)?)]),
        ]);
        let signature = self.key.sign(&tbs)?;
        let der = sequence(&[tbs, algorithm.to_vec(), bit_string(0, &signature)]);
        Ok(to_pem(&der))
    }

    fn extensions(&self, request: &Request, usages: &[&str]) -> Result<Vec<Vec<u8>>, String> {
        let (mut bits, mut extended) = (0u16, Vec::new());
        for name in usages {
            match signers::usage(name).ok_or_else(|| format!("unrecognized usage {name:?}"))? {
                Usage::Bit(bit) => bits |= 0x8000 >> bit,
                Usage::Extended(id) if !extended.contains(&id) => extended.push(id),
                Usage::Extended(_) => {}
            }
        }
        let mut all = Vec::new();
        if bits != 0 {
            all.push(extension(&[2, 5, 29, 15], true, key_usage(bits)));
        }
        if !extended.is_empty() {
            let ids: Vec<Vec<u8>> = extended.into_iter().map(oid).collect();
            all.push(extension(&[2, 5, 29, 37], false, sequence(&ids)));
        }
        // No authority, whatever was asked for.
        all.push(extension(&[2, 5, 29, 19], true, sequence(&[])));
        if let Some(id) = &self.key_id {
            let id = sequence(&[element(0x80, std::slice::from_ref(id))]);
            all.push(extension(&[2, 5, 29, 35], false, id));
        }
        if let Some(names) = &request.alternative_names {
            all.push(extension(&[2, 5, 29, 17], false, names.clone()));
        }
        Ok(all)
    }
}

impl Key {
    fn from_pkcs8(der: &[u8]) -> Option<Key> {
        let random = SystemRandom::new();
        let ec = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der, &random).ok();
        ec(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map(Key::P256)
            .or_else(|| ec(&ECDSA_P384_SHA384_ASN1_SIGNING).map(Key::P384))
            .or_else(|| Some(Key::Rsa(Box::new(RsaKeyPair::from_pkcs8(der).ok()?))))
    }

    /// The AlgorithmIdentifier of its signatures (RFC 5758, RFC 4055).
    fn algorithm(&self) -> Vec<u8> {
        match self {
            Key::P256(_) => sequence(&[oid(&[1, 2, 840, 10045, 4, 3, 2])]),
            Key::P384(_) => sequence(&[oid(&[1, 2, 840, 10045, 4, 3, 3])]),
            Key::Rsa(_) => sequence(&[oid(&[1, 2, 840, 113549, 1, 1, 11]), element(0x05, &[])]),
        }
    }

    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let random = SystemRandom::new();
        match self {
            Key::P256(key) | Key::P384(key) => {
                let signature = key.sign(&random, bytes).map_err(|error| error.to_string())?;
                Ok(signature.as_ref().to_vec())
            }
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature)
                    .map_err(|error| error.to_string())?;
                Ok(signature)
            }
        }
    }
}

/// Tag, length and contents.
fn element(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let length: usize = parts.iter().map(Vec::len).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        out.push(0x80 | bytes.len() as u8);
        out.extend_from_slice(bytes);
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(SEQUENCE, parts)
}

fn bit_string(unused: u8, bytes: &[u8]) -> Vec<u8> {
    element(SET_BIT_STRING, &[vec![unused], bytes.to_vec()])
}

fn oid(parts: &[u64]) -> Vec<u8> {
    let mut bytes = vec![(parts[0] * 40 + parts[1]) as u8];
    for part in &parts[2..] {
        let digits = (0..).map(|n| part >> (7 * n)).take_while(|rest| *rest > 0).count().max(1);
        for digit in (0..digits).rev() {
            let more = if digit > 0 { 0x80 } else { 0 };
            bytes.push((part >> (7 * digit)) as u8 & 0x7f | more);
        }
    }
    element(OID, &[bytes])
}

fn extension(id: &[u64], critical: bool, value: Vec<u8>) -> Vec<u8> {
    let mut parts = vec![oid(id)];
    if critical {
        parts.push(element(BOOLEAN, &[vec![0xff]]));
    }
    parts.push(element(OCTET_STRING, &[value]));
    sequence(&parts)
}

/// The first bit is the highest; bits without meaning at the end are left out.
fn key_usage(bits: u16) -> Vec<u8> {
    let unused = bits.trailing_zeros();
    let bytes = bits.to_be_bytes();
    let kept = if unused >= 8 { &bytes[..1] } else { &bytes[..] };
    bit_string((unused % 8) as u8, kept)
}

/// UTCTime until 2049, as RFC 5280 wants it.
fn time(seconds: i64) -> Result<Vec<u8>, String> {
    let at = Timestamp::from_second(seconds).map_err(|error| error.to_string())?;
    let text = at.strftime("%Y%m%d%H%M%SZ").to_string();
    Ok(match &text[..4] < "2050" {
        true => element(UTC_TIME, &[text.as_bytes()[2..].to_vec()]),
        false => element(GENERALIZED_TIME, &[text.into_bytes()]),
    })
}

/// SHA-256 in hex: of a certificate, by which it is known.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A certificate as PEM text.
pub fn to_pem(der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned());
    let lines: Vec<String> = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use k8s::Object;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
    use serde_json::json;

    fn authority() -> (Authority, rcgen::Certificate) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed");
        let made =
            Authority::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes());
        (made.expect("an authority"), certificate)
    }

    fn request(names: &[&str]) -> Request {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        let key = KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        let object = json!({ "spec": { "request": STANDARD.encode(pem) } });
        Request::of(&Object::from_value(object).expect("an object")).expect("a request")
    }

    #[test]
    fn what_is_signed_is_what_was_asked_and_verifies() {
        let (authority, own) = authority();
        let usages = ["digital signature", "key encipherment", "client auth", "server auth"];
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let request = request(&["web.example.com", "10.0.0.1"]);
        let pem = authority.sign(&request, &usages, 3600, now).expect("signed");
        let (_, der) = request::pem(pem.as_bytes()).expect("PEM");
        let (rest, signed) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
        assert!(rest.is_empty());
        let (_, ca) = x509_parser::parse_x509_certificate(own.der()).expect("a certificate");
        signed.verify_signature(Some(ca.public_key())).expect("the authority signed it");
        assert_eq!(signed.subject().as_raw(), request.subject);
        assert_eq!(signed.issuer().as_raw(), ca.subject().as_raw());
        let extensions: Vec<String> = signed
            .extensions()
            .iter()
            .map(|extension| format!("{} {:?}", extension.critical, extension.parsed_extension()))
            .collect();
        let life = signed.validity();
        let life = (life.not_before.timestamp(), life.not_after.timestamp());
        assert_eq!(life, (1_799_999_700, 1_800_003_600));
        let all = extensions.join("\n");
        assert!(all.contains("flags: 5"), "{all}");
        assert!(all.contains("server_auth: true, client_auth: true"), "{all}");
        assert!(all.contains("ca: false"), "{all}");
        assert!(all.contains("web.example.com"), "{all}");
    }

    #[test]
    fn lengths_and_ids_are_written_as_der_wants_them() {
        assert_eq!(element(4, &[vec![0; 127]])[..2], [4, 127]);
        assert_eq!(element(4, &[vec![0; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(element(4, &[vec![0; 300]])[..4], [4, 0x82, 1, 44]);
        assert_eq!(oid(&[1, 2, 840, 113549]), [6, 6, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d]);
        assert_eq!(key_usage(0x8000), [3, 2, 7, 0x80]);
        assert_eq!(key_usage(0x0080), [3, 3, 7, 0x00, 0x80]);
        assert_eq!(&time(2_600_000_000).expect("2052")[..6], b"\x18\x0f2052");
    }
}

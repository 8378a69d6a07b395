//! The cluster's certificates: one authority, and what it signs for masters, nodes and admins.
//! Makes PEM text; writing it is [`write_private`]'s.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use std::{fs, io::Write as _, net::IpAddr, os::unix::fs::OpenOptionsExt as _, path::Path};

/// A certificate and its private key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// What a certificate is for.
pub(crate) enum Purpose<'a> {
    /// Proves who a client is: common name is the user, organization the group.
    Client { user: &'a str, group: &'a str },
    /// Proves a server under the names and addresses clients dial.
    Server { name: &'a str, names: &'a [String], addresses: &'a [IpAddr] },
    /// Both ends of the connections between masters.
    Peer { name: &'a str, addresses: &'a [IpAddr] },
}

/// The certificate authority of one cluster.
pub(crate) struct Authority {
    pub(crate) pair: Pair,
}

impl Authority {
    /// Reads `ca.crt` and `ca.key` in `directory`, or makes them.
    pub(crate) fn open(directory: &Path) -> Result<Authority> {
        let (cert_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        if cert_path.exists() && key_path.exists() {
            let read = |path: &Path| {
                fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
            };
            return Ok(Authority { pair: Pair { cert: read(&cert_path)?, key: read(&key_path)? } });
        }
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("coxswain-ca", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        let pair = Pair { cert: cert.pem(), key: key.serialize_pem() };
        write_private(&key_path, &pair.key)?;
        write_private(&cert_path, &pair.cert)?;
        Ok(Authority { pair })
    }

    pub(crate) fn issue(&self, purpose: &Purpose) -> Result<Pair> {
        let issuer = Issuer::from_ca_cert_pem(&self.pair.cert, KeyPair::from_pem(&self.pair.key)?)?;
        let mut params = CertificateParams::default();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (server, client) =
            (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
        match purpose {
            Purpose::Client { user, group } => {
                params.distinguished_name = name(user, Some(group));
                params.extended_key_usages = vec![client];
            }
            Purpose::Server { name: common, names, addresses } => {
                params.distinguished_name = name(common, None);
                params.extended_key_usages = vec![server];
                params.subject_alt_names = alternative_names(names, addresses)?;
            }
            Purpose::Peer { name: common, addresses } => {
                params.distinguished_name = name(common, Some("coxswain:masters"));
                params.extended_key_usages = vec![server, client];
                params.subject_alt_names =
                    alternative_names(&[common.to_string(), "localhost".into()], addresses)?;
            }
        }
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &issuer)?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    }
}

/// Writes `NAME.crt` and `NAME.key` of `pair` in `directory`.
pub(crate) fn write_pair(directory: &Path, name: &str, pair: &Pair) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    write_private(&directory.join(format!("{name}.crt")), &pair.cert)?;
    write_private(&directory.join(format!("{name}.key")), &pair.key)
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file =
        options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

fn name(common: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common);
    name
}

fn alternative_names(names: &[String], addresses: &[IpAddr]) -> Result<Vec<rcgen::SanType>> {
    let dns = names.iter().map(|name| {
        let name = name.as_str().try_into().with_context(|| format!("{name}: no DNS name"))?;
        Ok(rcgen::SanType::DnsName(name))
    });
    dns.chain(addresses.iter().map(|address| Ok(rcgen::SanType::IpAddress(*address)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_signs_clients_with_their_group() {
        let directory = std::env::temp_dir().join(format!("coxswain-pki-{}", std::process::id()));
        let first = Authority::open(&directory).expect("made");
        let again = Authority::open(&directory).expect("read");
        assert_eq!(first.pair.cert, again.pair.cert);

        let purpose = Purpose::Client { user: "system:node:n1", group: "system:nodes" };
        let pair = again.issue(&purpose).expect("signed");
        let (_, pem) = x509_parser::pem::parse_x509_pem(pair.cert.as_bytes()).expect("PEM");
        let cert = pem.parse_x509().expect("X.509");
        assert_eq!(cert.subject().to_string(), "O=system:nodes, CN=system:node:n1");
        assert!(cert.issuer().to_string().contains("coxswain-ca"));
        fs::remove_dir_all(&directory).expect("removed");
    }
}

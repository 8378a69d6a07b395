//! The cluster's certificates: one authority, and what it signs for masters, nodes and admins.
//! Makes PEM text; writing it is [`write_private`]'s.

use anyhow::{Context, Result};
use apiserver::exchange::AuthorityName;
use raft_store::durable;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};
use time::OffsetDateTime;

/// How long what an authority signs is good for, as kubeadm has it.
pub(crate) const CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long an authority is good for, as kubeadm has it. Nothing it signs outlives it.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Clocks differ: a certificate counts from a little before now (upstream's backdate).
const BACKDATE: Duration = Duration::from_secs(5 * 60);

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
            return Authority::read(directory, "ca");
        }
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let key = KeyPair::generate()?;
        let cert = authority_params("coxswain-ca").self_signed(&key)?;
        let pair = Pair { cert: cert.pem(), key: key.serialize_pem() };
        write_private(&key_path, &pair.key)?;
        write_private(&cert_path, &pair.cert)?;
        Ok(Authority { pair })
    }

    /// Another one, to follow this one. Behind its certificate is one of the same key that this one signed: who
    /// believes only this one believes what that one signs, too, as long as it is shown between them.
    pub(crate) fn successor(&self, name: AuthorityName) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let own = hex(&Sha256::digest(key.public_key_raw()).into());
        // No two have the same name: people look at it, and some programs look for issuers by it.
        let mut params = authority_params(&format!("coxswain-{name}-{}", &own[..8]));
        let cert = params.self_signed(&key)?;
        let (_, own_end) = life(self.pair.cert.as_bytes()).context("the CA is not PEM")?;
        params.not_after = params.not_after.min(own_end);
        let issuer = Issuer::from_ca_cert_pem(&self.pair.cert, KeyPair::from_pem(&self.pair.key)?)?;
        let crossed = params.signed_by(&key, &issuer)?;
        Ok(Pair { cert: cert.pem() + &crossed.pem(), key: key.serialize_pem() })
    }

    /// Reads `NAME.crt` and `NAME.key` in `directory`.
    pub(crate) fn read(directory: &Path, name: &str) -> Result<Authority> {
        let read = |extension: &str| {
            let path = directory.join(format!("{name}.{extension}"));
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Authority { pair: Pair { cert: read("crt")?, key: read("key")? } })
    }

    pub(crate) fn issue(&self, purpose: &Purpose) -> Result<Pair> {
        self.issue_for(purpose, CERTIFICATE_LIFE)
    }

    /// Good for `life`, or for as long as the authority if that is shorter.
    pub(crate) fn issue_for(&self, purpose: &Purpose, life: Duration) -> Result<Pair> {
        let issuer = Issuer::from_ca_cert_pem(&self.pair.cert, KeyPair::from_pem(&self.pair.key)?)?;
        let mut params = CertificateParams::default();
        let (_, own_end) = self::life(self.pair.cert.as_bytes()).context("the CA is not PEM")?;
        let (from, until) = from_now(life);
        (params.not_before, params.not_after) = (from, until.min(own_end));
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

fn authority_params(common: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = from_now(AUTHORITY_LIFE);
    params
}

/// Whether the first certificate in one PEM text was signed by the first in the other.
pub(crate) fn is_signed_by(pem: &[u8], authority: &[u8]) -> bool {
    let parsed = |text| x509_parser::pem::parse_x509_pem(text).map(|(_, pem)| pem);
    let (Ok(pem), Ok(authority)) = (parsed(pem), parsed(authority)) else { return false };
    node_agent::is_signed_by(&pem.contents, &authority.contents)
}

/// From when until when the first certificate in PEM text counts; `None`: there is none.
pub(crate) fn life(pem: &[u8]) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let cert = pem.parse_x509().ok()?;
    let validity = cert.validity();
    Some((validity.not_before.to_datetime(), validity.not_after.to_datetime()))
}

fn from_now(life: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - BACKDATE, now + life)
}

/// Whom the certificates of a master name.
pub(crate) struct MasterNames<'a> {
    pub(crate) name: &'a str,
    /// At which its API and its peer port are dialled.
    pub(crate) addresses: &'a [IpAddr],
}

/// What a master proves itself with, and whose it is.
pub(crate) const CERTIFICATES: [(AuthorityName, &str); 4] = [
    (AuthorityName::Ca, "apiserver"),
    // An authority of their own: no other certificate may speak Raft.
    (AuthorityName::PeerCa, "peer"),
    (AuthorityName::Ca, "kubelet-client"),
    // Another one: its certificates make proxies, whose headers are believed.
    (AuthorityName::FrontProxyCa, "front-proxy-client"),
];

/// Signs everything a master proves itself with, by the authorities that lie in `directory`. All of
/// it is good for `life`.
pub(crate) fn issue_master(directory: &Path, master: &MasterNames, life: Duration) -> Result<()> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        master.name,
    ]
    .map(String::from);
    let addresses = master.addresses;
    let server = Purpose::Server { name: "kube-apiserver", names: &names, addresses };
    let peer = Purpose::Peer { name: master.name, addresses };
    let kubelet =
        Purpose::Client { user: "kube-apiserver-kubelet-client", group: "system:masters" };
    let proxy = Purpose::Client { user: "front-proxy-client", group: "front-proxies" };
    let purposes = [server, peer, kubelet, proxy];
    for ((authority, name), purpose) in CERTIFICATES.into_iter().zip(purposes) {
        let authority = Authority::read(directory, authority.as_str())?;
        write_pair(directory, name, &authority.issue_for(&purpose, life)?)?;
    }
    Ok(())
}

/// Signs what the agent of a node proves itself with, and writes it into `directory`.
pub(crate) fn issue_node(
    ca: &Authority,
    node: &str,
    addresses: &[IpAddr],
    directory: &Path,
) -> Result<()> {
    let user = format!("system:node:{node}");
    let client = ca.issue(&Purpose::Client { user: &user, group: "system:nodes" })?;
    let names = [node.to_string()];
    let addresses = [&[Ipv4Addr::LOCALHOST.into()], addresses].concat();
    let server = Purpose::Server { name: &user, names: &names, addresses: &addresses };
    write_pair(directory, "client", &client)?;
    write_pair(directory, "server", &ca.issue(&server)?)?;
    write_private(&directory.join("ca.crt"), &ca.pair.cert)
}

/// The first address of a range, at which the `kubernetes` Service is.
pub(crate) fn first_address(cidr: &str) -> Option<IpAddr> {
    let (base, _) = cidr.split_once('/')?;
    let base: std::net::Ipv4Addr = base.parse().ok()?;
    Some(IpAddr::V4((u32::from(base) + 1).into()))
}

/// kubeadm's hash of a CA: of its public key, so that it outlives a renewed certificate.
pub(crate) fn key_hash(der: &[u8]) -> Result<[u8; 32]> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).context("no certificate")?;
    Ok(Sha256::digest(cert.public_key().raw).into())
}

/// Of the first certificate in PEM text.
pub(crate) fn hash_of_pem(pem: &[u8]) -> Result<[u8; 32]> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).context("the CA is not PEM")?;
    key_hash(&pem.contents)
}

/// A hash as people see it.
pub(crate) fn hex(hash: &[u8; 32]) -> String {
    hash.map(|byte| format!("{byte:02x}")).concat()
}

/// What [`hex`] wrote.
pub(crate) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    bytes?.try_into().ok()
}

/// Writes `NAME.crt` and `NAME.key` of `pair` in `directory`.
pub(crate) fn write_pair(directory: &Path, name: &str, pair: &Pair) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    write_private(&directory.join(format!("{name}.crt")), &pair.cert)?;
    write_private(&directory.join(format!("{name}.key")), &pair.key)
}

/// Writes a file that only its owner may read: the old or the new text, whole.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    durable::write_private(path, text).with_context(|| format!("cannot write {}", path.display()))
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

/// All authorities, made anew.
#[cfg(test)]
pub(crate) fn write_authorities(pki: &Path) {
    for name in AuthorityName::ALL.map(AuthorityName::as_str) {
        let authority = Authority::open(&pki.join("made").join(name)).expect("made");
        write_pair(pki, name, &authority.pair).expect("written");
    }
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

//! The first contact of a machine with a cluster whose CA it knows by nothing but its hash, as
//! `coxswain token create` prints it: for masters and nodes that join.

use super::client::destination;
use crate::pki;
use anyhow::{Result, bail};
use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One master is given so long to show its CA; then another is asked.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `https://` may be left out.
pub(super) fn with_scheme(master: &str) -> String {
    match master.starts_with("https://") {
        true => master.to_string(),
        false => format!("https://{master}"),
    }
}

/// The certificate (PEM) of the CA with this hash, from the first of `masters` that answers. One that
/// shows another CA ends it: it is no master of this cluster.
pub(super) async fn authority(masters: &[String], hash: [u8; 32]) -> Result<String> {
    let mut silent = Vec::new();
    for master in masters {
        let server = with_scheme(master);
        match tokio::time::timeout(TIMEOUT, show(&server, hash)).await {
            Ok(Ok(pem)) => return Ok(pem),
            Ok(Err(Shown::Nothing(why))) => silent.push(format!("{server}: {why}")),
            Ok(Err(Shown::Another(error))) => return Err(error.context(server)),
            Err(_) => silent.push(format!("{server}: no answer within {TIMEOUT:?}")),
        }
    }
    bail!("no master can be reached:\n  {}", silent.join("\n  "))
}

/// Why there is no CA.
enum Shown {
    /// The master was not reached.
    Nothing(String),
    Another(anyhow::Error),
}

async fn show(server: &str, hash: [u8; 32]) -> Result<String, Shown> {
    let (name, host, port) = destination(server).map_err(Shown::Another)?;
    let tcp = TcpStream::connect((host.as_str(), port)).await;
    let tcp = tcp.map_err(|error| Shown::Nothing(error.to_string()))?;
    let tls = TlsConnector::from(pinned(hash).map_err(Shown::Another)?);
    let stream = tls.connect(name, tcp).await.map_err(|error| {
        // What the verifier says comes as an error of a kind of its own; the rest is the network.
        let verified = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match verified {
            Some(_) => Shown::Another(anyhow::Error::new(error).context("TLS handshake")),
            None => Shown::Nothing(error.to_string()),
        }
    })?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let ca = chain.iter().find(|cert| has_hash(cert, hash));
    let ca = ca.ok_or_else(|| Shown::Another(anyhow::anyhow!("{NO_SUCH_CA}")))?;
    Ok(apiserver::to_pem(ca))
}

fn has_hash(cert: &CertificateDer, hash: [u8; 32]) -> bool {
    pki::key_hash(cert).ok() == Some(hash)
}

const NO_SUCH_CA: &str = "the server shows no CA with the hash in the token: it is of another cluster, \
                          or somebody is between";

/// A client that believes a server whose chain ends in the CA with this hash.
pub(super) fn pinned(hash: [u8; 32]) -> Result<Arc<rustls::ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Pinned { hash, provider: provider.clone() });
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes for root the CA with the hash, if the server shows it, and verifies as usual from there.
#[derive(Debug)]
struct Pinned {
    hash: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates.iter().find(|cert| has_hash(cert, self.hash));
        let ca = ca.ok_or_else(|| rustls::Error::General(NO_SUCH_CA.into()))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let roots = Arc::new(roots);
        let usual = WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone());
        let usual = usual.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        usual.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, Purpose};

    fn chain(authority: &Authority, names: &[String]) -> Vec<CertificateDer<'static>> {
        use rustls::pki_types::pem::PemObject as _;
        let purpose = Purpose::Server { name: "kube-apiserver", names, addresses: &[] };
        let pair = authority.issue(&purpose).expect("issued");
        let pem = format!("{}{}", pair.cert, authority.pair.cert);
        CertificateDer::pem_slice_iter(pem.as_bytes()).map(|it| it.expect("PEM")).collect()
    }

    #[test]
    fn only_a_server_of_the_cluster_with_that_hash_is_believed() {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(&directory.path().join("ours")).expect("made");
        let other = Authority::open(&directory.path().join("others")).expect("made");
        let hash = pki::hash_of_pem(authority.pair.cert.as_bytes()).expect("a hash");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pinned = Pinned { hash, provider };
        let verify = |chain: &[CertificateDer<'static>], name: &'static str| {
            let name = ServerName::try_from(name).expect("a name");
            pinned.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).is_ok()
        };
        let names = ["m1".to_string()];
        let good = chain(&authority, &names);
        assert!(verify(&good, "m1"));
        assert!(!verify(&good, "m2"), "another name");
        assert!(!verify(&good[..1], "m1"), "the CA is not shown");
        let theirs = chain(&other, &names);
        assert!(!verify(&theirs, "m1"), "another cluster");
        // A certificate of another authority, with ours shown beside it.
        let mixed = [theirs[0].clone(), good[1].clone()];
        assert!(!verify(&mixed, "m1"), "not signed by it");
    }
}

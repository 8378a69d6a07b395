//! Whom this node believes: the authorities in its `ca.crt`, of which masters show a certificate when they are
//! dialled, and those who call the kubelet API too. Masters say which they are; what they say is
//! written down, so that an authority is exchanged without anybody coming to a node. It is believed
//! because the master proved itself with one that was believed before.

use crate::{
    certificates::write_private,
    client::Client,
    credentials::{self, Newest, PERIOD, roots},
};
use bytes::Bytes;
use http::{Method, StatusCode};
use rand::Rng as _;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error as TlsError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use sha2::{Digest as _, Sha256};
use std::{
    convert::Infallible,
    fs, io,
    ops::Range,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};
use x509_parser::{parse_x509_certificate, pem::parse_x509_pem};

/// How long until masters are asked again. An exchange waits for it; thousands of nodes ask.
const ASK_SECONDS: Range<f64> = 45.0..75.0;
/// The same while more than one is believed: an exchange is on.
const ASK_SOON_SECONDS: Range<f64> = 10.0..20.0;

/// What cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    #[error("{0}")]
    Unusable(String),
    #[error("no authorities' certificates")]
    Certificates(#[from] credentials::Error),
    #[error("no master says which authorities there are: {0}")]
    Untold(String),
}

/// Whether one certificate was signed by the key of another, both in DER.
pub fn is_signed_by(certificate: &[u8], signer: &[u8]) -> bool {
    let (Ok((_, certificate)), Ok((_, signer))) =
        (parse_x509_certificate(certificate), parse_x509_certificate(signer))
    else {
        return false;
    };
    certificate.verify_signature(Some(signer.public_key())).is_ok()
}

/// The newest of them. Connections that are open keep what they began with.
#[derive(Debug)]
pub struct Authorities {
    file: PathBuf,
    held: RwLock<Arc<Held>>,
}

/// As they are in one text.
#[derive(Debug)]
struct Held {
    pem: Vec<u8>,
    /// In whose name certificates are signed now: the first.
    signer: CertificateDer<'static>,
    several: bool,
    servers: Arc<dyn ServerCertVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Held {
    fn of(pem: Vec<u8>) -> Result<Held, Error> {
        let unusable = |error: &dyn std::fmt::Display| Error::Unusable(error.to_string());
        let roots = Arc::new(roots(&pem)?);
        let several = roots.len() > 1;
        let signer = CertificateDer::from_pem_slice(&pem).map_err(|error| unusable(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let servers =
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        let servers = servers.map_err(|error| unusable(&error))?;
        let clients = clients.map_err(|error| unusable(&error))?;
        Ok(Held { pem, signer, several, servers, clients })
    }

    fn pause(&self) -> Duration {
        let seconds = if self.several { ASK_SOON_SECONDS } else { ASK_SECONDS };
        Duration::from_secs_f64(rand::rng().random_range(seconds))
    }

    /// What masters are asked, and told with it: whom this node believes, and whether the first of them signed
    /// what it proves itself with. Who exchanges an authority waits for that.
    fn question(&self, own: &Newest) -> String {
        let believes: String =
            Sha256::digest(&self.pem).iter().map(|byte| format!("{byte:02x}")).collect();
        let own = own.current();
        let certified = own.end_entity_cert().is_ok_and(|own| is_signed_by(own, &self.signer));
        format!("/coxswain/ca?believes={believes}&certified={certified}")
    }
}

impl Authorities {
    /// Those in a file of certificates in PEM.
    pub fn open(file: PathBuf) -> Result<Arc<Authorities>, Error> {
        let pem = fs::read(&file).map_err(|source| Error::Read(file.clone(), source))?;
        let held = RwLock::new(Arc::new(Held::of(pem)?));
        Ok(Arc::new(Authorities { file, held }))
    }

    fn held(&self) -> Arc<Held> {
        self.held.read().expect("only replaced").clone()
    }

    /// Whether it is the one who signs now that signed this certificate, in PEM. What an earlier one signed
    /// is believed no longer than that one is.
    pub(crate) fn sign(&self, certificate: &[u8]) -> bool {
        let signer = &self.held().signer;
        parse_x509_pem(certificate).is_ok_and(|(_, pem)| is_signed_by(&pem.contents, signer))
    }

    /// Takes up what is written, whoever wrote it; true if it is new.
    fn look(&self) -> Result<bool, Error> {
        let pem = fs::read(&self.file).map_err(|source| Error::Read(self.file.clone(), source))?;
        self.believe(pem)
    }

    fn believe(&self, pem: Vec<u8>) -> Result<bool, Error> {
        if pem == self.held().pem {
            return Ok(false);
        }
        *self.held.write().expect("only replaced") = Arc::new(Held::of(pem)?);
        Ok(true)
    }

    /// Writes down what a master says, and takes it up; true if it is new.
    pub(crate) fn hear(&self, pem: &[u8]) -> Result<bool, Error> {
        if pem == self.held().pem {
            return Ok(false);
        }
        // Before it is written: what is of no use stays away from the disk.
        Held::of(pem.to_vec())?;
        let text = String::from_utf8_lossy(pem);
        write_private(&self.file, &text)
            .map_err(|source| Error::Write(self.file.clone(), source))?;
        self.look()
    }

    /// Until dropped: what is written, and what masters say.
    pub(crate) async fn keep(
        self: Arc<Authorities>,
        client: Client,
        own: Arc<Newest>,
    ) -> Infallible {
        let mut turn = tokio::time::interval(PERIOD);
        let mut asked: Option<tokio::time::Instant> = None;
        loop {
            turn.tick().await;
            let mut new = self.look();
            let due = asked.is_none_or(|asked| asked.elapsed() >= self.held().pause());
            if due && matches!(new, Ok(false)) {
                asked = Some(tokio::time::Instant::now());
                let question = self.held().question(&own);
                new = ask(&client, &question).await.and_then(|pem| self.hear(&pem));
            }
            match new {
                Ok(true) => tracing::info!(file = %self.file.display(), "authorities are taken up"),
                Ok(false) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "kept the authorities as they were");
                }
            }
        }
    }
}

/// The certificates in PEM of those that masters believe; the first signs.
async fn ask(client: &Client, question: &str) -> Result<Bytes, Error> {
    match client.raw(Method::GET, question, Bytes::new()).await {
        Ok((StatusCode::OK, pem)) => Ok(pem),
        Ok((code, _)) => Err(Error::Untold(code.to_string())),
        Err(status) => Err(Error::Untold(status.message)),
    }
}

impl ServerCertVerifier for Authorities {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.held().servers.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.held().servers.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.held().servers.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.held().servers.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Authorities {
    /// None: they change, and who has one certificate shows that one.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.held().clients.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.held().clients.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.held().clients.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.held().clients.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    impl Authority {
        fn issue(&self) -> String {
            let params = CertificateParams::new(vec!["m1".to_string()]).unwrap();
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().pem()
        }
    }

    /// Both as a master that is dialled, and as one who calls.
    fn are_believed(authorities: &Authorities, pem: &str) -> bool {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (name, now) = (ServerName::try_from("m1").unwrap(), UnixTime::now());
        let server = authorities.verify_server_cert(&certificate, &[], &name, &[], now).is_ok();
        let client = authorities.verify_client_cert(&certificate, &[], now).is_ok();
        assert_eq!(server, client);
        server
    }

    #[test]
    fn an_authority_is_exchanged_in_steps_that_masters_tell() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.crt");
        let (old, new) = (authority(), authority());
        let (of_old, of_new) = (old.issue(), new.issue());
        fs::write(&file, &old.pem).unwrap();
        let authorities = Authorities::open(file.clone()).unwrap();
        let believed = || [&of_old, &of_new].map(|each| are_believed(&authorities, each));
        let signed = || [&of_old, &of_new].map(|each| authorities.sign(each.as_bytes()));
        assert_eq!((believed(), signed()), ([true, false], [true, false]));

        assert!(authorities.hear((old.pem.clone() + &new.pem).as_bytes()).unwrap());
        assert_eq!((believed(), signed()), ([true, true], [true, false]));
        assert!(authorities.hear((new.pem.clone() + &old.pem).as_bytes()).unwrap());
        assert_eq!((believed(), signed()), ([true, true], [false, true]));
        assert!(authorities.hear(new.pem.as_bytes()).unwrap());
        assert_eq!((believed(), signed()), ([false, true], [false, true]));
        assert!(!authorities.hear(new.pem.as_bytes()).unwrap(), "nothing new");
        assert_eq!(fs::read_to_string(&file).unwrap(), new.pem, "a restart believes the same");

        for nonsense in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(authorities.hear(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), new.pem);
        fs::write(&file, &old.pem).unwrap();
        assert!(authorities.look().unwrap(), "whoever wrote it");
        assert_eq!(believed(), [true, false]);
    }
}

//! A certificate and its key in two files, as TLS shows them: what was written last is shown to whoever
//! connects next, without a restart.

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::Duration,
};

/// How often files are looked at.
pub const PERIOD: Duration = Duration::from_secs(10);

/// What cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("no certificate or key in PEM")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("certificate and key do not belong together, or are of no known kind")]
    Pair(#[from] rustls::Error),
}

/// The newest of a certificate. Connections that are open keep what they began with.
#[derive(Debug)]
pub struct Newest(RwLock<Arc<CertifiedKey>>);

impl Newest {
    pub fn new(key: CertifiedKey) -> Newest {
        Newest(RwLock::new(Arc::new(key)))
    }

    pub fn current(&self) -> Arc<CertifiedKey> {
        self.0.read().expect("only replaced").clone()
    }

    pub fn replace(&self, key: CertifiedKey) {
        *self.0.write().expect("only replaced") = Arc::new(key);
    }
}

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Newest {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What PEM texts hold; `authority` is shown after the certificate, and may be empty.
pub fn certified(cert: &[u8], authority: &[u8], key: &[u8]) -> Result<CertifiedKey, Error> {
    let chain =
        CertificateDer::pem_slice_iter(cert).chain(CertificateDer::pem_slice_iter(authority));
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match()?;
    Ok(certified)
}

/// Two files and what they held when they were last used.
pub(crate) struct Pair {
    cert: PathBuf,
    key: PathBuf,
    held: (Vec<u8>, Vec<u8>),
    pub(crate) newest: Arc<Newest>,
}

impl Pair {
    pub(crate) fn open(cert: &Path, key: &Path) -> Result<Pair, Error> {
        let held = (read(cert)?, read(key)?);
        let newest = Arc::new(Newest::new(certified(&held.0, &[], &held.1)?));
        Ok(Pair { cert: cert.into(), key: key.into(), held, newest })
    }

    /// Whether there was something new.
    fn take_up(&mut self) -> Result<bool, Error> {
        let held = (read(&self.cert)?, read(&self.key)?);
        if held == self.held {
            return Ok(false);
        }
        self.newest.replace(certified(&held.0, &[], &held.1)?);
        self.held = held;
        Ok(true)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read(path.into(), source))
}

/// Takes up what is written, for ever.
pub(crate) async fn follow(mut pairs: Vec<Pair>) -> Infallible {
    let mut turn = tokio::time::interval(PERIOD);
    loop {
        turn.tick().await;
        for pair in &mut pairs {
            let file = pair.cert.display().to_string();
            match pair.take_up() {
                Ok(true) => tracing::info!(file, "a new certificate is in use"),
                Ok(false) => {}
                // Perhaps one of two files is written by now: looked at again.
                Err(error) => tracing::warn!(file, %error, "kept the old certificate"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed(vec![name.into()]).expect("made");
        std::fs::write(directory.join(format!("{name}.crt")), made.cert.pem()).expect("written");
        let key = made.signing_key.serialize_pem();
        std::fs::write(directory.join(format!("{name}.key")), key).expect("written");
    }

    #[test]
    fn a_pair_is_taken_up_when_both_of_its_files_are_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        write(directory.path(), "own");
        write(directory.path(), "next");
        let mut pair = Pair::open(&at("own.crt"), &at("own.key")).expect("a pair");
        let before = pair.newest.current();
        assert!(!pair.take_up().expect("nothing new"));
        std::fs::copy(at("next.crt"), at("own.crt")).expect("copied");
        assert!(matches!(pair.take_up(), Err(Error::Pair(_))), "half of a pair");
        assert!(Arc::ptr_eq(&pair.newest.current(), &before));
        std::fs::copy(at("next.key"), at("own.key")).expect("copied");
        assert!(pair.take_up().expect("a new one"));
        assert_ne!(pair.newest.current().cert, before.cert);
    }
}

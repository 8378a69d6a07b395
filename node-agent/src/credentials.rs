//! A certificate and its key in two files, as TLS shows them: what was written last is shown to whoever
//! connects next, without a restart.

use rustls::{
    RootCertStore, SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
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
    #[error("no certificate that could be an authority's")]
    Root(#[source] rustls::Error),
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

/// The certificates in a PEM text, as authorities; there may be none.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?).map_err(Error::Root)?;
    }
    Ok(roots)
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

/// Certificate and key in two files, and what they held when they were last used.
pub struct Pair {
    paths: Paths,
    files: Files,
    newest: Arc<Newest>,
}

struct Paths {
    cert: PathBuf,
    key: PathBuf,
    authority: Option<PathBuf>,
}

/// PEM texts.
#[derive(Debug, PartialEq, Eq)]
pub struct Files {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
    /// Of whoever vouches for it: shown as well. Empty if it is not held beside it.
    pub authority: Vec<u8>,
}

impl Pair {
    /// Reads and checks them.
    pub fn open(cert: &Path, key: &Path, authority: Option<&Path>) -> Result<Pair, Error> {
        let authority = authority.map(Path::to_path_buf);
        let paths = Paths { cert: cert.into(), key: key.into(), authority };
        let files = paths.read()?;
        let newest = Arc::new(Newest::new(files.certified()?));
        Ok(Pair { paths, files, newest })
    }

    /// As TLS shows it, also after it was replaced.
    pub fn newest(&self) -> Arc<Newest> {
        self.newest.clone()
    }

    /// As they were when they were last used.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// What the certificate's file is called, without its extension.
    pub fn name(&self) -> String {
        self.paths.cert.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Takes up what was written meanwhile; true if it is in use now.
    pub fn look(&mut self) -> bool {
        let taken = self.take_up();
        let file = self.paths.cert.display();
        match &taken {
            Ok(true) => tracing::info!(%file, "a new certificate is in use"),
            Ok(false) => {}
            // Perhaps one of two files is written by now: looked at again.
            Err(error) => {
                let error: &dyn std::error::Error = error;
                tracing::warn!(%file, error, "kept the old certificate");
            }
        }
        taken.unwrap_or(false)
    }

    /// Whether there was something new.
    fn take_up(&mut self) -> Result<bool, Error> {
        let files = self.paths.read()?;
        if files == self.files {
            return Ok(false);
        }
        self.newest.replace(files.certified()?);
        self.files = files;
        Ok(true)
    }
}

impl Paths {
    fn read(&self) -> Result<Files, Error> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| Error::Read(path.into(), source));
        let authority = self.authority.as_deref().map_or(Ok(Vec::new()), read)?;
        Ok(Files { cert: read(&self.cert)?, key: read(&self.key)?, authority })
    }
}

impl Files {
    fn certified(&self) -> Result<CertifiedKey, Error> {
        certified(&self.cert, &self.authority, &self.key)
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
        let mut pair = Pair::open(&at("own.crt"), &at("own.key"), None).expect("a pair");
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

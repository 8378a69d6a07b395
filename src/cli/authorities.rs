//! Whom a master believes and in whose name it signs, as the authorities' files in its directory say now.
//! What is written there is taken up without a restart, so that an authority can be exchanged while
//! everything goes on: first both are believed, then the new one signs, then the old one goes.

use super::{client::client_tls_of, joining};
use anyhow::{Context, Result};
use apiserver::{Authority, Believed, authn::FrontProxy};
use node_agent::credentials::{Newest, PERIOD, certified, roots};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a master itself shows: to clients of the API, and to nodes.
pub(super) struct Own {
    pub(super) server: Arc<Newest>,
    pub(super) kubelet_client: Arc<Newest>,
}

/// Keeps up with the files.
pub(super) struct Authorities {
    pki: PathBuf,
    own: Own,
    files: Files,
    believed: watch::Sender<Arc<apiserver::Authorities>>,
    server_tls: watch::Sender<Arc<ServerConfig>>,
    ca_cert_pem: watch::Sender<String>,
}

/// As they were when they were last used.
#[derive(PartialEq)]
struct Files {
    ca: Vec<u8>,
    key: Vec<u8>,
    /// Of front proxies, where there are any.
    front_proxy: Option<Vec<u8>>,
    /// What a new master is given.
    joining: Option<Arc<[u8]>>,
}

impl Authorities {
    /// Reads and checks them.
    pub(super) fn open(pki: &Path, own: Own) -> Result<Authorities> {
        let files = Files::read(pki)?;
        let (believed, server_tls, pem) = files.made(&own)?;
        Ok(Authorities {
            pki: pki.into(),
            own,
            files,
            believed: watch::Sender::new(Arc::new(believed)),
            server_tls: watch::Sender::new(server_tls),
            ca_cert_pem: watch::Sender::new(pem),
        })
    }

    pub(super) fn believed(&self) -> Believed {
        self.believed.subscribe().into()
    }

    /// As who connects to the API is met.
    pub(super) fn server_tls(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.server_tls.subscribe()
    }

    /// Whom pods believe.
    pub(super) fn ca_cert_pem(&self) -> watch::Receiver<String> {
        self.ca_cert_pem.subscribe()
    }

    /// Takes up what is written, until `shutdown`.
    pub(super) async fn keep(mut self, shutdown: CancellationToken) {
        let mut turn = tokio::time::interval(PERIOD);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(turn.tick()).await.is_some() {
            match self.look() {
                Ok(false) => {}
                Ok(true) => tracing::info!(pki = %self.pki.display(), "authorities are taken up"),
                // Perhaps one of two files is written by now: looked at again.
                Err(error) => tracing::warn!("kept the authorities as they were: {error:#}"),
            }
        }
    }

    /// Whether there was something new.
    fn look(&mut self) -> Result<bool> {
        let files = Files::read(&self.pki)?;
        if files == self.files {
            return Ok(false);
        }
        let (believed, server_tls, pem) = files.made(&self.own)?;
        self.believed.send_replace(Arc::new(believed));
        self.server_tls.send_replace(server_tls);
        self.ca_cert_pem.send_if_modified(|known| {
            let changed = *known != pem;
            *known = pem;
            changed
        });
        self.files = files;
        Ok(true)
    }
}

impl Files {
    fn read(pki: &Path) -> Result<Files> {
        let read = |name: &str| {
            let path = pki.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let front_proxy = match fs::read(pki.join("front-proxy-ca.crt")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.context("cannot read front-proxy-ca.crt")?),
        };
        let joining = joining::bundle(pki)?;
        Ok(Files { ca: read("ca.crt")?, key: read("ca.key")?, front_proxy, joining })
    }

    fn made(&self, own: &Own) -> Result<(apiserver::Authorities, Arc<ServerConfig>, String)> {
        // The first certificate is whose key it is; those behind it are believed only.
        certified(&self.ca, &[], &self.key).context("ca.crt and ca.key")?;
        let signer = Authority::from_pem(&self.ca, &self.key)
            .map_err(|why| anyhow::anyhow!("ca.crt and ca.key: {why}"))?;
        let pem = String::from_utf8(self.ca.clone()).context("ca.crt is not PEM")?;
        let believed = apiserver::Authorities {
            signer: Some(Arc::new(signer)),
            client_ca_pem: pem.clone(),
            front_proxy: self.front_proxy()?,
            kubelet_tls: Some(client_tls_of(&self.ca, own.kubelet_client.clone())?),
            joining: self.joining.clone(),
        };
        Ok((believed, self.server_tls(own.server.clone())?, pem))
    }

    fn front_proxy(&self) -> Result<Option<FrontProxy>> {
        let Some(ca) = &self.front_proxy else { return Ok(None) };
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots(ca)?)).build()?;
        let ca_pem = String::from_utf8(ca.clone()).context("front-proxy-ca.crt is not PEM")?;
        let allowed_names = vec!["front-proxy-client".to_string()];
        Ok(Some(FrontProxy { verifier, ca_pem, allowed_names }))
    }

    /// Clients may prove themselves with a certificate; those who do not are anonymous.
    fn server_tls(&self, own: Arc<Newest>) -> Result<Arc<ServerConfig>> {
        let mut trusted = roots(&self.ca).context("ca.crt")?;
        if let Some(ca) = &self.front_proxy {
            // Whose a certificate is, of a client or of a proxy, is looked at again by the server.
            trusted.roots.extend(roots(ca).context("front-proxy-ca.crt")?.roots);
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(trusted));
        let verifier = verifier.allow_unauthenticated().build()?;
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        let mut config = config.with_cert_resolver(own);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credentials::Credentials,
        pki::{self, MasterNames},
    };

    fn opened(pki: &Path) -> Authorities {
        let _ = rustls::crypto::ring::default_provider().install_default();
        pki::write_authorities(pki);
        let names = MasterNames { name: "m1", addresses: &["10.0.0.1".parse().unwrap()] };
        pki::issue_master(pki, &names, pki::CERTIFICATE_LIFE).unwrap();
        let held = Credentials::open(pki, &prometheus::Registry::new()).unwrap();
        let own = Own { server: held.server(), kubelet_client: held.kubelet_client() };
        Authorities::open(pki, own).unwrap()
    }

    #[test]
    fn an_authority_is_exchanged_in_steps_each_of_which_is_taken_up() {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pki = directory.path();
        let mut authorities = opened(pki);
        let (mut tls, pem) = (authorities.server_tls(), authorities.ca_cert_pem());
        assert!(!authorities.look().unwrap(), "nothing is new");
        let old = fs::read_to_string(pki.join("ca.crt")).unwrap();
        let next = pki::Authority::open(other.path()).unwrap().pair;
        let both = |first: &str, second: &str| format!("{first}{second}");

        fs::write(pki.join("ca.crt"), both(&old, &next.cert)).unwrap();
        assert!(authorities.look().unwrap());
        assert!(tls.has_changed().unwrap(), "whoever connects next is met with both");
        tls.mark_unchanged();
        assert_eq!(*pem.borrow(), both(&old, &next.cert));

        fs::write(pki.join("ca.crt"), both(&next.cert, &old)).unwrap();
        let half = format!("{:#}", authorities.look().unwrap_err());
        assert!(half.contains("ca.crt and ca.key"), "{half}");
        assert!(!tls.has_changed().unwrap());
        fs::write(pki.join("ca.key"), &next.key).unwrap();
        assert!(authorities.look().unwrap());

        fs::write(pki.join("ca.crt"), &next.cert).unwrap();
        assert!(authorities.look().unwrap());
        assert_eq!(*pem.borrow(), next.cert);
        assert!(!authorities.look().unwrap());
    }
}

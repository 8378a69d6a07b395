//! Whom the server believes, and in whose name it signs. It may change while the server runs: an authority
//! is exchanged by believing both for a while.

use crate::{
    Authority, Identity,
    authn::FrontProxy,
    pipeline::Core,
    server::{Body, bytes},
};
use http::{Response, StatusCode};
use std::{sync::Arc, time::Instant};
use tokio::sync::watch;

/// The cluster's authorities at one moment.
#[derive(Clone, Default)]
pub struct Authorities {
    /// Signs approved certificate requests; `None`: they wait.
    pub signer: Option<Arc<Authority>>,
    /// The authority of client certificates as PEM, for servers that aggregate under this one; empty:
    /// nothing is said of it.
    pub client_ca_pem: String,
    /// Whose headers are believed; `None`: nobody's.
    pub front_proxy: Option<FrontProxy>,
    /// How to reach a node's kubelet port (client certificate in group `system:masters`); `None`: logs
    /// and exec are refused.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    /// What a new master is given, sealed with the secret of the token it comes with: the keys that
    /// all masters share. `None`: none joins through this one.
    pub joining: Option<Arc<[u8]>>,
}

/// Shows them as they are now. Clones see the same.
#[derive(Clone)]
pub struct Believed(watch::Receiver<Arc<Authorities>>);

impl Believed {
    /// Those that are in use.
    pub fn now(&self) -> Arc<Authorities> {
        self.0.borrow().clone()
    }
}

/// The authorities as PEM, the one that signs first: for nodes, which keep up with them, and say how far they are.
pub(crate) fn answer(
    core: &Core,
    path: &str,
    identity: &Identity,
    query: &str,
) -> Option<Response<Body>> {
    if path != "/coxswain/ca" {
        return None;
    }
    core.followers.note(identity, query, Instant::now());
    let pem = core.config.believed.now().client_ca_pem.clone();
    (!pem.is_empty()).then(|| bytes(StatusCode::OK, "application/x-pem-file", pem))
}

/// Those that stay.
impl From<Authorities> for Believed {
    fn from(authorities: Authorities) -> Believed {
        // The value outlives its sender.
        Believed(watch::channel(Arc::new(authorities)).1)
    }
}

impl From<watch::Receiver<Arc<Authorities>>> for Believed {
    fn from(authorities: watch::Receiver<Arc<Authorities>>) -> Believed {
        Believed(authorities)
    }
}

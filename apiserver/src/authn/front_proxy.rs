//! Front proxies: who comes with a certificate of the request-header authority may say in headers
//! whose request it is (`X-Remote-User` and its fellows). Nobody else may.

use crate::{identity::Identity, server::percent_decode};
use http::HeaderMap;
use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier,
};
use std::{collections::BTreeMap, fmt, sync::Arc};

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// Who is believed what their headers say (kube-apiserver's `--requestheader-*`).
#[derive(Clone)]
pub struct FrontProxy {
    /// Of the certificates of proxies; must not be the authority of clients.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// The same authority as PEM, for servers that aggregate under this one.
    pub ca_pem: String,
    /// Common names of proxies; any if empty.
    pub allowed_names: Vec<String>,
}

impl fmt::Debug for FrontProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrontProxy({:?})", self.allowed_names)
    }
}

impl FrontProxy {
    /// True if the certificates a client came with make it a proxy.
    pub(crate) fn is_proxy(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((own, others)) = chain.split_first() else { return false };
        if self.verifier.verify_client_cert(own, others, UnixTime::now()).is_err() {
            return false;
        }
        let name = super::certificate::name(own);
        self.allowed_names.is_empty() || name.is_some_and(|name| self.allowed_names.contains(&name))
    }
}

/// Whom a proxy speaks for; `None` if its headers name nobody.
pub(super) fn identity(headers: &HeaderMap) -> Option<Identity> {
    let texts = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).map(str::to_string).collect()
    };
    let user = texts(USER).into_iter().find(|user| !user.is_empty())?;
    let groups = texts(GROUP);
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            extra.insert(percent_decode(key), texts(name.as_str()));
        }
    }
    let uid = texts(UID).into_iter().next().unwrap_or_default();
    Some(Identity { uid, extra, ..Identity::authenticated(&user, &groups) })
}

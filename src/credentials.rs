//! What a master proves itself with, as its files say now: signed anew before it expires, and taken up
//! without a restart, whoever wrote the files.

use crate::pki::{self, Authority, MasterNames};
use anyhow::{Context, Result};
use apiserver::exchange::AuthorityName;
use node_agent::credentials::{self, Files, Newest, PERIOD, Pair};
use prometheus::{IntGaugeVec, Opts, Registry};
use raft_store::{OwnTls, Tls};
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    pem::{Pem, parse_x509_pem},
};

/// All that a master proves itself with.
pub(crate) struct Credentials {
    pki: PathBuf,
    held: Held,
    /// To other masters: what `held.peer` says.
    peer: OwnTls,
    /// To clients who must show a certificate of the same CA: what `held.server` says.
    mutual: OwnTls,
    expiry: IntGaugeVec,
}

/// The pairs of files in a master's directory.
struct Held {
    /// To clients of the API. The CA is shown as well, for a new master that knows it by its hash only.
    server: Pair,
    /// To nodes, with the CA.
    kubelet_client: Pair,
    /// To servers behind APIServices, if this master has such a certificate.
    proxy_client: Option<Pair>,
    /// To other masters.
    peer: Pair,
}

impl Credentials {
    /// Reads them. What has expired, or was half written when the power went, is signed anew first, if
    /// the keys of the authorities are there.
    pub(crate) fn open(pki: &Path, registry: &Registry) -> Result<Credentials> {
        let mut held = Held::read(pki);
        let ended = match &held {
            Ok(held) => !held.is_valid(OffsetDateTime::now_utc()),
            // What is not there is not ours to make.
            Err(error) => !matches!(error.downcast_ref(), Some(credentials::Error::Read(..))),
        };
        if ended && has_authorities(pki) {
            tracing::warn!(pki = %pki.display(), "certificates are not valid now: signing them anew");
            renew(pki, &Whom::default(), pki::CERTIFICATE_LIFE)?;
            held = Held::read(pki);
        }
        let held = held?;
        let expiry = Opts::new(
            "coxswain_certificate_expiry_timestamp_seconds",
            "When a certificate that this master proves itself with, or the authority that signed it, expires, in seconds since 1970.",
        );
        let expiry = IntGaugeVec::new(expiry, &["name"])?;
        registry.register(Box::new(expiry.clone()))?;
        let [peer, mutual] = [&held.peer, &held.server].map(|pair| OwnTls::from(tls(pair)));
        let credentials = Credentials { pki: pki.into(), held, peer, mutual, expiry };
        credentials.show_expiry();
        Ok(credentials)
    }

    pub(crate) fn server(&self) -> Arc<Newest> {
        self.held.server.newest()
    }

    pub(crate) fn kubelet_client(&self) -> Arc<Newest> {
        self.held.kubelet_client.newest()
    }

    pub(crate) fn proxy_client(&self) -> Option<Arc<Newest>> {
        self.held.proxy_client.as_ref().map(Pair::newest)
    }

    pub(crate) fn peer(&self) -> OwnTls {
        self.peer.clone()
    }

    /// Of etcd's API.
    pub(crate) fn mutual(&self) -> OwnTls {
        self.mutual.clone()
    }

    /// Keeps them valid and takes up what was written, until `shutdown`.
    pub(crate) async fn keep(mut self, shutdown: CancellationToken) {
        let mut turn = tokio::time::interval(PERIOD);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(turn.tick()).await.is_some() {
            self = match tokio::task::spawn_blocking(move || self.tend()).await {
                Ok(credentials) => credentials,
                Err(error) => {
                    return tracing::error!(%error, "certificates are not renewed any more");
                }
            };
        }
    }

    fn tend(mut self) -> Credentials {
        self.take_up();
        if self.held.is_due(OffsetDateTime::now_utc()) && has_authorities(&self.pki) {
            match renew(&self.pki, &Whom::default(), pki::CERTIFICATE_LIFE) {
                Ok(whom) => tracing::info!(name = whom.name, "certificates are signed anew"),
                Err(error) => tracing::error!("cannot sign certificates anew: {error:#}"),
            }
            self.take_up();
        }
        self.show_expiry();
        self
    }

    fn take_up(&mut self) {
        let Held { server, kubelet_client, proxy_client, peer } = &mut self.held;
        for pair in [kubelet_client].into_iter().chain(proxy_client) {
            pair.look();
        }
        for (pair, shown) in [(server, &self.mutual), (peer, &self.peer)] {
            if pair.look() {
                shown.replace(tls(pair));
            }
        }
    }

    fn show_expiry(&self) {
        let show = |name: &str, pem: &[u8]| {
            if let Some((_, until)) = pki::life(pem) {
                self.expiry.with_label_values(&[name]).set(until.unix_timestamp());
            }
        };
        for pair in self.held.all() {
            show(&pair.name(), &pair.files().cert);
            let own = pki::CERTIFICATES.iter().find(|(_, name)| *name == pair.name());
            if let Some((authority, _)) = own {
                show(authority.as_str(), &pair.files().authority);
            }
        }
    }
}

impl Held {
    fn read(pki: &Path) -> Result<Held> {
        let open = |name: &str, authority: Option<&str>| {
            let authority = authority.map(|name| file(pki, name, "crt"));
            Pair::open(&file(pki, name, "crt"), &file(pki, name, "key"), authority.as_deref())
                .with_context(|| format!("{name}.crt and {name}.key"))
        };
        let (proxy, proxies) = ("front-proxy-client", "front-proxy-ca");
        let is_proxy = file(pki, proxy, "crt").exists();
        // Whoever believes its authority alone believes what that one vouches for, if it is shown it.
        let proxies = file(pki, proxies, "crt").exists().then_some(proxies);
        Ok(Held {
            server: open("apiserver", Some("ca"))?,
            kubelet_client: open("kubelet-client", Some("ca"))?,
            proxy_client: is_proxy.then(|| open(proxy, proxies)).transpose()?,
            peer: open("peer", Some("peer-ca"))?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Pair> {
        [&self.server, &self.kubelet_client, &self.peer].into_iter().chain(&self.proxy_client)
    }

    fn lives(&self) -> impl Iterator<Item = Option<(OffsetDateTime, OffsetDateTime)>> {
        self.all().map(|pair| pki::life(&pair.files().cert))
    }

    fn is_valid(&self, now: OffsetDateTime) -> bool {
        self.lives().all(|life| life.is_some_and(|(from, until)| (from..until).contains(&now)))
    }

    /// Less than a third of one's life is left: two thirds are time enough to notice that this fails.
    fn is_due(&self, now: OffsetDateTime) -> bool {
        self.lives().flatten().any(|(from, until)| until - now < (until - from) / 3)
    }
}

/// As it is shown to those whose certificates are of the same CA.
fn tls(pair: &Pair) -> Tls {
    let Files { cert, key, authority } = pair.files();
    Tls { ca: authority.clone(), cert: cert.clone(), key: key.clone() }
}

/// Whom a master's certificates are for. What is not said is read in those it has.
#[derive(Default)]
pub(crate) struct Whom {
    pub(crate) name: Option<String>,
    /// At which it is dialled, besides those that are known.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Whom new certificates were signed for.
pub(crate) struct Signed {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Signs all that a master proves itself with anew, with new keys.
pub(crate) fn renew(pki: &Path, whom: &Whom, life: Duration) -> Result<Signed> {
    let name = match &whom.name {
        Some(name) => name.clone(),
        None => common_name(&pki.join("peer.crt")).context("who is it? Name it with --name")?,
    };
    let mut addresses = whom.addresses.clone();
    let known = pki.join("apiserver.crt");
    if known.exists() {
        addresses.extend(addresses_in(&known).context("move it away, and name every --address")?);
    }
    addresses.sort();
    addresses.dedup();
    pki::issue_master(pki, &MasterNames { name: &name, addresses: &addresses }, life)?;
    Ok(Signed { name, addresses })
}

pub(crate) fn has_authorities(pki: &Path) -> bool {
    AuthorityName::ALL.iter().all(|name| Authority::read(pki, name.as_str()).is_ok())
}

fn file(pki: &Path, name: &str, extension: &str) -> PathBuf {
    pki.join(format!("{name}.{extension}"))
}

pub(crate) fn read(path: &Path) -> Result<Pem> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let pem = parse_x509_pem(&text).ok().map(|(_, pem)| pem);
    pem.with_context(|| format!("{} is not PEM", path.display()))
}

pub(crate) fn parse<'a>(path: &Path, pem: &'a Pem) -> Result<X509Certificate<'a>> {
    pem.parse_x509().with_context(|| format!("{} is no certificate", path.display()))
}

pub(crate) fn common_name(path: &Path) -> Result<String> {
    let pem = read(path)?;
    let cert = parse(path, &pem)?;
    let name = cert.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(name.with_context(|| format!("{} names nobody", path.display()))?.to_string())
}

pub(crate) fn addresses_in(path: &Path) -> Result<Vec<IpAddr>> {
    Ok(names_in(path)?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Whom the certificate stands for: DNS names and addresses.
pub(crate) fn names_in(path: &Path) -> Result<Vec<String>> {
    let pem = read(path)?;
    let cert = parse(path, &pem)?;
    let names = cert.subject_alternative_name().with_context(|| path.display().to_string())?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let text = |name: &GeneralName| match name {
        GeneralName::DNSName(name) => Some(name.to_string()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|it| IpAddr::from(it).to_string()),
        },
        _ => None,
    };
    Ok(names.iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn master(life: Duration) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = directory.path();
        pki::write_authorities(pki);
        let addresses = vec!["10.0.0.1".parse().expect("an address")];
        let whom = Whom { name: Some("m1".into()), addresses };
        renew(pki, &whom, life).expect("signed");
        directory
    }

    fn shown(credentials: &Credentials) -> Vec<u8> {
        credentials.server().current().end_entity_cert().expect("a certificate").to_vec()
    }

    #[test]
    fn a_certificate_is_signed_anew_in_the_last_third_of_its_life() {
        let directory = master(90 * DAY);
        let held = Held::read(directory.path()).expect("read");
        let now = OffsetDateTime::now_utc();
        for (days, expected) in [(0, false), (59, false), (61, true), (91, true)] {
            assert_eq!(held.is_due(now + days * DAY), expected, "after {days} days");
        }
    }

    #[test]
    fn what_is_due_is_signed_anew_and_shown_to_whoever_connects_next() {
        let directory = master(Duration::from_secs(60));
        let credentials = Credentials::open(directory.path(), &Registry::new()).expect("read");
        let before = shown(&credentials);
        // The backdate of five minutes makes a minute the last third.
        let credentials = credentials.tend();
        let after = shown(&credentials);
        assert_ne!(after, before);
        assert!(!credentials.held.is_due(OffsetDateTime::now_utc()));
        assert_eq!(addresses_in(&directory.path().join("apiserver.crt")).expect("read").len(), 1);
        assert_eq!(shown(&credentials.tend()), after, "nothing is new");
    }

    #[test]
    fn what_somebody_else_wrote_is_taken_up_when_both_files_are_there() {
        let (directory, other) = (master(DAY * 90), master(DAY * 90));
        let mut credentials = Credentials::open(directory.path(), &Registry::new()).expect("read");
        let before = shown(&credentials);
        let copy = |name: &str| fs::copy(other.path().join(name), directory.path().join(name));
        copy("apiserver.crt").expect("copied");
        credentials = credentials.tend();
        assert_eq!(shown(&credentials), before, "half of a pair");
        copy("apiserver.key").expect("copied");
        credentials = credentials.tend();
        assert_ne!(shown(&credentials), before);
    }

    #[test]
    fn a_master_that_slept_through_its_certificates_heals_them_when_it_starts() {
        let directory = master(Duration::ZERO);
        let sound = || {
            let held = Held::read(directory.path()).expect("read");
            held.is_valid(OffsetDateTime::now_utc())
        };
        assert!(!sound());
        Credentials::open(directory.path(), &Registry::new()).expect("healed");
        assert!(sound());
        // Without the authorities' keys nothing can be healed, and nothing is touched.
        let directory = master(Duration::ZERO);
        fs::remove_file(directory.path().join("ca.key")).expect("removed");
        let before = fs::read(directory.path().join("peer.crt")).expect("read");
        Credentials::open(directory.path(), &Registry::new()).expect("read as they are");
        assert_eq!(fs::read(directory.path().join("peer.crt")).expect("read"), before);
    }
}

//! What a master proves itself with, as its files say now: signed anew before it expires, and taken up
//! without a restart, whoever wrote the files.

use crate::pki::{self, Authority, MasterNames};
use anyhow::{Context, Result};
use node_agent::credentials::{Newest, PERIOD, certified};
use prometheus::{IntGaugeVec, Opts, Registry};
use raft_store::{OwnTls, Tls};
use rustls::sign::CertifiedKey;
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

/// One of the pairs of files in a master's directory.
struct Held {
    name: &'static str,
    /// Whose certificate belongs to it: shown after the own one, or asked of the other side.
    authority: Option<&'static str>,
    /// As they were when they were last used.
    files: Files,
    /// Has new ones used from now on.
    put_to_use: PutToUse,
}

type PutToUse = Box<dyn Fn(&Files) -> Result<()> + Send>;

#[derive(PartialEq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    authority: Vec<u8>,
}

/// All that a master proves itself with.
pub(crate) struct Credentials {
    pki: PathBuf,
    /// To clients of the API. The CA is shown as well, for a new master that knows it by its hash only.
    pub(crate) server: Arc<Newest>,
    /// To nodes.
    pub(crate) kubelet_client: Arc<Newest>,
    /// To servers behind APIServices, if this master has such a certificate.
    pub(crate) proxy_client: Option<Arc<Newest>>,
    /// To other masters.
    pub(crate) peer: OwnTls,
    held: Vec<Held>,
    expiry: IntGaugeVec,
}

impl Credentials {
    /// Reads them. What has expired, or was half written when the power went, is signed anew first, if
    /// the keys of the authorities are there.
    pub(crate) fn open(pki: &Path, registry: &Registry) -> Result<Credentials> {
        if !sound(pki) && has_authorities(pki) {
            tracing::warn!(pki = %pki.display(), "certificates are not valid now: signing them anew");
            renew(pki, &Whom::default(), pki::CERTIFICATE_LIFE)?;
        }
        let expiry = Opts::new(
            "coxswain_certificate_expiry_timestamp_seconds",
            "When a certificate that this master proves itself with expires, in seconds since 1970.",
        );
        let expiry = IntGaugeVec::new(expiry, &["name"])?;
        registry.register(Box::new(expiry.clone()))?;
        let (server, first) = Held::shown(pki, "apiserver", Some("ca"))?;
        let (kubelet_client, second) = Held::shown(pki, "kubelet-client", None)?;
        let (peer, third) = Held::peer(pki)?;
        let mut held = vec![first, second, third];
        let mut proxy_client = None;
        if file(pki, "front-proxy-client", "crt").exists() {
            let (newest, fourth) = Held::shown(pki, "front-proxy-client", None)?;
            proxy_client = Some(newest);
            held.push(fourth);
        }
        let pki = pki.into();
        let credentials =
            Credentials { pki, server, kubelet_client, proxy_client, peer, held, expiry };
        credentials.show_expiry();
        Ok(credentials)
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
        if due(&self.pki, OffsetDateTime::now_utc()) && has_authorities(&self.pki) {
            match renew(&self.pki, &Whom::default(), pki::CERTIFICATE_LIFE) {
                Ok(whom) => tracing::info!(name = whom.name, "certificates are signed anew"),
                Err(error) => tracing::error!("cannot sign certificates anew: {error:#}"),
            }
        }
        for held in &mut self.held {
            match held.take_up(&self.pki) {
                Ok(true) => tracing::info!(name = held.name, "a new certificate is in use"),
                Ok(false) => {}
                // Perhaps one of two files is written by now: looked at again.
                Err(error) => {
                    tracing::warn!(name = held.name, "kept the old certificate: {error:#}")
                }
            }
        }
        self.show_expiry();
        self
    }

    fn show_expiry(&self) {
        for held in &self.held {
            if let Some((_, until)) = first(&held.files.cert).as_ref().and_then(life) {
                self.expiry.with_label_values(&[held.name]).set(until.unix_timestamp());
            }
        }
    }
}

impl Held {
    fn shown(
        pki: &Path,
        name: &'static str,
        authority: Option<&'static str>,
    ) -> Result<(Arc<Newest>, Held)> {
        let files = Files::read(pki, name, authority)?;
        let newest = Arc::new(Newest::new(files.parse(name)?));
        let used = newest.clone();
        let put_to_use = Box::new(move |files: &Files| {
            used.replace(files.parse(name)?);
            Ok(())
        });
        Ok((newest, Held { name, authority, files, put_to_use }))
    }

    fn peer(pki: &Path) -> Result<(OwnTls, Held)> {
        let (name, authority) = ("peer", Some("peer-ca"));
        let files = Files::read(pki, name, authority)?;
        let tls = |files: &Files| {
            files.parse(name)?;
            let Files { cert, key, authority } = files;
            anyhow::Ok(Tls { ca: authority.clone(), cert: cert.clone(), key: key.clone() })
        };
        let own = OwnTls::from(tls(&files)?);
        let used = own.clone();
        let put_to_use = Box::new(move |files: &Files| {
            used.replace(tls(files)?);
            Ok(())
        });
        Ok((own, Held { name, authority, files, put_to_use }))
    }

    /// Whether there was something new.
    fn take_up(&mut self, pki: &Path) -> Result<bool> {
        let files = Files::read(pki, self.name, self.authority)?;
        if files == self.files {
            return Ok(false);
        }
        (self.put_to_use)(&files)?;
        self.files = files;
        Ok(true)
    }
}

impl Files {
    fn read(pki: &Path, name: &str, authority: Option<&str>) -> Result<Files> {
        let read = |name: &str, extension: &str| {
            let path = file(pki, name, extension);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let authority = authority.map_or(Ok(Vec::new()), |name| read(name, "crt"))?;
        Ok(Files { cert: read(name, "crt")?, key: read(name, "key")?, authority })
    }

    fn parse(&self, name: &str) -> Result<CertifiedKey> {
        certified(&self.cert, &self.authority, &self.key)
            .with_context(|| format!("{name}.crt and {name}.key"))
    }
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

const ALL: [&str; 4] = ["apiserver", "peer", "kubelet-client", "front-proxy-client"];

/// Less than a third of one's life is left: two thirds are time enough to notice that this fails.
fn due(pki: &Path, now: OffsetDateTime) -> bool {
    let of = |name: &&str| fs::read(file(pki, name, "crt")).ok();
    ALL.iter().filter_map(of).any(|pem| match first(&pem).as_ref().and_then(life) {
        Some((from, until)) => until - now < (until - from) / 3,
        None => false,
    })
}

/// Every pair that is there belongs together and is valid now.
fn sound(pki: &Path) -> bool {
    ALL.iter().filter(|name| file(pki, name, "crt").exists()).all(|name| {
        let files = Files::read(pki, name, None);
        files.is_ok_and(|files| {
            let now = OffsetDateTime::now_utc();
            let life = first(&files.cert).as_ref().and_then(life);
            life.is_some_and(|(from, until)| (from..until).contains(&now))
                && files.parse(name).is_ok()
        })
    })
}

fn has_authorities(pki: &Path) -> bool {
    let signs = |name: &&str| Authority::read(pki, name).is_ok();
    ["ca", "peer-ca", "front-proxy-ca"].iter().all(signs)
}

fn file(pki: &Path, name: &str, extension: &str) -> PathBuf {
    pki.join(format!("{name}.{extension}"))
}

fn first(pem: &[u8]) -> Option<Pem> {
    parse_x509_pem(pem).ok().map(|(_, pem)| pem)
}

fn life(pem: &Pem) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let cert = pem.parse_x509().ok()?;
    let validity = cert.validity();
    Some((validity.not_before.to_datetime(), validity.not_after.to_datetime()))
}

pub(crate) fn read(path: &Path) -> Result<Pem> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    first(&text).with_context(|| format!("{} is not PEM", path.display()))
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
    let pem = read(path)?;
    let cert = parse(path, &pem)?;
    let names = cert.subject_alternative_name().with_context(|| path.display().to_string())?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let address = |name: &GeneralName| match name {
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
        },
        _ => None,
    };
    Ok(names.iter().filter_map(address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::write_pair;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn master(life: Duration) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = directory.path();
        for name in ["ca", "peer-ca", "front-proxy-ca"] {
            let authority = Authority::open(&pki.join("made").join(name)).expect("made");
            write_pair(pki, name, &authority.pair).expect("written");
        }
        let addresses = vec!["10.0.0.1".parse().expect("an address")];
        let whom = Whom { name: Some("m1".into()), addresses };
        renew(pki, &whom, life).expect("signed");
        directory
    }

    fn shown(credentials: &Credentials) -> Vec<u8> {
        credentials.server.current().end_entity_cert().expect("a certificate").to_vec()
    }

    #[test]
    fn a_certificate_is_signed_anew_in_the_last_third_of_its_life() {
        let directory = master(90 * DAY);
        let now = OffsetDateTime::now_utc();
        for (days, expected) in [(0, false), (59, false), (61, true), (91, true)] {
            assert_eq!(due(directory.path(), now + days * DAY), expected, "after {days} days");
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
        assert!(!due(directory.path(), OffsetDateTime::now_utc()));
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
        assert!(!sound(directory.path()));
        Credentials::open(directory.path(), &Registry::new()).expect("healed");
        assert!(sound(directory.path()));
        // Without the authorities' keys nothing can be healed, and nothing is touched.
        let directory = master(Duration::ZERO);
        fs::remove_file(directory.path().join("ca.key")).expect("removed");
        let before = fs::read(directory.path().join("peer.crt")).expect("read");
        Credentials::open(directory.path(), &Registry::new()).expect("read as they are");
        assert_eq!(fs::read(directory.path().join("peer.crt")).expect("read"), before);
    }
}

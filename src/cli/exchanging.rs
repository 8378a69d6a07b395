//! An exchange of an authority, as a master takes part in it: each step is made in its files, from which it is
//! taken up as if somebody had written them. The key of the next authority goes from master to master and nowhere
//! else.

use crate::{
    credentials::{self, Credentials, Whom, has_authorities},
    pki::{self, Authority, Pair, is_signed_by, write_private},
};
use anyhow::{Context, Result};
use apiserver::{
    Believed,
    exchange::{AuthorityName, Exchange, Standing, Step, fingerprints},
    to_pem,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use k8s::Status;
use node_agent::credentials::Newest;
use raft_store::{OwnTls, Store, durable};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

/// Of questions between masters: the authority with a fingerprint.
const TOPIC: &str = "authority";

/// Makes the steps in one master's directory. Clones share it.
#[derive(Clone)]
pub(super) struct Exchanging {
    store: Store,
    files: [Arc<Files>; AuthorityName::ALL.len()],
    in_use: Arc<InUse>,
    /// One step at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What was taken up of the files.
struct InUse {
    believed: Believed,
    server: Arc<Newest>,
    kubelet_client: Arc<Newest>,
    proxy_client: Option<Arc<Newest>>,
    peer: OwnTls,
    /// An exchange may begin by itself.
    rotate: bool,
}

/// Of one authority.
struct Files {
    pki: PathBuf,
    name: AuthorityName,
    /// The one that is on its way in, until the one before is forgotten.
    next: RwLock<Option<Pair>>,
}

/// Why a step is not made.
enum Refused {
    /// Another step has to be made first, or something is missing.
    Now(String),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Refused {
        Refused::Failed(error)
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        match refused {
            Refused::Now(why) => Status::new(409, "Conflict", why),
            Refused::Failed(error) => Status::new(500, "InternalError", format!("{error:#}")),
        }
    }
}

/// Ends a step that broke off between two files. Before anybody reads them.
pub(super) fn finish(pki: &Path) -> Result<()> {
    for name in AuthorityName::ALL {
        let Some(next) = read_next(pki, name)? else { continue };
        let now = Authority::read(pki, name.as_str())?.pair;
        if first(&now.cert) == first(&next.cert) && now.key != next.key {
            write_private(&pki.join(format!("{name}.key")), &next.key)?;
        }
    }
    Ok(())
}

/// What the authority that is on its way in is called, beside the one that is there.
fn next_to(name: AuthorityName) -> String {
    format!("{name}.next")
}

fn read_next(pki: &Path, name: AuthorityName) -> Result<Option<Pair>> {
    let next = next_to(name);
    // The key is written first.
    match pki.join(format!("{next}.crt")).exists() {
        true => Ok(Some(Authority::read(pki, &next)?.pair)),
        false => Ok(None),
    }
}

/// Whose key it is.
fn first(pem: &str) -> Option<String> {
    fingerprints(pem.as_bytes()).into_iter().next()
}

impl InUse {
    fn of(credentials: &Credentials, believed: Believed, rotate: bool) -> InUse {
        InUse {
            believed,
            server: credentials.server(),
            kubelet_client: credentials.kubelet_client(),
            proxy_client: credentials.proxy_client(),
            peer: credentials.peer(),
            rotate,
        }
    }

    /// Whom this master believes, in PEM, and whether the first of them signed what it shows.
    fn believed(&self, name: AuthorityName) -> (Vec<u8>, bool) {
        let now = self.believed.now();
        let all_of = |pem: Vec<u8>, shown: &[&Arc<Newest>]| {
            let signer = CertificateDer::from_pem_slice(&pem);
            let signed = |own: &&Arc<Newest>| {
                let own = own.current();
                let own = own.end_entity_cert().ok();
                own.zip(signer.as_ref().ok())
                    .is_some_and(|(own, by)| node_agent::is_signed_by(own, by))
            };
            let certified = shown.iter().all(signed);
            (pem, certified)
        };
        match name {
            AuthorityName::Ca => {
                all_of(now.client_ca_pem.clone().into(), &[&self.server, &self.kubelet_client])
            }
            AuthorityName::PeerCa => {
                let peer = self.peer.current();
                (peer.ca.clone(), is_signed_by(&peer.cert, &peer.ca))
            }
            AuthorityName::FrontProxyCa => {
                let pem = now.front_proxy.as_ref().map(|proxies| proxies.ca_pem.clone());
                let own: Vec<&Arc<Newest>> = self.proxy_client.iter().collect();
                all_of(pem.unwrap_or_default().into(), &own)
            }
        }
    }
}

impl Exchanging {
    /// An exchange of an authority that signed itself may begin `by_itself`.
    pub(super) fn open(
        pki: &Path,
        store: &Store,
        (credentials, believed): (&Credentials, Believed),
        by_itself: bool,
    ) -> Result<Exchanging> {
        let [ca, peer_ca, front_proxy_ca] = AuthorityName::ALL.map(|name| Files::open(pki, name));
        let files = [ca?, peer_ca?, front_proxy_ca?].map(Arc::new);
        let asked = files.clone();
        store.answer(TOPIC, Arc::new(move |wanted| tell(&asked, wanted)));
        let in_use = Arc::new(InUse::of(credentials, believed, by_itself));
        Ok(Exchanging { store: store.clone(), files, in_use, turn: Arc::default() })
    }

    fn files(&self, name: AuthorityName) -> &Arc<Files> {
        let found = self.files.iter().find(|files| files.name == name);
        found.expect("there are files of all names")
    }

    /// Asks the other masters for an authority that this one does not have.
    async fn fetch(&self, files: &Files, wanted: &str) -> Result<(), Refused> {
        for member in self.store.members() {
            let question = Bytes::copy_from_slice(wanted.as_bytes());
            let told = self.store.ask(member.id, TOPIC, question).await;
            let pair = told.and_then(|told| parse(&told)).filter(|pair| is(pair, wanted));
            if let Some(pair) = pair {
                return Ok(files.remember(pair)?);
            }
        }
        Err(Refused::Now(format!("no other master has the authority {wanted}")))
    }

    /// Makes a step; see [`Exchange::make`].
    async fn make(
        self,
        name: AuthorityName,
        step: Step,
        authority: Option<String>,
    ) -> Result<(), Refused> {
        let _turn = self.turn.lock().await;
        let files = self.files(name).clone();
        if let Some(wanted) = authority.as_deref().filter(|wanted| files.lacks(step, wanted)) {
            self.fetch(&files, wanted).await?;
        }
        let made = tokio::task::spawn_blocking(move || match (step, authority) {
            (Step::Believe, authority) => files.believe(authority.as_deref()),
            (_, None) => Err(Refused::Now("which authority?".into())),
            (Step::Sign, Some(wanted)) => files.sign(&wanted),
            (Step::Forget, Some(wanted)) => files.forget(&wanted),
        });
        made.await.map_err(|broken| Refused::Failed(broken.into()))?
    }
}

/// What another master that asks is told; nothing if this one has another authority, or none.
fn tell(files: &[Arc<Files>], wanted: &[u8]) -> Bytes {
    let wanted = String::from_utf8_lossy(wanted);
    let mut next = files.iter().filter_map(|files| files.next());
    match next.find(|pair| is(pair, &wanted)) {
        Some(pair) => json!({"certificates": pair.cert, "key": pair.key}).to_string().into(),
        None => Bytes::new(),
    }
}

fn parse(told: &[u8]) -> Option<Pair> {
    let told: Value = serde_json::from_slice(told).ok()?;
    let text = |field: &str| told[field].as_str().map(str::to_owned);
    Some(Pair { cert: text("certificates")?, key: text("key")? })
}

fn is(pair: &Pair, wanted: &str) -> bool {
    first(&pair.cert).as_deref() == Some(wanted)
}

impl Exchange for Exchanging {
    fn standings(&self) -> [(AuthorityName, Standing); AuthorityName::ALL.len()] {
        let [of_clients, ..] = &self.files;
        let may = self.in_use.rotate && has_authorities(&of_clients.pki);
        self.files.each_ref().map(|files| {
            let (believed, certified) = self.in_use.believed(files.name);
            // One that somebody else signed is for them to exchange.
            let rotates = may && is_signed_by(&believed, &believed);
            let next = files.next().and_then(|next| first(&next.cert));
            (files.name, Standing { rotates, believed, certified, next })
        })
    }

    fn make(
        &self,
        of: AuthorityName,
        step: Step,
        authority: Option<String>,
    ) -> BoxFuture<'static, Result<(), Status>> {
        let made = self.clone().make(of, step, authority);
        Box::pin(async move { Ok(made.await?) })
    }
}

impl Files {
    fn open(pki: &Path, name: AuthorityName) -> Result<Files> {
        Ok(Files { pki: pki.into(), name, next: RwLock::new(read_next(pki, name)?) })
    }

    fn next(&self) -> Option<Pair> {
        self.next.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.pki.join(format!("{}.{extension}", self.name))
    }

    fn remember(&self, pair: Pair) -> Result<()> {
        let next = next_to(self.name);
        write_private(&self.pki.join(format!("{next}.key")), &pair.key)?;
        write_private(&self.pki.join(format!("{next}.crt")), &pair.cert)?;
        *self.next.write().unwrap_or_else(PoisonError::into_inner) = Some(pair);
        Ok(())
    }

    /// Whom this master believes, as it is written.
    fn believed(&self) -> Result<String> {
        let path = self.path("crt");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write_believed(&self, certificates: &str) -> Result<()> {
        write_private(&self.path("crt"), certificates)
    }

    /// Whether the step cannot be made without asking others.
    fn lacks(&self, step: Step, wanted: &str) -> bool {
        let known = self.believed().unwrap_or_default();
        let done = match step {
            Step::Believe => fingerprints(known.as_bytes()).iter().any(|known| known == wanted),
            Step::Sign => first(&known).as_deref() == Some(wanted),
            // What does not sign here is not forgotten for.
            Step::Forget => true,
        };
        !done && self.next().is_none()
    }

    /// The one that is on its way in, if it is that one.
    fn expected(&self, wanted: &str) -> Result<Pair, Refused> {
        match self.next() {
            Some(pair) if is(&pair, wanted) => Ok(pair),
            Some(_) => Err(Refused::Now("another authority is on its way in here".into())),
            None => Err(Refused::Now(format!("authority {wanted} is not here"))),
        }
    }

    fn believe(&self, authority: Option<&str>) -> Result<(), Refused> {
        if !has_authorities(&self.pki) {
            let why = "this master does not have the keys of all authorities (ca.key, peer-ca.key, \
                       front-proxy-ca.key): it could not sign its own certificates anew";
            return Err(Refused::Now(why.into()));
        }
        let believed = self.believed()?;
        let known = fingerprints(believed.as_bytes());
        let next = match (authority, self.next()) {
            (Some(wanted), _) if known.iter().any(|known| known == wanted) => return Ok(()),
            (Some(wanted), _) => self.expected(wanted)?,
            (None, Some(begun)) => begun,
            (None, None) => {
                let made = Authority::read(&self.pki, self.name.as_str())?.successor(self.name)?;
                self.remember(made.clone())?;
                made
            }
        };
        if !first(&next.cert).is_some_and(|next| known.contains(&next)) {
            self.write_believed(&(believed + &next.cert))?;
        }
        Ok(())
    }

    fn sign(&self, wanted: &str) -> Result<(), Refused> {
        let believed = self.believed()?;
        let known = fingerprints(believed.as_bytes());
        if known.first().is_none_or(|signs| signs != wanted) {
            let next = self.expected(wanted)?;
            if !known.iter().any(|known| known == wanted) {
                return Err(Refused::Now(format!("authority {wanted} is not believed here yet")));
            }
            let own = fingerprints(next.cert.as_bytes());
            let certificates = CertificateDer::pem_slice_iter(believed.as_bytes());
            let others = certificates.filter_map(Result::ok).map(|it| to_pem(&it));
            let others = others.filter(|other| first(other).is_some_and(|it| !own.contains(&it)));
            self.write_believed(&(next.cert + &others.collect::<String>()))?;
            write_private(&self.path("key"), &next.key)?;
        }
        Ok(self.renew()?)
    }

    /// What this master proves itself with is signed by the authority that signs now.
    fn renew(&self) -> Result<()> {
        let believed = self.believed()?;
        for (_, name) in pki::CERTIFICATES.iter().filter(|(signer, _)| *signer == self.name) {
            let path = self.pki.join(format!("{name}.crt"));
            let own = fs::read(&path);
            let own = own.with_context(|| format!("cannot read {}", path.display()))?;
            if !is_signed_by(&own, believed.as_bytes()) {
                credentials::renew(&self.pki, &Whom::default(), pki::CERTIFICATE_LIFE)?;
            }
        }
        Ok(())
    }

    fn forget(&self, wanted: &str) -> Result<(), Refused> {
        let believed = self.believed()?;
        if first(&believed).as_deref() != Some(wanted) {
            return Err(Refused::Now(format!("authority {wanted} does not sign here")));
        }
        self.renew()?;
        let signs = CertificateDer::from_pem_slice(believed.as_bytes());
        self.write_believed(&to_pem(&signs.with_context(|| self.name.to_string())?))?;
        let next = next_to(self.name);
        for extension in ["crt", "key"] {
            let removed = durable::remove(&self.pki, &format!("{next}.{extension}"));
            removed.with_context(|| format!("cannot remove {next}.{extension}"))?;
        }
        *self.next.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::MasterNames;
    use node_agent::credentials::{certified, roots};
    use rustls::{
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        pki_types::{ServerName, UnixTime},
    };

    fn master() -> (tempfile::TempDir, Files) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let pki = directory.path();
        pki::write_authorities(pki);
        let names = MasterNames { name: "m1", addresses: &["10.0.0.1".parse().unwrap()] };
        pki::issue_master(pki, &names, pki::CERTIFICATE_LIFE).unwrap();
        let files = Files::open(pki, AuthorityName::Ca).unwrap();
        (directory, files)
    }

    fn made(step: Result<(), Refused>) {
        let refused = step.err().map(|refused| Status::from(refused).message);
        assert_eq!(refused, None);
    }

    fn why(step: Result<(), Refused>) -> String {
        Status::from(step.expect_err("refused")).message
    }

    fn read(files: &Files, name: &str) -> Vec<u8> {
        fs::read(files.pki.join(name)).unwrap()
    }

    /// Whether a client that believes some certificates lets itself in with this master.
    fn is_let_in(files: &Files, believes: &str) -> bool {
        let ca = files.believed().unwrap();
        let own =
            certified(&read(files, "apiserver.crt"), ca.as_bytes(), &read(files, "apiserver.key"));
        let shown = own.unwrap().cert;
        let roots = Arc::new(roots(believes.as_bytes()).unwrap());
        let verifier = WebPkiServerVerifier::builder(roots).build().unwrap();
        let (name, now) = (ServerName::try_from("10.0.0.1").unwrap(), UnixTime::now());
        verifier.verify_server_cert(&shown[0], &shown[1..], &name, &[], now).is_ok()
    }

    #[test]
    fn a_master_makes_the_steps_of_an_exchange() {
        let (_directory, files) = master();
        let old = files.believed().unwrap();
        made(files.believe(None));
        let next = files.next().unwrap();
        let new = first(&next.cert).unwrap();
        assert_eq!(files.believed().unwrap(), old.clone() + &next.cert);
        assert!(why(files.forget(&new)).contains("does not sign here"));
        let believed = files.believed().unwrap();
        for again in [None, Some(new.as_str())] {
            made(files.believe(again));
            assert_eq!(files.believed().unwrap(), believed, "nothing is left to do");
        }

        made(files.sign(&new));
        assert_eq!(files.believed().unwrap(), next.cert.clone() + &old);
        assert_eq!(read(&files, "ca.key"), next.key.as_bytes());
        assert!(is_signed_by(&read(&files, "apiserver.crt"), next.cert.as_bytes()));
        assert!(is_signed_by(&read(&files, "kubelet-client.crt"), next.cert.as_bytes()));
        let alone = to_pem(&CertificateDer::from_pem_slice(next.cert.as_bytes()).unwrap());
        assert!(is_let_in(&files, &old), "by the one that the old authority signed");
        assert!(is_let_in(&files, &alone));
        let signed = read(&files, "apiserver.crt");
        made(files.sign(&new));
        assert_eq!(read(&files, "apiserver.crt"), signed, "nothing is left to do");

        made(files.forget(&new));
        assert_eq!(files.believed().unwrap(), alone);
        assert!(!is_let_in(&files, &old) && is_let_in(&files, &alone));
        assert!(files.next().is_none() && read_next(&files.pki, files.name).unwrap().is_none());
        made(files.forget(&new));
    }

    #[test]
    fn an_authority_goes_from_master_to_master() {
        let ((_one, first_master), (_other, late)) = (master(), master());
        made(first_master.believe(None));
        let new = first(&first_master.next().unwrap().cert).unwrap();
        assert!(late.lacks(Step::Believe, &new) && !first_master.lacks(Step::Sign, &new));
        assert!(why(late.believe(Some(&new))).contains("is not here"));
        let first_master = [Arc::new(first_master)];
        assert!(tell(&first_master, b"another").is_empty());
        let told = parse(&tell(&first_master, new.as_bytes())).unwrap();
        late.remember(told).unwrap();
        assert!(why(late.sign(&new)).contains("not believed here yet"));
        made(late.believe(Some(&new)));
        made(late.sign(&new));
        assert!(why(late.believe(Some("another"))).contains("another authority"));
    }

    #[test]
    fn the_authorities_of_masters_and_proxies_are_exchanged_like_that_of_clients() {
        for (name, shown) in
            [(AuthorityName::PeerCa, "peer"), (AuthorityName::FrontProxyCa, "front-proxy-client")]
        {
            let (_directory, of_clients) = master();
            let files = Files::open(&of_clients.pki, name).unwrap();
            let (old, clients) = (files.believed().unwrap(), of_clients.believed().unwrap());
            made(files.believe(None));
            let next = files.next().unwrap();
            let new = first(&next.cert).unwrap();
            assert_eq!(files.believed().unwrap(), old.clone() + &next.cert);
            made(files.sign(&new));
            let shown = read(&files, &format!("{shown}.crt"));
            assert!(
                is_signed_by(&shown, next.cert.as_bytes()) && !is_signed_by(&shown, old.as_bytes())
            );
            assert_eq!(read(&files, &format!("{name}.key")), next.key.as_bytes());
            made(files.forget(&new));
            assert_eq!(fingerprints(files.believed().unwrap().as_bytes()), [new]);
            assert_eq!(of_clients.believed().unwrap(), clients, "another authority");
        }
    }

    #[test]
    fn what_is_in_use_is_told_and_one_that_signed_itself_may_be_exchanged_unasked() {
        let (directory, files) = master();
        let (pki, store) = (directory.path(), Store::in_memory());
        let opened = |by_itself: bool| {
            let credentials = Credentials::open(pki, &prometheus::Registry::new()).unwrap();
            let of_clients = apiserver::Authorities {
                client_ca_pem: files.believed().unwrap(),
                ..apiserver::Authorities::default()
            };
            let in_use = (&credentials, of_clients.into());
            Exchanging::open(pki, &store, in_use, by_itself).unwrap()
        };
        let before = opened(true);
        let stands = |of: &Exchanging, name: AuthorityName| {
            let all = of.standings().into_iter();
            let mut all = all.filter_map(|(of, standing)| (of == name).then_some(standing));
            let Standing { believed, certified, next, rotates } = all.next().unwrap();
            (fingerprints(&believed).len(), certified, next.is_some(), rotates)
        };
        assert_eq!(stands(&before, AuthorityName::Ca), (1, true, false, true));
        assert_eq!(stands(&before, AuthorityName::PeerCa), (1, true, false, true));
        assert_eq!(stands(&opened(false), AuthorityName::Ca), (1, true, false, false));
        made(before.files(AuthorityName::PeerCa).believe(None));
        assert_eq!(
            stands(&before, AuthorityName::PeerCa),
            (1, true, true, true),
            "not taken up yet"
        );
        let after = opened(true);
        assert_eq!(stands(&after, AuthorityName::PeerCa), (3, true, true, true));

        let above = tempfile::tempdir().unwrap();
        let above = Authority::open(above.path()).unwrap().pair;
        fs::write(pki.join("ca.crt"), &above.cert).unwrap();
        let (_, certified, ..) = stands(&opened(true), AuthorityName::Ca);
        assert!(!certified, "another signed what it shows");
        fs::remove_file(pki.join("peer-ca.key")).unwrap();
        assert!(!stands(&after, AuthorityName::PeerCa).3, "without its key");
    }

    #[test]
    fn a_step_that_broke_off_is_ended_by_the_next_start() {
        let (_directory, files) = master();
        made(files.believe(None));
        let (next, key) = (files.next().unwrap(), read(&files, "ca.key"));
        finish(&files.pki).unwrap();
        assert_eq!(read(&files, "ca.key"), key, "it does not sign yet");
        let old = files.believed().unwrap();
        files.write_believed(&(next.cert.clone() + &old)).unwrap();
        finish(&files.pki).unwrap();
        assert_eq!(read(&files, "ca.key"), next.key.as_bytes());
        assert_eq!(Files::open(&files.pki, files.name).unwrap().next().unwrap().cert, next.cert);
        made(files.sign(&first(&next.cert).unwrap()));
        assert!(is_signed_by(&read(&files, "apiserver.crt"), next.cert.as_bytes()));
    }

    #[test]
    fn a_master_without_the_keys_says_so_before_anything_is_changed() {
        let (_directory, files) = master();
        let before = files.believed().unwrap();
        fs::remove_file(files.pki.join("peer-ca.key")).unwrap();
        assert!(why(files.believe(None)).contains("does not have the keys"));
        assert_eq!(files.believed().unwrap(), before);
    }
}

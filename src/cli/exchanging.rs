//! An exchange of the authority of clients and nodes, as a master takes part in it: each step is made in its
//! files, from which it is taken up as if somebody had written them. The key of the next authority goes from
//! master to master and nowhere else.

use crate::{
    credentials::{self, Whom, has_authorities},
    pki::{self, Authority, Pair, is_signed_by, write_private},
};
use anyhow::{Context, Result};
use apiserver::{
    exchange::{Exchange, Step, fingerprints},
    to_pem,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use k8s::Status;
use raft_store::{Store, durable};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

/// Beside `ca`: the authority that is on its way in, until the one before is forgotten.
const NEXT: &str = "ca.next";
/// Of questions between masters: the authority with a fingerprint.
const TOPIC: &str = "authority";

/// Makes the steps in one master's directory. Clones share it.
#[derive(Clone)]
pub(super) struct Exchanging {
    store: Store,
    files: Arc<Files>,
    /// One step at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Files {
    pki: PathBuf,
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
    let Some(next) = read_next(pki)? else { return Ok(()) };
    let ca = Authority::read(pki, "ca")?.pair;
    if first(&ca.cert) == first(&next.cert) && ca.key != next.key {
        write_private(&pki.join("ca.key"), &next.key)?;
    }
    Ok(())
}

fn read_next(pki: &Path) -> Result<Option<Pair>> {
    // The key is written first.
    match pki.join(format!("{NEXT}.crt")).exists() {
        true => Ok(Some(Authority::read(pki, NEXT)?.pair)),
        false => Ok(None),
    }
}

/// Whose key it is.
fn first(pem: &str) -> Option<String> {
    fingerprints(pem.as_bytes()).into_iter().next()
}

impl Exchanging {
    pub(super) fn open(pki: &Path, store: &Store) -> Result<Exchanging> {
        let files = Arc::new(Files::open(pki)?);
        let asked = files.clone();
        store.answer(TOPIC, Arc::new(move |wanted| asked.tell(wanted)));
        Ok(Exchanging { store: store.clone(), files, turn: Arc::default() })
    }

    /// Asks the other masters for an authority that this one does not have.
    async fn fetch(&self, wanted: &str) -> Result<(), Refused> {
        for member in self.store.members() {
            let question = Bytes::copy_from_slice(wanted.as_bytes());
            let told = self.store.ask(member.id, TOPIC, question).await;
            let pair = told.and_then(|told| parse(&told)).filter(|pair| is(pair, wanted));
            if let Some(pair) = pair {
                return Ok(self.files.remember(pair)?);
            }
        }
        Err(Refused::Now(format!("no other master has the authority {wanted}")))
    }

    async fn make(self, step: Step, authority: Option<String>) -> Result<(), Refused> {
        let _turn = self.turn.lock().await;
        if let Some(wanted) = authority.as_deref().filter(|wanted| self.files.lacks(step, wanted)) {
            self.fetch(wanted).await?;
        }
        let files = self.files.clone();
        let made = tokio::task::spawn_blocking(move || match (step, authority) {
            (Step::Believe, authority) => files.believe(authority.as_deref()),
            (_, None) => Err(Refused::Now("which authority?".into())),
            (Step::Sign, Some(wanted)) => files.sign(&wanted),
            (Step::Forget, Some(wanted)) => files.forget(&wanted),
        });
        made.await.map_err(|broken| Refused::Failed(broken.into()))?
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
    fn next(&self) -> Option<String> {
        first(&self.files.next()?.cert)
    }

    fn make(
        &self,
        step: Step,
        authority: Option<String>,
    ) -> BoxFuture<'static, Result<(), Status>> {
        let made = self.clone().make(step, authority);
        Box::pin(async move { Ok(made.await?) })
    }
}

impl Files {
    fn open(pki: &Path) -> Result<Files> {
        Ok(Files { pki: pki.into(), next: RwLock::new(read_next(pki)?) })
    }

    fn next(&self) -> Option<Pair> {
        self.next.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, pair: Pair) -> Result<()> {
        write_private(&self.pki.join(format!("{NEXT}.key")), &pair.key)?;
        write_private(&self.pki.join(format!("{NEXT}.crt")), &pair.cert)?;
        *self.next.write().unwrap_or_else(PoisonError::into_inner) = Some(pair);
        Ok(())
    }

    /// What another master that asks is told; nothing if this one has another authority, or none.
    fn tell(&self, wanted: &[u8]) -> Bytes {
        let wanted = String::from_utf8_lossy(wanted);
        match self.next().filter(|pair| is(pair, &wanted)) {
            Some(pair) => json!({"certificates": pair.cert, "key": pair.key}).to_string().into(),
            None => Bytes::new(),
        }
    }

    fn ca(&self) -> Result<String> {
        let path = self.pki.join("ca.crt");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write_ca(&self, certificates: &str) -> Result<()> {
        write_private(&self.pki.join("ca.crt"), certificates)
    }

    /// Whether the step cannot be made without asking others.
    fn lacks(&self, step: Step, wanted: &str) -> bool {
        let ca = self.ca().unwrap_or_default();
        let done = match step {
            Step::Believe => fingerprints(ca.as_bytes()).iter().any(|known| known == wanted),
            Step::Sign => first(&ca).as_deref() == Some(wanted),
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
        let ca = self.ca()?;
        let known = fingerprints(ca.as_bytes());
        let next = match (authority, self.next()) {
            (Some(wanted), _) if known.iter().any(|known| known == wanted) => return Ok(()),
            (Some(wanted), _) => self.expected(wanted)?,
            (None, Some(begun)) => begun,
            (None, None) => {
                let made = Authority::read(&self.pki, "ca")?.successor()?;
                self.remember(made.clone())?;
                made
            }
        };
        if !first(&next.cert).is_some_and(|next| known.contains(&next)) {
            self.write_ca(&(ca + &next.cert))?;
        }
        Ok(())
    }

    fn sign(&self, wanted: &str) -> Result<(), Refused> {
        let ca = self.ca()?;
        let known = fingerprints(ca.as_bytes());
        if known.first().is_none_or(|signs| signs != wanted) {
            let next = self.expected(wanted)?;
            if !known.iter().any(|known| known == wanted) {
                return Err(Refused::Now(format!("authority {wanted} is not believed here yet")));
            }
            let own = fingerprints(next.cert.as_bytes());
            let certificates = CertificateDer::pem_slice_iter(ca.as_bytes());
            let others = certificates.filter_map(Result::ok).map(|it| to_pem(&it));
            let others = others.filter(|other| first(other).is_some_and(|it| !own.contains(&it)));
            self.write_ca(&(next.cert + &others.collect::<String>()))?;
            write_private(&self.pki.join("ca.key"), &next.key)?;
        }
        Ok(self.renew()?)
    }

    /// What this master proves itself with is signed by the authority that signs now.
    fn renew(&self) -> Result<()> {
        let own = fs::read(self.pki.join("apiserver.crt")).context("cannot read apiserver.crt")?;
        let client = fs::read(self.pki.join("kubelet-client.crt"));
        let client = client.context("cannot read kubelet-client.crt")?;
        let ca = self.ca()?;
        if !is_signed_by(&own, ca.as_bytes()) || !is_signed_by(&client, ca.as_bytes()) {
            credentials::renew(&self.pki, &Whom::default(), pki::CERTIFICATE_LIFE)?;
        }
        Ok(())
    }

    fn forget(&self, wanted: &str) -> Result<(), Refused> {
        let ca = self.ca()?;
        if first(&ca).as_deref() != Some(wanted) {
            return Err(Refused::Now(format!("authority {wanted} does not sign here")));
        }
        self.renew()?;
        let signs = CertificateDer::from_pem_slice(ca.as_bytes()).context("ca.crt")?;
        self.write_ca(&to_pem(&signs))?;
        for extension in ["crt", "key"] {
            durable::remove(&self.pki, &format!("{NEXT}.{extension}")).context("ca.next")?;
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
        let files = Files::open(pki).unwrap();
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
        let ca = files.ca().unwrap();
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
        let old = files.ca().unwrap();
        made(files.believe(None));
        let next = files.next().unwrap();
        let new = first(&next.cert).unwrap();
        assert_eq!(files.ca().unwrap(), old.clone() + &next.cert);
        assert!(why(files.forget(&new)).contains("does not sign here"));
        let believed = files.ca().unwrap();
        for again in [None, Some(new.as_str())] {
            made(files.believe(again));
            assert_eq!(files.ca().unwrap(), believed, "nothing is left to do");
        }

        made(files.sign(&new));
        assert_eq!(files.ca().unwrap(), next.cert.clone() + &old);
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
        assert_eq!(files.ca().unwrap(), alone);
        assert!(!is_let_in(&files, &old) && is_let_in(&files, &alone));
        assert!(files.next().is_none() && read_next(&files.pki).unwrap().is_none());
        made(files.forget(&new));
    }

    #[test]
    fn an_authority_goes_from_master_to_master() {
        let ((_one, first_master), (_other, late)) = (master(), master());
        made(first_master.believe(None));
        let new = first(&first_master.next().unwrap().cert).unwrap();
        assert!(late.lacks(Step::Believe, &new) && !first_master.lacks(Step::Sign, &new));
        assert!(why(late.believe(Some(&new))).contains("is not here"));
        assert!(first_master.tell(b"another").is_empty());
        let told = parse(&first_master.tell(new.as_bytes())).unwrap();
        late.remember(told).unwrap();
        assert!(why(late.sign(&new)).contains("not believed here yet"));
        made(late.believe(Some(&new)));
        made(late.sign(&new));
        assert!(why(late.believe(Some("another"))).contains("another authority"));
    }

    #[test]
    fn a_step_that_broke_off_is_ended_by_the_next_start() {
        let (_directory, files) = master();
        made(files.believe(None));
        let (next, key) = (files.next().unwrap(), read(&files, "ca.key"));
        finish(&files.pki).unwrap();
        assert_eq!(read(&files, "ca.key"), key, "it does not sign yet");
        let old = files.ca().unwrap();
        files.write_ca(&(next.cert.clone() + &old)).unwrap();
        finish(&files.pki).unwrap();
        assert_eq!(read(&files, "ca.key"), next.key.as_bytes());
        assert_eq!(Files::open(&files.pki).unwrap().next().unwrap().cert, next.cert);
        made(files.sign(&first(&next.cert).unwrap()));
        assert!(is_signed_by(&read(&files, "apiserver.crt"), next.cert.as_bytes()));
    }

    #[test]
    fn a_master_without_the_keys_says_so_before_anything_is_changed() {
        let (_directory, files) = master();
        let before = files.ca().unwrap();
        fs::remove_file(files.pki.join("peer-ca.key")).unwrap();
        assert!(why(files.believe(None)).contains("does not have the keys"));
        assert_eq!(files.ca().unwrap(), before);
    }
}

//! An authority of clients and nodes is exchanged step by step, each step on every master, while everything goes
//! on. Here is what of it is in use on this master and which nodes have followed; the steps themselves are made
//! by whoever keeps the authorities' files. `coxswain certs exchange` asks.

use crate::{
    Identity,
    certificates::fingerprint,
    pipeline::Core,
    server::{Body, json, read_json},
};
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use k8s::Status;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json as value};
use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

const PATH: &str = "/coxswain/authorities";
/// Whoever has not asked for so long is not there: nodes ask once a minute.
const SILENT: Duration = Duration::from_secs(180);
/// A SHA-256 in hex.
const HASH_LENGTH: usize = 64;

/// A step on one master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next authority is believed besides the one that signs.
    Believe,
    /// It signs; the one before is believed still.
    Sign,
    /// It alone is believed.
    Forget,
}

/// Makes the steps on this master. Each may be repeated.
pub trait Exchange: Send + Sync {
    /// The fingerprint of the authority that is on its way in; `None`: nothing is being exchanged here.
    fn next(&self) -> Option<String>;

    /// Makes a step for the authority with that fingerprint; without one, for a new one. What it brings about
    /// is in use a little later.
    fn make(&self, step: Step, authority: Option<String>)
    -> BoxFuture<'static, Result<(), Status>>;
}

/// SHA-256 of each certificate in a PEM text, in hex. What is no certificate is left out.
pub fn fingerprints(pem: &[u8]) -> Vec<String> {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    certificates.map(|certificate| fingerprint(&certificate)).collect()
}

/// What nodes said when they last asked this master for the authorities.
#[derive(Default)]
pub(crate) struct Followers(Mutex<BTreeMap<String, Follower>>);

struct Follower {
    /// SHA-256 of the PEM text that it believes.
    believes: String,
    /// The first authority in that text signed what the node proves itself with.
    certified: bool,
    heard: Instant,
}

impl Followers {
    /// A node's `?believes=HASH&certified=BOOL`. What is something else is not noted.
    pub(crate) fn note(&self, identity: &Identity, query: &str, now: Instant) {
        let Some(node) = identity.user.strip_prefix("system:node:") else { return };
        let field = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name));
        let (Some(believes), Some(certified)) = (field("believes="), field("certified=")) else {
            return;
        };
        if believes.len() == HASH_LENGTH {
            let (believes, certified) = (believes.into(), certified == "true");
            let follower = Follower { believes, certified, heard: now };
            self.0.lock().expect("only looked up and inserted").insert(node.into(), follower);
        }
    }

    fn show(&self, now: Instant) -> Value {
        let mut nodes = self.0.lock().expect("only looked up and inserted");
        nodes.retain(|_, node| now - node.heard < SILENT);
        let shown = nodes.iter().map(|(name, node)| {
            let seconds = (now - node.heard).as_secs();
            let Follower { believes, certified, .. } = node;
            (
                name.clone(),
                value!({"believes": believes, "certified": certified, "seconds": seconds}),
            )
        });
        shown.collect()
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    State,
    Make(Step),
}

impl Asked {
    /// `None`: something else answers that path.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Asked> {
        match (method.as_str(), path.strip_prefix(PATH)?) {
            ("GET", "") => Some(Asked::State),
            ("POST", "/believe") => Some(Asked::Make(Step::Believe)),
            ("POST", "/sign") => Some(Asked::Make(Step::Sign)),
            ("POST", "/forget") => Some(Asked::Make(Step::Forget)),
            _ => None,
        }
    }
}

pub(crate) async fn answer(
    core: &Core,
    asked: Asked,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if let Asked::Make(step) = asked {
        let Some(exchange) = &core.config.exchange else {
            let why = "this master does not keep the files of its authorities";
            return Err(Status::not_implemented(why));
        };
        let body = read_json(request).await?;
        exchange.make(step, body["authority"].as_str().map(str::to_owned)).await?;
    }
    Ok(json(&state(core)))
}

fn state(core: &Core) -> Value {
    let pem = &core.config.believed.now().client_ca_pem;
    value!({
        "member": core.store.member().0,
        "believes": fingerprints(pem.as_bytes()),
        "hash": fingerprint(pem.as_bytes()),
        "next": core.config.exchange.as_ref().and_then(|exchange| exchange.next()),
        "nodes": core.followers.show(Instant::now()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Identity {
        Identity::authenticated(&format!("system:node:{name}"), &["system:nodes"])
    }

    #[test]
    fn steps_are_posted() {
        let asked = |method, path| Asked::of(&method, path);
        assert_eq!(asked(Method::GET, "/coxswain/authorities"), Some(Asked::State));
        let sign = Some(Asked::Make(Step::Sign));
        assert_eq!(asked(Method::POST, "/coxswain/authorities/sign"), sign);
        assert_eq!(asked(Method::GET, "/coxswain/authorities/sign"), None);
        assert_eq!(asked(Method::POST, "/coxswain/authorities"), None);
    }

    #[test]
    fn what_nodes_say_of_themselves_is_shown_until_they_are_silent() {
        let (followers, then) = (Followers::default(), Instant::now());
        let hash = "a".repeat(HASH_LENGTH);
        followers.note(&node("n1"), &format!("believes={hash}&certified=true"), then);
        let now = then + Duration::from_secs(60);
        followers.note(&node("n2"), &format!("certified=false&believes={hash}"), now);
        let shown = value!({
            "n1": {"believes": hash, "certified": true, "seconds": 60},
            "n2": {"believes": hash, "certified": false, "seconds": 0},
        });
        assert_eq!(followers.show(now), shown);
        let later = followers.show(then + SILENT);
        assert_eq!(
            later.as_object().map(|nodes| nodes.keys().collect::<Vec<_>>()),
            Some(vec![&"n2".to_string()])
        );
    }

    #[test]
    fn nobody_else_and_nothing_else_is_noted() {
        let (followers, now) = (Followers::default(), Instant::now());
        let said = format!("believes={}&certified=true", "a".repeat(HASH_LENGTH));
        followers.note(&Identity::authenticated("anna", &["system:masters"]), &said, now);
        for query in ["", "believes=aa&certified=true", "certified=true"] {
            followers.note(&node("n1"), query, now);
        }
        assert_eq!(followers.show(now), value!({}));
    }
}

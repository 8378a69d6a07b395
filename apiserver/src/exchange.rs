//! The authorities of masters are exchanged step by step, each step on every master, while everything goes on.
//! Here is what of them is in use on this master and which nodes have followed; the steps themselves are made by
//! whoever keeps the authorities' files. `coxswain certs exchange` asks, and masters ask each other.

use crate::{
    Identity, Server,
    certificates::fingerprint,
    memo,
    pipeline::Core,
    server::{Body, json, read_json},
    subresources::eviction::is_ready,
    view::View,
};
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use k8s::{Object, Status};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json as value};
use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};
use x509_parser::parse_x509_certificate;

const PATH: &str = "/coxswain/authorities";
/// Whoever has not asked for so long is not there: nodes ask once a minute.
const SILENT: Duration = Duration::from_secs(180);
/// A SHA-256 in hex.
const HASH_LENGTH: usize = 64;

/// One of the authorities, called as its files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityName {
    /// Of clients and nodes, and of what masters show them.
    Ca,
    /// Of the connections between masters.
    PeerCa,
    /// Of proxies whose headers are believed; a master in front of an aggregated server is one.
    FrontProxyCa,
}

impl AuthorityName {
    /// In the order in which they are shown.
    pub const ALL: [AuthorityName; 3] =
        [AuthorityName::Ca, AuthorityName::PeerCa, AuthorityName::FrontProxyCa];

    /// What its files are called, without `.crt` and `.key`.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthorityName::Ca => "ca",
            AuthorityName::PeerCa => "peer-ca",
            AuthorityName::FrontProxyCa => "front-proxy-ca",
        }
    }
}

impl fmt::Display for AuthorityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuthorityName {
    type Err = String;

    fn from_str(text: &str) -> Result<AuthorityName, String> {
        let found = AuthorityName::ALL.into_iter().find(|name| name.as_str() == text);
        found.ok_or_else(|| {
            format!(
                "no such authority: want one of {}",
                AuthorityName::ALL.map(|name| name.as_str()).join(", ")
            )
        })
    }
}

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

/// What of an authority is in use on this master.
pub struct Standing {
    /// The certificates that are believed, in PEM. The first is of the one that signs.
    pub believed: Vec<u8>,
    /// The first signed all that this master proves itself with under that authority.
    pub certified: bool,
    /// The fingerprint of the one that is on its way in; `None`: nothing is being exchanged here.
    pub next: Option<String>,
    /// An exchange may begin by itself before the first ends.
    pub rotates: bool,
}

/// Makes the steps on this master. Each may be repeated.
pub trait Exchange: Send + Sync {
    /// How far each authority is here. Reads files.
    fn standings(&self) -> [(AuthorityName, Standing); AuthorityName::ALL.len()];

    /// Makes a step for the authority with that fingerprint; without one, for a new one. What it brings about
    /// is in use a little later.
    fn make(
        &self,
        of: AuthorityName,
        step: Step,
        authority: Option<String>,
    ) -> BoxFuture<'static, Result<(), Status>>;
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
    Make(AuthorityName, Step),
}

impl Asked {
    /// `None`: something else answers that path.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Asked> {
        let rest = path.strip_prefix(PATH)?;
        match *method {
            Method::GET if rest.is_empty() => Some(Asked::State),
            Method::POST => {
                let (name, step) = rest.strip_prefix('/')?.split_once('/')?;
                let step = match step {
                    "believe" => Step::Believe,
                    "sign" => Step::Sign,
                    "forget" => Step::Forget,
                    _ => return None,
                };
                Some(Asked::Make(name.parse().ok()?, step))
            }
            _ => None,
        }
    }
}

pub(crate) async fn answer(
    core: &Core,
    asked: Asked,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let Some(exchange) = &core.config.exchange else {
        let why = "this master does not keep the files of its authorities";
        return Err(Status::not_implemented(why));
    };
    if let Asked::Make(name, step) = asked {
        let body = read_json(request).await?;
        exchange.make(name, step, body["authority"].as_str().map(str::to_owned)).await?;
    }
    Ok(json(&state(core, &exchange.standings(), true)))
}

impl Server {
    /// How far an exchange of authorities is here, as `GET /coxswain/authorities` answers, but without nodes while
    /// nothing is exchanged; null if this master does not keep the files. Reads them.
    pub fn authorities(&self) -> Value {
        let exchange = &self.core.config.exchange;
        exchange.as_ref().map_or(Value::Null, |exchange| {
            let standings = exchange.standings();
            let on = standings.iter().any(|(_, standing)| standing.next.is_some());
            state(&self.core, &standings, on)
        })
    }
}

fn state(core: &Core, standings: &[(AuthorityName, Standing)], with_nodes: bool) -> Value {
    let (mut agents, mut others) = (Vec::new(), Vec::new());
    let nodes = with_nodes.then(|| View::range(&core.store, "nodes", ""));
    for stored in nodes.into_iter().flatten() {
        let node = memo::object(&stored);
        let list = if has_agent(&node) { &mut agents } else { &mut others };
        list.push(node.name().to_owned());
    }
    let authorities = standings.iter();
    let authorities = authorities.map(|(name, it)| (name.as_str().to_owned(), standing(it)));
    value!({
        "member": core.store.member().0,
        "now": seconds(SystemTime::now()),
        "authorities": authorities.collect::<Value>(),
        // Of `ca`, the only one that they know.
        "nodes": core.followers.show(Instant::now()),
        "agents": agents,
        "others": others,
    })
}

fn standing(standing: &Standing) -> Value {
    let Standing { believed, certified, next, rotates } = standing;
    let certificates = CertificateDer::pem_slice_iter(believed).filter_map(Result::ok);
    let believes: Vec<Value> = certificates.filter_map(|certificate| known(&certificate)).collect();
    value!({
        "believes": believes,
        "hash": fingerprint(believed),
        "certified": certified,
        "next": next,
        "rotates": rotates,
    })
}

/// A certificate, and from when until when it counts, in seconds since 1970.
fn known(certificate: &[u8]) -> Option<Value> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    let (from, until) = (parsed.validity().not_before, parsed.validity().not_after);
    let fingerprint = fingerprint(certificate);
    Some(value!({"fingerprint": fingerprint, "from": from.timestamp(), "until": until.timestamp()}))
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether it asks masters whom to believe, and can do so now.
fn has_agent(node: &Object) -> bool {
    let runtime = node.str_at("/status/nodeInfo/containerRuntimeVersion");
    is_ready(node) && runtime.starts_with("coxswain://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Identity {
        Identity::authenticated(&format!("system:node:{name}"), &["system:nodes"])
    }

    #[test]
    fn steps_are_posted() {
        let asked = |method, path: &str| Asked::of(&method, path);
        assert_eq!(asked(Method::GET, "/coxswain/authorities"), Some(Asked::State));
        let sign = Some(Asked::Make(AuthorityName::PeerCa, Step::Sign));
        assert_eq!(asked(Method::POST, "/coxswain/authorities/peer-ca/sign"), sign);
        assert_eq!(asked(Method::GET, "/coxswain/authorities/peer-ca/sign"), None);
        for nothing in ["", "/ca", "/sign", "/ca/signed", "/sa/sign"] {
            let path = format!("/coxswain/authorities{nothing}");
            assert_eq!(asked(Method::POST, &path), None, "{path}");
        }
    }

    #[test]
    fn nodes_that_are_ready_and_have_an_agent_are_waited_for() {
        let node = |runtime: &str, ready: &str| {
            let conditions = value!([{"type": "Ready", "status": ready}]);
            let info = value!({"containerRuntimeVersion": runtime});
            let node = value!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
                "status": {"conditions": conditions, "nodeInfo": info},
            });
            Object::from_value(node).unwrap()
        };
        assert!(has_agent(&node("coxswain://0.1.0", "True")));
        assert!(!has_agent(&node("coxswain://0.1.0", "Unknown")));
        assert!(!has_agent(&node("containerd://2.0.0", "True")));
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

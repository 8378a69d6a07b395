//! What is asked of the masters themselves: remove one, hand leadership over, let a new one in. The
//! leader decides, whichever master is asked; a refusal says why.
//!
//! A new master proves itself with a bootstrap token whose group may join (RBAC says which), and is
//! given the cluster's own keys: sealed with the token's secret, so that nobody between can read them.
//! One that has them already (it was a member, and lost its disk) shows a certificate, and is given none.

use crate::{
    pipeline::Core,
    server::{Body, json, read_json},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, Request, Response, header};
use hyper::body::Incoming;
use k8s::Status;
use raft_store::{MemberError, MemberId, Peer, Refusal};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
    rand::{SecureRandom, SystemRandom},
};
use serde_json::{Value, json as value};

/// Under it are the requests answered here.
const MEMBERS: &str = "/coxswain/members/";
const SALT_BYTES: usize = 16;
/// What the key is for.
const PURPOSE: &[u8] = b"coxswain join";

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Join,
    Transfer,
    Remove(MemberId),
}

impl Asked {
    /// `None`: something else answers that path.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Asked> {
        let what = path.strip_prefix(MEMBERS)?;
        match (method.as_str(), what) {
            ("POST", "join") => Some(Asked::Join),
            ("POST", "transfer-leader") => Some(Asked::Transfer),
            ("DELETE", id) => id.parse().ok().map(|id| Asked::Remove(MemberId(id))),
            _ => None,
        }
    }
}

pub(crate) async fn answer(
    core: &Core,
    asked: Asked,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let secret = token_secret(request.headers());
    let body = read_json(request).await?;
    let answer = match asked {
        Asked::Remove(id) => {
            core.store.remove_member(id).await.map_err(status)?;
            value!({ "removed": id.0 })
        }
        Asked::Transfer => {
            let leads = core.store.transfer_leader(successor(&body)?).await.map_err(status)?;
            value!({ "leader": leads.0 })
        }
        Asked::Join => join(core, &body, secret.as_deref()).await?,
    };
    Ok(json(&answer))
}

/// Who is to lead; `None` leaves it to the leader.
fn successor(body: &Value) -> Result<Option<MemberId>, Status> {
    match &body["to"] {
        Value::Null => Ok(None),
        to => match to.as_u64() {
            Some(id) => Ok(Some(MemberId(id))),
            None => Err(Status::bad_request(format!("to: {to}: want the id of a master"))),
        },
    }
}

/// Adds a learner, and tells the new master all that it needs to be one.
async fn join(core: &Core, body: &Value, secret: Option<&str>) -> Result<Value, Status> {
    let sealed = match (secret, &core.config.believed.now().joining) {
        (None, _) => Value::Null,
        (Some(secret), Some(keys)) => seal(secret, keys).into(),
        (Some(_), None) => {
            let why = "this master cannot let others in: it does not have the keys of the cluster's \
                       authorities (peer-ca.key, front-proxy-ca.key)";
            return Err(Status::not_implemented(why));
        }
    };
    let peer = new_peer(body)?;
    let id = core.store.add_learner(None, peer).await.map_err(status)?;
    let members = core.store.members().into_iter().filter(|member| member.id != id);
    let members: Vec<Value> = members
        .map(|member| {
            value!({
                "id": member.id.0,
                "name": member.name,
                "peerAddress": member.peer_address,
                "apiAddress": member.api_address,
            })
        })
        .collect();
    tracing::info!(id = id.0, name = body["name"].as_str(), "a new master joins");
    Ok(value!({ "id": id.0, "members": members, "sealed": sealed }))
}

/// Its name goes into certificates, its addresses are dialled: what cannot be is refused here.
fn new_peer(body: &Value) -> Result<Peer, Status> {
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_string();
    let (name, peer_address, api_address) = (text("name"), text("peerAddress"), text("apiAddress"));
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(label) {
        let why = format!("name {name:?}: want at most 63 of a-z, 0-9, - and .");
        return Err(Status::bad_request(why));
    }
    for (field, address) in [("peerAddress", &peer_address), ("apiAddress", &api_address)] {
        if address.parse::<std::net::SocketAddr>().is_err() {
            let why = format!("{field} {address:?}: not ADDRESS:PORT");
            return Err(Status::bad_request(why));
        }
    }
    Ok(Peer { name, peer_address, api_address })
}

fn status(error: MemberError) -> Status {
    match error {
        MemberError::Refused(why @ Refusal::NotMember { .. }) => {
            Status::new(404, "NotFound", why.to_string())
        }
        MemberError::Refused(why) => Status::new(409, "Conflict", why.to_string()),
        MemberError::Unavailable { unknown: false } => {
            Status::unavailable("the masters have no leader; nothing was changed", 1)
        }
        MemberError::Unavailable { unknown: true } => {
            Status::timeout("the masters lost their leader; the change may or may not be made")
        }
        MemberError::Stopped(_) => Status::unavailable(error.to_string(), 1),
    }
}

/// Of `Bearer ID.SECRET`.
fn token_secret(headers: &HeaderMap) -> Option<String> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    Some(token.split_once('.')?.1.to_string())
}

fn key(secret: &str, salt: &[u8]) -> LessSafeKey {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, salt);
    let prk = salt.extract(secret.as_bytes());
    let okm = prk.expand(&[PURPOSE], &AES_256_GCM).expect("32 bytes are not too many");
    LessSafeKey::new(UnboundKey::from(okm))
}

/// Salt, nonce and ciphertext, in base64. Each answer has a key of its own.
fn seal(secret: &str, plain: &[u8]) -> String {
    let mut head = [0; SALT_BYTES + NONCE_LEN];
    SystemRandom::new().fill(&mut head).expect("the system has random numbers");
    let (salt, nonce) = head.split_at(SALT_BYTES);
    let nonce = Nonce::try_assume_unique_for_key(nonce).expect("the length of a nonce");
    let mut sealed = plain.to_vec();
    let key = key(secret, salt);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed).expect("short enough");
    STANDARD.encode([&head[..], &sealed].concat())
}

/// What was sealed for a token's secret; `None` if it was for another one, or changed on the way.
pub fn open(secret: &str, sealed: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(sealed).ok()?;
    let (head, sealed) = bytes.split_at_checked(SALT_BYTES + NONCE_LEN)?;
    let (salt, nonce) = head.split_at(SALT_BYTES);
    let mut sealed = sealed.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let length = key(secret, salt).open_in_place(nonce, Aad::empty(), &mut sealed).ok()?.len();
    sealed.truncate(length);
    Some(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tokens_bearer_opens_the_answer() {
        let sealed = seal("0123456789abcdef", b"the keys");
        assert_eq!(open("0123456789abcdef", &sealed).as_deref(), Some(&b"the keys"[..]));
        assert_ne!(seal("0123456789abcdef", b"the keys"), sealed);
        assert_eq!(open("0123456789abcdeF", &sealed), None);
        assert_eq!(open("0123456789abcdef", &sealed[4..]), None);
        assert_eq!(open("0123456789abcdef", "AAAA"), None);
        assert_eq!(open("0123456789abcdef", "no base64"), None);
    }

    #[test]
    fn paths_say_what_is_asked() {
        let asked = |method: Method, path: &str| Asked::of(&method, path);
        assert_eq!(asked(Method::POST, "/coxswain/members/join"), Some(Asked::Join));
        assert_eq!(asked(Method::DELETE, "/coxswain/members/3"), Some(Asked::Remove(MemberId(3))));
        assert_eq!(asked(Method::POST, "/coxswain/members/transfer-leader"), Some(Asked::Transfer));
        assert_eq!(asked(Method::GET, "/coxswain/members"), None);
        assert_eq!(asked(Method::DELETE, "/coxswain/members/m3"), None);
    }

    #[test]
    fn what_is_no_id_is_not_taken_for_nobody() {
        assert_eq!(successor(&value!({"to": 2})).ok(), Some(Some(MemberId(2))));
        assert_eq!(successor(&Value::Null).ok(), Some(None));
        assert!(successor(&value!({"to": "m2"})).is_err());
    }

    #[test]
    fn a_master_that_cannot_be_reached_or_named_is_refused() {
        let refused = |body: Value| new_peer(&body).map_err(|status| status.message);
        let good =
            value!({"name": "m4", "peerAddress": "10.0.0.4:2380", "apiAddress": "10.0.0.4:6443"});
        assert!(refused(good.clone()).is_ok());
        for (field, bad) in [("name", "M 4"), ("peerAddress", "10.0.0.4"), ("apiAddress", "here")] {
            let mut body = good.clone();
            body[field] = bad.into();
            assert!(refused(body).expect_err("refused").contains(bad));
        }
        assert!(refused(Value::Null).is_err());
    }
}

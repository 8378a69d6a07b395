//! Tokens of service accounts: bound ones, issued by TokenRequest, and those kept in Secrets. What a
//! token names (account, pod, secret, node) must still be there under the same uid.

use super::{
    Known,
    jwt::{SigningKey, Token},
};
use crate::{identity::Identity, view::View};
use jiff::Timestamp;
use k8s::Object;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Upstream's issuer of a kubeadm cluster.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Who issued the tokens in Secrets.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const LEGACY: &str = "kubernetes.io/serviceaccount/";
/// Clocks differ: how long an expired or a deleted thing still counts (go-jose's DefaultLeeway).
const LEEWAY_SECONDS: i64 = 60;
/// What the ServiceAccount admission asks for its tokens; such are given a year, and the time after
/// which their users should have read a newer one (`warnafter`).
pub(crate) const WARN_ONLY_SECONDS: i64 = 60 * 60 + 7;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;
/// The file in which a Secret of type `kubernetes.io/service-account-token` has its token.
pub(crate) const SECRET_TYPE: &str = "kubernetes.io/service-account-token";

const EXTRA_POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const EXTRA_POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const EXTRA_NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const EXTRA_NODE_UID: &str = "authentication.kubernetes.io/node-uid";
pub(crate) const EXTRA_CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Issues and knows tokens. All masters of a cluster share the key.
pub struct Tokens {
    pub(crate) key: SigningKey,
    pub(crate) issuer: String,
    /// For whom a token is that names nobody, and whom a request to this server is addressed to.
    pub(crate) audiences: Vec<String>,
    /// Tokens for pods outlive their rotation by far, with a warning (upstream's
    /// `--service-account-extend-token-expiration`).
    pub(crate) extend: bool,
}

/// An object that a token lives no longer than.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bound {
    /// `pod`, `secret` or `node`.
    pub(crate) claim: &'static str,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Where a pod runs: name and uid of the node.
    pub(crate) node: Option<(String, String)>,
}

impl Tokens {
    pub fn new(key: SigningKey, issuer: &str) -> Tokens {
        Tokens {
            key,
            issuer: issuer.to_string(),
            audiences: vec![issuer.to_string()],
            extend: true,
        }
    }

    /// A token for `account` that lasts `seconds`; empty audiences mean this server.
    pub(crate) fn issue(
        &self,
        account: &Object,
        bound: Option<&Bound>,
        audiences: &[String],
        seconds: i64,
        now: Timestamp,
    ) -> String {
        let now = now.as_second();
        let own = audiences.is_empty() || audiences == self.audiences.as_slice();
        let audiences = if audiences.is_empty() { &self.audiences } else { audiences };
        let mut private = json!({
            "namespace": account.namespace(),
            "serviceaccount": { "name": account.name(), "uid": account.uid() },
        });
        if let Some(bound) = bound {
            private[bound.claim] = json!({ "name": bound.name, "uid": bound.uid });
            if let Some((name, uid)) = &bound.node {
                private["node"] = json!({ "name": name, "uid": uid });
            }
        }
        let for_a_pod = bound.is_some_and(|bound| bound.claim == "pod");
        let extended = self.extend && own && for_a_pod && seconds == WARN_ONLY_SECONDS;
        if extended {
            private["warnafter"] = json!(now + seconds);
        }
        self.key.sign(&json!({
            "iss": self.issuer,
            "sub": username(account.namespace(), account.name()),
            "aud": audiences,
            "iat": now,
            "nbf": now,
            "exp": now + if extended { EXTENDED_SECONDS } else { seconds },
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": private,
        }))
    }

    /// The token a Secret of type `kubernetes.io/service-account-token` holds; it does not expire.
    pub(crate) fn issue_legacy(&self, account: &Object, secret: &str) -> String {
        let mut claims = json!({
            "iss": LEGACY_ISSUER,
            "sub": username(account.namespace(), account.name()),
        });
        let own = [
            ("namespace", account.namespace()),
            ("secret.name", secret),
            ("service-account.name", account.name()),
            ("service-account.uid", account.uid()),
        ];
        for (claim, value) in own {
            claims[format!("{LEGACY}{claim}")] = value.into();
        }
        self.key.sign(&claims)
    }

    /// True if the token says that it is one of this cluster's.
    pub(crate) fn is_ours(&self, token: &Token) -> bool {
        let issuer = token.text("iss");
        issuer == self.issuer || issuer == LEGACY_ISSUER
    }

    /// Who bears `token`, a token of ours, if it is good for one of `audiences`.
    pub(crate) fn verify(
        &self,
        view: &dyn View,
        text: &str,
        token: &Token,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Known, String> {
        if !token.is_signed_by(&self.key.public()) {
            return Err("invalid bearer token".to_string());
        }
        let legacy = token.text("iss") == LEGACY_ISSUER;
        let named = if legacy { self.audiences.clone() } else { token.audiences() };
        let meant: Vec<String> =
            named.iter().filter(|audience| audiences.contains(audience)).cloned().collect();
        if meant.is_empty() {
            return Err(format!(
                "token audiences {named:?} is invalid for the target audiences {audiences:?}"
            ));
        }
        let identity = match legacy {
            true => legacy_bearer(view, text, token, now)?,
            false => bearer(view, token, now)?,
        };
        Ok(Known { identity, audiences: meant })
    }
}

pub(crate) fn username(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// `system:serviceaccount:NAMESPACE:NAME` taken apart.
pub(crate) fn split_username(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let good = k8s::names::is_dns1123_label(namespace).is_empty()
        && k8s::names::is_dns1123_subdomain(name).is_empty();
    good.then_some((namespace, name))
}

/// The groups of every account of a namespace.
pub(crate) fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

fn identity(account: &Object) -> Identity {
    let groups = groups(account.namespace());
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let user = username(account.namespace(), account.name());
    Identity { uid: account.uid().to_string(), ..Identity::authenticated(&user, &groups) }
}

fn bearer(view: &dyn View, token: &Token, now: Timestamp) -> Result<Identity, String> {
    let seconds = now.as_second();
    if token.seconds("exp").is_none_or(|end| end + LEEWAY_SECONDS < seconds) {
        return Err("service account token has expired".to_string());
    }
    if token.seconds("nbf").is_some_and(|start| start - LEEWAY_SECONDS > seconds) {
        return Err("service account token is not valid yet".to_string());
    }
    let empty = Map::new();
    let private = token.claims.get("kubernetes.io").and_then(Value::as_object).unwrap_or(&empty);
    let reference = |claim: &str| {
        let at = private.get(claim)?;
        let text = |field: &str| at.get(field).and_then(Value::as_str).unwrap_or_default();
        Some((text("name").to_string(), text("uid").to_string()))
    };
    let namespace = private.get("namespace").and_then(Value::as_str).unwrap_or_default();
    let (name, uid) = reference("serviceaccount").unwrap_or_default();
    let account = account(view, namespace, &name, &uid, now)?;
    let mut identity = identity(&account);
    let mut extra = BTreeMap::new();
    let mut note = |key: &str, value: String| extra.insert(key.to_string(), vec![value]);
    if !token.text("jti").is_empty() {
        note(EXTRA_CREDENTIAL_ID, format!("JTI={}", token.text("jti")));
    }
    if let Some((name, uid)) = reference("secret") {
        still_there(view, "secrets", Some(namespace), "secret", (&name, &uid), now)?;
    }
    let node = reference("node");
    if let Some((name, uid)) = reference("pod") {
        still_there(view, "pods", Some(namespace), "pod", (&name, &uid), now)?;
        note(EXTRA_POD_NAME, name);
        note(EXTRA_POD_UID, uid);
    } else if let Some((name, uid)) = &node {
        still_there(view, "nodes", None, "node", (name, uid), now)?;
    }
    if let Some((name, uid)) = node {
        note(EXTRA_NODE_NAME, name);
        note(EXTRA_NODE_UID, uid);
    }
    identity.extra = extra;
    Ok(identity)
}

fn account(
    view: &dyn View,
    namespace: &str,
    name: &str,
    uid: &str,
    now: Timestamp,
) -> Result<std::sync::Arc<Object>, String> {
    let account = view
        .object("serviceaccounts", &format!("{namespace}/{name}"))
        .ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
    if is_over(&account, now) {
        return Err(format!("service account {namespace}/{name} has been deleted"));
    }
    if account.uid() != uid {
        let found = account.uid();
        return Err(format!("service account UID ({found}) does not match claim ({uid})"));
    }
    Ok(account)
}

fn still_there(
    view: &dyn View,
    space: &str,
    namespace: Option<&str>,
    what: &str,
    (name, uid): (&str, &str),
    now: Timestamp,
) -> Result<(), String> {
    let path =
        namespace.map_or_else(|| name.to_string(), |namespace| format!("{namespace}/{name}"));
    match view.object(space, &path) {
        Some(object) if object.uid() != uid => Err(format!(
            "{what} UID ({}) does not match service account {what} ref claim ({uid})",
            object.uid()
        )),
        Some(object) if !is_over(&object, now) => Ok(()),
        _ => Err("service account token has been invalidated".to_string()),
    }
}

/// True if the object's deletion is due already.
fn is_over(object: &Object, now: Timestamp) -> bool {
    let due = object.deletion_timestamp().and_then(|text| text.parse::<Timestamp>().ok());
    due.is_some_and(|due| due.as_second() < now.as_second() - LEEWAY_SECONDS)
}

fn legacy_bearer(
    view: &dyn View,
    text: &str,
    token: &Token,
    now: Timestamp,
) -> Result<Identity, String> {
    let claim = |name: &str| token.text(&format!("{LEGACY}{name}"));
    let (namespace, secret) = (claim("namespace"), claim("secret.name"));
    let (name, uid) = (claim("service-account.name"), claim("service-account.uid"));
    for (value, what) in [(namespace, "namespace"), (secret, "secretName")] {
        if value.is_empty() {
            return Err(format!("{what} claim is missing"));
        }
    }
    let stored = view.object("secrets", &format!("{namespace}/{secret}"));
    let kept = stored.filter(|secret| !is_over(secret, now)).is_some_and(|secret| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.decode(secret.str_at("/data/token")).is_ok_and(|kept| kept == text.as_bytes())
    });
    if !kept {
        return Err("service account token has been invalidated".to_string());
    }
    Ok(identity(&*account(view, namespace, name, uid, now)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::testing::World;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    fn object(name: &str, uid: &str) -> Value {
        json!({ "metadata": { "name": name, "namespace": "dev", "uid": uid } })
    }

    fn world() -> World {
        let mut world = World::default();
        world.put("serviceaccounts", object("builder", "u1"));
        world.put("pods", object("web", "p1"));
        world.put("nodes", json!({ "metadata": { "name": "n1", "uid": "n" } }));
        world
    }

    fn builder(uid: &str) -> Object {
        Object::from_value(object("builder", uid)).expect("an object")
    }

    fn pod(uid: &str) -> Bound {
        let node = Some(("n1".to_string(), "n".to_string()));
        Bound { claim: "pod", name: "web".into(), uid: uid.into(), node }
    }

    fn check(world: &World, tokens: &Tokens, text: &str, audience: &str, now: i64) -> String {
        let token = Token::parse(text).expect("a token");
        assert!(tokens.is_ours(&token));
        match tokens.verify(world, text, &token, &[audience.to_string()], at(now)) {
            Ok(known) => {
                let mut extra = known.identity.extra.clone();
                extra.remove(EXTRA_CREDENTIAL_ID);
                format!("{} {} {extra:?}", known.identity.user, known.identity.groups.join(","))
            }
            Err(why) => why,
        }
    }

    #[test]
    fn a_token_is_good_while_what_it_names_is_there() {
        let tokens = Tokens::new(SigningKey::generate(), ISSUER);
        let issue = |account: &str, bound: Option<&Bound>, audiences: &[String]| {
            tokens.issue(&builder(account), bound, audiences, 600, at(NOW))
        };
        let world = world();
        let check = |text: &str, audience, now| check(&world, &tokens, text, audience, now);
        let plain = issue("u1", None, &[]);
        let bound = issue("u1", Some(&pod("p1")), &[]);
        let cases = [
            check(&plain, ISSUER, NOW),
            check(&bound, ISSUER, NOW + 650),
            check(&plain, ISSUER, NOW + 661),
            check(&plain, ISSUER, NOW - 61),
            check(&plain, "vault", NOW),
            check(&issue("u1", None, &["vault".into()]), "vault", NOW),
            check(&issue("old", None, &[]), ISSUER, NOW),
            check(&issue("u1", Some(&pod("old")), &[]), ISSUER, NOW),
            check(
                &issue("u1", Some(&Bound { claim: "secret", node: None, ..pod("p1") }), &[]),
                ISSUER,
                NOW,
            ),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }

    #[test]
    fn a_deleted_pod_takes_its_token_along() {
        let tokens = Tokens::new(SigningKey::generate(), ISSUER);
        let text = tokens.issue(&builder("u1"), Some(&pod("p1")), &[], 600, at(NOW));
        let mut world = world();
        let mut ending = object("web", "p1");
        ending["metadata"]["deletionTimestamp"] = at(NOW).to_string().into();
        world.put("pods", ending);
        assert!(check(&world, &tokens, &text, ISSUER, NOW + 60).contains("builder"));
        let late = check(&world, &tokens, &text, ISSUER, NOW + 61);
        assert_eq!(late, "service account token has been invalidated");
    }

    #[test]
    fn the_token_of_admission_lasts_long_and_warns() {
        let tokens = Tokens::new(SigningKey::generate(), ISSUER);
        let text = tokens.issue(&builder("u1"), Some(&pod("p1")), &[], WARN_ONLY_SECONDS, at(NOW));
        let token = Token::parse(&text).expect("a token");
        assert_eq!(token.claims["kubernetes.io"]["warnafter"], NOW + WARN_ONLY_SECONDS);
        assert_eq!(token.seconds("exp"), Some(NOW + EXTENDED_SECONDS));
    }

    #[test]
    fn a_token_in_a_secret_is_good_while_it_is_in_there() {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let tokens = Tokens::new(SigningKey::generate(), ISSUER);
        let text = tokens.issue_legacy(&builder("u1"), "builder-token");
        let mut world = world();
        let gone = check(&world, &tokens, &text, ISSUER, NOW);
        assert_eq!(gone, "service account token has been invalidated");
        let mut secret = object("builder-token", "s");
        secret["data"] = json!({ "token": STANDARD.encode(&text) });
        world.put("secrets", secret);
        assert!(check(&world, &tokens, &text, ISSUER, NOW).contains("dev:builder"));
    }
}

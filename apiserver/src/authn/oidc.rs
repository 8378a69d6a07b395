//! Tokens of an OpenID Connect provider: verified with its published keys, which are fetched when a
//! token names one that is not known yet, and not more often than that.

use super::{
    Known,
    jwt::{PublicKey, Token},
};
use crate::{identity::Identity, outbound::Outbound};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use url::Url;

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Tokens with made-up keys must not make us hammer the provider.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// A provider that publishes more is not believed to have meant it.
const KEYS_MAX: usize = 64;
const CONFIGURATION: &str = ".well-known/openid-configuration";

/// What the operator says of the provider (kube-apiserver's `--oidc-*`).
#[derive(Clone, Debug, Default)]
pub struct OidcConfig {
    /// `https://…`, exactly as tokens say it in `iss`.
    pub issuer: String,
    /// Must be among a token's audiences.
    pub client_id: String,
    /// `sub` unless said otherwise.
    pub username_claim: String,
    /// Before user names; `-` for none; empty: the issuer and `#`, except for the claim `email`.
    pub username_prefix: String,
    /// Where groups are; empty for none.
    pub groups_claim: String,
    pub groups_prefix: String,
    /// Claims a token must have with just this value.
    pub required_claims: Vec<(String, String)>,
    /// Authorities the provider's certificate must come from (PEM).
    pub ca_pem: Vec<u8>,
}

/// The provider and its keys.
pub struct Oidc {
    config: OidcConfig,
    outbound: Outbound,
    known: Mutex<Keys>,
    /// One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Keys {
    /// By key id.
    keys: Arc<Vec<(String, PublicKey)>>,
    fetched: Option<Instant>,
}

impl Oidc {
    /// The error says what is wrong with the configuration.
    pub fn new(mut config: OidcConfig) -> Result<Oidc, String> {
        let issuer = Url::parse(&config.issuer).map_err(|error| error.to_string())?;
        if issuer.scheme() != "https" {
            return Err(format!("issuer {:?}: must be an https URL", config.issuer));
        }
        if config.client_id.is_empty() {
            return Err("a client id is needed".to_string());
        }
        if config.username_claim.is_empty() {
            config.username_claim = "sub".to_string();
        }
        config.username_prefix = match config.username_prefix.as_str() {
            "-" => String::new(),
            "" if config.username_claim != "email" => format!("{}#", config.issuer),
            prefix => prefix.to_string(),
        };
        let outbound = Outbound::new(&config.ca_pem, None, FETCH_TIMEOUT);
        Ok(Oidc {
            outbound: outbound.map_err(|error| error.to_string())?,
            config,
            known: Mutex::default(),
            fetching: Default::default(),
        })
    }

    pub(super) fn is_theirs(&self, token: &Token) -> bool {
        token.text("iss") == self.config.issuer
    }

    /// Who bears `token`, if the provider signed it for us.
    pub(super) async fn verify(
        &self,
        token: &Token,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Known, String> {
        if !self.signed(token).await? {
            return Err("oidc: verify token: failed to verify signature".to_string());
        }
        let identity = bearer(&self.config, token, now)?;
        Ok(Known { identity, audiences: audiences.to_vec() })
    }

    async fn signed(&self, token: &Token) -> Result<bool, String> {
        let known = self.known();
        if let Some(by) = check(&known.keys, token) {
            return Ok(by);
        }
        let _one = self.fetching.lock().await;
        let known = self.known();
        let waits = |at: Instant| at.elapsed() < FETCH_PAUSE;
        if known.fetched.is_some_and(waits) {
            // Fetched a moment ago, perhaps while we waited.
            return Ok(check(&known.keys, token).unwrap_or(false));
        }
        let fetched = self.fetch().await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.fetched = Some(Instant::now());
        known.keys = Arc::new(fetched?);
        Ok(check(&known.keys, token).unwrap_or(false))
    }

    fn known(&self) -> Keys {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn fetch(&self) -> Result<Vec<(String, PublicKey)>, String> {
        let base = format!("{}/", self.config.issuer.trim_end_matches('/'));
        let configuration = self.get(&format!("{base}{CONFIGURATION}")).await?;
        if configuration["issuer"] != self.config.issuer.as_str() {
            return Err(format!("oidc: the issuer says it is {}", configuration["issuer"]));
        }
        let keys = self.get(configuration["jwks_uri"].as_str().unwrap_or_default()).await?;
        let keys = keys["keys"].as_array().into_iter().flatten().take(KEYS_MAX);
        let key = |key: &Value| {
            let signs = key["use"].as_str().is_none_or(|purpose| purpose == "sig");
            let id = key["kid"].as_str().unwrap_or_default().to_string();
            Some((id, PublicKey::from_jwk(key).filter(|_| signs)?))
        };
        Ok(keys.filter_map(key).collect())
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let url = Url::parse(url).map_err(|error| format!("oidc: {url:?}: {error}"))?;
        if url.scheme() != "https" {
            return Err(format!("oidc: {url}: must be an https URL"));
        }
        let asked = self.outbound.send(Method::GET, &url, HeaderMap::new(), Bytes::new()).await;
        match asked.map_err(|error| format!("oidc: {error}"))? {
            (StatusCode::OK, body) => {
                serde_json::from_slice(&body).map_err(|error| format!("oidc: {url}: {error}"))
            }
            (status, _) => Err(format!("oidc: {url}: {status}")),
        }
    }
}

/// `None`: no key known that could have signed it.
fn check(keys: &[(String, PublicKey)], token: &Token) -> Option<bool> {
    let mut meant = keys.iter().filter(|(id, _)| token.key_id.is_empty() || *id == token.key_id);
    meant.clone().next()?;
    Some(meant.any(|(_, key)| token.is_signed_by(key)))
}

/// By its claims; the signature has been seen.
fn bearer(config: &OidcConfig, token: &Token, now: Timestamp) -> Result<Identity, String> {
    if !token.audiences().contains(&config.client_id) {
        let (wanted, got) = (&config.client_id, token.audiences());
        return Err(format!("oidc: expected audience {wanted:?} got {got:?}"));
    }
    let seconds = now.as_second();
    if token.seconds("exp").is_none_or(|end| end <= seconds) {
        return Err("oidc: token is expired".to_string());
    }
    if token.seconds("nbf").is_some_and(|start| start > seconds + 60) {
        return Err("oidc: token is not valid yet".to_string());
    }
    for (claim, value) in &config.required_claims {
        if token.text(claim) != value {
            return Err(format!("oidc: required claim {claim} value does not match"));
        }
    }
    let claim = &config.username_claim;
    let user = token.text(claim);
    if user.is_empty() {
        return Err(format!("oidc: parse username claims {claim:?}: claim not present"));
    }
    if claim == "email" && token.claims.get("email_verified").is_some_and(|is| *is != true) {
        return Err("oidc: email not verified".to_string());
    }
    let groups: Vec<String> = match token.claims.get(&config.groups_claim) {
        _ if config.groups_claim.is_empty() => Vec::new(),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => {
            all.iter().filter_map(|group| Some(group.as_str()?.to_string())).collect()
        }
        _ => Vec::new(),
    };
    let groups: Vec<String> =
        groups.iter().map(|group| format!("{}{group}", config.groups_prefix)).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let mut identity =
        Identity::authenticated(&format!("{}{user}", config.username_prefix), &groups);
    if !token.text("jti").is_empty() {
        let id = vec![format!("JTI={}", token.text("jti"))];
        let key = super::service_account::EXTRA_CREDENTIAL_ID;
        identity.extra.insert(key.to_string(), id);
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::jwt::SigningKey;
    use serde_json::json;

    fn config(change: impl FnOnce(&mut OidcConfig)) -> OidcConfig {
        let mut config = OidcConfig {
            issuer: "https://id.example.com".into(),
            client_id: "coxswain".into(),
            groups_claim: "groups".into(),
            groups_prefix: "oidc:".into(),
            ..OidcConfig::default()
        };
        change(&mut config);
        Oidc::new(config).expect("a configuration").config
    }

    fn check(config: &OidcConfig, claims: Value) -> String {
        let text = SigningKey::generate().sign(&claims);
        let token = Token::parse(&text).expect("a token");
        match bearer(config, &token, Timestamp::from_second(1000).expect("a time")) {
            Ok(identity) => format!("{} {}", identity.user, identity.groups.join(",")),
            Err(why) => why,
        }
    }

    #[test]
    fn claims_make_the_user() {
        let plain = config(|_| ());
        let email = config(|config| config.username_claim = "email".into());
        let required = config(|config| config.required_claims = vec![("hd".into(), "a".into())]);
        let claims = json!({
            "sub": "jane", "aud": ["coxswain"], "exp": 1001, "groups": ["dev"],
            "email": "jane@example.com", "email_verified": true,
        });
        let with = |field: &str, value: Value| {
            let mut claims = claims.clone();
            claims[field] = value;
            claims
        };
        let cases = [
            check(&plain, claims.clone()),
            check(&email, claims.clone()),
            check(&email, with("email_verified", json!(false))),
            check(&required, claims.clone()),
            check(&required, with("hd", json!("a"))),
            check(&plain, with("aud", json!("other"))),
            check(&plain, with("exp", json!(1000))),
            check(&plain, with("sub", json!(null))),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }

    #[test]
    fn a_provider_is_reached_by_https_only() {
        let plain = OidcConfig { issuer: "http://id".into(), ..OidcConfig::default() };
        assert!(Oidc::new(plain).is_err());
    }
}

//! Who asks? One file per way of proving it, asked in upstream's order: front proxy, client
//! certificate, then what a bearer token may be. The first that knows the client decides; a token that
//! nobody knows is refused, never taken for no token.

pub(crate) mod bootstrap_token;
pub(crate) mod certificate;
pub(crate) mod discovery;
mod front_proxy;
pub(crate) mod impersonation;
pub mod jwt;
pub(crate) mod legacy;
mod oidc;
pub(crate) mod published;
mod review;
pub mod service_account;
mod webhook;

pub use front_proxy::FrontProxy;
pub use jwt::SigningKey;
pub use oidc::{Oidc, OidcConfig};
pub(crate) use review::review;
pub use service_account::Tokens;
pub use webhook::TokenWebhook;

use crate::{identity::Identity, pipeline::Core, server::Connection};
use http::{HeaderMap, header};
use jiff::Timestamp;
use jwt::Token;
use k8s::Status;
use std::sync::Arc;

/// A bearer whose token is good.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) identity: Identity,
    /// Those among the audiences asked for that the token is meant for.
    pub(crate) audiences: Vec<String>,
}

/// Whose request this is.
pub(crate) async fn authenticate(
    core: &Core,
    connection: &Connection,
    headers: &HeaderMap,
) -> Result<Arc<Identity>, Status> {
    if connection.front_proxy
        && let Some(identity) = front_proxy::identity(headers)
    {
        return Ok(Arc::new(identity));
    }
    if connection.certified {
        return Ok(connection.identity.clone());
    }
    let Some(token) = bearer(headers) else { return Ok(connection.identity.clone()) };
    match identify(core, &token, &core.config.tokens.audiences).await {
        Ok(known) => Ok(Arc::new(known.identity)),
        Err(why) => {
            tracing::debug!(peer = %connection.peer, why, "unable to authenticate the request");
            Err(Status::unauthorized())
        }
    }
}

/// The token of a request, from its header or, for WebSockets of browsers, its subprotocol.
fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default().trim();
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        return (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty())
            .then(|| token.trim().to_string());
    }
    const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    let encoded = offered.filter_map(|text| text.trim().strip_prefix(PROTOCOL)).next()?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// Whose token this is, if it is good for one of `audiences`; the error is for the log and for
/// TokenReviews, never for the bearer.
pub(crate) async fn identify(
    core: &Core,
    token: &str,
    audiences: &[String],
) -> Result<Known, String> {
    if let Some(oidc) = &core.config.oidc
        && let Some(parsed) = Token::parse(token)
        && oidc.is_theirs(&parsed)
    {
        return oidc.verify(&parsed, audiences, Timestamp::now()).await;
    }
    match applied(core, token, audiences) {
        Err(_) => {
            // What it names may be younger than what this master has seen.
            core.barrier().await.map_err(|status| status.message)?;
            match (applied(core, token, audiences), &core.config.token_webhook) {
                // One of ours is never shown to others.
                (Err(why), Some(webhook)) if !is_ours(core, token) => webhook
                    .verify(token, audiences)
                    .await
                    .map_err(|their| format!("[{why}, {their}]")),
                (known, _) => known,
            }
        }
        known => known,
    }
}

fn is_ours(core: &Core, text: &str) -> bool {
    Token::parse(text).is_some_and(|token| core.config.tokens.is_ours(&token))
}

/// By the applied state alone.
fn applied(core: &Core, text: &str, audiences: &[String]) -> Result<Known, String> {
    let now = Timestamp::now();
    let tokens = &core.config.tokens;
    if let Some(token) = Token::parse(text)
        && tokens.is_ours(&token)
    {
        return tokens.verify(&*core.view, text, &token, audiences, now);
    }
    if let Some(identity) = bootstrap_token::identity(&*core.view, text, now) {
        // As upstream: such a token is for whoever asks.
        return Ok(Known { identity, audiences: audiences.to_vec() });
    }
    Err("invalid bearer token".to_string())
}

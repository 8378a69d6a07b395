//! Bearer tokens, which anybody may send: read, or refused, and never ours unless ours signed them.

#[allow(dead_code, reason = "only what reads tokens is run here")]
#[path = "../../apiserver/src/authn/jwt.rs"]
mod jwt;

use crate::targets::Target;
use std::sync::LazyLock;

pub(crate) const TARGET: Target = ("token", token);

static KEY: LazyLock<jwt::PublicKey> = LazyLock::new(|| jwt::SigningKey::generate().public());

fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(token) = jwt::Token::parse(text) else { return };
    assert!(!token.is_signed_by(&KEY));
    let _ = (token.text("sub"), token.audiences(), token.seconds("exp"));
}

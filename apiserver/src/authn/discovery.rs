//! OpenID Connect discovery of the issuer of service-account tokens (KEP-1393): with it, others can
//! verify our tokens without asking us about each.

use crate::{
    pipeline::Core,
    server::{self, Body},
};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

const CONFIGURATION: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";

/// The document at `path`; `None` for any other path.
pub(crate) fn answer(core: &Core, path: &str) -> Option<Response<Body>> {
    let tokens = &core.config.tokens;
    let (media, document) = match path {
        CONFIGURATION => {
            let document = json!({
                "issuer": tokens.issuer,
                "jwks_uri": format!("{}{KEYS}", tokens.issuer.trim_end_matches('/')),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            });
            ("application/json", document)
        }
        KEYS => ("application/jwk-set+json", json!({ "keys": [tokens.key.jwk()] })),
        _ => return None,
    };
    let mut answer = server::bytes(StatusCode::OK, media, document.to_string());
    let hour = HeaderValue::from_static("public, max-age=3600");
    answer.headers_mut().insert(header::CACHE_CONTROL, hour);
    Some(answer)
}

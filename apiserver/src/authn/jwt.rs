//! JSON Web Tokens (RFC 7515, 7519) as Kubernetes uses them: compact form, signed with ES256, verified
//! with ES256 and RS256. Knows no claim; decides nothing about time.
//!
//! Our own few lines over ring rather than a crate: all that is needed are three base64 parts and one
//! call, and `jsonwebtoken` would bring readers of PEM and ASN.1 that we have already.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

/// Longer ones are refused unread; upstream's largest are some 2 KiB.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// What precedes the point in a SubjectPublicKeyInfo of P-256 (RFC 5480).
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// An ECDSA key on P-256 that signs tokens.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    /// As upstream names keys: the hash of the public one.
    id: String,
}

impl SigningKey {
    /// Reads a PKCS#8 private key as PEM. The error says what is wrong with it.
    pub fn from_pem(pem: &[u8]) -> Result<SigningKey, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem)
            .map_err(|error| format!("no PKCS#8 private key in it: {error}"))?;
        SigningKey::from_pkcs8(der.secret_pkcs8_der())
    }

    /// A key of this process' own: its tokens are worth nothing after a restart.
    pub fn generate() -> SigningKey {
        let made =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let pkcs8 = made.expect("the system has random numbers");
        SigningKey::from_pkcs8(pkcs8.as_ref()).expect("just made")
    }

    fn from_pkcs8(der: &[u8]) -> Result<SigningKey, String> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
            .map_err(|error| format!("not an ECDSA key on P-256: {error}"))?;
        let spki = [SPKI_P256, pair.public_key().as_ref()].concat();
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &spki));
        Ok(SigningKey { pair, id })
    }

    /// The token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": self.id });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.expect("the system has random numbers");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::P256(self.pair.public_key().as_ref().to_vec())
    }

    /// The public key as a JSON Web Key (RFC 7517).
    pub(crate) fn jwk(&self) -> Value {
        // 0x04, then both coordinates.
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }
}

/// What a signature is checked with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PublicKey {
    /// The uncompressed point.
    P256(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

impl PublicKey {
    /// Of a JSON Web Key; `None` for what cannot check the signatures we take.
    pub(crate) fn from_jwk(key: &Value) -> Option<PublicKey> {
        let bytes = |field: &str| URL_SAFE_NO_PAD.decode(key.get(field)?.as_str()?).ok();
        match (key.get("kty")?.as_str()?, key.get("crv").and_then(Value::as_str)) {
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                let whole = x.len() == 32 && y.len() == 32;
                whole.then(|| PublicKey::P256([vec![4], x, y].concat()))
            }
            ("RSA", _) => Some(PublicKey::Rsa { n: bytes("n")?, e: bytes("e")? }),
            _ => None,
        }
    }
}

/// A token taken apart, its signature not looked at.
#[derive(Debug)]
pub(crate) struct Token {
    algorithm: String,
    /// The key its header names; may be empty.
    pub(crate) key_id: String,
    /// Not to be trusted before [`Token::is_signed_by`].
    pub(crate) claims: Value,
    signed: String,
    signature: Vec<u8>,
}

impl Token {
    /// `None` if the text is no token in compact form.
    pub(crate) fn parse(text: &str) -> Option<Token> {
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |part: &str| -> Option<Value> {
            let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
            value.is_object().then_some(value)
        };
        let header = json(header)?;
        let text = |field: &str| header.get(field).and_then(Value::as_str).unwrap_or_default();
        Some(Token {
            algorithm: text("alg").to_string(),
            key_id: text("kid").to_string(),
            claims: json(claims)?,
            signed: signed.to_string(),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// True if `key` made the signature; the key decides the algorithm, never the token.
    pub(crate) fn is_signed_by(&self, key: &PublicKey) -> bool {
        let signed = self.signed.as_bytes();
        match (key, self.algorithm.as_str()) {
            (PublicKey::P256(point), "ES256") => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(signed, &self.signature).is_ok()
            }
            (PublicKey::Rsa { n, e }, "RS256") => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, &self.signature).is_ok()
            }
            _ => false,
        }
    }

    pub(crate) fn text(&self, claim: &str) -> &str {
        self.claims.get(claim).and_then(Value::as_str).unwrap_or_default()
    }

    /// `aud`, which may be one text or a list.
    pub(crate) fn audiences(&self) -> Vec<String> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(all)) => {
                all.iter().filter_map(|one| Some(one.as_str()?.to_string())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A NumericDate in whole seconds since 1970.
    pub(crate) fn seconds(&self, claim: &str) -> Option<i64> {
        let value = self.claims.get(claim)?;
        value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_is_verified_by_its_key_and_no_other() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let text = key.sign(&json!({ "sub": "me", "aud": "api", "exp": 5 }));
        let token = Token::parse(&text).expect("a token");
        assert!(token.is_signed_by(&key.public()) && !token.is_signed_by(&other.public()));
        assert_eq!((token.text("sub"), token.seconds("exp")), ("me", Some(5)));
        assert_eq!(token.audiences(), ["api"]);
        assert_eq!(PublicKey::from_jwk(&key.jwk()), Some(key.public()));
    }

    #[test]
    fn a_token_does_not_choose_its_algorithm() {
        let key = SigningKey::generate();
        let text = key.sign(&json!({ "sub": "me" }));
        let (_, rest) = text.split_once('.').expect("parts");
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"RS256"}"#] {
            let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
            let token = Token::parse(&forged).expect("a token");
            assert!(!token.is_signed_by(&key.public()), "{header}");
        }
    }

    /// RFC 7515 A.2: an RS256 example not made by us.
    #[test]
    fn rs256_is_verified() {
        let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        let jwk = json!({ "kty": "RSA", "n": n, "e": "AQAB" });
        let key = PublicKey::from_jwk(&jwk).expect("a key");
        let token = Token::parse(token).expect("a token");
        assert!(token.is_signed_by(&key));
        assert_eq!(token.text("iss"), "joe");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(text in "\\PC{0,80}") {
            let _ = Token::parse(&text);
        }

        #[test]
        fn a_changed_token_is_no_token_of_ours(at: prop::sample::Index, by in 1u8..64) {
            let key = SigningKey::generate();
            let mut text = key.sign(&json!({ "sub": "me", "exp": 1 })).into_bytes();
            let at = at.index(text.len());
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let place = alphabet.iter().position(|byte| *byte == text[at]);
            text[at] = alphabet[(place.unwrap_or(0) + usize::from(by)) % 64];
            let text = String::from_utf8(text).expect("ASCII");
            let signed = Token::parse(&text).is_some_and(|token| token.is_signed_by(&key.public()));
            prop_assert!(!signed);
        }
    }
}

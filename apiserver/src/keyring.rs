//! The masters' keyring: what hides Secrets on disk, in the log and in backups (AES-256-GCM).
//!
//! Every master has the cluster's key in a file; with it are wrapped the data keys, which lie in the
//! store itself (space [`KEYS`], no kind of the API). So every master learns a new data key from the
//! log, before the first version that was sealed with it: to rotate is one write, on no machine by
//! hand. Data keys are never removed: what they sealed may be in history and backups.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use raft_store::{Key, Seal, Unopened};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{PoisonError, RwLock},
};

/// Where the wrapped data keys lie, by number.
pub(crate) const KEYS: &str = "coxswain/keys";
/// What a sealed body begins with; no JSON does.
const MAGIC: &[u8] = b"\0cs1";
const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
const HEAD_BYTES: usize = 4 + 4 + SALT_BYTES + NONCE_BYTES;
const NONCE_BYTES: usize = NONCE_LEN;

type Secret = [u8; KEY_BYTES];

/// The cluster's keys, newest first, and the data keys learnt from the store.
pub struct Keyring {
    /// The first wraps new data keys; all unwrap.
    cluster: Vec<Secret>,
    /// Whose bodies are sealed.
    spaces: Vec<String>,
    data: RwLock<BTreeMap<u32, DataKey>>,
}

struct DataKey {
    secret: Secret,
    /// Which of the cluster's keys unwrapped it.
    wrapped_by: usize,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({:?}, {} data keys)", self.spaces, self.data().len())
    }
}

impl Keyring {
    /// Reads cluster keys, one in base64 on each line; `spaces` are those of the kinds to be sealed.
    pub fn parse(text: &str, spaces: &[&str]) -> Result<Keyring, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let key = |line: &str| -> Result<Secret, String> {
            let bytes = STANDARD.decode(line).map_err(|error| error.to_string())?;
            Secret::try_from(bytes).map_err(|_| format!("a key has {KEY_BYTES} bytes"))
        };
        let cluster = lines.map(key).collect::<Result<Vec<_>, _>>()?;
        if cluster.is_empty() {
            return Err("no key in it".to_string());
        }
        let spaces = spaces.iter().map(|space| space.to_string()).collect();
        Ok(Keyring { cluster, spaces, data: RwLock::default() })
    }

    /// The text of a file with one new cluster key.
    pub fn generate() -> String {
        format!("{}\n", STANDARD.encode(random::<KEY_BYTES>()))
    }

    /// Names of the cluster's keys, in their order: what tells them apart and betrays nothing.
    pub fn ids(&self) -> Vec<String> {
        self.cluster.iter().map(id).collect()
    }

    /// The number of the data key that seals now.
    pub(crate) fn current(&self) -> Option<u32> {
        self.data().last_key_value().map(|(number, _)| *number)
    }

    pub(crate) fn spaces(&self) -> &[String] {
        &self.spaces
    }

    /// Where data key `number` is kept.
    pub(crate) fn key_of(number: u32) -> Key {
        Key::new(KEYS, format!("{number:010}"))
    }

    /// A new data key, wrapped, as the body to be kept under [`Keyring::key_of`].
    pub(crate) fn new_data_key(&self, number: u32) -> Bytes {
        let key = Keyring::key_of(number);
        let wrapped = encrypt(&self.cluster[0], &key, &random::<KEY_BYTES>());
        let body = json!({
            "metadata": { "name": key.path.to_string() },
            "wrapped": STANDARD.encode(wrapped),
        });
        body.to_string().into()
    }

    fn data(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u32, DataKey>> {
        self.data.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwrap_data_key(&self, key: &Key, body: &[u8]) -> Option<(u32, DataKey)> {
        let number = key.path.parse().ok()?;
        let value: Value = serde_json::from_slice(body).ok()?;
        let wrapped = STANDARD.decode(value["wrapped"].as_str()?).ok()?;
        let mut own = self.cluster.iter().enumerate();
        let (wrapped_by, secret) =
            own.find_map(|(by, own)| Some((by, decrypt(own, key, &wrapped)?)))?;
        Some((number, DataKey { secret: Secret::try_from(secret).ok()?, wrapped_by }))
    }
}

impl Seal for Keyring {
    fn seal(&self, key: &Key, body: &Bytes) -> Bytes {
        if !self.spaces.iter().any(|space| *space == *key.space) {
            return body.clone();
        }
        let data = self.data();
        // Without a data key there is no namespace yet, and so no Secret (see bootstrap).
        let Some((number, data)) = data.last_key_value() else { return body.clone() };
        [MAGIC, &number.to_be_bytes(), &encrypt(&data.secret, key, body)].concat().into()
    }

    fn open(&self, key: &Key, body: Bytes) -> Result<Bytes, Unopened> {
        let Some(sealed) = body.strip_prefix(MAGIC) else { return Ok(body) };
        let refused = |why: String| Unopened {
            space: key.space.to_string(),
            path: key.path.to_string(),
            why,
        };
        let (number, rest) =
            sealed.split_first_chunk().ok_or_else(|| refused("it is cut short".to_string()))?;
        let number = u32::from_be_bytes(*number);
        let data = self.data();
        let data = data.get(&number).ok_or_else(|| {
            refused(format!("this master does not have data key {number}; is secrets.key right?"))
        })?;
        let opened = decrypt(&data.secret, key, rest);
        opened.map(Bytes::from).ok_or_else(|| refused("it was changed, or moved".to_string()))
    }

    /// The cluster's keys that wrap a data key, which all may be in history.
    fn keys(&self) -> Vec<String> {
        let used: BTreeSet<usize> = self.data().values().map(|data| data.wrapped_by).collect();
        used.into_iter().map(|at| id(&self.cluster[at])).collect()
    }

    fn learn(&self, key: &Key, body: &Bytes) {
        if &*key.space != KEYS {
            return;
        }
        match self.unwrap_data_key(key, body) {
            Some((number, learnt)) => {
                let mut data = self.data.write().unwrap_or_else(PoisonError::into_inner);
                data.insert(number, learnt);
            }
            // Whatever was sealed with it will be refused by name.
            None => tracing::error!(key = &*key.path, "no key in secrets.key opens this data key"),
        }
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    bytes
}

fn id(secret: &Secret) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"coxswain key id 1");
    tag.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key for one message only, so that random nonces do not wear the data key out.
fn message_key(secret: &Secret, salt: &[u8]) -> LessSafeKey {
    let by = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let derived = hmac::sign(&by, &[b"coxswain seal 1 ", salt].concat());
    let key = UnboundKey::new(&AES_256_GCM, derived.as_ref()).expect("a key of 32 bytes");
    LessSafeKey::new(key)
}

/// Where a body belongs: it opens nowhere else.
fn place(key: &Key) -> Vec<u8> {
    [key.space.as_bytes(), b"\0", key.path.as_bytes()].concat()
}

/// Salt, nonce, text with its tag.
fn encrypt(secret: &Secret, key: &Key, body: &[u8]) -> Vec<u8> {
    let (salt, nonce) = (random::<SALT_BYTES>(), random::<NONCE_BYTES>());
    let mut text = body.to_vec();
    let nonce_value = Nonce::assume_unique_for_key(nonce);
    message_key(secret, &salt)
        .seal_in_place_append_tag(nonce_value, Aad::from(place(key)), &mut text)
        .expect("a body is far smaller than what GCM takes");
    let mut out = Vec::with_capacity(HEAD_BYTES + text.len());
    out.extend_from_slice(&salt);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&text);
    out
}

/// `None` if it is not what [`encrypt`] made with these.
fn decrypt(secret: &Secret, key: &Key, sealed: &[u8]) -> Option<Vec<u8>> {
    let (salt, rest) = sealed.split_at_checked(SALT_BYTES)?;
    let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let mut text = text.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let open =
        message_key(secret, salt).open_in_place(nonce, Aad::from(place(key)), &mut text).ok()?;
    let length = open.len();
    text.truncate(length);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(text: &str) -> Keyring {
        Keyring::parse(text, &["secrets"]).expect("a keyring")
    }

    fn with_key(keyring: Keyring, number: u32) -> Keyring {
        let body = keyring.new_data_key(number);
        keyring.learn(&Keyring::key_of(number), &body);
        keyring
    }

    fn key(space: &str) -> Key {
        Key::new(space, "dev/password")
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let keyring = with_key(ring(&Keyring::generate()), 1);
        let body = Bytes::from_static(br#"{"metadata":{"name":"password"},"data":{"a":"Yg=="}}"#);
        let sealed = keyring.seal(&key("secrets"), &body);
        assert!(!sealed.windows(8).any(|part| part == b"password"));
        assert_ne!(sealed, keyring.seal(&key("secrets"), &body), "never twice the same");
        assert_eq!(keyring.open(&key("secrets"), sealed.clone()).expect("ours"), body);
        let elsewhere = Key::new("secrets", "other/password");
        assert!(keyring.open(&elsewhere, sealed.clone()).is_err());
        assert_eq!(keyring.seal(&key("configmaps"), &body), body, "others are left as they are");
        let stranger = with_key(ring(&Keyring::generate()), 1);
        assert!(stranger.open(&key("secrets"), sealed.clone()).is_err());
        let mut changed = sealed.to_vec();
        *changed.last_mut().expect("a byte") ^= 1;
        assert!(keyring.open(&key("secrets"), changed.into()).is_err());
        let unknown = ring(&Keyring::generate()).open(&key("secrets"), sealed);
        assert!(unknown.expect_err("no key").why.contains("data key 1"));
    }

    #[test]
    fn keys_rotate_and_old_ones_stay() {
        let (old, new) = (Keyring::generate(), Keyring::generate());
        let first = with_key(ring(&old), 1);
        let body = Bytes::from_static(b"{}");
        let sealed = first.seal(&key("secrets"), &body);
        let one = first.new_data_key(2);
        // The file got a newer key in front; the older data keys are still wrapped with the other.
        let both = ring(&format!("{new}{old}"));
        both.learn(&Keyring::key_of(2), &one);
        let both = with_key(both, 3);
        assert_eq!(both.current(), Some(3));
        assert_eq!(both.keys(), both.ids(), "data key 2 needs the old one, 3 the new one");
        assert_eq!(first.keys(), ring(&old).ids());
        assert!(ring(&old).keys().is_empty(), "nothing is sealed yet");
        assert!(both.open(&key("secrets"), sealed).is_err(), "key 1 was never learnt here");
        let again = both.seal(&key("secrets"), &body);
        assert_eq!(again[4..8], [0, 0, 0, 3]);
    }

    #[test]
    fn a_keyring_file_is_read_or_refused_with_a_reason() {
        for text in ["", "rubbish", "AAAA"] {
            assert!(Keyring::parse(text, &[]).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_opened(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let keyring = with_key(ring(&Keyring::generate()), 1);
            let sealed = [MAGIC, &bytes].concat();
            prop_assert!(keyring.open(&key("secrets"), sealed.into()).is_err());
        }
    }
}

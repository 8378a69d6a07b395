//! What this server derives from a stored version, at most once per version: selector facts, the
//! parsed tree while somebody holds it, and whatever one other module wants to keep beside them.

use crate::{catalog, encode, kind::Kind};
use k8s::Object;
use raft_store::Stored;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};
use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

/// The one memo type of this program (see [`Stored::memo`]).
struct Memo {
    /// Weak: a tree costs five times its bytes, so it lives only while a cache holds it.
    object: Mutex<Weak<Object>>,
    /// Weak for the same reason: `protobuf.rs` holds those that were asked for last.
    message: Mutex<Weak<[u8]>>,
    message_bytes: OnceLock<usize>,
    /// With the state of the kind they were made by (see `Kind::state`).
    facts: Mutex<Option<(u64, Arc<Facts>)>>,
    served: Mutex<Option<Served>>,
    derived: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Default for Memo {
    fn default() -> Memo {
        Memo {
            object: Mutex::default(),
            message: Mutex::new(Weak::<[u8; 0]>::new()),
            message_bytes: OnceLock::new(),
            facts: Mutex::default(),
            served: Mutex::default(),
            derived: OnceLock::new(),
        }
    }
}

/// How a version of a custom kind shows a stored version.
struct Served {
    state: u64,
    version: &'static str,
    /// `None`: as it is. Weak: who lists or watches holds it.
    shown: Option<Weak<Stored>>,
}

/// What selectors ask of a version.
#[derive(Debug, Default, PartialEq)]
pub struct Facts {
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// In the order of the kind's selectable fields.
    pub fields: Box<[Box<str>]>,
}

fn memo(stored: &Stored) -> &Memo {
    stored.memo(|_| Memo::default())
}

/// The tree of a stored version with its resource version and, where the space is a kind's, with
/// `apiVersion` and `kind` in its preferred version; shared by all who hold it.
///
/// Without `metadata.managedFields`, which would double its size and which only writers and clients
/// ask for: [`managed`] has them, [`parse`] the whole.
pub fn object(stored: &Stored) -> Arc<Object> {
    let memo = memo(stored);
    let mut slot = memo.object.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(object) = slot.upgrade() {
        return object;
    }
    let Lean(object) =
        serde_json::from_slice(&stored.body).expect("only objects this server encoded are stored");
    let object = Arc::new(stamped(object, stored));
    *slot = Arc::downgrade(&object);
    object
}

/// A tree of one's own, to change.
pub fn parse(stored: &Stored) -> Object {
    let object =
        serde_json::from_slice(&stored.body).expect("only objects this server encoded are stored");
    stamped(object, stored)
}

/// `metadata.managedFields` of a stored version; the rest of it is not looked at.
pub fn managed(stored: &Stored) -> Option<Value> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        managed_fields: Option<Value>,
    }
    let mut metadata = serde_json::Deserializer::from_slice(encode::metadata(&stored.body));
    let metadata = Metadata::deserialize(&mut metadata);
    metadata.expect("only objects this server encoded are stored").managed_fields
}

fn stamped(mut object: Object, stored: &Stored) -> Object {
    let revision = Value::String(stored.revision.to_string());
    object.metadata_mut().insert("resourceVersion".into(), revision);
    if let Some(kind) = catalog::by_space(&stored.key.space) {
        encode::stamp(&mut object, kind, kind.versions[0]);
    }
    object
}

/// Labels and selectable fields of a version of `kind`.
pub fn facts(kind: &Kind, stored: &Stored) -> Arc<Facts> {
    let memo = memo(stored);
    let mut slot = memo.facts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((state, facts)) = &*slot
        && *state == kind.state()
    {
        return facts.clone();
    }
    let object = object(stored);
    let facts = Arc::new(Facts {
        labels: object.labels().map(|(key, value)| (key.into(), value.into())).collect(),
        fields: kind.selectable_values(&object),
    });
    *slot = Some((kind.state(), facts.clone()));
    facts
}

/// How `version` of a custom kind in `state` shows a stored version: `Some(None)` as it is, `None` if
/// nobody knows any more.
pub(crate) fn served(stored: &Stored, state: u64, version: &str) -> Option<Option<Arc<Stored>>> {
    let memo = memo(stored);
    let slot = memo.served.lock().unwrap_or_else(PoisonError::into_inner);
    let served = slot.as_ref()?;
    if served.state != state || served.version != version {
        return None;
    }
    match &served.shown {
        None => Some(None),
        Some(shown) => shown.upgrade().map(Some),
    }
}

pub(crate) fn keep_served(
    stored: &Stored,
    state: u64,
    version: &'static str,
    shown: Option<&Arc<Stored>>,
) {
    let memo = memo(stored);
    let shown = shown.map(Arc::downgrade);
    let served = Some(Served { state, version, shown });
    *memo.served.lock().unwrap_or_else(PoisonError::into_inner) = served;
}

/// The protobuf message of a version, made by `make` unless somebody holds it.
pub(crate) fn message<E>(
    stored: &Stored,
    make: impl FnOnce() -> Result<Arc<[u8]>, E>,
) -> Result<Arc<[u8]>, E> {
    let memo = memo(stored);
    let mut slot = memo.message.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(message) = slot.upgrade() {
        return Ok(message);
    }
    let message = make()?;
    *slot = Arc::downgrade(&message);
    memo.message_bytes.get_or_init(|| message.len());
    Ok(message)
}

/// The length of that message, which outlives it; `None` before it was made for the first time.
pub(crate) fn message_bytes(stored: &Stored) -> Option<usize> {
    memo(stored).message_bytes.get().copied()
}

/// What `derive` makes of a version, once; one `T` per space (RBAC keeps its compiled rules here).
pub fn derived<T: Send + Sync + 'static>(
    stored: &Stored,
    derive: impl FnOnce(&Object) -> T,
) -> Arc<T> {
    let memo = memo(stored);
    let slot = memo.derived.get_or_init(|| Arc::new(derive(&object(stored))));
    slot.clone().downcast::<T>().expect("one derived type per space")
}

/// An object read without its managed fields.
struct Lean(Object);

impl<'de> Deserialize<'de> for Lean {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Lean, D::Error> {
        source.deserialize_map(Level::Top).map(|map| Lean(Object(map)))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Top,
    Metadata,
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = source.next_key::<String>()? {
            let value = match (self, key.as_str()) {
                (Level::Top, "metadata") => Value::Object(source.next_value_seed(Level::Metadata)?),
                (Level::Metadata, "managedFields") => {
                    source.next_value::<IgnoredAny>()?;
                    continue;
                }
                _ => source.next_value()?,
            };
            map.insert(key, value);
        }
        Ok(map)
    }
}

//! Versions that look unlike what is stored: an object is converted where it comes in and where it
//! goes out, and nothing between the two ever sees the other form.

use super::{Call, List, Reply, What};
use crate::{
    encode,
    kind::Kind,
    kinds::{Foreign, KindDef},
    memo,
};
use k8s::Object;
use raft_store::{Key, Stored};
use std::{borrow::Cow, sync::Arc};

/// What came with a request, as it is stored.
pub(super) fn take_in(call: &Call, object: Object) -> Object {
    stored(&call.kind, &call.version, object)
}

/// An object as a client of the call's version sees it.
pub(super) fn show(call: &Call, object: Object) -> Object {
    seen(&call.kind, &call.version, object)
}

/// An object of `version` as it is stored.
pub(crate) fn stored(kind: &KindDef, version: &str, object: Object) -> Object {
    match kind.foreign(version) {
        Some(foreign) => (foreign.to_stored)(object),
        None => object,
    }
}

/// An object as `version` has it.
pub(crate) fn seen(kind: &KindDef, version: &str, object: Object) -> Object {
    match kind.foreign(version) {
        Some(foreign) => (foreign.from_stored)(object),
        None => object,
    }
}

/// The answer in the version it was asked in.
pub(super) fn answer(kind: &Kind, version: &str, reply: Reply) -> Reply {
    let Some(foreign) = kind.foreign(version) else { return reply };
    let what = match reply.what {
        What::Stored(stored) => What::Stored(shown(foreign, &stored)),
        What::Object(object) => What::Object((foreign.from_stored)(object)),
        What::List(list) => {
            let items = list.items.iter().map(|stored| shown(foreign, stored)).collect();
            What::List(List { items, ..list })
        }
        What::Other(object) => What::Other(object),
    };
    Reply { what, ..reply }
}

/// A stored version in another form, made once. It has a space that no kind has, so that nobody
/// takes it for what is stored.
pub(super) fn shown(foreign: &'static Foreign, stored: &Stored) -> Arc<Stored> {
    let derived = memo::derived(stored, |_| {
        let mut object = memo::parse(stored);
        encode::strip(&mut object);
        let object = (foreign.from_stored)(object);
        let space = format!("{}/{}", stored.key.space, foreign.schema);
        let key = Key::new(space, stored.key.path.to_string());
        Arc::new(Stored::new(key, stored.revision, stored.created, encode::body(&object)))
    });
    Arc::clone(&derived)
}

/// An object of `version` as columns see it.
pub(crate) fn stored_form<'a>(
    kind: &KindDef,
    version: &str,
    object: &'a Object,
) -> Cow<'a, Object> {
    match kind.foreign(version) {
        Some(foreign) => Cow::Owned((foreign.to_stored)(object.clone())),
        None => Cow::Borrowed(object),
    }
}

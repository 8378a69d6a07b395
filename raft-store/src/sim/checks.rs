//! What must hold when everything is over and has had time to settle.

use super::world::{Fate, World};
use crate::{Guard, Key, Op, Revision, Store, Txn};
use chaos::{Violation, history::Truth};

/// One of the members that count in the end, with its state.
pub(super) struct Survivor {
    node: u64,
    revision: Revision,
    digest: u64,
    contents: Vec<(String, String, u64)>,
}

fn survivor(node: u64, store: &Store) -> Survivor {
    let (revision, digest) = store.fingerprint();
    let items = store.range("kv", "", None, None).items;
    let item = |it: &std::sync::Arc<crate::Stored>| {
        (super::witness::name(&it.key), super::witness::text(&it.body), it.revision.0)
    };
    Survivor { node, revision, digest, contents: items.iter().map(item).collect() }
}

/// Those that the group counts as members and that may serve.
pub(super) fn survivors(world: &World) -> Option<Vec<Survivor>> {
    let leader = world.store(world.leader()?)?;
    let members = leader.members();
    let mut found = Vec::new();
    for member in members {
        let node = member.id.0;
        match world.fate(node) {
            Some(Fate::Serves) => found.push(survivor(node, &world.store(node)?)),
            Some(Fate::Damaged | Fate::Removed) | None => {}
        }
    }
    Some(found)
}

/// Whether all are at the same place.
pub(super) fn settled(world: &World) -> bool {
    survivors(world).is_some_and(|all| {
        let first = all.first().map(|it| it.revision);
        all.iter().all(|it| Some(it.revision) == first)
    })
}

/// Members that survived hold the same, and it is what was committed.
pub(super) fn agree(all: &[Survivor], truth: &Truth) -> Vec<Violation> {
    let mut found = Vec::new();
    for it in all {
        if it.revision.0 != truth.end() {
            let what = format!("member {} is at {}, not {}", it.node, it.revision, truth.end());
            found.push(Violation::new("members agree", what));
        } else if it.contents != truth.at("kv/", truth.end()) {
            let what = format!("member {} does not hold what was committed", it.node);
            found.push(Violation::new("members agree", what));
        }
    }
    let mut digests = all.iter().map(|it| it.digest);
    let first = digests.next();
    if digests.any(|digest| Some(digest) != first) {
        found.push(Violation::new("members agree", "digests differ at the same revision"));
    }
    found
}

/// A write that must succeed once nothing is broken.
pub(super) async fn write_something(store: Store) -> bool {
    let txn = Txn::one(Key::new("end", "x"), Guard::Any, Op::Delete);
    store.txn(txn).await.is_ok()
}

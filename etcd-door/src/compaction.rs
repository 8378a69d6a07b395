//! Compaction. Any member takes the wish and writes it down; older revisions are refused from then on,
//! and the leader has the store forget them. The store forgets by itself too, after some minutes.

use crate::{record::COMPACTED, status};
use bytes::Buf as _;
use raft_store::{Error, Guard, Key, Op, Revision, Store, Stored, Txn, View};
use tonic::Status;

fn key() -> Key {
    Key::new(COMPACTED, "revision")
}

fn read(stored: &Stored) -> Revision {
    Revision((&stored.body[..]).try_get_u64().unwrap_or(0))
}

/// The oldest revision that clients left to be read.
pub(crate) fn asked(view: &View<'_>) -> Revision {
    view.get(&key()).map_or(Revision(0), |stored| read(stored))
}

/// The oldest revision that a watch can start at.
pub(crate) fn oldest(view: &View<'_>) -> Revision {
    asked(view).max(Revision(view.floor().0 + 1))
}

/// Notes that nothing before `revision` is needed; the revision of the store then.
pub(crate) async fn ask(store: &Store, revision: Revision) -> Result<Revision, Status> {
    store.barrier().await.map_err(status::of)?;
    loop {
        let (now, before) = store.look(|view| (view.revision(), view.get(&key()).cloned()));
        if revision > now {
            return Err(status::future_revision());
        }
        if before.as_deref().map_or(Revision(0), read) >= revision {
            return Err(status::compacted());
        }
        let guard = before.map_or(Guard::Absent, |stored| Guard::At(stored.revision));
        let body = revision.0.to_be_bytes().to_vec();
        match store.txn(Txn::one(key(), guard, Op::Put(body.into()))).await {
            Ok(committed) => return Ok(committed.revision),
            // Another was faster; it was so much work as there are compactions.
            Err(Error::GuardFailed { .. }) => {}
            Err(error) => return Err(status::of(error)),
        }
    }
}

/// The leader's part.
pub(crate) async fn tend(store: &Store) {
    let wanted = store.look(|view| {
        // What was read at the revision asked for stays readable, and watches may begin with it.
        let wanted = Revision(asked(view).0.saturating_sub(1));
        Some(wanted).filter(|wanted| *wanted > view.floor())
    });
    if let Some(wanted) = wanted
        && let Err(error) = store.compact(wanted).await
    {
        tracing::debug!(%error, revision = %wanted, "compaction is tried again");
    }
}

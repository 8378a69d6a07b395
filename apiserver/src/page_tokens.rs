//! The tokens of lists in pages end also where nobody writes.
//!
//! A token holds until history no longer has its revision, and history moves on with the writes. In a
//! cluster at rest (heartbeats are not written) that would be never, while clients rely on the end:
//! they test that they can go on behind it. So a revision that a token was given for is written over,
//! if nobody does within a minute, and grows old.

use crate::Server;
use raft_store::{Guard, Key, Op, Revision, Store, Txn, Write};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const EVERY: Duration = Duration::from_secs(60);

/// The newest revision that this master gave a token for.
#[derive(Debug, Default)]
pub(crate) struct PageTokens(AtomicU64);

impl PageTokens {
    pub(crate) fn given(&self, revision: Revision) {
        self.0.fetch_max(revision.0, Ordering::Relaxed);
    }

    /// Makes a revision if there is none after that of the newest token.
    async fn outdate(&self, store: &Store) {
        let newest = Revision(self.0.load(Ordering::Relaxed));
        if newest < store.revision() {
            return;
        }
        // Nothing stays of it; no kind has this space, so nobody watches it.
        let write = |op| Write { key: Key::new("page-tokens", "outdated"), guard: Guard::Any, op };
        let writes = vec![write(Op::Put("{}".into())), write(Op::Delete)];
        if let Err(error) = store.txn(Txn { writes, ..Txn::default() }).await {
            tracing::debug!(%error, "tokens of lists are not outdated now");
        }
    }
}

impl Server {
    /// Lets tokens of lists end. Runs until dropped; once a process.
    pub async fn outdate_page_tokens(&self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.core.page_tokens.outdate(&self.core.store).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_revision_with_a_token_does_not_stay_the_newest() {
        let (store, tokens) = (Store::in_memory(), PageTokens::default());
        let key = Key::new("pods", "default/a");
        let put = Txn::one(key, Guard::Absent, Op::Put("{}".into()));
        let revision = store.txn(put).await.expect("written").revision;

        tokens.outdate(&store).await;
        assert_eq!(store.revision(), revision, "nobody holds a token: a cluster at rest stays so");

        tokens.given(revision);
        tokens.outdate(&store).await;
        let newer = store.revision();
        assert!(newer > revision);
        store.compact(newer).await.expect("compacted");
        let page = store.range_at("pods", "", None, None, revision).await;
        assert!(matches!(page, Err(raft_store::Error::Compacted { .. })));

        tokens.outdate(&store).await;
        assert_eq!(store.revision(), newer, "once is enough");
        assert!(store.range("page-tokens", "", None, None).items.is_empty());
    }
}

//! Events are forgotten after an hour. The leading master's server sees to it.

use crate::{Server, memo};
use k8s::Object;
use raft_store::{Guard, Op, Stored, Term, Txn, Write};
use std::{sync::Arc, time::Duration};

const EVERY: Duration = Duration::from_secs(60);
/// kube-apiserver's --event-ttl.
const EVENT_LIFE_SECONDS: i64 = 3600;
const EVENT_SPACES: &[&str] = &["events", "events.k8s.io/events"];
/// How many events one transaction forgets.
// A few hundred keys make an entry of some 20 KB: far below its limit, few enough entries.
const BATCH: usize = 256;

impl Server {
    /// Forgets old events each minute while this member leads. Runs until dropped; once a process.
    pub async fn forget_events(&self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let leading = self.core.store.leadership().borrow().leading;
            let Some(term) = leading else { continue };
            for space in EVENT_SPACES {
                forget(self, space, term).await;
            }
        }
    }
}

async fn forget(server: &Server, space: &str, term: Term) {
    let before = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(EVENT_LIFE_SECONDS);
    let all = server.core.store.range(space, "", None, None).items;
    let old: Vec<Arc<Stored>> =
        all.into_iter().filter(|stored| last_seen(&memo::object(stored)) < Some(before)).collect();
    for batch in old.chunks(BATCH) {
        // A guard that fails means that the event was seen again: it lives on, its fellows wait.
        let writes = batch.iter().map(|stored| Write {
            key: stored.key.clone(),
            guard: Guard::At(stored.revision),
            op: Op::Delete,
        });
        let txn = Txn { writes: writes.collect(), fence: Some(term), ..Txn::default() };
        if let Err(error) = server.core.store.txn(txn).await {
            return tracing::debug!(%error, space, "events are not forgotten now");
        }
    }
}

/// The latest of the times an event tells; `None` for one that tells none, which is forgotten.
fn last_seen(event: &Object) -> Option<jiff::Timestamp> {
    const TIMES: &[&str] = &[
        "/metadata/creationTimestamp",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/eventTime",
        "/series/lastObservedTime",
    ];
    TIMES.iter().filter_map(|pointer| event.str_at(pointer).parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use raft_store::{Key, Store};
    use serde_json::json;

    #[test]
    fn the_latest_time_counts() {
        let event = json!({
            "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" },
            "lastTimestamp": "2026-01-01T02:00:00Z",
        });
        let event = Object::from_value(event).expect("an object");
        assert_eq!(last_seen(&event), "2026-01-01T02:00:00Z".parse().ok());
    }

    #[tokio::test]
    async fn old_events_are_forgotten_and_new_ones_are_not() {
        let store = Store::in_memory();
        let server = Server::new(Config::new(store.clone()));
        for (name, time) in [("old", "2020-01-01T00:00:00Z"), ("new", "2999-01-01T00:00:00Z")] {
            let body =
                format!(r#"{{"metadata":{{"creationTimestamp":"{time}","name":"{name}"}}}}"#);
            let key = Key::new("events", format!("default/{name}"));
            let put = Txn::one(key, Guard::Absent, Op::Put(body.into()));
            store.txn(put).await.expect("written");
        }
        let term = store.leadership().borrow().leading.expect("leads alone");
        forget(&server, "events", term).await;
        let left = store.range("events", "", None, None).items;
        assert_eq!(
            left.iter().map(|stored| &*stored.key.path).collect::<Vec<_>>(),
            ["default/new"]
        );
    }
}

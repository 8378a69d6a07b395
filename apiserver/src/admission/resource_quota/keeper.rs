//! What upstream's resource quota controller does, on the applied state itself: a new or changed
//! quota is counted at once, and all of them again and again, so that what is gone is given back.
//!
//! A count is exact although requests go on: the quota is read first, its objects after it, and the
//! result is written only if the quota has not changed since. A request admitted in between has
//! changed it; one admitted before is among the objects.

use super::{
    SPACE,
    quota::Quota,
    usage::{self, is_plain, masked},
};
use crate::{
    Server,
    admission::resources::{List, add, to_value},
    encode, memo,
    view::View,
};
use k8s::quantity::Quantity;
use raft_store::{Error, Guard, Op, Revision, Stored, Term, Txn};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Between two counts of all quotas. Upstream reacts to deletions within seconds.
const EVERY: Duration = Duration::from_secs(1);
/// Counting takes at most one part in so many of the time.
const SHARE: u32 = 20;
/// How often one quota is counted anew because somebody was faster; the next turn tries again.
const RACE_ATTEMPTS: usize = 8;
/// How often `status.hard` is made `spec.hard` again, whoever changed it
/// (kube-controller-manager's --resource-quota-sync-period).
const SETTLE_EVERY: Duration = Duration::from_secs(300);

impl Server {
    /// Counts what namespaces use of their quotas, while this member leads; until dropped. Once a
    /// process is enough.
    pub async fn count_quotas(self) {
        let mut leadership = self.core.store.leadership();
        loop {
            let leading = leadership.borrow_and_update().leading;
            if let Some(term) = leading {
                tokio::select! {
                    // Over: the news of it is on its way.
                    () = lead(&self, term) => if leadership.changed().await.is_err() { return },
                    changed = leadership.changed() => if changed.is_err() { return },
                }
            } else if leadership.changed().await.is_err() {
                return;
            }
        }
    }
}

/// One term. Ends when a write is refused because the term is over.
async fn lead(server: &Server, term: Term) {
    let mut counted = Revision(0);
    let mut settled: Option<Instant> = None;
    let mut pause = EVERY;
    loop {
        let now = server.core.store.revision();
        if let Some(settle) = turn(now != counted, settled.map(|at| at.elapsed())) {
            let began = Instant::now();
            for stored in server.core.view.range(SPACE, "") {
                if count(server, term, stored, settle).await.is_err() {
                    return;
                }
            }
            if settle {
                settled = Some(began);
            }
            counted = now;
            pause = EVERY.max(began.elapsed() * SHARE);
        }
        if new_quotas(server, term, now, pause).await.is_err() {
            return;
        }
    }
}

/// Whether all quotas are to be counted, and whether settled with it, when the last settling is so long
/// ago. Settling is due also where nobody writes.
fn turn(changed: bool, settled: Option<Duration>) -> Option<bool> {
    let settle = settled.is_none_or(|ago| ago >= SETTLE_EVERY);
    (changed || settle).then_some(settle)
}

/// The term is over.
struct Over;

/// Counts quotas as they are made or changed, for as long as `pause`.
async fn new_quotas(
    server: &Server,
    term: Term,
    since: Revision,
    pause: Duration,
) -> Result<(), Over> {
    let Ok(mut watch) = server.core.store.watch(SPACE, "", since) else {
        tokio::time::sleep(pause).await;
        return Ok(());
    };
    let until = tokio::time::Instant::now() + pause;
    loop {
        let Ok(next) = tokio::time::timeout_at(until, watch.next()).await else { return Ok(()) };
        let Ok(changes) = next else {
            tokio::time::sleep_until(until).await;
            return Ok(());
        };
        for change in changes {
            let hard = |stored: &Arc<Stored>| memo::derived(stored, Quota::of).wanted.clone();
            if let Some(stored) = &change.new
                && change.old.as_ref().map(hard) != Some(hard(stored))
            {
                count(server, term, stored.clone(), true).await?;
            }
        }
    }
}

/// Counts one quota; `settle`: against what its spec says, whatever its status does.
async fn count(server: &Server, term: Term, stored: Arc<Stored>, settle: bool) -> Result<(), Over> {
    let namespace = stored.key.path.split('/').next().unwrap_or_default();
    // Among the creators of this master; those of others can still be faster.
    let Ok(_turn) = server.core.machine.turns.take(namespace).await else { return Ok(()) };
    for _ in 0..RACE_ATTEMPTS {
        let Some(current) = server.core.view.stored(SPACE, &stored.key.path) else { return Ok(()) };
        let (view, now) = (server.core.view.clone(), jiff::Timestamp::now());
        let counting = tokio::task::spawn_blocking(move || {
            let body = recount(&*view, &current, now, settle)?;
            Some((current, body))
        });
        let Ok(Some((current, body))) = counting.await else { return Ok(()) };
        let guard = Guard::At(current.revision);
        let txn = Txn { fence: Some(term), ..Txn::one(current.key.clone(), guard, Op::Put(body)) };
        match server.core.store.txn(txn).await {
            Ok(_) => return Ok(()),
            // Somebody was admitted, or the quota changed, meanwhile.
            Err(Error::GuardFailed { .. }) => {}
            Err(Error::Fenced { .. } | Error::Stopped(_)) => return Err(Over),
            Err(error) => {
                tracing::debug!(%error, quota = %stored.key.path, "a quota is not counted now");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The quota with its status as it should be; `None`: it is.
fn recount(
    view: &dyn View,
    stored: &Arc<Stored>,
    now: jiff::Timestamp,
    settle: bool,
) -> Option<bytes::Bytes> {
    let quota = memo::derived(stored, Quota::of);
    let hard = if settle || quota.hard.is_empty() { &quota.wanted } else { &quota.hard };
    let used = used(view, &quota, hard, &stored.key.path, now);
    if quota.hard == *hard && quota.used == used {
        return None;
    }
    let mut object = memo::parse(stored);
    encode::strip(&mut object);
    let status = object.map_mut("status");
    status.insert("hard".into(), to_value(hard));
    status.insert("used".into(), to_value(&used));
    Some(encode::body(&object))
}

fn used(view: &dyn View, quota: &Quota, hard: &List, path: &str, now: jiff::Timestamp) -> List {
    let namespace = path.split('/').next().unwrap_or_default();
    let mut used = List::new();
    for space in usage::spaces(hard.keys().map(String::as_str)) {
        let tracked = Quota::tracked(hard, &space);
        for name in &tracked {
            used.entry((*name).to_string()).or_insert(Quantity::ZERO);
        }
        let all = view.range(&space, &format!("{namespace}/"));
        if is_plain(&space) {
            let nothing = k8s::Object::default();
            if !quota.has_scopes() {
                for amount in used.iter_mut().filter(|(name, _)| tracked.contains(name.as_str())) {
                    let each = usage::of(&space, &nothing, now).get(amount.0).copied();
                    *amount.1 = each.unwrap_or(Quantity::ZERO).mul(all.len() as i64);
                }
            }
            continue;
        }
        for stored in all {
            let object = memo::object(&stored);
            if quota.covers(&space, &object) {
                add(&mut used, &masked(&usage::of(&space, &object, now), &tracked));
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_settled_in_a_cluster_at_rest_too() {
        let ago = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(turn(false, None), Some(true), "the first turn");
        assert_eq!(turn(false, ago(299)), None);
        assert_eq!(turn(true, ago(299)), Some(false));
        assert_eq!(turn(false, ago(300)), Some(true));
    }
}

//! Backups by the clock: the leader takes them, at whole multiples of the interval, and removes those
//! that are too many. What is on the shelf is all that is remembered, so a new leader goes on where
//! the last one was.

use crate::{
    checked::checked,
    names::{Name, chain, expired},
    shelf::{Error, Item, Shelf},
};
use futures::stream;
use prometheus::{Gauge, IntCounter, IntGauge, Registry};
use raft_store::{Store, backup};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between a backup that failed and the next attempt.
const RETRY: Duration = Duration::from_secs(30);

/// When a backup is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// At multiples of this since 1970, in UTC: `24h` is midnight.
    pub every: Duration,
    /// Every so many backups one is full; the others continue the one before.
    pub full_every: usize,
}

/// What is to be done, and with what.
pub struct Plan {
    pub shelf: Shelf,
    pub schedule: Schedule,
    /// Full backups that stay, each with what continues it.
    pub keep: usize,
}

struct Metrics {
    last_success: IntGauge,
    last_bytes: IntGauge,
    last_seconds: Gauge,
    taken: IntCounter,
    failed: IntCounter,
}

impl Metrics {
    fn new(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let gauge = |name, help| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name, help| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let last_seconds = Gauge::new(
            "coxswain_backup_last_duration_seconds",
            "How long the last scheduled backup of this master took, in seconds.",
        )?;
        registry.register(Box::new(last_seconds.clone()))?;
        Ok(Metrics {
            last_success: gauge(
                "coxswain_backup_last_success_timestamp_seconds",
                "When the newest backup on the shelf was taken, in seconds since 1970; 0 on followers.",
            )?,
            last_bytes: gauge(
                "coxswain_backup_last_size_bytes",
                "Size of the last scheduled backup of this master, in bytes.",
            )?,
            last_seconds,
            taken: counter(
                "coxswain_backup_taken_total",
                "Scheduled backups taken by this master.",
            )?,
            failed: counter("coxswain_backup_failed_total", "Scheduled backups that failed here.")?,
        })
    }
}

/// Takes backups while this master leads, until `stop`. Fails only if the metrics cannot be
/// registered; a backup that failed is logged, counted and tried again.
pub async fn run(
    plan: Plan,
    store: Store,
    registry: &Registry,
    stop: CancellationToken,
) -> Result<(), prometheus::Error> {
    let keeper = Keeper { metrics: Metrics::new(registry)?, plan, store };
    stop.run_until_cancelled(keeper.run()).await;
    Ok(())
}

struct Keeper {
    plan: Plan,
    store: Store,
    metrics: Metrics,
}

impl Keeper {
    async fn run(&self) {
        let mut leadership = self.store.leadership();
        while leadership.wait_for(|now| now.leading.is_some()).await.is_ok() {
            // A backup that was begun is finished, whoever leads by then.
            let wait = match self.turn().await {
                Ok(wait) => wait,
                Err(error) => {
                    self.metrics.failed.inc();
                    tracing::error!(shelf = %self.plan.shelf, %error, "no backup was taken");
                    RETRY.min(self.plan.schedule.every)
                }
            };
            let deposed = leadership.wait_for(|now| now.leading.is_none());
            if tokio::time::timeout(wait, deposed).await.is_ok() {
                self.metrics.last_success.set(0);
            }
        }
    }

    /// Takes a backup if one is due; how long until the next.
    async fn turn(&self) -> Result<Duration, Failed> {
        let cluster = self.store.cluster().ok_or(Failed::Unnamed)?;
        let digits = Name::digits(&cluster.id);
        let all = self.names().await?;
        let ours: Vec<Name> = all.into_iter().filter(|name| name.cluster == digits).collect();
        let newest = ours.last().map_or(0, |name| name.taken_at);
        self.metrics.last_success.set(newest as i64);
        let now = now();
        let wait = self.plan.schedule.wait(newest, now);
        if !wait.is_zero() {
            return Ok(wait);
        }
        let taken = self.take(&ours, now).await?;
        self.metrics.last_success.set(taken.taken_at as i64);
        for old in expired(&self.names().await?, &digits, self.plan.keep) {
            tracing::info!(name = %old, "a backup is old enough to go");
            self.plan.shelf.delete(&old.to_string()).await?;
        }
        Ok(self.plan.schedule.wait(taken.taken_at, crate::schedule::now()))
    }

    /// An empty place is not there yet.
    async fn names(&self) -> Result<Vec<Name>, Error> {
        let items = match self.plan.shelf.list().await {
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Vec::new()
            }
            other => other?,
        };
        Ok(items.into_iter().map(|Item { name, .. }| name).collect())
    }

    async fn take(&self, ours: &[Name], now: u64) -> Result<Name, Failed> {
        let begun = Instant::now();
        let base = match self.plan.schedule.base(ours) {
            None => None,
            Some(base) => {
                Some(backup::Since::from(&self.plan.shelf.header(&base.to_string()).await?))
            }
        };
        let taken = match self.store.backup(now, base).await {
            // The time between two was longer than history is kept.
            Err(backup::Error::Compacted { .. }) => self.store.backup(now, None).await,
            other => other,
        }?;
        let name = Name::of(&taken.header);
        let pieces = stream::unfold(taken.stream, |mut stream| async {
            Some((stream.recv().await?, stream))
        });
        // What is found in it is of no interest, that it is sound is.
        let (pieces, _) = checked(Box::pin(pieces), name.to_string());
        let bytes = self.plan.shelf.put(&name.to_string(), pieces).await?;
        let seconds = begun.elapsed().as_secs_f64();
        self.metrics.taken.inc();
        self.metrics.last_bytes.set(bytes as i64);
        self.metrics.last_seconds.set(seconds);
        tracing::info!(%name, bytes, seconds, shelf = %self.plan.shelf, "a backup was taken");
        Ok(name)
    }
}

impl Schedule {
    /// How long until the next backup, if the newest is of `newest`; both in seconds since 1970.
    fn wait(&self, newest: u64, now: u64) -> Duration {
        let every = self.every.as_secs().max(1);
        let due = (newest / every + 1) * every;
        Duration::from_secs(due.saturating_sub(now))
    }

    /// What the next backup continues; `None`: it is full.
    fn base<'a>(&self, ours: &'a [Name]) -> Option<&'a Name> {
        let newest = ours.last()?;
        let before = chain(ours, newest).ok()?;
        (before.len() < self.full_every).then_some(newest)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the cluster has no name yet")]
    Unnamed,
    #[error(transparent)]
    Backup(#[from] backup::Error),
    #[error(transparent)]
    Shelf(#[from] Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Kind;
    use raft_store::Revision;

    const HOUR: u64 = 3600;

    fn schedule(full_every: usize) -> Schedule {
        Schedule { every: Duration::from_secs(HOUR), full_every }
    }

    #[test]
    fn backups_are_due_at_whole_hours_whoever_leads() {
        let wait = |newest, now| schedule(1).wait(newest, now).as_secs();
        assert_eq!(wait(10 * HOUR, 10 * HOUR), HOUR);
        assert_eq!(wait(10 * HOUR + 7, 10 * HOUR + 600), HOUR - 600);
        assert_eq!(wait(10 * HOUR + 7, 11 * HOUR), 0);
        assert_eq!(wait(10 * HOUR, 99 * HOUR + 5), 0, "one that was missed is made up for");
        assert_eq!(wait(0, 99 * HOUR + 5), 0, "the first at once");
    }

    #[test]
    fn every_so_many_one_is_full() {
        let mut ours: Vec<Name> = Vec::new();
        for n in 0..5u64 {
            let base = schedule(3).base(&ours).map(|name| name.id.clone());
            let kind = base.map_or(Kind::Full, Kind::After);
            let (cluster, id) = ("c".to_string(), n.to_string());
            ours.push(Name { cluster, taken_at: n, revision: Revision(n), id, kind });
        }
        let full: Vec<bool> = ours.iter().map(|name| name.kind == Kind::Full).collect();
        assert_eq!(full, [true, false, false, true, false]);
        assert_eq!(schedule(1).base(&ours), None);
        assert_eq!(schedule(9).base(&ours[1..2]), None, "nothing continues a broken chain");
    }
}

//! What this member reports to Prometheus. Every series has one place here.

use crate::types::Error;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// The series of one member.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) term: IntGauge,
    pub(crate) is_leader: IntGauge,
    pub(crate) last_log_index: IntGauge,
    pub(crate) committed_index: IntGauge,
    pub(crate) applied_index: IntGauge,
    pub(crate) snapshot_index: IntGauge,
    pub(crate) purged_index: IntGauge,
    pub(crate) leader_changes: IntCounter,
    pub(crate) snapshots_installed: IntCounter,
    pub(crate) snapshots_sent: IntCounter,
    pub(crate) revision: IntGauge,
    pub(crate) compacted_revision: IntGauge,
    pub(crate) txn_seconds: Histogram,
    pub(crate) txns: IntCounterVec,
    pub(crate) forwarded: IntCounter,
    pub(crate) retried: IntCounter,
    pub(crate) fsync_seconds: Histogram,
    pub(crate) log_batch_entries: Histogram,
    pub(crate) entry_txns: Histogram,
    pub(crate) objects: IntGaugeVec,
    pub(crate) watchers: IntGauge,
    pub(crate) barriers: IntCounter,
    pub(crate) pending_bytes: IntGauge,
    pub(crate) divergent: IntGauge,
    pub(crate) disk_free: IntGauge,
    pub(crate) disk_full: IntGauge,
    pub(crate) level: IntGauge,
}

impl Metrics {
    /// Registers all series; fails if the registry has them already.
    pub(crate) fn new(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let gauge = |name, help| register(registry, IntGauge::new(name, help)?);
        let counter = |name, help| register(registry, IntCounter::new(name, help)?);
        let histogram = |name: &str, help: &str, first, buckets| {
            let buckets = prometheus::exponential_buckets(first, 2.0, buckets)?;
            let opts = HistogramOpts::new(name, help).buckets(buckets);
            register(registry, Histogram::with_opts(opts)?)
        };
        let seconds = |name, help| histogram(name, help, 0.000_25, 16);
        let counts = |name, help| histogram(name, help, 1.0, 13);
        let by_result = Opts::new("coxswain_store_txns_total", "Transactions, by result.");
        let by_resource = Opts::new("coxswain_store_objects", "Objects, by resource.");
        #[rustfmt::skip]
        let metrics = Metrics {
            term: gauge("coxswain_raft_term", "The Raft term this member is in.")?,
            is_leader: gauge("coxswain_raft_is_leader", "1 if this member leads.")?,
            last_log_index: gauge("coxswain_raft_last_log_index", "Index of the last log entry.")?,
            committed_index: gauge("coxswain_raft_committed_index", "Index known to be committed.")?,
            applied_index: gauge("coxswain_raft_applied_index", "Index applied to the state.")?,
            snapshot_index: gauge("coxswain_raft_snapshot_index", "Index the last snapshot covers.")?,
            purged_index: gauge("coxswain_raft_purged_index", "Index up to which the log is gone.")?,
            leader_changes: counter("coxswain_raft_leader_changes_total", "Leaders seen.")?,
            snapshots_installed: counter("coxswain_raft_snapshots_installed_total", "Snapshots taken from a leader.")?,
            snapshots_sent: counter("coxswain_raft_snapshots_sent_total", "Snapshots sent to others.")?,
            revision: gauge("coxswain_store_revision", "Revision of the state here.")?,
            compacted_revision: gauge("coxswain_store_compacted_revision", "History up to this revision is gone.")?,
            txn_seconds: seconds("coxswain_store_txn_duration_seconds", "From the call of a transaction to its answer, in seconds.")?,
            txns: register(registry, IntCounterVec::new(by_result, &["result"])?)?,
            forwarded: counter("coxswain_store_forwarded_total", "Transactions sent to the leader.")?,
            retried: counter("coxswain_store_retried_total", "Transactions proposed again because a leader was lost.")?,
            fsync_seconds: seconds("coxswain_store_fsync_duration_seconds", "One synced write of the log, in seconds.")?,
            log_batch_entries: counts("coxswain_store_log_batch_entries", "Log entries per synced write.")?,
            entry_txns: counts("coxswain_store_entry_txns", "Transactions per log entry proposed here.")?,
            objects: register(registry, IntGaugeVec::new(by_resource, &["resource"])?)?,
            watchers: gauge("coxswain_store_watchers", "Open watches.")?,
            barriers: counter("coxswain_store_barriers_total", "Rounds of ReadIndex asked for here.")?,
            divergent: gauge("coxswain_store_divergent", "1 if another member shows a different state at the same log index.")?,
            disk_free: gauge("coxswain_store_disk_free_bytes", "Bytes free where this member keeps its data.")?,
            disk_full: gauge("coxswain_store_disk_full", "1 if less than the reserve is free.")?,
            level: gauge("coxswain_store_level", "Newest version of commands that all members read.")?,
            pending_bytes: gauge("coxswain_store_pending_bytes", "Bytes of transactions waiting to be applied.")?,
        };
        Ok(metrics)
    }

    pub(crate) fn count<T>(&self, result: &Result<T, Error>) {
        let label = match result {
            Ok(_) => "ok",
            Err(Error::GuardFailed { .. }) => "guard_failed",
            Err(Error::Fenced { .. }) => "fenced",
            Err(Error::Overloaded { .. }) => "overloaded",
            Err(Error::DiskFull { .. }) => "disk_full",
            Err(Error::Unavailable { .. }) => "unavailable",
            Err(Error::NotYet { .. }) => "not_yet",
            Err(Error::TooLarge { .. }) => "too_large",
            Err(_) => "stopped",
        };
        self.txns.with_label_values(&[label]).inc();
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

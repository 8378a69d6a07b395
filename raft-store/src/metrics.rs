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
}

impl Metrics {
    /// Registers all series; fails if the registry has them already.
    pub(crate) fn new(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let r = registry;
        let seconds = || prometheus::exponential_buckets(0.000_25, 2.0, 16);
        let counts = || prometheus::exponential_buckets(1.0, 2.0, 13);
        let raft = "coxswain_raft";
        let store = "coxswain_store";
        Ok(Metrics {
            term: gauge(r, raft, "term", "The Raft term this member is in.")?,
            is_leader: gauge(r, raft, "is_leader", "1 if this member leads.")?,
            last_log_index: gauge(r, raft, "last_log_index", "Index of the last log entry.")?,
            committed_index: gauge(r, raft, "committed_index", "Index known to be committed.")?,
            applied_index: gauge(r, raft, "applied_index", "Index applied to the state.")?,
            snapshot_index: gauge(r, raft, "snapshot_index", "Index the last snapshot covers.")?,
            purged_index: gauge(r, raft, "purged_index", "Index up to which the log is gone.")?,
            leader_changes: counter(r, raft, "leader_changes_total", "Leaders seen.")?,
            snapshots_installed: counter(
                r,
                raft,
                "snapshots_installed_total",
                "Snapshots taken from a leader.",
            )?,
            snapshots_sent: counter(r, raft, "snapshots_sent_total", "Snapshots sent.")?,
            revision: gauge(r, store, "revision", "Revision of the state here.")?,
            compacted_revision: gauge(
                r,
                store,
                "compacted_revision",
                "History up to this revision is gone.",
            )?,
            txn_seconds: histogram(
                r,
                store,
                "txn_duration_seconds",
                "From the call of a transaction to its answer, in seconds.",
                seconds()?,
            )?,
            txns: register(
                r,
                IntCounterVec::new(
                    Opts::new("coxswain_store_txns_total", "Transactions, by result."),
                    &["result"],
                )?,
            )?,
            forwarded: counter(r, store, "forwarded_total", "Transactions sent to the leader.")?,
            retried: counter(
                r,
                store,
                "retried_total",
                "Transactions proposed again because a leader was lost.",
            )?,
            fsync_seconds: histogram(
                r,
                store,
                "fsync_duration_seconds",
                "One synced write of the log, in seconds.",
                seconds()?,
            )?,
            log_batch_entries: histogram(
                r,
                store,
                "log_batch_entries",
                "Log entries per synced write.",
                counts()?,
            )?,
            entry_txns: histogram(
                r,
                store,
                "entry_txns",
                "Transactions per log entry proposed here.",
                counts()?,
            )?,
            objects: register(
                r,
                IntGaugeVec::new(
                    Opts::new("coxswain_store_objects", "Objects, by resource."),
                    &["resource"],
                )?,
            )?,
            watchers: gauge(r, store, "watchers", "Open watches.")?,
            barriers: counter(r, store, "barriers_total", "Rounds of ReadIndex asked for here.")?,
            pending_bytes: gauge(
                r,
                store,
                "pending_bytes",
                "Bytes of transactions waiting to be applied.",
            )?,
        })
    }

    pub(crate) fn count<T>(&self, result: &Result<T, Error>) {
        let label = match result {
            Ok(_) => "ok",
            Err(Error::GuardFailed { .. }) => "guard_failed",
            Err(Error::Fenced { .. }) => "fenced",
            Err(Error::Overloaded { .. }) => "overloaded",
            Err(Error::Unavailable { .. }) => "unavailable",
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

fn gauge(r: &Registry, group: &str, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    register(r, IntGauge::new(format!("{group}_{name}"), help)?)
}

fn counter(
    r: &Registry,
    group: &str,
    name: &str,
    help: &str,
) -> Result<IntCounter, prometheus::Error> {
    register(r, IntCounter::new(format!("{group}_{name}"), help)?)
}

fn histogram(
    r: &Registry,
    group: &str,
    name: &str,
    help: &str,
    buckets: Vec<f64>,
) -> Result<Histogram, prometheus::Error> {
    let opts = HistogramOpts::new(format!("{group}_{name}"), help).buckets(buckets);
    register(r, Histogram::with_opts(opts)?)
}

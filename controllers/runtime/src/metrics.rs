//! The runtime's figures, under upstream's names where it has them.

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// One set per process; the label `name` is the controller's.
pub struct Metrics {
    pub(crate) depth: IntGaugeVec,
    pub(crate) adds: IntCounterVec,
    pub(crate) queue_duration: HistogramVec,
    pub(crate) work_duration: HistogramVec,
    pub(crate) retries: IntCounterVec,
    pub(crate) plan_duration: HistogramVec,
    pub(crate) writes: IntCounterVec,
    pub(crate) own_write_wait: HistogramVec,
    pub(crate) own_write_timeouts: IntCounterVec,
    pub(crate) panics: IntCounterVec,
    pub(crate) cache_objects: IntGaugeVec,
    pub(crate) cache_relists: IntCounterVec,
    pub(crate) cache_events: IntCounterVec,
    pub(crate) events_dropped: IntCounterVec,
}

impl Metrics {
    /// Registers everything. A registry that has these names already keeps its own.
    pub fn new(registry: &Registry) -> Metrics {
        let name = &["name"];
        let kind = &["kind"];
        let seconds = || exponential_buckets(1e-5, 4.0, 11).expect("constant arguments"); // to 10 s
        let histogram = |metric: &str, help: &str| {
            let options = HistogramOpts::new(metric, help).buckets(seconds());
            keep(registry, HistogramVec::new(options, name))
        };
        let counter = |metric: &str, help: &str, labels: &[&str]| {
            keep(registry, IntCounterVec::new(Opts::new(metric, help), labels))
        };
        let gauge = |metric: &str, help: &str, labels: &[&str]| {
            keep(registry, IntGaugeVec::new(Opts::new(metric, help), labels))
        };
        Metrics {
            depth: gauge("workqueue_depth", "Keys ready to be worked on.", name),
            adds: counter("workqueue_adds_total", "Keys added to the queue.", name),
            queue_duration: histogram(
                "workqueue_queue_duration_seconds",
                "How long a key was ready before it was worked on.",
            ),
            work_duration: histogram(
                "workqueue_work_duration_seconds",
                "How long planning for a key and carrying the plan out took.",
            ),
            retries: counter(
                "workqueue_retries_total",
                "Keys that came back after a failure.",
                name,
            ),
            plan_duration: histogram(
                "coxswain_reconcile_plan_duration_seconds",
                "How long the pure part, the plan, took.",
            ),
            writes: counter(
                "coxswain_reconcile_writes_total",
                "Writes sent, by verb and outcome.",
                &["name", "verb", "outcome"],
            ),
            own_write_wait: histogram(
                "coxswain_reconcile_own_write_wait_seconds",
                "How long a root waited for the cache to show its own last write.",
            ),
            own_write_timeouts: counter(
                "coxswain_reconcile_own_write_timeouts_total",
                "Roots planned although the cache had not shown their last write in time.",
                name,
            ),
            panics: counter("coxswain_reconcile_panics_total", "Plans that panicked.", name),
            cache_objects: gauge("coxswain_reconcile_cache_objects", "Objects in the cache.", kind),
            cache_relists: counter(
                "coxswain_reconcile_cache_relists_total",
                "Watches that had to start from the whole state.",
                kind,
            ),
            cache_events: counter(
                "coxswain_reconcile_cache_events_total",
                "Changes applied to the cache.",
                kind,
            ),
            events_dropped: counter(
                "coxswain_reconcile_events_dropped_total",
                "Kubernetes Events not written because too many were waiting.",
                name,
            ),
        }
    }
}

fn keep<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("constant names and labels");
    if let Err(error) = registry.register(Box::new(metric.clone())) {
        tracing::debug!(%error, "metric is registered already");
    }
    metric
}

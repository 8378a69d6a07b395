//! The scheduler's figures, under upstream's names where it has them.

use super::queue::Depth;
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

/// One set per process.
pub(crate) struct Metrics {
    pub(crate) attempts: IntCounterVec,
    pub(crate) attempt_seconds: HistogramVec,
    pub(crate) algorithm_seconds: Histogram,
    pub(crate) pending: IntGaugeVec,
    pub(crate) attempts_per_pod: Histogram,
    pub(crate) sli_seconds: HistogramVec,
    pub(crate) batch_pods: Histogram,
    pub(crate) refusals: IntCounterVec,
}

impl Metrics {
    /// Registers everything. A registry that has these names already keeps its own.
    pub(crate) fn new(registry: &Registry) -> Metrics {
        // 0.1 ms to 26 s, in fours.
        let seconds = || exponential_buckets(1e-4, 4.0, 10).expect("constant arguments");
        // 10 ms to 5,243 s: pods may wait long.
        let waits = || exponential_buckets(0.01, 2.0, 20).expect("constant arguments");
        let options =
            |name: &str, help: &str, buckets| HistogramOpts::new(name, help).buckets(buckets);
        let histogram = |name, help, buckets| {
            keep(registry, Histogram::with_opts(options(name, help, buckets)))
        };
        let histograms = |name, help, buckets, labels: &[&str]| {
            keep(registry, HistogramVec::new(options(name, help, buckets), labels))
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            keep(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        Metrics {
            attempts: counters(
                "scheduler_schedule_attempts_total",
                "Attempts to place a pod, by result.",
                &["result", "profile"],
            ),
            attempt_seconds: histograms(
                "scheduler_scheduling_attempt_duration_seconds",
                "From the start of the plan a pod was in to the answer to its binding.",
                seconds(),
                &["result", "profile"],
            ),
            algorithm_seconds: histogram(
                "scheduler_scheduling_algorithm_duration_seconds",
                "How long one plan took, however many pods it placed.",
                seconds(),
            ),
            pending: keep(
                registry,
                IntGaugeVec::new(
                    Opts::new("scheduler_pending_pods", "Pods without a node, by queue."),
                    &["queue"],
                ),
            ),
            attempts_per_pod: histogram(
                "scheduler_pod_scheduling_attempts",
                "Attempts it took to bind a pod.",
                vec![1.0, 2.0, 4.0, 8.0, 16.0],
            ),
            sli_seconds: histograms(
                "scheduler_pod_scheduling_sli_duration_seconds",
                "From the first sight of a pod without gates to its binding.",
                waits(),
                &["attempts"],
            ),
            batch_pods: histogram(
                "coxswain_scheduler_batch_pods",
                "Bindings sent together as one batch.",
                exponential_buckets(1.0, 2.0, 9).expect("constant arguments"),
            ),
            refusals: counters(
                "coxswain_scheduler_refusals_total",
                "Pods that no node would take, by each plugin that had a part in it.",
                &["plugin"],
            ),
        }
    }

    pub(crate) fn set_depth(&self, depth: Depth) {
        let queues = [
            ("active", depth.active),
            ("backoff", depth.backoff),
            ("unschedulable", depth.unschedulable),
            ("gated", depth.gated),
        ];
        for (queue, pods) in queues {
            self.pending.with_label_values(&[queue]).set(pods as i64);
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

//! What the agent counts; upstream's names where upstream has them.

use prometheus::{
    Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounterVec, IntGauge, Opts, Registry,
};

/// Registered once per process.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) running_pods: IntGauge,
    pub(crate) pod_start: Histogram,
    operations: IntCounterVec,
    operation_seconds: HistogramVec,
    pub(crate) lease_renewals: IntCounterVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let label = &["operation_type"];
        let metrics = Metrics {
            running_pods: IntGauge::new(
                "kubelet_running_pods",
                "Number of pods that have a running pod sandbox",
            )?,
            pod_start: Histogram::with_opts(
                HistogramOpts::new(
                    "kubelet_pod_start_duration_seconds",
                    "Seconds from the creation of a pod to the first time it was seen running",
                )
                .buckets(vec![0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]),
            )?,
            operations: IntCounterVec::new(
                Opts::new(
                    "kubelet_runtime_operations_total",
                    "Cumulative number of runtime operations by operation type",
                ),
                label,
            )?,
            operation_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "kubelet_runtime_operations_duration_seconds",
                    "Duration in seconds of runtime operations by operation type",
                )
                .buckets(prometheus::exponential_buckets(0.001, 2.5, 12)?),
                label,
            )?,
            lease_renewals: IntCounterVec::new(
                Opts::new(
                    "coxswain_agent_lease_renewals_total",
                    "Renewals of the node's lease by result",
                ),
                &["result"],
            )?,
        };
        registry.register(Box::new(metrics.running_pods.clone()))?;
        registry.register(Box::new(metrics.pod_start.clone()))?;
        registry.register(Box::new(metrics.operations.clone()))?;
        registry.register(Box::new(metrics.operation_seconds.clone()))?;
        registry.register(Box::new(metrics.lease_renewals.clone()))?;
        Ok(metrics)
    }

    /// Counts a runtime operation; its duration ends when the timer is dropped.
    pub(crate) fn operation(&self, name: &str) -> HistogramTimer {
        self.operations.with_label_values(&[name]).inc();
        self.operation_seconds.with_label_values(&[name]).start_timer()
    }
}

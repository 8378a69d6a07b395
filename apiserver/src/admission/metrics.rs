//! How long admission takes, under upstream's names.

use super::Operation;
use crate::metrics::registered;
use k8s::Status;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use std::time::Instant;

/// Upstream's buckets of both histograms.
const STEP_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];

#[derive(Clone)]
pub(crate) struct Metrics {
    steps: HistogramVec,
    webhooks: HistogramVec,
    webhook_requests: IntCounterVec,
    webhook_rejections: IntCounterVec,
    webhook_fail_opens: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(registry, HistogramVec::new(options, labels))
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        Metrics {
            webhooks: histogram(
                "apiserver_admission_webhook_admission_duration_seconds",
                "Seconds a webhook took, by its name, operation and verdict.",
                &["name", "type", "operation", "rejected"],
                WEBHOOK_SECONDS,
            ),
            webhook_requests: counter(
                "apiserver_admission_webhook_request_total",
                "Calls of webhooks, by name, operation, HTTP code and verdict.",
                &["name", "type", "operation", "code", "rejected"],
            ),
            webhook_rejections: counter(
                "apiserver_admission_webhook_rejection_count",
                "Requests a webhook refused or failed, by name, operation and what was wrong.",
                &["name", "type", "operation", "error_type", "rejection_code"],
            ),
            webhook_fail_opens: counter(
                "apiserver_admission_webhook_fail_open_count",
                "Requests that went on although a webhook gave no answer.",
                &["name", "type"],
            ),
            steps: histogram(
                "apiserver_admission_controller_admission_duration_seconds",
                "Seconds an admission plugin took, by its name, operation and verdict.",
                &["name", "type", "operation", "rejected"],
                STEP_SECONDS,
            ),
        }
    }

    /// One plugin's work on one request; `part` is `admit` or `validate`.
    pub(super) fn step<T>(
        &self,
        part: &str,
        name: &str,
        operation: Operation,
        result: &Result<T, Status>,
        began: Instant,
    ) {
        if name.is_empty() {
            return;
        }
        let rejected = if result.is_err() { "true" } else { "false" };
        let labels = [name, part, operation.name(), rejected];
        self.steps.with_label_values(&labels).observe(began.elapsed().as_secs_f64());
    }

    /// One call of a webhook: its part, name and operation. `error_type` is empty where the request
    /// goes on.
    pub(super) fn webhook(
        &self,
        (part, name, operation): (&str, &str, Operation),
        code: u16,
        error_type: &str,
        began: Instant,
    ) {
        let rejected = if error_type.is_empty() { "false" } else { "true" };
        let operation = operation.name();
        let seconds = began.elapsed().as_secs_f64();
        self.webhooks.with_label_values(&[name, part, operation, rejected]).observe(seconds);
        let code = code.to_string();
        self.webhook_requests.with_label_values(&[name, part, operation, &code, rejected]).inc();
        if !error_type.is_empty() {
            let labels = [name, part, operation, error_type, &code];
            self.webhook_rejections.with_label_values(&labels).inc();
        }
    }

    pub(super) fn failed_open(&self, part: &str, name: &str) {
        self.webhook_fail_opens.with_label_values(&[name, part]).inc();
    }
}

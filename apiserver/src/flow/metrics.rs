//! What flow control counts, under upstream's names.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector,
};
use std::time::Duration;

const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

#[derive(Clone)]
pub(crate) struct Metrics {
    dispatched: IntCounterVec,
    rejected: IntCounterVec,
    executing: IntGaugeVec,
    executing_seats: IntGaugeVec,
    inqueue: IntGaugeVec,
    nominal: IntGaugeVec,
    waits: HistogramVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        const FLOW: &[&str] = &["priority_level", "flow_schema"];
        const LEVEL: &[&str] = &["priority_level"];
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let waits = HistogramOpts::new(
            "apiserver_flowcontrol_request_wait_duration_seconds",
            "Seconds that requests waited for a seat.",
        );
        let waits = HistogramVec::new(
            waits.buckets(SECONDS.to_vec()),
            &["priority_level", "flow_schema", "execute"],
        );
        Metrics {
            dispatched: counter(
                "apiserver_flowcontrol_dispatched_requests_total",
                "Requests that got a seat, by level and schema.",
                FLOW,
            ),
            rejected: counter(
                "apiserver_flowcontrol_rejected_requests_total",
                "Requests refused for want of a seat, by level, schema and reason.",
                &["priority_level", "flow_schema", "reason"],
            ),
            executing: gauge(
                "apiserver_flowcontrol_current_executing_requests",
                "Requests that have a seat.",
                FLOW,
            ),
            executing_seats: gauge(
                "apiserver_flowcontrol_current_executing_seats",
                "Seats taken, by level.",
                LEVEL,
            ),
            inqueue: gauge(
                "apiserver_flowcontrol_current_inqueue_requests",
                "Requests that wait for a seat, by level.",
                LEVEL,
            ),
            nominal: gauge(
                "apiserver_flowcontrol_nominal_limit_seats",
                "Seats that a level's shares give it.",
                LEVEL,
            ),
            waits: registered(registry, waits),
        }
    }

    pub(super) fn nominal(&self, level: &str, seats: u32) {
        self.nominal.with_label_values(&[level]).set(i64::from(seats));
    }

    pub(super) fn queued(&self, level: &str, by: i64) {
        self.inqueue.with_label_values(&[level]).add(by);
    }

    pub(super) fn executing(&self, level: &str, schema: &str, by: i64, seats: i64) {
        self.executing.with_label_values(&[level, schema]).add(by);
        self.executing_seats.with_label_values(&[level]).add(seats);
    }

    pub(super) fn dispatched(&self, level: &str, schema: &str, waited: Duration) {
        self.dispatched.with_label_values(&[level, schema]).inc();
        self.waits.with_label_values(&[level, schema, "true"]).observe(waited.as_secs_f64());
    }

    pub(super) fn rejected(&self, level: &str, schema: &str, reason: &str, waited: Duration) {
        self.rejected.with_label_values(&[level, schema, reason]).inc();
        self.waits.with_label_values(&[level, schema, "false"]).observe(waited.as_secs_f64());
    }
}

/// Two servers on one registry share nothing: the second one's numbers are not shown, which only
/// tests do.
fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<C, prometheus::Error>,
) -> C {
    let metric = metric.expect("names and labels are literals");
    if let Err(error) = registry.register(Box::new(metric.clone())) {
        tracing::warn!(%error, "a metric is registered already");
    }
    metric
}

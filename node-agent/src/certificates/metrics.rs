//! How long certificates are good and how their renewal goes, under the kubelet's names.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use super::Clock;

/// There is no certificate.
const NONE: i64 = i64::MIN;

/// Of one certificate.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Seconds since 1970.
    until: Arc<AtomicI64>,
    pub(super) errors: IntCounter,
    pub(super) rotation: Option<Histogram>,
}

impl Metrics {
    pub(crate) fn client(registry: &Registry, clock: &Clock) -> Result<Metrics, prometheus::Error> {
        let errors = IntCounter::new(
            "kubelet_certificate_manager_client_expiration_renew_errors",
            "Counter of certificate renewal errors.",
        )?;
        let ttl = Gauge::new(
            "kubelet_certificate_manager_client_ttl_seconds",
            "Seconds until the client certificate ends; negative if it has, +Inf if there is none.",
        )?;
        Metrics::register(registry, clock, errors, ttl, None)
    }

    pub(crate) fn server(registry: &Registry, clock: &Clock) -> Result<Metrics, prometheus::Error> {
        let errors = IntCounter::new(
            "kubelet_server_expiration_renew_errors",
            "Counter of certificate renewal errors.",
        )?;
        let ttl = Gauge::new(
            "kubelet_certificate_manager_server_ttl_seconds",
            "Seconds until the certificate of the kubelet API ends; negative if it has, +Inf if there is none.",
        )?;
        // From a minute to four years.
        let buckets = prometheus::exponential_buckets(60.0, 4.0, 11)?;
        let rotation = Histogram::with_opts(
            HistogramOpts::new(
                "kubelet_certificate_manager_server_rotation_seconds",
                "Seconds that the certificate before lived until it was replaced.",
            )
            .buckets(buckets),
        )?;
        Metrics::register(registry, clock, errors, ttl, Some(rotation))
    }

    fn register(
        registry: &Registry,
        clock: &Clock,
        errors: IntCounter,
        ttl: Gauge,
        rotation: Option<Histogram>,
    ) -> Result<Metrics, prometheus::Error> {
        let until = Arc::new(AtomicI64::new(NONE));
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(Ttl {
            gauge: ttl,
            until: until.clone(),
            clock: clock.clone(),
        }))?;
        if let Some(rotation) = &rotation {
            registry.register(Box::new(rotation.clone()))?;
        }
        Ok(Metrics { until, errors, rotation })
    }

    pub(super) fn good_until(&self, until: Option<i64>) {
        self.until.store(until.unwrap_or(NONE), Ordering::Relaxed);
    }
}

/// A gauge of what is left when somebody asks.
struct Ttl {
    gauge: Gauge,
    until: Arc<AtomicI64>,
    clock: Clock,
}

impl Collector for Ttl {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(match self.until.load(Ordering::Relaxed) {
            NONE => f64::INFINITY,
            until => (until - (self.clock)().as_second()) as f64,
        });
        self.gauge.collect()
    }
}

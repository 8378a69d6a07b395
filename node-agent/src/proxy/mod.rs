//! The service proxy: makes every Service's address and node port lead to its endpoints, from this
//! node and its pods, by rules in the kernel's packet filter. The agent may stop; the rules stay.

mod conntrack;
mod model;
mod netlink;
mod nft;
mod rules;

pub use model::{Endpoint, Service, ServicePort, Services, Slice, SlicePort};
pub use nft::{Applied, Frame, TABLE, Table};
pub use rules::{Change, Place, Rule, Ruleset, Target, Verdict, Vip, changes, rules};

use netlink::Socket;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};
use std::{io, time::Instant};

/// What the proxy counts.
#[derive(Clone)]
pub struct Metrics {
    services: IntGauge,
    endpoints: IntGauge,
    changes: IntCounter,
    full_syncs: IntCounter,
    failures: IntCounter,
    durations: Histogram,
}

impl Metrics {
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let durations = HistogramOpts::new(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds",
        );
        // 0.5 ms to 16 s: upstream begins at 1 ms, which most of our changes undercut.
        let durations = durations.buckets(prometheus::exponential_buckets(0.0005, 2.0, 16)?);
        let metrics = Metrics {
            services: IntGauge::new(
                "coxswain_proxy_services",
                "Service addresses and node ports with a rule.",
            )?,
            endpoints: IntGauge::new("coxswain_proxy_endpoints", "Endpoints in rules.")?,
            changes: IntCounter::new(
                "coxswain_proxy_changes_total",
                "Single changes sent to the packet filter.",
            )?,
            full_syncs: IntCounter::new(
                "coxswain_proxy_full_syncs_total",
                "Times the whole table was written.",
            )?,
            failures: IntCounter::new(
                "coxswain_proxy_sync_failures_total",
                "Times the packet filter refused a change.",
            )?,
            durations: Histogram::with_opts(durations)?,
        };
        registry.register(Box::new(metrics.services.clone()))?;
        registry.register(Box::new(metrics.endpoints.clone()))?;
        registry.register(Box::new(metrics.changes.clone()))?;
        registry.register(Box::new(metrics.full_syncs.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        Ok(metrics)
    }
}

/// The proxy of one network namespace.
pub struct Proxy {
    table: Table,
    conntrack: Socket,
    metrics: Metrics,
}

impl Proxy {
    /// For the calling thread's network namespace. Changes nothing yet: the rules of an earlier
    /// agent stay until the first [`Proxy::sync`].
    pub fn open(frame: Frame, metrics: Metrics) -> io::Result<Proxy> {
        Ok(Proxy { table: Table::open(frame)?, conntrack: Socket::open()?, metrics })
    }

    /// Makes the kernel's rules what `services` asks for. Blocks for milliseconds (seconds for a
    /// first load of thousands of services).
    pub fn sync(&mut self, services: &Services, place: &Place) -> io::Result<Applied> {
        let started = Instant::now();
        let wanted = rules(services, place);
        let before = self.table.present().map(Ruleset::udp_targets).unwrap_or_default();
        let gone = before.difference(&wanted.udp_targets()).copied().collect();
        self.metrics.services.set((wanted.vips.len() + wanted.node_ports.len()) as i64);
        self.metrics.endpoints.set(wanted.targets() as i64);
        let applied = self.table.apply(wanted).inspect_err(|_| self.metrics.failures.inc())?;
        self.metrics.changes.inc_by(applied.changes as u64);
        if applied.full {
            self.metrics.full_syncs.inc();
        }
        match conntrack::forget(&self.conntrack, &gone) {
            Ok(0) => {}
            Ok(forgotten) => tracing::debug!(forgotten, "UDP flows to lost endpoints"),
            // The rules are right; only clients that never pause keep the old way.
            Err(error) => tracing::warn!(%error, "cannot forget UDP flows"),
        }
        self.metrics.durations.observe(started.elapsed().as_secs_f64());
        Ok(applied)
    }
}

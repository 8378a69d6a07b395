//! What the server counts, under upstream's names where upstream has one.

use crate::{catalog, kinds::KindDef, pipeline::Core, server::Body, server::RequestInfo};
use http::Response;
use hyper::body::Body as _;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};
use std::time::Instant;

const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Cheap to clone: every part is shared.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    sizes: HistogramVec,
    longrunning: IntGaugeVec,
    inflight: IntGaugeVec,
    watch_events: IntCounterVec,
    watch_bytes: HistogramVec,
    objects: IntGaugeVec,
}

const REQUEST: &[&str] =
    &["verb", "group", "version", "resource", "subresource", "scope", "component"];

impl Metrics {
    pub(crate) fn new(registry: Registry) -> Metrics {
        let with = |more: &[&'static str]| [REQUEST, more].concat();
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(&registry, HistogramVec::new(options, labels))
        };
        Metrics {
            requests: counter(
                "apiserver_request_total",
                "Requests answered, by verb, resource and HTTP code.",
                &with(&["code", "dry_run"]),
            ),
            durations: histogram(
                "apiserver_request_duration_seconds",
                "Seconds until the answer began, long-running requests excepted.",
                &with(&["dry_run"]),
                SECONDS,
            ),
            sizes: histogram(
                "apiserver_response_sizes",
                "Bytes of answers whose size is known when they begin.",
                REQUEST,
                BYTES,
            ),
            longrunning: gauge(
                "apiserver_longrunning_requests",
                "Watches and streams under way.",
                REQUEST,
            ),
            inflight: gauge(
                "apiserver_current_inflight_requests",
                "Requests being answered, long-running ones excepted.",
                &["request_kind"],
            ),
            watch_events: counter(
                "apiserver_watch_events_total",
                "Events sent to watchers.",
                &["group", "version", "resource"],
            ),
            watch_bytes: histogram(
                "apiserver_watch_events_sizes",
                "Bytes per batch of events sent to a watcher.",
                &["group", "version", "resource"],
                BYTES,
            ),
            objects: gauge(
                "apiserver_resource_objects",
                "Objects stored, by resource.",
                &["group", "resource"],
            ),
            registry,
        }
    }

    /// All metrics of the process in Prometheus' text format.
    pub(crate) fn text(&self, core: &Core) -> Vec<u8> {
        for (space, count) in core.store.spaces() {
            let (group, resource) = space.rsplit_once('/').unwrap_or(("", &space));
            self.objects.with_label_values(&[group, resource]).set(count as i64);
        }
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::warn!(%error, "cannot encode the metrics");
        }
        out
    }

    /// Counts a long-running request until the guard goes.
    pub(crate) fn longrunning(&self, info: &RequestInfo) -> Running {
        let gauge = self.longrunning.with_label_values(&labels(info));
        gauge.inc();
        Running(gauge)
    }

    pub(crate) fn events(&self, kind: &KindDef, version: &str, count: usize, bytes: usize) {
        let labels = [kind.group, version, kind.plural];
        self.watch_events.with_label_values(&labels).inc_by(count as u64);
        self.watch_bytes.with_label_values(&labels).observe(bytes as f64);
    }
}

/// The metric, known to the registry. Two servers on one registry share nothing: the second one's
/// numbers are not shown, which only tests do.
pub(crate) fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<C, prometheus::Error>,
) -> C {
    let metric = metric.expect("names and labels are literals");
    if let Err(error) = registry.register(Box::new(metric.clone())) {
        tracing::warn!(%error, "a metric is registered already");
    }
    metric
}

/// A long-running request under way.
pub(crate) struct Running(prometheus::IntGauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn labels(info: &RequestInfo) -> [&str; 7] {
    let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, _, _) => "",
        (_, false, _) => "resource",
        (_, _, false) => "namespace",
        _ => "cluster",
    };
    [verb(info), &info.group, &info.version, &info.resource, &info.subresource, scope, "apiserver"]
}

/// Upstream writes verbs in capitals here, and a create as POST.
fn verb(info: &RequestInfo) -> &str {
    match info.verb.as_str() {
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "watch" => "WATCH",
        "list" => "LIST",
        "get" => "GET",
        "head" => "HEAD",
        _ => "other",
    }
}

/// A request from its first byte to the beginning of its answer.
pub(crate) struct Observed<'a> {
    core: &'a Core,
    info: &'a RequestInfo,
    dry_run: &'static str,
    began: Instant,
}

impl<'a> Observed<'a> {
    pub(crate) fn begin(core: &'a Core, info: &'a RequestInfo, dry_run: bool) -> Observed<'a> {
        let dry_run = if dry_run { "All" } else { "" };
        Observed { core, info, dry_run, began: Instant::now() }
    }

    pub(crate) fn end(self, response: &Response<Body>) {
        let unknown;
        let info = if is_known(self.core, self.info) {
            self.info
        } else {
            unknown = RequestInfo { verb: self.info.verb.clone(), ..RequestInfo::default() };
            &unknown
        };
        let labels = labels(info);
        let code = response.status();
        let request = [&labels[..], &[code.as_str(), self.dry_run]].concat();
        self.core.metrics.requests.with_label_values(&request).inc();
        if let Some(bytes) = response.body().size_hint().exact() {
            self.core.metrics.sizes.with_label_values(&labels).observe(bytes as f64);
        }
        let endless = info.verb == "watch" || code == http::StatusCode::SWITCHING_PROTOCOLS;
        if !endless {
            let request = [&labels[..], &[self.dry_run]].concat();
            let seconds = self.began.elapsed().as_secs_f64();
            self.core.metrics.durations.with_label_values(&request).observe(seconds);
        }
    }
}

/// False for what no kind serves: clients must not be able to make new series.
fn is_known(core: &Core, info: &RequestInfo) -> bool {
    let kind = core.catalogs.find(&info.group, &info.version, &info.resource);
    let subresource = &info.subresource;
    kind.is_some_and(|kind| {
        subresource.is_empty() || catalog::subresource(&kind, subresource).is_some()
    })
}

/// One of the requests being answered.
pub(crate) struct Inflight(prometheus::IntGauge);

impl Inflight {
    pub(crate) fn enter(core: &Core, verb: &str) -> Inflight {
        let kind = if matches!(verb, "get" | "list") { "readOnly" } else { "mutating" };
        let gauge = core.metrics.inflight.with_label_values(&[kind]);
        gauge.inc();
        Inflight(gauge)
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

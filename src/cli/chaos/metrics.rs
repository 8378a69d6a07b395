//! The figures of a run for Prometheus while it lasts, on loopback, if asked for.

use ::chaos::{record::Outcome, scenario::Kind};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use std::{convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};

/// Who has not said what it wants by then is sent away.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Prometheus has one; a person with curl another.
const CONNECTIONS_MAX: usize = 16;

/// The series of a run.
#[derive(Clone)]
pub(super) struct Metrics {
    registry: Registry,
    operations: IntCounterVec,
    seconds: HistogramVec,
    pub(super) faults: IntCounterVec,
    pub(super) faults_active: IntGauge,
    pub(super) failover: HistogramVec,
    pub(super) violations: IntGauge,
    pub(super) checked_revision: IntGauge,
}

impl Metrics {
    pub(super) fn new() -> Result<Metrics> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| -> Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let histogram = |name: &str, help: &str| -> Result<HistogramOpts> {
            // From a millisecond to 16 seconds.
            let buckets = prometheus::exponential_buckets(0.001, 2.0, 15)?;
            Ok(HistogramOpts::new(name, help).buckets(buckets))
        };
        let seconds = HistogramVec::new(
            histogram(
                "coxswain_chaos_operation_seconds",
                "Time from the call to the acknowledgement of operations, by workload and operation.",
            )?,
            &["workload", "operation"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let failover = HistogramVec::new(
            histogram(
                "coxswain_chaos_failover_seconds",
                "Longest time in which nothing came about after each fault that hit the leader, by what: an \
             acknowledged write, the binding of a pod, the reconciliation of a Deployment.",
            )?,
            &["what"],
        )?;
        registry.register(Box::new(failover.clone()))?;
        Ok(Metrics {
            operations: counter(
                "coxswain_chaos_operations_total",
                "Operations that ended, by workload, operation and outcome.",
                &["workload", "operation", "outcome"],
            )?,
            faults: counter(
                "coxswain_chaos_faults_total",
                "Faults that were injected, by kind.",
                &["fault"],
            )?,
            faults_active: gauge(
                "coxswain_chaos_faults_active",
                "Faults that hit a master which does not answer yet.",
            )?,
            violations: gauge(
                "coxswain_chaos_violations",
                "Promises that were found broken; the run ends with the first.",
            )?,
            checked_revision: gauge(
                "coxswain_chaos_checked_revision",
                "Revision up to which everything was checked.",
            )?,
            seconds,
            failover,
            registry,
        })
    }

    /// An operation has ended, after so many nanoseconds.
    pub(super) fn answered(&self, workload: Kind, operation: &str, outcome: Outcome, took: u64) {
        let workload = workload.to_string();
        self.operations.with_label_values(&[&workload, operation, outcome.name()]).inc();
        if outcome == Outcome::Acknowledged {
            let took = Duration::from_nanos(took).as_secs_f64();
            self.seconds.with_label_values(&[&workload, operation]).observe(took);
        }
    }

    fn text(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Serves them at `/metrics`, until the tasks are ended; where, if the port was 0.
    pub(super) async fn serve(
        &self,
        at: SocketAddr,
        tasks: &mut JoinSet<()>,
    ) -> Result<SocketAddr> {
        ensure!(at.ip().is_loopback(), "--metrics-listen {at}: not a loopback address");
        let listener = TcpListener::bind(at).await;
        let listener = listener.with_context(|| format!("cannot listen on {at}"))?;
        let bound = listener.local_addr()?;
        tasks.spawn(accept(listener, self.clone()));
        Ok(bound)
    }
}

async fn accept(listener: TcpListener, metrics: Metrics) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else { continue };
        let metrics = metrics.clone();
        connections.spawn(async move {
            let service =
                hyper::service::service_fn(move |request| answer(request, metrics.clone()));
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            // Whoever reads broke it off: nothing to do about it.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    metrics: Metrics,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match (request.uri().path(), metrics.text()) {
        ("/metrics", Ok(text)) => (StatusCode::OK, text),
        ("/metrics", Err(error)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n").into_bytes())
        }
        _ => (StatusCode::NOT_FOUND, b"metrics are at /metrics\n".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::chaos::figures::Work;

    #[test]
    fn every_series_is_there_with_its_labels() {
        let metrics = Metrics::new().unwrap();
        metrics.answered(Kind::Register, "write", Outcome::Acknowledged, 3_000_000);
        metrics.answered(Kind::Register, "write", Outcome::Unknown, 9);
        metrics.faults.with_label_values(&["kill"]).inc();
        metrics.failover.with_label_values(&[Work::Writes.name()]).observe(0.5);
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in [
            "coxswain_chaos_operations_total{operation=\"write\",outcome=\"unknown\",workload=\"register\"} 1",
            "coxswain_chaos_operation_seconds_count{operation=\"write\",workload=\"register\"} 1",
            "coxswain_chaos_faults_total{fault=\"kill\"} 1",
            "coxswain_chaos_failover_seconds_count{what=\"write\"} 1",
            "coxswain_chaos_violations 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

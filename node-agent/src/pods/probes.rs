//! Startup, liveness and readiness probes of one running container: a task that looks and reports
//! what changed.

use super::{check::Target, events::Events};
use k8s_openapi::api::core::v1::{Pod, Probe};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// What the probes found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) container: String,
    pub(crate) container_id: String,
    pub(crate) news: News,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Started,
    Ready(bool),
    /// It must be killed; the text says why.
    Condemned(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn lower(self) -> &'static str {
        match self {
            Kind::Startup => "startup",
            Kind::Liveness => "liveness",
            Kind::Readiness => "readiness",
        }
    }
}

/// One container being probed.
pub(crate) struct Prober {
    pub(crate) target: Target,
    pub(crate) pod: Arc<Pod>,
    pub(crate) events: Events,
    pub(crate) findings: mpsc::Sender<Finding>,
}

impl Prober {
    /// Ends when the container is condemned or nothing is left to look at; otherwise never.
    pub(crate) async fn run(self) {
        let container = self.target.container.clone();
        let started = Instant::now();
        if let Some(probe) = &container.startup_probe
            && !self.until_started(probe, started).await
        {
            return;
        }
        self.report(News::Started).await;
        let readiness = async {
            match &container.readiness_probe {
                Some(probe) => self.watch(Kind::Readiness, probe, started).await,
                None => self.report(News::Ready(true)).await,
            }
        };
        let liveness = async {
            if let Some(probe) = &container.liveness_probe {
                self.watch(Kind::Liveness, probe, started).await;
            }
        };
        tokio::join!(readiness, liveness);
    }

    async fn until_started(&self, probe: &Probe, started: Instant) -> bool {
        let mut count = Count::new(probe);
        self.first_look(probe, started).await;
        loop {
            match count.add(self.look(Kind::Startup, probe).await) {
                Some(true) => return true,
                Some(false) => {
                    self.condemn(Kind::Startup).await;
                    return false;
                }
                None => tokio::time::sleep(period(probe)).await,
            }
        }
    }

    async fn watch(&self, kind: Kind, probe: &Probe, started: Instant) {
        let mut count = Count::new(probe);
        let mut last = None;
        self.first_look(probe, started).await;
        loop {
            let verdict = count.add(self.look(kind, probe).await);
            if kind == Kind::Liveness && verdict == Some(false) {
                return self.condemn(kind).await;
            }
            if kind == Kind::Readiness && verdict.is_some() && verdict != last {
                last = verdict;
                self.report(News::Ready(verdict == Some(true))).await;
            }
            tokio::time::sleep(period(probe)).await;
        }
    }

    async fn first_look(&self, probe: &Probe, started: Instant) {
        let delay = probe.initial_delay_seconds.unwrap_or(0).max(0).unsigned_abs();
        tokio::time::sleep_until(started + Duration::from_secs(delay.into())).await;
    }

    async fn look(&self, kind: Kind, probe: &Probe) -> bool {
        let seconds = probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs();
        let timeout = Duration::from_secs(seconds.into());
        let target = &self.target;
        let result = if let Some(action) = &probe.exec {
            within(timeout, target.exec(action)).await.map_err(|why| match why {
                Some(why) => why,
                None => format!("command timed out after {seconds}s"),
            })
        } else if let Some(action) = &probe.http_get {
            named(within(timeout, target.http(action)).await)
        } else if let Some(action) = &probe.tcp_socket {
            named(within(timeout, target.tcp(action)).await)
        } else if let Some(action) = &probe.grpc {
            named(within(timeout, target.grpc(action)).await)
        } else {
            Ok(())
        };
        let Err(why) = result else { return true };
        let mut name = kind.lower().to_string();
        name[..1].make_ascii_uppercase();
        let message = format!("{name} probe failed: {why}");
        let container = &self.target.container.name;
        self.events.container(&self.pod, container, true, "Unhealthy", message);
        false
    }

    async fn condemn(&self, kind: Kind) {
        let name = &self.target.container.name;
        let why = format!("Container {name} failed {} probe, will be restarted", kind.lower());
        self.report(News::Condemned(why)).await;
    }

    async fn report(&self, news: News) {
        let finding = Finding {
            container: self.target.container.name.clone(),
            container_id: self.target.container_id.clone(),
            news,
        };
        // A worker that is gone wants no news.
        let _ = self.findings.send(finding).await;
    }
}

fn period(probe: &Probe) -> Duration {
    Duration::from_secs(probe.period_seconds.unwrap_or(10).max(1).unsigned_abs().into())
}

/// `Err(None)` when the time is over.
async fn within(
    timeout: Duration,
    work: impl Future<Output = Result<(), String>>,
) -> Result<(), Option<String>> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result.map_err(Some),
        Err(_) => Err(None),
    }
}

fn named(result: Result<(), Option<String>>) -> Result<(), String> {
    result.map_err(|why| why.unwrap_or_else(|| "context deadline exceeded".to_string()))
}

/// Results in a row until a threshold is reached.
struct Count {
    run: i32,
    last: Option<bool>,
    success: i32,
    failure: i32,
}

impl Count {
    fn new(probe: &Probe) -> Count {
        Count {
            run: 0,
            last: None,
            success: probe.success_threshold.unwrap_or(1).max(1),
            failure: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }

    /// The verdict, once enough equal results have come.
    fn add(&mut self, ok: bool) -> Option<bool> {
        self.run = if self.last == Some(ok) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(ok);
        let threshold = if ok { self.success } else { self.failure };
        (self.run >= threshold).then_some(ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_results_in_a_row() {
        let probe =
            Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let mut count = Count::new(&probe);
        let results = [true, true, false, false, true, false, false, false, true, true];
        let verdicts: String = results
            .iter()
            .map(|ok| match count.add(*ok) {
                None => '.',
                Some(true) => 'y',
                Some(false) => 'n',
            })
            .collect();
        assert_eq!(verdicts, ".y.....n.y");
    }
}

//! Latencies of one measurement, and the JSON line that reports them.

use crate::cli::output;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Runs `clients` copies of a loop for `time`; each call of `step` is one operation. The first error
/// ends the measurement: a figure over failed operations means nothing.
pub(super) async fn measure<S, F>(
    clients: Vec<S>,
    time: Duration,
    step: F,
) -> anyhow::Result<Figures>
where
    S: Send + 'static,
    F: AsyncStep<S>,
{
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let mut step = step.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut count = 0_u64;
            while started.elapsed() < time {
                let before = Instant::now();
                step.step(&mut client, number, count).await?;
                latencies.push(before.elapsed());
                count += 1;
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(result) = tasks.join_next().await {
        latencies.extend(result??);
    }
    Ok(Figures::new(latencies, started.elapsed()))
}

/// One operation of a benchmark, made by client `number` for the `count`th time.
pub(super) trait AsyncStep<S>: Clone + Send + 'static {
    fn step(
        &mut self,
        client: &mut S,
        number: usize,
        count: u64,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Latencies, sorted, and how long it took to gather them.
pub(super) struct Figures {
    latencies: Vec<Duration>,
    took: Duration,
}

impl Figures {
    pub(super) fn new(mut latencies: Vec<Duration>, took: Duration) -> Figures {
        latencies.sort_unstable();
        Figures { latencies, took }
    }

    /// Measurements of the same, taken together.
    pub(super) fn all<'a>(parts: impl Iterator<Item = &'a Figures>) -> Figures {
        let (mut latencies, mut took) = (Vec::new(), Duration::ZERO);
        for part in parts {
            latencies.extend(&part.latencies);
            took += part.took;
        }
        Figures::new(latencies, took)
    }

    pub(super) fn count(&self) -> usize {
        self.latencies.len()
    }

    pub(super) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        let index = (self.latencies.len() * percent / 100).min(self.latencies.len().max(1) - 1);
        self.latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }

    /// Prints `{"bench": …, "ops_per_second": …, "p50_ms": …, …}` with the extra fields.
    pub(super) fn report(&self, bench: &str, extra: Value) {
        let round = |number: f64| (number * 1000.0).round() / 1000.0;
        let mut line = json!({
            "bench": bench,
            "operations": self.latencies.len(),
            "ops_per_second": round(self.per_second()),
            "p50_ms": round(self.percentile_ms(50)),
            "p99_ms": round(self.percentile_ms(99)),
            "max_ms": round(self.percentile_ms(100)),
            "machine": machine(),
        });
        if let (Some(line), Value::Object(extra)) = (line.as_object_mut(), extra) {
            line.extend(extra);
        }
        output::say(&line.to_string());
    }
}

/// Prints a figure that is not a latency.
pub(super) fn note(bench: &str, extra: Value) {
    let mut line = json!({"bench": bench, "machine": machine()});
    if let (Some(line), Value::Object(extra)) = (line.as_object_mut(), extra) {
        line.extend(extra);
    }
    output::say(&line.to_string());
}

/// What a reader must know to compare two figures.
pub(in crate::cli) fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    json!({"cores": cores, "cpu": cpu.map(|(_, name)| name), "profile": profile})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_hundred_latencies() {
        let latencies = (1..=100).map(Duration::from_millis).collect();
        let figures = Figures::new(latencies, Duration::from_secs(1));
        assert_eq!(figures.percentile_ms(50), 51.0);
        assert_eq!(figures.percentile_ms(99), 100.0);
        assert_eq!(figures.percentile_ms(100), 100.0);
    }
}

//! Two sets of figures side by side, as a table for people or lines of JSON.

use crate::cli::{
    bench::figures::{self, Figures},
    output,
};
use serde_json::{Value, json};

/// One measurement of one of the two.
pub(super) struct Measured {
    pub(super) figures: Figures,
    /// Of its members' processes, meanwhile.
    pub(super) cpu_seconds: f64,
}

/// The same measured of both, in turns.
pub(super) struct Comparison {
    name: &'static str,
    clients: usize,
    pub(super) ours: Vec<Measured>,
    pub(super) etcds: Vec<Measured>,
}

/// All rounds of one side.
struct Side {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    cpu_us: f64,
}

impl Side {
    fn of(rounds: &[Measured]) -> Side {
        let all = Figures::all(rounds.iter().map(|round| &round.figures));
        let cpu: f64 = rounds.iter().map(|round| round.cpu_seconds).sum();
        Side {
            per_second: all.per_second(),
            p50_ms: all.percentile_ms(50),
            p99_ms: all.percentile_ms(99),
            max_ms: all.percentile_ms(100),
            cpu_us: cpu * 1e6 / all.count().max(1) as f64,
        }
    }

    fn json(&self) -> Value {
        json!({
            "ops_per_second": round(self.per_second),
            "p50_ms": round(self.p50_ms),
            "p99_ms": round(self.p99_ms),
            "max_ms": round(self.max_ms),
            "server_cpu_us_per_op": round(self.cpu_us),
        })
    }
}

fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

impl Comparison {
    pub(super) fn new(name: &'static str, clients: usize) -> Comparison {
        Comparison { name, clients, ours: Vec::new(), etcds: Vec::new() }
    }

    /// Failovers are compared by how long they last, all else by how much is done in a time.
    fn is_wait(&self) -> bool {
        self.name == "failover"
    }

    /// Ours by etcd's: over all rounds, and of each round.
    fn ratios(&self) -> (f64, Vec<f64>) {
        let of = |ours: &Side, etcds: &Side| match self.is_wait() {
            true => ours.p50_ms / etcds.p50_ms,
            false => ours.per_second / etcds.per_second,
        };
        let rounds = self.ours.iter().zip(&self.etcds).map(|(ours, etcds)| {
            of(&Side::of(std::slice::from_ref(ours)), &Side::of(std::slice::from_ref(etcds)))
        });
        (of(&Side::of(&self.ours), &Side::of(&self.etcds)), rounds.collect())
    }

    /// Prints it as JSON, or says on stderr how far the comparison is.
    pub(super) fn told(self, as_json: bool) -> Comparison {
        let (ratio, rounds) = self.ratios();
        match as_json {
            true => figures::note(
                &format!("etcd_{}", self.name),
                json!({
                    "clients": self.clients,
                    "coxswain": Side::of(&self.ours).json(),
                    "etcd": Side::of(&self.etcds).json(),
                    "ratio": round(ratio),
                    "ratio_of_rounds": rounds.iter().copied().map(round).collect::<Vec<_>>(),
                }),
            ),
            false => {
                let (name, clients) = (self.name, self.clients);
                output::warn(&format!("bench: {name}, {clients} clients: {ratio:.2} times etcd"));
            }
        }
        self
    }

    fn row(&self) -> Vec<String> {
        let (ours, etcds) = (Side::of(&self.ours), Side::of(&self.etcds));
        let (ratio, rounds) = self.ratios();
        let lowest = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = rounds.iter().copied().fold(0.0, f64::max);
        let rate = |side: &Side| match self.is_wait() {
            true => "-".to_string(),
            false => format!("{:.0}", side.per_second),
        };
        let cpu = |side: &Side| match self.is_wait() {
            true => "-".to_string(),
            false => format!("{:.0}", side.cpu_us),
        };
        let times = |side: &Side| format!("{:.2} / {:.2}", side.p50_ms, side.p99_ms);
        vec![
            self.name.to_string(),
            self.clients.to_string(),
            rate(&ours),
            rate(&etcds),
            format!("{ratio:.2}"),
            format!("{lowest:.2}-{highest:.2}"),
            times(&ours),
            times(&etcds),
            cpu(&ours),
            cpu(&etcds),
        ]
    }
}

/// All of it.
pub(super) fn table(done: &[Comparison]) -> String {
    let header = [
        "FIGURE",
        "CLIENTS",
        "COXSWAIN/S",
        "ETCD/S",
        "RATIO",
        "OF ROUNDS",
        "P50/P99 MS",
        "ETCD P50/P99",
        "CPU US/OP",
        "ETCD CPU",
    ];
    let rows: Vec<_> = done.iter().map(Comparison::row).collect();
    output::table(&header, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn measured(operations: usize, took_ms: u64, latency_ms: u64) -> Measured {
        let latencies = vec![Duration::from_millis(latency_ms); operations];
        let figures = Figures::new(latencies, Duration::from_millis(took_ms));
        Measured { figures, cpu_seconds: 0.1 }
    }

    #[test]
    fn ratios_are_ours_by_etcds() {
        let mut puts = Comparison::new("put", 64);
        puts.ours = vec![measured(300, 1000, 1), measured(300, 1000, 1)];
        puts.etcds = vec![measured(100, 1000, 2), measured(200, 1000, 2)];
        assert_eq!(puts.ratios(), (2.0, vec![3.0, 1.5]));
        let mut kills = Comparison::new("failover", 1);
        kills.ours = vec![measured(1, 100, 100)];
        kills.etcds = vec![measured(1, 1000, 1000)];
        assert_eq!(kills.ratios(), (0.1, vec![0.1]));
        let text = table(&[puts, kills]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "put        64        300          150      2.00    1.50-3.00   1.00 / 1.00       \
             2.00 / 2.00         333         667"
        );
        assert!(lines[2].starts_with("failover   1         -            -        0.10"));
    }
}

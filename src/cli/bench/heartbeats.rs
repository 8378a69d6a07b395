//! `coxswain bench heartbeats`: what the heartbeats of many nodes cost three masters, in log entries,
//! processor time and memory.

use super::{
    api::{OwnCluster, body, expect},
    figures::{self, Figures},
    process::{cpu_seconds, resident_bytes},
};
use crate::cli::{
    client::{Connection, Target},
    members, output,
};
use anyhow::{Context, Result};
use http::Method;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Measure the heartbeats of simulated nodes on three masters started for the occasion
#[derive(clap::Args)]
pub(super) struct Args {
    /// Nodes that renew their Leases
    #[arg(long, default_value_t = 100_000)]
    nodes: usize,

    /// Seconds between two renewals of a node, as kubelets have it
    #[arg(long, default_value_t = 10)]
    interval: u64,

    /// Rounds of renewals that are measured
    #[arg(long, default_value_t = 3)]
    rounds: u32,

    /// Connections the nodes share
    #[arg(long, default_value_t = 50)]
    clients: usize,

    /// Port for the masters that are started
    #[arg(long, default_value_t = 16443)]
    api_port: u16,
}

/// Within which masters show in their metrics what their logs have come to.
const SHOWN_AFTER: Duration = Duration::from_secs(2);
/// How often is looked whether the masters have come to rest.
const LOOKS_MAX: u32 = 60;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

pub(super) async fn run(args: Args) -> Result<()> {
    let own = OwnCluster::start(args.api_port).await?;
    let target = Target::of_masters(Some(&own.kubeconfig()))?;
    let result = Bench { target, args }.run().await;
    own.stop().await?;
    result
}

struct Bench {
    target: Target,
    args: Args,
}

/// What the masters have used so far, together.
struct Used {
    cpu_seconds: f64,
    resident_bytes: Vec<u64>,
}

impl Bench {
    async fn run(&self) -> Result<()> {
        let began = Instant::now();
        self.all(Step::Register, Duration::ZERO).await?;
        let seconds = began.elapsed().as_secs_f64();
        figures::note("heartbeats_register", json!({"nodes": self.args.nodes, "seconds": seconds}));
        let end_before = self.log_at_rest().await?;
        let before = self.used().await?;
        let (mut latencies, began) = (Vec::new(), Instant::now());
        for round in 1..=self.args.rounds {
            output::warn(&format!("bench: round {round} of {}", self.args.rounds));
            let interval = Duration::from_secs(self.args.interval);
            latencies.extend(self.all(Step::Renew { round }, interval).await?);
        }
        let took = began.elapsed();
        let after = self.used().await?;
        let end_after = self.log_end().await?;
        let cpu = after.cpu_seconds - before.cpu_seconds;
        let extra = json!({
            "nodes": self.args.nodes,
            "interval_seconds": self.args.interval,
            "log_entries": end_after - end_before,
            "masters_cpu_cores": cpu / took.as_secs_f64(),
            "masters_resident_bytes": after.resident_bytes,
        });
        Figures::new(latencies, took).report("heartbeats_renew", extra);
        Ok(())
    }

    /// One step of every node, evenly over `interval`, or as fast as it goes where that is longer.
    async fn all(&self, step: Step, interval: Duration) -> Result<Vec<Duration>> {
        let mut clients = JoinSet::new();
        let (count, nodes) = (self.args.clients, self.args.nodes);
        for client in 0..count {
            let server = &self.target.servers[client % self.target.servers.len()];
            let mut connection = Connection::open(server, self.target.tls.clone()).await?;
            clients.spawn(async move {
                let mut latencies = Vec::new();
                let began = Instant::now();
                for node in (client..nodes).step_by(count) {
                    let due = interval.mul_f64(node as f64 / nodes as f64);
                    tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
                    let sent = Instant::now();
                    step.of(&mut connection, node).await?;
                    latencies.push(sent.elapsed());
                }
                tokio::time::sleep(interval.saturating_sub(began.elapsed())).await;
                anyhow::Ok(latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(client) = clients.join_next().await {
            latencies.extend(client??);
        }
        Ok(latencies)
    }

    async fn used(&self) -> Result<Used> {
        let mut used = Used { cpu_seconds: 0.0, resident_bytes: Vec::new() };
        for member in members::ask(&self.target).await? {
            let pid = members::local_pid(&member)?;
            used.cpu_seconds += cpu_seconds(pid)?;
            used.resident_bytes.push(resident_bytes(pid)?);
        }
        Ok(used)
    }

    /// The end of the log, once nothing is written any more: what registering nodes brings about goes on for
    /// a moment, and is none of the heartbeats'.
    async fn log_at_rest(&self) -> Result<u64> {
        let mut end = self.log_end().await?;
        for _ in 0..LOOKS_MAX {
            let later = self.log_end().await?;
            if later == end {
                return Ok(end);
            }
            end = later;
        }
        anyhow::bail!("the masters still write {LOOKS_MAX} looks after the nodes were registered")
    }

    /// The end of the leader's log, with all that was in it when this was asked.
    async fn log_end(&self) -> Result<u64> {
        tokio::time::sleep(SHOWN_AFTER).await;
        let mut end = 0;
        for server in &self.target.servers {
            let mut connection = Connection::open(server, self.target.tls.clone()).await?;
            let (_, text) =
                expect(200, connection.call(Method::GET, "/metrics", Vec::new()).await?)?;
            let text = String::from_utf8_lossy(&text);
            let index =
                text.lines().find_map(|line| line.strip_prefix("coxswain_raft_last_log_index "));
            let index = index.context("a master tells the end of its log")?.parse::<f64>()?;
            end = end.max(index as u64);
        }
        Ok(end)
    }
}

/// What a node does.
#[derive(Clone, Copy)]
enum Step {
    Register,
    Renew { round: u32 },
}

impl Step {
    async fn of(self, connection: &mut Connection, node: usize) -> Result<()> {
        let name = format!("node-{node}");
        let time =
            |second: u32| format!("2026-01-01T00:{:02}:{:02}.000000Z", second / 60, second % 60);
        let lease = |time: String| {
            json!({
                "metadata": {"name": name},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": time},
            })
        };
        match self {
            Step::Register => {
                let made = connection.call(Method::POST, LEASES, body(&lease(time(0)))).await?;
                expect(201, made)?;
            }
            Step::Renew { round } => {
                let patch = json!({"spec": {"renewTime": time(round)}});
                let path = format!("{LEASES}/{name}");
                expect(200, connection.call(Method::PATCH, &path, body(&patch)).await?)?;
            }
        }
        Ok(())
    }
}

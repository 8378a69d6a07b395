//! `coxswain bench etcd`: three masters and three members of etcd on this machine, both on the same
//! disk with fsync, driven in turns by the same client of etcd's API; how they compare.

mod caller;
mod clusters;
mod load;
mod report;

use super::process;
use crate::cli::{output, stop_signal};
use anyhow::{Context as _, Result, ensure};
use clusters::{Cluster, Etcd, Masters};
use report::Comparison;
use std::{path::PathBuf, time::Duration};

/// Compare with etcd: both are started, driven in turns by the same client; ratios are printed
#[derive(clap::Args)]
pub(super) struct Args {
    /// The program to compare with: a path, or a name on PATH
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,

    /// Where both keep their data, on the disk that is to be measured (default: the directory for
    /// temporary files)
    #[arg(long)]
    data_dir: Option<PathBuf>,

    /// What is compared
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Figure::ALL)]
    figures: Vec<Figure>,

    /// Numbers of concurrent clients; for the watch, of watchers
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256, 1000])]
    clients: Vec<usize>,

    /// Connections that the clients share, spread over all members
    #[arg(long, default_value_t = 96)]
    connections: usize,

    /// Seconds for each figure of each of the two in each round
    #[arg(long, default_value_t = 3)]
    seconds: u64,

    /// How often both are measured, in turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// How often the leader of each is killed
    #[arg(long, default_value_t = 5)]
    kills: usize,

    /// Encrypt between the members of etcd too, as is always done between masters
    #[arg(long)]
    etcd_peer_tls: bool,

    /// First of the ports that are used, all on loopback
    #[arg(long, default_value_t = 17443)]
    api_port: u16,

    /// Print a line of JSON for each figure instead of a table
    #[arg(long)]
    json: bool,
}

/// One thing to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Figure {
    /// Puts of 1 KiB
    Put,
    /// Creates as kube-apiserver does them: a transaction that compares, puts, or reads
    Create,
    /// Four linearizable reads for each put
    Mixed,
    /// Linearizable reads of one key
    Range,
    /// Puts that every watcher sees
    Watch,
    /// From the leader's kill to the first write that is acknowledged
    Failover,
}

impl Figure {
    const ALL: [Figure; 6] = [
        Figure::Put,
        Figure::Create,
        Figure::Mixed,
        Figure::Range,
        Figure::Watch,
        Figure::Failover,
    ];

    fn name(self) -> &'static str {
        match self {
            Figure::Put => "put",
            Figure::Create => "create",
            Figure::Mixed => "mixed",
            Figure::Range => "range",
            Figure::Watch => "watch",
            Figure::Failover => "failover",
        }
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

pub(super) async fn run(args: Args) -> Result<()> {
    ensure!(args.connections > 0 && args.rounds > 0 && args.seconds > 0, "nothing to do");
    let version = clusters::etcd_version(&args.etcd).await?;
    let parent = args.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let directory = parent.join(format!("coxswain-bench-etcd-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    output::warn(&format!("bench: {version}, data in {}", directory.display()));
    clusters::warn_of_memory(&directory);
    let result = tokio::select! {
        result = both(&args, &directory) => result,
        signal = stop_signal() => signal,
    };
    // What is left after an error says why.
    if result.is_ok() {
        std::fs::remove_dir_all(&directory)?;
    }
    result
}

/// Starts both, compares, and stops both whatever happened.
async fn both(args: &Args, directory: &std::path::Path) -> Result<()> {
    let mut masters = Masters::start(args.api_port, &directory.join("coxswain")).await?;
    // Beyond the ports of the masters.
    let ports = args.api_port + 400;
    let etcd = Etcd::start(&args.etcd, &directory.join("etcd"), ports, args.etcd_peer_tls).await;
    let result = match etcd {
        Err(error) => Err(error),
        Ok(mut etcd) => {
            let result = compare(args, &mut masters, &mut etcd).await;
            etcd.stop().await.and(result)
        }
    };
    masters.stop().await.and(result)
}

async fn compare(args: &Args, masters: &mut Masters, etcd: &mut Etcd) -> Result<()> {
    let mut done = Vec::new();
    for &figure in &args.figures {
        if figure == Figure::Failover {
            let one = failovers(args, masters, etcd).await?;
            done.push(one.told(args.json));
            continue;
        }
        for &clients in &args.clients {
            let mut one = Comparison::new(figure.name(), clients);
            for round in 0..args.rounds {
                // Whoever comes second may find the machine warm or the disk busy: not always the same.
                for turn in 0..2 {
                    if (round + turn) % 2 == 0 {
                        one.ours.push(measure(args, figure, clients, &*masters, round).await?);
                    } else {
                        one.etcds.push(measure(args, figure, clients, &*etcd, round).await?);
                    }
                }
            }
            done.push(one.told(args.json));
        }
    }
    if !args.json {
        output::say(&report::table(&done));
    }
    Ok(())
}

async fn measure(
    args: &Args,
    figure: Figure,
    clients: usize,
    cluster: &dyn Cluster,
    round: usize,
) -> Result<report::Measured> {
    let (mut endpoints, connections) = (cluster.endpoints(), args.connections.min(clients));
    // Few clients are at few members, and how far it is from there to the leader counts: each is the first in turn.
    let first = round % endpoints.len().max(1);
    endpoints.rotate_left(first);
    let time = Duration::from_secs(args.seconds);
    let pids = cluster.pids().await?;
    let before = cpu_seconds(&pids)?;
    let figures = match figure {
        Figure::Watch => {
            let channels = load::connect(&endpoints, connections).await?;
            load::watch(&channels, clients, time).await
        }
        _ => {
            let work = move || async move {
                let callers = load::callers(&endpoints, connections).await?;
                load::keys(figure, &callers, clients, time, round).await
            };
            on_one_thread(work).await
        }
    };
    let figures = figures.with_context(|| format!("{}: {figure}", cluster.name()))?;
    let after = cpu_seconds(&pids)?;
    Ok(report::Measured { figures, cpu_seconds: after - before })
}

/// On several threads, waking each other would be most of what the clients cost; and they share the machine with
/// what they measure.
async fn on_one_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let thread = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    });
    thread.await?
}

/// What all members have used so far, together.
fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    pids.iter().copied().map(process::cpu_seconds).sum()
}

async fn failovers(args: &Args, masters: &mut Masters, etcd: &mut Etcd) -> Result<Comparison> {
    let mut one = Comparison::new(Figure::Failover.name(), 1);
    for _ in 0..args.kills {
        one.ours.push(load::failover(masters).await?);
        one.etcds.push(load::failover(etcd).await?);
    }
    Ok(one)
}

//! The command line: one file per verb, one word in the list.

pub(crate) mod client;
pub(crate) mod output;
pub(crate) mod token;

mod agent;
mod authentication;
mod authorities;
mod authority_rotation;
mod backup;
mod bench;
mod certs;
mod chaos;
pub(crate) mod dev;
mod disk;
mod etcd_door;
mod exchange;
mod exchanging;
mod joining;
mod machine;
mod members;
mod pinned;
mod rebuilding;
mod replace;
mod restore;
mod secrets;
mod server;
mod standing;
mod status;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Kubernetes' control plane as one binary, replicated by its own Raft log.
#[derive(Parser)]
#[command(name = "coxswain", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to log: a level, or directives such as `info,raft_store=debug`
    #[arg(
        long,
        global = true,
        default_value = "info,openraft=error,hickory_server=warn",
        env = "COXSWAIN_LOG"
    )]
    log: String,

    /// How to log
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Verb {
    Agent(agent::Args),
    #[command(subcommand)]
    Backup(backup::Args),
    Bench(bench::Args),
    #[command(subcommand)]
    Certs(certs::Args),
    Chaos(chaos::Args),
    Dev(dev::Args),
    #[command(hide = true)]
    Machine(machine::Args),
    #[command(hide = true)]
    Disk(disk::Args),
    Members(members::Args),
    Replace(replace::Args),
    Restore(restore::Args),
    #[command(subcommand)]
    Secrets(secrets::Args),
    Server(Box<server::Args>),
    Status(status::Args),
    #[command(subcommand)]
    Token(token::Args),
}

impl Cli {
    pub(crate) fn run(self) -> Result<()> {
        let filter = EnvFilter::try_new(&self.log)?;
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => subscriber.with_ansi(false).init(),
            LogFormat::Json => subscriber.json().init(),
        }
        // The first provider installed wins; there is one in the whole program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        match self.verb {
            Verb::Agent(args) => block_on(agent::run(args)),
            Verb::Backup(args) => block_on(backup::run(args)),
            Verb::Bench(args) => block_on(bench::run(args)),
            Verb::Certs(args) => certs::run(args),
            Verb::Chaos(args) => block_on(chaos::run(args)),
            Verb::Dev(args) => block_on(dev::run(args)),
            // Forks before it starts anything: no runtime here.
            Verb::Machine(args) => machine::run(&args),
            Verb::Disk(args) => disk::run(&args),
            Verb::Members(args) => block_on(members::run(args)),
            Verb::Replace(args) => block_on(replace::run(args)),
            Verb::Restore(args) => block_on(restore::run(args)),
            Verb::Secrets(args) => block_on(secrets::run(args)),
            Verb::Server(args) => block_on(server::run(*args)),
            Verb::Status(args) => block_on(status::run(args)),
            Verb::Token(args) => block_on(token::run(args)),
        }
    }
}

/// The exit code of a command that failed: 1, or 2 for a check that could not be made.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.is::<chaos::NotShown>() {
        true => ExitCode::from(2),
        false => ExitCode::FAILURE,
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // Nothing of ours may hold up the end of the process; what must be durable already is.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// Ends on SIGINT or SIGTERM.
pub(crate) async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

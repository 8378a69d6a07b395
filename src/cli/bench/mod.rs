//! `coxswain bench`: figures as JSON lines, with the machine they were measured on.

mod api;
mod etcd;
pub(super) mod figures;
mod heartbeats;
mod large;
mod process;
mod store;

use anyhow::Result;

/// Measure this machine: JSON lines on stdout, one per figure
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Api(api::Args),
    Etcd(etcd::Args),
    Heartbeats(heartbeats::Args),
    Large(large::Args),
    Store(store::Args),
}

pub(super) async fn run(args: Args) -> Result<()> {
    match args.what {
        What::Api(args) => api::run(args).await,
        What::Etcd(args) => etcd::run(args).await,
        What::Heartbeats(args) => heartbeats::run(args).await,
        What::Large(args) => large::run(args).await,
        What::Store(args) => store::run(args).await,
    }
}

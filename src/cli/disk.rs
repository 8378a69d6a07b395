//! `coxswain disk`: the disk of one master of a development cluster, which can be made to fail.

use anyhow::Result;
use std::path::PathBuf;

/// One disk of a development cluster (used by `coxswain dev`)
#[derive(clap::Args)]
pub(super) struct Args {
    /// The directory that becomes it; what it holds stays
    directory: PathBuf,

    /// Where it takes orders
    socket: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    crate::dev::disk::run(&args.directory, &args.socket)
}

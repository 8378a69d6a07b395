//! `coxswain dev`: a highly available cluster on this machine.

use anyhow::Result;
use std::path::PathBuf;

/// Run masters and nodes as separate processes on this machine, until Ctrl-C
#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// How many masters: 1, 3 or 5
    #[arg(long, default_value_t = 3)]
    pub(crate) masters: u8,

    /// How many nodes; each runs real containers in its own network namespace and needs root
    #[arg(long, default_value_t = 2)]
    pub(crate) nodes: u8,

    /// Give each master a network of its own also without nodes, so that `coxswain chaos` can cut it
    /// off; needs root
    #[arg(long)]
    pub(crate) isolate: bool,

    /// Put each master's data on a disk that `coxswain chaos` can make fail, or cut the power of; needs
    /// root and /dev/fuse
    #[arg(long)]
    pub(crate) faulty_disks: bool,

    /// Give each master a wall clock that `coxswain chaos` can make jump; needs libfaketime
    #[arg(long)]
    pub(crate) faulty_clocks: bool,

    /// Where everything of the cluster is kept (default: ~/.local/share/coxswain/dev)
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,

    /// Keep the data when the cluster stops, and start from what is there
    #[arg(long)]
    pub(crate) keep: bool,

    /// Where to write the kubeconfig (default: DATA_DIR/kubeconfig)
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Port on 127.0.0.1 that leads to any healthy master; master N is at this port + N
    #[arg(long, default_value_t = 6443)]
    pub(crate) api_port: u16,

    /// Serve etcd's API too: master N at this port + N on 127.0.0.1; only without nodes
    #[arg(long)]
    pub(crate) etcd_port: Option<u16>,
}

pub(super) async fn run(args: Args) -> Result<()> {
    crate::dev::run(args).await
}

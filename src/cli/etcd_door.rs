//! Flags of `coxswain server` that open etcd's API on it.

use anyhow::{Context as _, Result};
use etcd_door::{Config, Door};
use raft_store::{OwnTls, Store};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[derive(clap::Args)]
pub(super) struct EtcdArgs {
    /// Where to serve etcd's API, for programs built on etcd; off if not given. Without TLS on
    /// loopback, otherwise for client certificates of the organization coxswain:etcd
    #[arg(long)]
    etcd_listen: Option<SocketAddr>,
}

impl EtcdArgs {
    /// Serves it, if it is asked for, until `shutdown`.
    pub(super) async fn serve(
        &self,
        store: &Store,
        (tls, data_dir): (OwnTls, &Path),
        shutdown: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        let Some(listen) = self.etcd_listen else { return Ok(()) };
        let tls = (!listen.ip().is_loopback()).then_some(tls);
        let data_dir = Some(PathBuf::from(data_dir));
        let door = Door::open(Config { store: store.clone(), listen, tls, data_dir })
            .await
            .context("--etcd-listen")?;
        let shutdown = shutdown.clone();
        tasks.spawn(async move { door.serve(shutdown).await });
        Ok(())
    }
}

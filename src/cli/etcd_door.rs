//! Flags of `coxswain server` that open etcd's API on it, and the certificates it is given.

use anyhow::{Context, Result};
use etcd_door::{Config, Door};
use raft_store::Store;
use std::{
    fs,
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
        (pki, data_dir): (&Path, &Path),
        shutdown: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        let Some(listen) = self.etcd_listen else { return Ok(()) };
        let tls = match listen.ip().is_loopback() {
            true => None,
            false => Some(tls(pki)?),
        };
        let data_dir = Some(PathBuf::from(data_dir));
        let door = Door::open(Config { store: store.clone(), listen, tls, data_dir })
            .await
            .context("--etcd-listen")?;
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            if let Err(error) = door.serve(shutdown).await {
                tracing::error!(%error, "etcd's API is not served any more");
            }
        });
        Ok(())
    }
}

fn tls(pki: &Path) -> Result<etcd_door::Tls> {
    let read = |name: &str| {
        let path = pki.join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(etcd_door::Tls {
        client_ca: read("ca.crt")?,
        cert: read("apiserver.crt")?,
        key: read("apiserver.key")?,
    })
}

//! `coxswain agent`: one node. Dials any master; keeps its pods running when none answers.

use super::stop_signal;
use ::chaos::scenario::duration;
use anyhow::Result;
use std::{net::IpAddr, path::PathBuf, time::Duration};
use tokio_util::sync::CancellationToken;

/// Run a node agent
#[derive(clap::Args)]
pub(super) struct Args {
    /// Name of this node
    #[arg(long)]
    name: String,

    /// Address of this node, as masters and other nodes reach it
    #[arg(long)]
    address: IpAddr,

    /// Where images, volumes and what a restart must remember are kept
    #[arg(long)]
    data_dir: PathBuf,

    /// Directory with ca.crt, and client and server certificates and keys
    #[arg(long)]
    pki: PathBuf,

    /// Masters to dial first, comma-separated https://HOST:PORT; any of them leads to all
    #[arg(long, value_delimiter = ',', required = true)]
    masters: Vec<String>,

    /// Addresses of services
    #[arg(long, default_value = "10.96.0.0/16")]
    service_cidr: String,

    /// Addresses of pods
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: String,

    /// Address of cluster DNS, answered on every node
    #[arg(long, default_value = "10.96.0.10")]
    cluster_dns: IpAddr,

    /// Domain of cluster DNS
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,

    /// How often this node says that it is alive
    #[arg(long, default_value = "10s", value_parser = duration)]
    lease_renew_interval: Duration,

    /// OCI or docker archives to import at start
    #[arg(long)]
    import_image: Vec<PathBuf>,

    /// Program with runc's command line to run containers with, instead of the built-in runtime
    #[arg(long)]
    oci_runtime: Option<PathBuf>,

    /// Port of the kubelet API
    #[arg(long, default_value_t = 10250)]
    kubelet_port: u16,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let shutdown = CancellationToken::new();
    let config = node_agent::Config {
        node_name: args.name,
        node_ip: args.address,
        masters: args.masters,
        ca: args.pki.join("ca.crt"),
        client_cert: args.pki.join("client.crt"),
        client_key: args.pki.join("client.key"),
        server_cert: args.pki.join("server.crt"),
        server_key: args.pki.join("server.key"),
        data_dir: args.data_dir,
        service_cidr: args.service_cidr,
        cluster_cidr: args.cluster_cidr,
        cluster_dns: args.cluster_dns,
        cluster_domain: args.cluster_domain,
        lease_renew_interval: args.lease_renew_interval,
        images: args.import_image,
        oci_runtime: args.oci_runtime,
        kubelet_port: args.kubelet_port,
    };
    let agent = node_agent::run(config, shutdown.clone());
    tokio::pin!(agent);
    tokio::select! {
        result = &mut agent => return result,
        signal = stop_signal() => signal?,
    }
    shutdown.cancel();
    agent.await
}

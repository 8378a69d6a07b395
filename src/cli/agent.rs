//! `coxswain agent`: one node. Dials any master; keeps its pods running when none answers. The first
//! time it may come with a token instead of certificates.

use super::{pinned, stop_signal, token::JoinToken};
use crate::pki;
use ::chaos::scenario::duration;
use anyhow::{Context as _, Result, bail};
use node_agent::certificates::{self, Standing};
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

    /// Directory with ca.crt, and client and server certificates and keys, which are renewed in it
    /// (default: DATA_DIR/pki)
    #[arg(long)]
    pki: Option<PathBuf>,

    /// Masters to dial first, comma-separated https://HOST:PORT; any of them leads to all (default: those
    /// of --join)
    #[arg(long, value_delimiter = ',', required_unless_present = "join")]
    masters: Vec<String>,

    /// Join the cluster of these masters, comma-separated https://HOST:PORT: ask them for certificates
    /// with --token; `coxswain token create --node` prints the line. With a good client certificate in
    /// --pki the token is not looked at again
    #[arg(long, value_delimiter = ',')]
    join: Vec<String>,

    /// Token to join with, as `coxswain token create --node` prints it
    #[arg(long, env = "COXSWAIN_JOIN_TOKEN", hide_env_values = true)]
    token: Option<JoinToken>,

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
    let pki = args.pki.unwrap_or_else(|| args.data_dir.join("pki"));
    let masters = if args.masters.is_empty() { args.join.clone() } else { args.masters };
    let config = node_agent::Config {
        node_name: args.name,
        node_ip: args.address,
        masters,
        ca: pki.join("ca.crt"),
        client_cert: pki.join("client.crt"),
        client_key: pki.join("client.key"),
        server_cert: pki.join("server.crt"),
        server_key: pki.join("server.key"),
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
    tokio::select! {
        certified = get_certificate(&config, &args.join, args.token.as_ref()) => certified?,
        signal = stop_signal() => return signal,
    }
    let agent = node_agent::run(config, shutdown.clone());
    tokio::pin!(agent);
    tokio::select! {
        result = &mut agent => return result,
        signal = stop_signal() => signal?,
    }
    shutdown.cancel();
    agent.await
}

/// Sees to it that there is a good client certificate, if need be with the token.
async fn get_certificate(
    config: &node_agent::Config,
    join: &[String],
    token: Option<&JoinToken>,
) -> Result<()> {
    let path = config.client_cert.display();
    let standing = certificates::standing(config).with_context(|| path.to_string())?;
    let why = match standing {
        Standing::Good => return note_another_cluster(config, token),
        Standing::Missing => format!("there is no client certificate at {path}"),
        Standing::Unusable(why) => format!("the client certificate at {path} is of no use: {why}"),
    };
    let (Some(token), false) = (token, join.is_empty()) else {
        bail!(
            "{why}; run `coxswain token create --node` where there is a kubeconfig, and start this agent \
             with --join and --token as it prints them"
        );
    };
    tracing::info!("{why}: asking for one with the token");
    let ca = pinned::authority(join, token.ca_hash).await?;
    certificates::join(config, &ca, &token.bearer()).await?;
    Ok(())
}

/// The token is not needed, but somebody may have meant it.
fn note_another_cluster(config: &node_agent::Config, token: Option<&JoinToken>) -> Result<()> {
    let ca = std::fs::read(&config.ca).with_context(|| config.ca.display().to_string())?;
    if token.is_some_and(|token| pki::hash_of_pem(&ca).ok() != Some(token.ca_hash)) {
        tracing::warn!(
            ca = %config.ca.display(),
            "the token is of another CA than this node's certificates, which stay in use; to join another \
             cluster, remove the directory they are in"
        );
    }
    Ok(())
}

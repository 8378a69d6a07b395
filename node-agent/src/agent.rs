//! Puts the agent together and runs it.

use crate::{
    authority::Authorities,
    certificates::{self, Clock, Keeper, Place, Shown, Wanted},
    client::{self, Client, Identity, Trust},
    images::Images,
    joined::Joined,
    kubelet::{self, Kubelet},
    metrics::Metrics,
    net::{self, Cidr, Network},
    node::{self, Node},
    pods::{Context, Dns, Events, Library, Manager, PodNetwork, Table},
    runtime::{Embedded, Runtime, Settings},
};
use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use k8s::Api;
use prometheus::Registry;
use sha2::{Digest, Sha256};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// What makes one node different from another.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    /// As masters and other nodes reach it.
    pub node_ip: IpAddr,
    /// `https://HOST:PORT`, at least one.
    pub masters: Vec<String>,
    /// PEM files: the cluster's CA, the certificate `system:node:NAME`, and the one for 10250, which may
    /// be missing at first. Both are renewed in place.
    pub ca: PathBuf,
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
    pub server_cert: PathBuf,
    pub server_key: PathBuf,
    /// Everything the agent keeps is below it.
    pub data_dir: PathBuf,
    pub service_cidr: String,
    pub cluster_cidr: String,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    pub lease_renew_interval: Duration,
    /// OCI or docker archives to import at start.
    pub images: Vec<PathBuf>,
    /// A program with runc's command line; libcontainer if `None`.
    pub oci_runtime: Option<PathBuf>,
    pub kubelet_port: u16,
}

/// Runs the agent until `shutdown`. Its pods keep running: the next agent finds them.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let registry = Registry::new();
    let place = certificates::place(&config);
    let own = place.open().context("client certificate")?;
    let own = own.with_context(|| format!("no client certificate: {}", place.cert.display()))?;
    let authorities = Authorities::open(config.ca.clone()).context("CA certificate")?;
    let mut dialling =
        client::Config::new(config.masters.clone(), Trust::Newest(authorities.clone()));
    let shown = own.newest();
    dialling.own = Some(Identity::Newest(shown.clone()));
    // Its fields are managed by `kubelet`, whom tools know to leave alone.
    dialling.user_agent = concat!("kubelet/coxswain-", env!("CARGO_PKG_VERSION")).into();
    dialling.metrics = Some(client::Metrics::register(&registry)?);
    let client = Client::new(dialling)?;
    let api: Arc<dyn Api> = Arc::new(client.clone());
    let network = start_network(&config, &api, &registry).await?;
    let clock: Clock = Arc::new(Timestamp::now);
    let keeper = Keeper {
        api: api.clone(),
        wanted: Wanted::client(&config.node_name),
        place,
        pair: Some(own),
        shown: Arc::default(),
        metrics: certificates::Metrics::client(&registry, &clock)?,
        authorities: authorities.clone(),
        clock,
        on_new: Box::new({
            let client = client.clone();
            move || client.redial()
        }),
    };
    let keeping = authorities.clone().keep(client.clone(), shown);
    let agent = Agent { config, api, network, registry, program: None, authorities };
    tokio::select! {
        ended = agent.run(shutdown) => ended,
        never = client.follow_masters() => match never {},
        never = keeper.keep() => match never {},
        never = keeping => match never {},
    }
}

/// Kills the pods of the node whose data is in `data_dir` and undoes their mounts, so that the
/// directory can be removed. No agent may be running on it.
pub fn sweep(data_dir: &Path, node_name: &str) -> Result<(), crate::runtime::Error> {
    let doing = || data_dir.display().to_string();
    let data_dir = std::path::absolute(data_dir)
        .map_err(|source| crate::runtime::Error::Io { doing: doing(), source })?;
    crate::pods::remove_volumes(&data_dir);
    Embedded::sweep(settings(&data_dir, node_name))
}

fn settings(data_dir: &Path, node_name: &str) -> Settings {
    // Two clusters on one machine may have nodes of the same name.
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let own: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    Settings {
        data_dir: data_dir.to_path_buf(),
        cgroup_parent: format!("/coxswain/{node_name}-{own}"),
        program: None,
        oci_runtime: None,
    }
}

/// An agent with its API and network chosen by the caller.
pub struct Agent {
    pub config: Config,
    pub api: Arc<dyn Api>,
    pub network: Arc<dyn PodNetwork>,
    pub registry: Registry,
    /// The program that answers to `shim` and `oci`; this one if `None`.
    pub program: Option<PathBuf>,
    /// Whom callers of the kubelet API must have a certificate of.
    pub authorities: Arc<Authorities>,
}

impl Agent {
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Agent { config, api, network, registry, program, authorities } = self;
        let metrics = Metrics::register(&registry)?;
        let data_dir = std::path::absolute(&config.data_dir)?;
        std::fs::create_dir_all(&data_dir).with_context(|| data_dir.display().to_string())?;
        let images = Arc::new(Images::open(data_dir.join("images"))?);
        let mut settings = settings(&data_dir, &config.node_name);
        settings.program = program;
        settings.oci_runtime = config.oci_runtime.clone();
        let runtime: Arc<dyn Runtime> = Arc::new(Embedded::new(settings)?);
        let events = Events::new(api.clone(), config.node_name.clone());
        let table = Table::default();

        let keeper = serving(&config, &api, &registry, &authorities)?;
        let (listener, tls) = listen(&config, authorities, keeper.shown.clone()).await?;
        let kubelet = Kubelet {
            table: table.clone(),
            runtime: runtime.clone(),
            registry,
            log_root: data_dir.join("logs"),
            node_name: config.node_name.clone(),
            pods_max: node::PODS_MAX,
            looks: kubelet::Looks::default(),
        };
        let capacity = node::capacity();
        let node = Node {
            api: api.clone(),
            name: config.node_name.clone(),
            ip: config.node_ip,
            kubelet_port: config.kubelet_port,
            data_dir: data_dir.clone(),
            capacity,
            images: images.clone(),
            network: network.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
            lease_interval: config.lease_renew_interval,
        };
        let context = Arc::new(Context {
            library: Library::new(api.clone()),
            api,
            runtime,
            images: images.clone(),
            network,
            events,
            metrics,
            node_name: config.node_name,
            node_ip: config.node_ip,
            data_dir,
            dns: Dns { server: config.cluster_dns.to_string(), domain: config.cluster_domain },
            capacity,
            started: tokio::time::Instant::now(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(kubelet.serve(listener, tls, shutdown.clone()));
        tasks.spawn(async move { match keeper.keep().await {} });
        tasks.spawn(node.run());
        let archives = config.images;
        tasks.spawn(async move {
            // Before any pod: an image that is about to be here need not be pulled.
            import(images, archives).await;
            Manager::new(context, table).run().await;
        });
        until_over(tasks, shutdown).await
    }
}

/// Until the end is asked for, or a part dies. Nothing of the agent is left then: who comes next finds
/// the port free.
async fn until_over(mut tasks: JoinSet<()>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = tasks.join_next() => match ended {
            // The server ends with `shutdown` only.
            Ok(()) => Ok(()),
            Err(error) => Err(error).context("a part of the agent died"),
        },
    };
    tasks.shutdown().await;
    ended
}

/// Of the certificate that the kubelet API is served with. The one before it must have been of use.
fn serving(
    config: &Config,
    api: &Arc<dyn Api>,
    registry: &Registry,
    authorities: &Arc<Authorities>,
) -> anyhow::Result<Keeper> {
    let place = Place { cert: config.server_cert.clone(), key: config.server_key.clone() };
    let clock: Clock = Arc::new(Timestamp::now);
    Ok(Keeper {
        api: api.clone(),
        wanted: Wanted::serving(&config.node_name, config.node_ip),
        pair: place.open().context("certificate of the kubelet API")?,
        place,
        shown: Arc::default(),
        metrics: certificates::Metrics::server(registry, &clock)?,
        authorities: authorities.clone(),
        clock,
        on_new: Box::new(|| {}),
    })
}

async fn listen(
    config: &Config,
    callers: Arc<Authorities>,
    own: Arc<Shown>,
) -> anyhow::Result<(TcpListener, Arc<rustls::ServerConfig>)> {
    let tls = kubelet::tls_config(callers, own)?;
    let address = SocketAddr::new(config.node_ip, config.kubelet_port);
    let listener = TcpListener::bind(address).await.with_context(|| address.to_string())?;
    Ok((listener, Arc::new(tls)))
}

async fn import(images: Arc<Images>, archives: Vec<PathBuf>) {
    for archive in archives {
        let (images, path) = (images.clone(), archive.clone());
        let imported = tokio::task::spawn_blocking(move || images.import(&path)).await;
        match imported {
            Ok(Ok(names)) => tracing::info!(?names, "imported"),
            Ok(Err(error)) => tracing::error!(archive = %archive.display(), %error, "not imported"),
            Err(error) => tracing::error!(%error, "import died"),
        }
    }
}

async fn start_network(
    config: &Config,
    api: &Arc<dyn Api>,
    registry: &Registry,
) -> anyhow::Result<Arc<dyn PodNetwork>> {
    let v4 = |address: IpAddr| match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => bail!("{address}: IPv6 is not supported yet"),
    };
    let cidr = |text: &str| text.parse::<Cidr>().map_err(|why| anyhow!("{text}: {why}"));
    let own = net::Config {
        node_name: config.node_name.clone(),
        node_ip: v4(config.node_ip)?,
        data_dir: config.data_dir.clone(),
        cluster_cidr: cidr(&config.cluster_cidr)?,
        service_cidr: cidr(&config.service_cidr)?,
        cluster_dns: v4(config.cluster_dns)?,
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: Some(PathBuf::from("/etc/resolv.conf")),
    };
    Ok(Arc::new(Joined(Network::start(own, api.clone(), registry).await?)))
}

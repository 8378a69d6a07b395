//! One node's network: pod addresses and links, routes to other nodes' pods, the service proxy and
//! cluster DNS, all in the network namespace in which it is started.

mod cidr;
mod ipam;
mod link;
mod namespace;
mod routes;
mod world;

#[cfg(test)]
pub(crate) use namespace::in_fresh;
pub(crate) use namespace::inside;

pub use cidr::Cidr;
pub use ipam::{HostPort, Lease, Protocol};
pub use link::GATEWAY;
pub use routes::{Node, Routes, routes};

#[cfg(test)]
mod lab;
#[cfg(test)]
mod tests;

use crate::{
    dns,
    proxy::{self, Frame, Place, Proxy},
};
use ipam::Addresses;
use k8s::Api;
use prometheus::Registry;
use rtnetlink::Handle;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use world::Shared;

/// How long a new pod waits for its node to be given a pod network.
const POD_CIDR_WAIT: Duration = Duration::from_secs(10);
/// Routes are compared with the kernel's this often even if no node changed: someone may have
/// flushed them.
const ROUTES_INTERVAL: Duration = Duration::from_secs(30);
/// Pause before rules that the kernel refused are tried again.
const PROXY_RETRY: Duration = Duration::from_secs(1);
/// Changes that come this close together make one transaction: a rollout changes slices in bursts.
const PROXY_GATHER: Duration = Duration::from_millis(5);

/// Why the network cannot be set up, or a pod not be joined to it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("netlink socket")]
    Netlink(#[source] io::Error),
    #[error("packet filter (nf_tables)")]
    PacketFilter(#[source] io::Error),
    #[error(transparent)]
    Link(#[from] link::Error),
    #[error("cluster DNS on {address}")]
    Dns {
        address: Ipv4Addr,
        #[source]
        source: io::Error,
    },
    #[error("metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("node has no pod network yet (spec.podCIDR)")]
    NoPodCidr,
    #[error("no free address in {0}")]
    Full(Cidr),
}

/// What the network of a node is made from.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    /// The node's address on the link it shares with the others.
    pub node_ip: Ipv4Addr,
    /// Addresses are remembered under `network/` here.
    pub data_dir: PathBuf,
    /// All pods of all nodes; what a pod sends elsewhere leaves under the node's address.
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    /// In `service_cidr`; every node answers on it itself.
    pub cluster_dns: Ipv4Addr,
    /// `cluster.local`
    pub cluster_domain: String,
    /// Where the nameservers for names outside the cluster are read from; `None`: there are none.
    pub resolv_conf: Option<PathBuf>,
}

/// A running network. Ends when dropped: links, routes and rules stay, so that pods keep talking
/// while the agent restarts; DNS stops answering.
pub struct Network {
    pods: PodNetwork,
    _tasks: JoinSet<()>,
}

impl Network {
    /// Prepares the calling thread's network namespace and keeps it as the cluster wants it. All
    /// threads of the process must be in that namespace.
    pub async fn start(
        config: Config,
        api: Arc<dyn Api>,
        registry: &Registry,
    ) -> Result<Network, Error> {
        let mut tasks = JoinSet::new();
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
        tasks.spawn(connection);
        let local = vec![config.cluster_dns];
        let (node_ip, service_cidr) = (config.node_ip, config.service_cidr);
        link::prepare_host(&handle, &link::HostNetwork { node_ip, service_cidr, local }).await?;

        let shared = Shared::new();
        for watch in shared.follow(&api) {
            tasks.spawn(watch);
        }
        let pods = PodNetwork::open(&config, handle.clone(), shared.clone())?;
        tasks.spawn(keep_routes(handle, shared.clone(), config.node_name.clone()));

        let frame = Frame { cluster_cidr: config.cluster_cidr, service_cidr };
        let metrics = proxy::Metrics::register(registry)?;
        let proxy = Proxy::open(frame, metrics).map_err(Error::PacketFilter)?;
        let synced = watch::Sender::new(false);
        let proxy_synced = synced.subscribe();
        tasks.spawn(keep_rules(proxy, shared.clone(), pods.clone(), config.clone(), synced));

        let zone = dns::SharedZone::new(&config.cluster_domain);
        let fail = |source| Error::Dns { address: config.cluster_dns, source };
        let upstream = match &config.resolv_conf {
            Some(path) => dns::nameservers(path, config.cluster_dns),
            None => Vec::new(),
        };
        let metrics = dns::Metrics::register(registry)?;
        let server = dns::Server::bind(config.cluster_dns, zone.clone(), upstream, metrics);
        tasks.spawn(server.await.map_err(fail)?.serve());
        tasks.spawn(keep_zone(zone, shared, config.cluster_domain));
        let pods = PodNetwork { proxy_synced, ..pods };
        Ok(Network { pods, _tasks: tasks })
    }

    /// Joins pods to the network.
    pub fn pods(&self) -> PodNetwork {
        self.pods.clone()
    }
}

/// Gives pods their address and link.
#[derive(Clone)]
pub struct PodNetwork {
    node_name: Arc<str>,
    node_ip: Ipv4Addr,
    cluster_cidr: Cidr,
    addresses: Arc<Mutex<Addresses>>,
    handle: Handle,
    shared: Shared,
    proxy_synced: watch::Receiver<bool>,
}

impl PodNetwork {
    fn open(config: &Config, handle: Handle, shared: Shared) -> Result<PodNetwork, Error> {
        let directory = config.data_dir.join("network");
        let file = directory.join("addresses.json");
        let fail = |source| Error::File { path: file.clone(), source };
        fs::create_dir_all(&directory).map_err(fail)?;
        Ok(PodNetwork {
            node_name: config.node_name.as_str().into(),
            node_ip: config.node_ip,
            cluster_cidr: config.cluster_cidr,
            addresses: Arc::new(Mutex::new(Addresses::open(file.clone()).map_err(fail)?)),
            handle,
            shared,
            proxy_synced: watch::Sender::new(false).subscribe(),
        })
    }

    /// This node's part of the pod network; `None` until a controller has assigned it.
    pub fn pod_cidr(&self) -> Option<Cidr> {
        self.shared.read().nodes.get(&*self.node_name)?.pod_cidr
    }

    /// Pods can be joined and services reached: what the node's Ready condition asks.
    pub fn is_ready(&self) -> bool {
        self.pod_cidr().is_some() && *self.proxy_synced.borrow()
    }

    /// Joins the pod whose network namespace is pinned at `namespace`; `pod` is any id that is the
    /// pod's alone (its uid). Idempotent; a pod keeps its address until [`PodNetwork::detach`].
    pub async fn attach(
        &self,
        pod: &str,
        namespace: &Path,
        host_ports: Vec<HostPort>,
    ) -> Result<Ipv4Addr, Error> {
        let cidr = self.wait_for_cidr().await?;
        let has_ports = !host_ports.is_empty();
        let id = pod.to_string();
        let given = self.with_addresses(move |all| all.allocate(cidr, &id, &host_ports)).await?;
        let address = given.ok_or(Error::Full(cidr))?;
        link::attach(&self.handle, &link_name(pod), namespace, address, self.node_ip).await?;
        if has_ports {
            self.shared.touch();
        }
        Ok(address)
    }

    /// Takes the pod's link and address away; nothing happens if it has none.
    pub async fn detach(&self, pod: &str) -> Result<(), Error> {
        link::detach(&self.handle, &link_name(pod)).await?;
        let id = pod.to_string();
        let lease = self.with_addresses(move |all| all.release(&id)).await?;
        if lease.is_some_and(|lease| !lease.host_ports.is_empty()) {
            self.shared.touch();
        }
        Ok(())
    }

    /// The pod's address, if it has one.
    pub fn address(&self, pod: &str) -> Option<Ipv4Addr> {
        self.lock().pods().get(pod).map(|lease| lease.address)
    }

    /// Detaches every pod that is not in `living`: after a restart, those that ended meanwhile.
    pub async fn retain(&self, living: &BTreeSet<String>) -> Result<(), Error> {
        let known: Vec<String> = self.lock().pods().keys().cloned().collect();
        for pod in known.iter().filter(|pod| !living.contains(*pod)) {
            self.detach(pod).await?;
        }
        Ok(())
    }

    async fn wait_for_cidr(&self) -> Result<Cidr, Error> {
        let mut changed = self.shared.subscribe();
        let wait = async {
            loop {
                if let Some(cidr) = self.pod_cidr() {
                    return cidr;
                }
                // The sender lives in `self`.
                let _ = changed.changed().await;
            }
        };
        timeout(POD_CIDR_WAIT, wait).await.map_err(|_| Error::NoPodCidr)
    }

    /// Writing the table down waits for the disk, so it has a thread of its own.
    async fn with_addresses<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Addresses) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let addresses = self.addresses.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(&mut addresses.lock().unwrap_or_else(PoisonError::into_inner))
        });
        let path = || PathBuf::from("network/addresses.json");
        done.await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|source| Error::File { path: path(), source })
    }

    fn host_ports(&self) -> BTreeMap<Ipv4Addr, Vec<HostPort>> {
        let addresses = self.lock();
        let leases = addresses.pods().values().filter(|lease| !lease.host_ports.is_empty());
        leases.map(|lease| (lease.address, lease.host_ports.clone())).collect()
    }

    fn place(&self) -> Place {
        Place {
            node: self.node_name.to_string(),
            cluster_cidr: self.cluster_cidr,
            host_ports: self.host_ports(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node's end of a pod's link; the kernel allows 15 bytes.
fn link_name(pod: &str) -> String {
    let digest = Sha256::digest(pod.as_bytes());
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("cx{hex}")
}

/// Routes to the other nodes' pods, for ever.
async fn keep_routes(handle: Handle, shared: Shared, own: String) {
    let mut changed = shared.subscribe();
    let mut refused = None;
    let mut set: Option<Routes> = None;
    loop {
        // Services wake it too; then the kernel is not asked again.
        let periodic = timeout(ROUTES_INTERVAL, changed.changed()).await.is_err();
        let (wanted, cidr) = {
            let world = shared.read();
            if !world.nodes_complete {
                continue;
            }
            let cidr = world.nodes.get(&own).and_then(|node| node.pod_cidr);
            (routes(world.nodes.values(), &own), cidr)
        };
        if let Some(cidr) = cidr.filter(|cidr| refused != Some(*cidr)) {
            match link::refuse_unused(&handle, cidr).await {
                Ok(()) => refused = Some(cidr),
                Err(error) => tracing::warn!(%error, "pod network"),
            }
        }
        if !periodic && set.as_ref() == Some(&wanted) {
            continue;
        }
        match routes::reconcile(&handle, &wanted).await {
            Ok(changes) => {
                tracing::debug!(changes, routes = wanted.len(), "routes to other nodes");
                set = Some(wanted);
            }
            Err(error) => {
                tracing::warn!(%error, "routes to other nodes");
                set = None;
            }
        }
    }
}

/// The packet filter's rules, for ever.
async fn keep_rules(
    proxy: Proxy,
    shared: Shared,
    pods: PodNetwork,
    config: Config,
    synced: watch::Sender<bool>,
) {
    let proxy = Arc::new(Mutex::new(proxy));
    let mut changed = shared.subscribe();
    loop {
        if changed.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(PROXY_GATHER).await;
        changed.mark_unchanged();
        if !shared.read().services_complete() {
            continue;
        }
        let (proxy, shared, place) = (proxy.clone(), shared.clone(), pods.place());
        let sync = tokio::task::spawn_blocking(move || {
            let world = shared.read();
            let mut proxy = proxy.lock().unwrap_or_else(PoisonError::into_inner);
            proxy.sync(&world.services, &place)
        });
        match sync.await.map_err(io::Error::other).flatten() {
            Ok(applied) => {
                tracing::debug!(?applied, "service rules");
                synced.send_replace(true);
            }
            Err(error) => {
                tracing::error!(%error, node = config.node_name, "service rules refused");
                tokio::time::sleep(PROXY_RETRY).await;
                changed.mark_changed();
            }
        }
    }
}

/// The names that DNS answers, for ever.
async fn keep_zone(zone: dns::SharedZone, shared: Shared, domain: String) {
    let mut changed = shared.subscribe();
    loop {
        if changed.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(PROXY_GATHER).await;
        changed.mark_unchanged();
        let shared = shared.clone();
        let domain = domain.clone();
        let built = tokio::task::spawn_blocking(move || {
            let world = shared.read();
            world.services_complete().then(|| dns::Zone::build(&world.services, &domain))
        });
        if let Ok(Some(built)) = built.await {
            zone.replace(built);
        }
    }
}

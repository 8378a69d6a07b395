//! Every built-in controller, one file each, and what runs them. They know the `Api` trait and the
//! world in the cache; they never touch HTTP or Raft.

use k8s::Api;
use prometheus::Registry;
use reconcile::{CacheBuilder, Controller, Gate, KindInfo, Runner};
use std::net::SocketAddr;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod backends;
#[cfg(test)]
mod backends_tests;
mod catching_up;
mod ownership;
mod pods;
pub mod scheduler;
#[cfg(test)]
mod testing;

pub use catching_up::History;

macro_rules! controllers {
    ($($module:ident)*) => {
        $(mod $module;)*

        /// Every controller whose plan is made for one root at a time.
        pub fn all() -> Vec<Controller> {
            vec![$($module::CONTROLLER),*]
        }
    };
}

// Sorted; adding a controller is one file and one word here.
controllers! {
    cluster_role_aggregation
    deployment
    disruption
    endpoints
    endpoint_slice
    garbage_collector
    kubernetes_service
    namespace
    node_ipam
    node_lifecycle
    pod_gc
    pv_protection
    pvc_protection
    replica_set
    replication_controller
    root_ca
    service_account
}

/// What the controllers are told by whoever starts them.
#[derive(Clone)]
pub struct Config {
    /// Every kind the server has that can be listed and watched: what the garbage collector and the
    /// namespace controller look through. Events are left out: they own nothing and are many.
    pub kinds: Vec<KindInfo>,
    /// Kinds that users define, as they come and go.
    pub custom_kinds: watch::Receiver<Vec<KindInfo>>,
    /// Where pods get their addresses from: `10.244.0.0/16`.
    pub cluster_cidr: String,
    /// Size of each node's part of it.
    pub node_cidr_mask: u8,
    /// How long a node may be silent before it counts as unreachable. Upstream: 40 s.
    pub node_monitor_grace_period: Duration,
    /// Finished pods kept in the whole cluster. Upstream: 12500.
    pub terminated_pod_threshold: usize,
    /// The certificates pods verify the API server with, as they are now; PEM.
    pub ca_cert_pem: watch::Receiver<String>,
    /// As whom pods are given their nodes; `None`: nobody does that here.
    pub scheduler: Option<Arc<dyn Api>>,
    /// Where the API is served, of each master that is up: the endpoints of Service `kubernetes`.
    pub api_addresses: watch::Receiver<Vec<SocketAddr>>,
    /// Heartbeats of nodes that are not written to their Leases.
    pub heartbeats: Heartbeats,
    /// How a new leader knows that its cache shows what was written before; `None`: it does not ask.
    pub history: Option<Arc<dyn History>>,
}

/// A fact of the world: how long ago a heartbeat of a node (by name) was last heard by any master;
/// `None`: not known.
#[derive(Clone)]
pub struct Heartbeats(pub Arc<AgeOf>);

type AgeOf = dyn Fn(&str) -> Option<Duration> + Send + Sync;

impl Default for Heartbeats {
    fn default() -> Heartbeats {
        Heartbeats(Arc::new(|_| None))
    }
}

impl Config {
    /// Upstream's defaults, for one API address.
    pub fn new(kinds: Vec<KindInfo>, api_address: SocketAddr) -> Config {
        // The value outlives its sender.
        let (_, api_addresses) = watch::channel(vec![api_address]);
        let (_, custom_kinds) = watch::channel(Vec::new());
        let (_, ca_cert_pem) = watch::channel(String::new());
        Config {
            kinds,
            custom_kinds,
            cluster_cidr: "10.244.0.0/16".to_string(),
            node_cidr_mask: 24,
            node_monitor_grace_period: Duration::from_secs(40),
            terminated_pod_threshold: 12_500,
            ca_cert_pem,
            scheduler: None,
            api_addresses,
            heartbeats: Heartbeats::default(),
            history: None,
        }
    }
}

/// The part of [`Config`] that plans read as a fact of the world.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) cluster_cidr: String,
    pub(crate) node_cidr_mask: u8,
    pub(crate) node_monitor_grace_period: Duration,
    pub(crate) terminated_pod_threshold: usize,
}

/// A fact of the world: where the API is served now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ApiAddresses(pub(crate) Vec<SocketAddr>);

/// A fact of the world: the certificates pods verify the API server with now; PEM.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RootCa(pub(crate) String);

impl Config {
    fn settings(&self) -> Settings {
        Settings {
            cluster_cidr: self.cluster_cidr.clone(),
            node_cidr_mask: self.node_cidr_mask,
            node_monitor_grace_period: self.node_monitor_grace_period,
            terminated_pod_threshold: self.terminated_pod_threshold,
        }
    }
}

/// Runs every controller and the scheduler in one cache, and returns after `shutdown`. Everywhere the
/// cache is kept warm; plans are made and writes go out only where and while the gate is open.
pub async fn run(
    api: Arc<dyn Api>,
    gate: Gate,
    config: Config,
    registry: &Registry,
    shutdown: CancellationToken,
) {
    let controllers = all();
    let (addresses, root_ca) = (config.api_addresses.clone(), config.ca_cert_pem.clone());
    let cache = CacheBuilder::new(api.clone(), registry)
        .controllers(&controllers)
        .kinds(config.kinds.iter().copied().filter(|kind| kind.plural != "events"))
        .passing(config.custom_kinds.clone())
        .fact(config.settings())
        .fact(ApiAddresses(addresses.borrow().clone()))
        .fact(RootCa(root_ca.borrow().clone()))
        .fact(config.heartbeats.clone());
    let (cache, scheduling) = match config.scheduler {
        None => (cache, None),
        Some(api) => {
            let (cache, inbox) = scheduler::Inbox::of(cache);
            (cache, Some((api, inbox)))
        }
    };
    let cache = cache.build();
    let mut tasks = JoinSet::new();
    let gate = match config.history {
        Some(history) => catching_up::behind(gate, cache.clone(), history, &mut tasks, &shutdown),
        None => gate,
    };
    let mut runner = Runner::new(cache.clone(), gate.clone());
    for controller in controllers {
        runner.add(controller, api.clone());
    }
    let wakers = [kubernetes_service::CONTROLLER, root_ca::CONTROLLER];
    let [of_addresses, of_root_ca] = wakers.map(|controller| runner.waker(controller.name));
    let (watching, stop) = (cache.clone(), shutdown.clone());
    tasks.spawn(async move { watching.run(stop).await });
    tasks.spawn(runner.run(api, shutdown.clone()));
    if let Some((api, inbox)) = scheduling {
        let (cache, registry, stop) = (cache.clone(), registry.clone(), shutdown.clone());
        tasks.spawn(async move {
            scheduler::run_in(cache, inbox, api, gate, &registry, stop).await;
        });
    }
    tasks.spawn(async move {
        let addresses = follow(addresses, |now| {
            cache.set_fact(ApiAddresses(now));
            of_addresses.iter().for_each(|wake| wake());
        });
        let root_ca = follow(root_ca, |now| {
            cache.set_fact(RootCa(now));
            of_root_ca.iter().for_each(|wake| wake());
        });
        tokio::select! {
            () = shutdown.cancelled() => (),
            () = addresses => (),
            () = root_ca => (),
        }
    });
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Ends never.
async fn follow<T: Clone>(mut source: watch::Receiver<T>, changed: impl Fn(T)) {
    while source.changed().await.is_ok() {
        let now = source.borrow_and_update().clone();
        changed(now);
    }
    // Its source is gone: it stays as it is.
    std::future::pending::<()>().await;
}

//! `coxswain server`: a master. The store, the API in front of it, and controllers and scheduler
//! behind the gate that only leadership opens.

use super::{
    authentication::{AuthenticationArgs, keyring},
    authorities::{Authorities, Own},
    authority_rotation,
    backup::Scheduled,
    etcd_door::EtcdArgs,
    exchanging::{self, Exchanging},
    joining::{self, JoinArgs},
    rebuilding, stop_signal,
};
use crate::{
    credentials::{Credentials, names_in},
    dev::fabric::bind_in,
};
use ::chaos::scenario::duration;
use anyhow::{Context, Result, bail};
use apiserver::{
    Identity, Keyring,
    kinds::{KindDef, Verbs},
};
use futures::future::BoxFuture;
use k8s::{Request, Resource, Status, Verb};
use prometheus::Registry;
use raft_store::{Config as StoreConfig, MemberId, OpenError, Peer, Retention, Store, Timers};
use reconcile::Gate;
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long the API is given to finish the requests it has when the master stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Run a master: a member of the Raft group and an API server
#[derive(clap::Args)]
pub(super) struct Args {
    /// Name of this master
    #[arg(long)]
    name: String,

    /// Raft id of this master in a new cluster; never reuse one. One that joins is given its own
    #[arg(long, default_value_t = 0)]
    id: u64,

    /// Where the log and the state are kept
    #[arg(long)]
    data_dir: PathBuf,

    /// Directory with ca, apiserver, peer, kubelet-client and front-proxy certificates and keys, sa.key
    /// and secrets.key
    #[arg(long)]
    pki: PathBuf,

    /// Where to serve the API: ADDRESS:PORT, or ADDRESS:PORT@NETNS for another network namespace
    #[arg(long, required = true)]
    listen: Vec<String>,

    /// Every master of a new cluster, comma-separated: ID=NAME=PEER_ADDRESS=API_ADDRESS
    #[arg(long, value_delimiter = ',', required_unless_present = "join")]
    initial_members: Vec<String>,

    #[command(flatten)]
    joining: JoinArgs,

    /// Raft heartbeat interval in milliseconds; elections start after 4 to 7 of them
    #[arg(long, default_value_t = 50)]
    heartbeat_interval_ms: u64,

    /// Mebibytes that stay free on the disk: with less left, what makes the state grow is refused
    #[arg(long, default_value_t = 512)]
    disk_reserve_mib: u64,

    /// Addresses of services
    #[arg(long, default_value = "10.96.0.0/16")]
    service_cidr: String,

    /// Address of cluster DNS, answered on every node
    #[arg(long, default_value = "10.96.0.10")]
    cluster_dns: IpAddr,

    /// Addresses of pods; each node gets a part
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: String,

    /// How long a node may be silent before it is marked unreachable
    #[arg(long, default_value = "40s", value_parser = duration)]
    node_monitor_grace_period: Duration,

    /// How long pods stay on a node that is not ready or unreachable, unless they say otherwise
    #[arg(long, default_value_t = 300)]
    default_toleration_seconds: i64,

    /// Admission plugins to run besides those that run by default, comma-separated
    #[arg(long, value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,

    /// Admission plugins not to run, comma-separated
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,

    /// Exchange the authorities (ca, peer-ca, front-proxy-ca) before they end, as far as they signed themselves
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    rotate_authorities: bool,

    #[command(flatten)]
    authentication: AuthenticationArgs,

    #[command(flatten)]
    audit: AuditArgs,

    #[command(flatten)]
    backups: Scheduled,

    #[command(flatten)]
    etcd: EtcdArgs,

    /// Part of the requests after which an HTTP/2 client is sent to another master (0 to 0.02)
    #[arg(long, default_value_t = 0.0, value_parser = chance)]
    goaway_chance: f64,

    /// How long requests are answered after the end was announced on /readyz
    #[arg(long, default_value = "0s", value_parser = duration)]
    shutdown_delay_duration: Duration,
}

#[derive(clap::Args)]
struct AuditArgs {
    /// What goes into the audit log: a file with an audit.k8s.io/v1 Policy
    #[arg(long, requires = "audit_log_path")]
    audit_policy_file: Option<PathBuf>,

    /// Where the audit log is written; - is standard output
    #[arg(long, requires = "audit_policy_file")]
    audit_log_path: Option<PathBuf>,

    /// Megabytes before the audit log is rotated
    #[arg(long, default_value_t = 100)]
    audit_log_maxsize: u64,

    /// Rotated audit logs that are kept; 0 keeps all
    #[arg(long, default_value_t = 0)]
    audit_log_maxbackup: usize,

    /// Days after which a rotated audit log is removed; 0 never
    #[arg(long, default_value_t = 0)]
    audit_log_maxage: u64,
}

impl AuditArgs {
    fn open(&self, registry: &Registry) -> Result<Option<Arc<apiserver::audit::Audit>>> {
        let (Some(policy), Some(path)) = (&self.audit_policy_file, &self.audit_log_path) else {
            return Ok(None);
        };
        let text = fs::read(policy).with_context(|| format!("cannot read {}", policy.display()))?;
        let file = apiserver::audit::LogFile {
            path: path.clone(),
            bytes_max: self.audit_log_maxsize << 20,
            backups_max: self.audit_log_maxbackup,
            backup_age_max: Duration::from_secs(self.audit_log_maxage * 24 * 3600),
        };
        Ok(Some(apiserver::audit::Audit::open(&text, file, registry)?))
    }
}

pub(super) async fn run(args: Args) -> Result<()> {
    let Opened { registry, place, keyring, credentials, store } = open_or_rebuild(&args).await?;
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let members = place.members;
    if place.joins {
        spawn_until(&shutdown, &mut tasks, joining::follow(store.clone()));
    }

    let own = Own { server: credentials.server(), kubelet_client: credentials.kubelet_client() };
    let authorities = Authorities::open(&args.pki, own)?;
    let mut config = server_config(&args, &store, &members, &credentials, &registry)?;
    config.keyring = Some(keyring);
    config.believed = authorities.believed();
    let in_use = (&credentials, authorities.believed());
    let exchanging = Exchanging::open(&args.pki, &store, in_use, args.rotate_authorities)?;
    config.exchange = Some(Arc::new(exchanging.clone()));
    let server = apiserver::Server::new(config);
    let (tls, ca_cert_pem) = (authorities.server_tls(), authorities.ca_cert_pem());
    let mutual = credentials.mutual();
    tasks.spawn(credentials.keep(shutdown.clone()));
    tasks.spawn(authorities.keep(shutdown.clone()));
    for address in &args.listen {
        let listener = bind(address).await?;
        let (server, tls, shutdown) = (server.clone(), tls.clone(), shutdown.clone());
        tasks.spawn(async move { server.serve(listener, tls, shutdown).await });
    }
    tracing::info!(name = args.name, id = %place.id, listen = ?args.listen, "serving the API");
    background(&server, &shutdown, &mut tasks);
    let follows = authority_rotation::keep(server.clone(), store.clone(), exchanging);
    spawn_until(&shutdown, &mut tasks, follows);
    args.backups.start(&store, &registry, &shutdown, &mut tasks)?;
    args.etcd.serve(&store, (mutual, &args.data_dir), &shutdown, &mut tasks).await?;
    let gate = gate(&store, &shutdown, &mut tasks);
    tasks.spawn(bootstrap(server.clone(), gate.clone(), args.cluster_dns, shutdown.clone()));
    let led = (gate, ca_cert_pem);
    start_controllers(&args, &members, &store, &server, led, &registry, &shutdown, &mut tasks)?;

    let result = tokio::select! {
        signal = stop_signal() => {
            // While everything here still answers: whoever takes over waits for no lease to run out.
            store.hand_over().await;
            signal
        }
        why = store.stopped() => Err(anyhow::anyhow!("the store has stopped: {why}")),
    };
    tracing::info!("stopping");
    server.announce_end();
    if result.is_ok() {
        tokio::time::sleep(args.shutdown_delay_duration).await;
    }
    shutdown.cancel();
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("some requests did not end within {DRAIN_TIMEOUT:?}; cut");
    }
    store.shutdown().await;
    result
}

fn spawn_until(
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        let _ = shutdown.run_until_cancelled(work).await;
    });
}

/// What the server of every master does besides answering, until `shutdown`.
fn background(server: &apiserver::Server, shutdown: &CancellationToken, tasks: &mut JoinSet<()>) {
    let mut run = |work: fn(apiserver::Server) -> BoxFuture<'static, ()>| {
        spawn_until(shutdown, tasks, work(server.clone()));
    };
    run(|server| Box::pin(async move { server.forget_events().await }));
    run(|server| Box::pin(async move { server.outdate_page_tokens().await }));
    run(|server| Box::pin(async move { server.chores().await }));
    run(|server| Box::pin(async move { server.share_heartbeats().await }));
    run(|server| Box::pin(async move { server.keep_definitions().await }));
    run(|server| Box::pin(async move { server.tend().await }));
    run(|server| Box::pin(async move { server.count_quotas().await }));
}

/// A master as the command line names it.
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) peer: Peer,
}

fn parse_members(args: &Args) -> Result<Vec<Member>> {
    let parse = |text: &String| match text.split('=').collect::<Vec<_>>()[..] {
        [id, name, peer_address, api_address] => {
            let id = id.parse().with_context(|| format!("{text}: {id:?} is no member id"))?;
            let peer = Peer {
                name: name.to_string(),
                peer_address: peer_address.to_string(),
                api_address: api_address.to_string(),
            };
            Ok(Member { id: MemberId(id), peer })
        }
        _ => bail!("{text}: a member is ID=NAME=PEER_ADDRESS=API_ADDRESS"),
    };
    let members = args.initial_members.iter().map(parse).collect::<Result<Vec<_>>>()?;
    if !members.iter().any(|member| member.id.0 == args.id && member.peer.name == args.name) {
        bail!("--id {} --name {} is not among the --initial-members", args.id, args.name);
    }
    Ok(members)
}

/// Which member this master is, and all that it knows of.
struct Place {
    id: MemberId,
    members: Vec<Member>,
    /// The group is there, and has added this member.
    joins: bool,
}

impl Place {
    fn own(&self) -> Result<&Member> {
        self.members.iter().find(|member| member.id == self.id).context("it is among its members")
    }
}

/// Lets this master into the cluster it is told of, if it is in none yet.
async fn place(args: &Args) -> Result<Place> {
    if args.initial_members.is_empty() {
        let own = joining::Own {
            name: &args.name,
            data_dir: &args.data_dir,
            pki: &args.pki,
            listen: &args.listen,
            service_cidr: &args.service_cidr,
        };
        let (id, members) = joining::members(&args.joining, &own).await?;
        return Ok(Place { id: MemberId(id), members, joins: true });
    }
    let mut founders = parse_members(args)?;
    let Some(answer) = joining::remembered(&args.data_dir)? else {
        return Ok(Place { id: MemberId(args.id), members: founders, joins: false });
    };
    // It was one of the founders, and was rebuilt under another id since.
    let own = founders.iter().position(|member| member.id.0 == args.id).context("checked above")?;
    let (id, members) = joining::all(&answer, founders.swap_remove(own).peer)?;
    Ok(Place { id: MemberId(id), members, joins: true })
}

/// What a master starts from.
struct Opened {
    registry: Registry,
    place: Place,
    keyring: Arc<Keyring>,
    credentials: Credentials,
    store: Store,
}

/// Opens the store. One that is damaged becomes that of a new member first.
async fn open_or_rebuild(args: &Args) -> Result<Opened> {
    rebuilding::finish(&args.data_dir)?;
    let file = match open(args).await {
        Ok(opened) => return Ok(opened),
        Err(error) => match error.downcast_ref() {
            Some(OpenError::Damaged { file, .. }) => {
                tracing::error!("{error:#}");
                file.clone()
            }
            _ => return Err(error),
        },
    };
    let place = place(args).await?;
    let damaged = rebuilding::Damaged {
        id: place.id.0,
        peer: &place.own()?.peer,
        data_dir: &args.data_dir,
        pki: &args.pki,
        members: &place.members,
    };
    tokio::select! {
        rebuilt = rebuilding::rebuild(&damaged, &file) => rebuilt?,
        signal = stop_signal() => {
            signal?;
            bail!("stopped before this master was rebuilt");
        }
    }
    open(args).await
}

async fn open(args: &Args) -> Result<Opened> {
    let registry = Registry::new();
    let place = place(args).await?;
    let keyring = keyring(&args.pki)?;
    exchanging::finish(&args.pki)?;
    // Before the store reads its own.
    let credentials = Credentials::open(&args.pki, &registry)?;
    let config = store_config(args, &place, (&keyring, &credentials), &registry)?;
    let opened = Store::open(config).await;
    let removed = matches!(opened, Err(OpenError::Removed { .. }));
    let opened =
        opened.with_context(|| format!("cannot open the store in {}", args.data_dir.display()));
    let store = match removed {
        true => opened.with_context(|| joining::how_to_come_back(&args.data_dir))?,
        false => opened?,
    };
    Ok(Opened { registry, place, keyring, credentials, store })
}

fn store_config(
    args: &Args,
    place: &Place,
    (keyring, credentials): (&Arc<Keyring>, &Credentials),
    registry: &Registry,
) -> Result<StoreConfig> {
    let own = place.own()?;
    let members = &place.members;
    let address = &own.peer.peer_address;
    let heartbeat = Duration::from_millis(args.heartbeat_interval_ms);
    Ok(StoreConfig {
        member: own.id,
        data_dir: args.data_dir.clone(),
        initial_members: members.iter().map(|it| (it.id, it.peer.clone())).collect(),
        joins: place.joins,
        listen: address.parse().with_context(|| format!("{address}: not ADDRESS:PORT"))?,
        tls: credentials.peer(),
        timers: Timers {
            heartbeat,
            election_min: heartbeat * 4,
            election_max: heartbeat * 7,
            ..Timers::default()
        },
        retention: Retention::default(),
        disk: raft_store::Disk {
            reserve: args.disk_reserve_mib << 20,
            ..raft_store::Disk::default()
        },
        seal: keyring.clone(),
        registry: registry.clone(),
    })
}

fn server_config(
    args: &Args,
    store: &Store,
    members: &[Member],
    credentials: &Credentials,
    registry: &Registry,
) -> Result<apiserver::Config> {
    let mut config = apiserver::Config::new(store.clone());
    let cidr = &args.service_cidr;
    config.service_cidr = apiserver::ServiceCidr::parse(cidr)
        .with_context(|| format!("--service-cidr {cidr}: want an IPv4 range from /12 to /28"))?;
    config.advertise_port = api_addresses(members)?.first().map_or(6443, SocketAddr::port);
    config.admission = apiserver::admission::Config::default()
        .plugins(&args.enable_admission_plugins, &args.disable_admission_plugins)?;
    config.admission.default_toleration_seconds = args.default_toleration_seconds;
    config.registry = registry.clone();
    config.api_names = names_in(&args.pki.join("apiserver.crt"))?;
    args.authentication.apply(&args.pki, &mut config)?;
    config.aggregation_client = credentials.proxy_client().map(|own| own as _);
    config.audit = args.audit.open(registry)?;
    config.goaway_chance = args.goaway_chance;
    Ok(config)
}

/// Open while this master leads and holds everything acknowledged before its term.
fn gate(store: &Store, shutdown: &CancellationToken, tasks: &mut JoinSet<()>) -> Gate {
    let mut leadership = store.leadership();
    let (send, receive) = watch::channel(None);
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        let follow = async {
            loop {
                let leading = leadership.borrow_and_update().leading.map(|term| term.0);
                send.send_replace(leading);
                if leadership.changed().await.is_err() {
                    return;
                }
            }
        };
        // The gate closes with its sender.
        tokio::select! {
            () = shutdown.cancelled() => (),
            () = follow => (),
        }
        send.send_replace(None);
    });
    Gate::new(receive)
}

/// Makes what every cluster starts with, at the start of each term: it costs nothing when it is there.
async fn bootstrap(
    server: apiserver::Server,
    mut gate: Gate,
    cluster_dns: IpAddr,
    shutdown: CancellationToken,
) {
    let work = async {
        loop {
            let Some(term) = gate.observe() else {
                gate.changed().await;
                continue;
            };
            let made = async {
                server.bootstrap().await?;
                cluster_dns_service(&server, cluster_dns, gate.fence(term)).await
            };
            let pause = match made.await {
                // Again now and then, so that what was deleted by mistake comes back.
                Ok(()) => Duration::from_secs(60),
                Err(error) => {
                    tracing::warn!(%error, "bootstrap did not finish; trying again");
                    Duration::from_secs(1)
                }
            };
            // The end of a term or the next turn, whichever is first.
            let _ = tokio::time::timeout(pause, gate.changed()).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => (),
        () = work => (),
    }
}

/// The Service under which people look for cluster DNS; every node answers at its address by itself.
async fn cluster_dns_service(
    server: &apiserver::Server,
    address: IpAddr,
    fence: Option<u64>,
) -> Result<(), Status> {
    let service = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": address.to_string(),
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        },
    });
    let services = Resource::new("", "v1", "services");
    let client = server.client(Identity::server());
    let look = Request::get(services.clone(), "kube-system", "kube-dns");
    match client.call(look).await {
        Err(status) if status.is_not_found() => {}
        found => return found.map(|_| ()),
    }
    let mut request = Request::new(Verb::Create, services, "kube-system", "").with_body(service);
    request.fence = fence;
    client.call(request).await.map(|_| ())
}

#[expect(clippy::too_many_arguments, reason = "wires everything to everything, once")]
fn start_controllers(
    args: &Args,
    members: &[Member],
    store: &Store,
    server: &apiserver::Server,
    (gate, ca_cert_pem): (Gate, watch::Receiver<String>),
    registry: &Registry,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<()> {
    let addresses = api_addresses(members)?;
    let mut config = controllers::Config::new(kinds(), addresses[0]);
    config.cluster_cidr = args.cluster_cidr.clone();
    config.node_monitor_grace_period = args.node_monitor_grace_period;
    config.ca_cert_pem = ca_cert_pem;
    let hearing = server.clone();
    config.heartbeats = controllers::Heartbeats(Arc::new(move |node| hearing.heartbeat_age(node)));
    config.custom_kinds = custom_kinds(server, shutdown, tasks);
    config.history = Some(Arc::new(Changes(store.clone())));
    config.api_addresses = reachable_api_addresses(store, addresses, shutdown, tasks);
    let as_user = |user: &str| server.client(Identity::authenticated(user, &[]));
    let manager = as_user("system:kube-controller-manager");
    config.scheduler = Some(as_user("system:kube-scheduler"));
    let (registry, stop, begun) = (registry.clone(), shutdown.clone(), server.clone());
    tasks.spawn(async move {
        // Before that they may neither read nor write.
        if stop.run_until_cancelled(begun.bootstrapped()).await.is_none() {
            return;
        }
        controllers::run(manager, gate, config, &registry, stop).await;
    });
    Ok(())
}

/// Every kind that can be listed and watched, as the controllers want to know it.
fn kinds() -> Vec<reconcile::KindInfo> {
    let stored = |kind: &&KindDef| matches!(kind.verbs, Verbs::All | Verbs::NoDeleteCollection);
    let kinds = apiserver::kinds::BUILT_IN.iter().filter(stored);
    kinds.map(info).collect()
}

/// What a new leader's controllers ask the store about.
struct Changes(Store);

impl controllers::History for Changes {
    fn revision(&self) -> k8s::Revision {
        k8s::Revision(self.0.revision().0)
    }

    fn quiet_until(&self, kind: &reconcile::KindInfo, after: k8s::Revision) -> k8s::Revision {
        let space = apiserver::kinds::space(kind.group, kind.plural);
        k8s::Revision(self.0.quiet_until(&space, raft_store::Revision(after.0)).0)
    }
}

fn info(kind: &KindDef) -> reconcile::KindInfo {
    reconcile::KindInfo {
        group: kind.group,
        version: kind.versions[0],
        plural: kind.plural,
        kind: kind.kind,
        namespaced: kind.namespaced,
    }
}

/// The kinds that users define, as the controllers want to know them, for as long as the server runs.
fn custom_kinds(
    server: &apiserver::Server,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Vec<reconcile::KindInfo>> {
    let (send, receive) = watch::channel(Vec::new());
    let (mut kinds, shutdown) = (server.custom_kinds(), shutdown.clone());
    tasks.spawn(async move {
        while let Some(Some(now)) = shutdown.run_until_cancelled(kinds.next()).await {
            send.send_replace(now.iter().map(|kind| info(kind)).collect());
        }
    });
    receive
}

fn api_addresses(members: &[Member]) -> Result<Vec<SocketAddr>> {
    let parse = |member: &Member| {
        let address = &member.peer.api_address;
        address.parse().with_context(|| format!("{address}: not ADDRESS:PORT"))
    };
    members.iter().map(parse).collect()
}

/// The masters whose API answers, as the endpoints of Service `kubernetes`: looked at every second.
fn reachable_api_addresses(
    store: &Store,
    all: Vec<SocketAddr>,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Vec<SocketAddr>> {
    let (send, receive) = watch::channel(all);
    let (store, shutdown) = (store.clone(), shutdown.clone());
    tasks.spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        while tokio::select! { () = shutdown.cancelled() => false, _ = tick.tick() => true } {
            let members = store.members();
            let up = members.iter().filter(|member| member.reachable);
            let mut now: Vec<SocketAddr> =
                up.filter_map(|member| member.api_address.parse().ok()).collect();
            now.sort_unstable();
            // Nobody reachable means that we are cut off, not that there are no masters.
            send.send_if_modified(|known| {
                let changed = !now.is_empty() && *known != now;
                if changed {
                    *known = now;
                }
                changed
            });
        }
    });
    receive
}

/// `ADDRESS:PORT`, or `ADDRESS:PORT@NETNS` for a listener in another network namespace.
async fn bind(address: &str) -> Result<TcpListener> {
    let (address, netns) = match address.split_once('@') {
        Some((address, netns)) => (address, Some(PathBuf::from(netns))),
        None => (address, None),
    };
    let socket: SocketAddr =
        address.parse().with_context(|| format!("--listen {address}: not ADDRESS:PORT"))?;
    let bound = match netns {
        None => TcpListener::bind(socket).await,
        Some(netns) => bind_in(&netns, socket).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        }),
    };
    bound.with_context(|| format!("cannot listen on {address}"))
}

/// As kube-apiserver bounds it: more would keep clients dialling.
fn chance(text: &str) -> Result<f64, String> {
    let chance: Result<f64, _> = text.parse();
    let chance = chance.ok().filter(|chance| (0.0..=0.02).contains(chance));
    chance.ok_or_else(|| format!("{text:?}: not between 0 and 0.02"))
}

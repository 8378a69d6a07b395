//! Three masters as real processes; the leader is killed again and again under load. Nothing
//! acknowledged is lost, every watch sees each object exactly once without a list in between, and a
//! leader that slept through its own deposition writes nothing.
//!
//! `COXSWAIN_KILLS` (default 3; the full run is 10) and `COXSWAIN_STOP_SECONDS` (default 3; the full
//! run is 30) say how much.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tests::{Cluster, cluster::signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const MASTERS: usize = 3;
const WRITERS: usize = 8;
/// A request that has no answer by then is asked of another master.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// For a condition that must come true; far beyond what a loaded machine needs.
const BOUND: Duration = Duration::from_secs(120);
/// Writes acknowledged between two kills, so that each kill meets a cluster at work.
const WRITES_BETWEEN: usize = 200;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_is_lost_when_leaders_die() {
    let cluster = Arc::new(Cluster::start(MASTERS as u8, 0));
    let kills = number("COXSWAIN_KILLS", 3);
    runtime().block_on(async {
        let clients = clients(&cluster).await;
        let load = Load::start(&clients).await;
        let deployment = make_deployment(&clients).await;
        let mut gaps = Vec::new();
        for kill in 0..kills {
            load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
            let killed = kill_leader(&cluster).await;
            let size = kill as i32 + 2;
            scale(&clients, &deployment, size).await;
            gaps.push(load.gap_after(killed, &cluster).await);
            wait_for_size(&clients, &deployment, size, &cluster).await;
            wait_for_everybody(&cluster).await;
        }
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        let writes = load.finish(&clients, &cluster).await;
        report(kills, writes, gaps);
    });
}

#[test]
fn a_leader_that_slept_through_its_deposition_writes_nothing() {
    let cluster = Arc::new(Cluster::start(MASTERS as u8, 0));
    let asleep = Duration::from_secs(number("COXSWAIN_STOP_SECONDS", 3) as u64);
    runtime().block_on(async {
        let clients = clients(&cluster).await;
        let load = Load::start(&clients).await;
        let deployment = make_deployment(&clients).await;
        wait_for_size(&clients, &deployment, 1, &cluster).await;
        let (name, pid) = leader(&cluster).await;
        // It is stopped while it has a plan to carry out.
        scale(&clients, &deployment, 20).await;
        signal(pid, "STOP");
        let stopped = Instant::now();
        let others: Vec<Client> = (0..MASTERS)
            .filter(|index| *index != index_of(&name))
            .map(|index| clients[index].clone())
            .collect();
        load.gap_after(stopped, &cluster).await;
        scale(&others, &deployment, 5).await;
        wait_for_size(&others, &deployment, 5, &cluster).await;
        tokio::time::sleep_until(tokio::time::Instant::from_std(stopped + asleep)).await;
        let before = pods(&others).await;
        signal(pid, "CONT");
        wait_for_everybody(&cluster).await;
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        let after = pods(&others).await;
        assert_eq!(before, after, "no pod was made or deleted by the one that woke up");
        let refused = refused_writes(&clients).await;
        let writes = load.finish(&clients, &cluster).await;
        eprintln!(
            "{}",
            json!({"bench": "stopped_leader", "asleep_s": asleep.as_secs(), "writes": writes,
                   "refused_writes": refused})
        );
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// One client for each master, which asks only that master and never again by itself.
async fn clients(cluster: &Cluster) -> Vec<Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = std::fs::read_to_string(cluster.kubeconfig()).expect("a kubeconfig");
    let kubeconfig: Kubeconfig = serde_json::from_str(&text).expect("our kubeconfig is JSON");
    let mut clients = Vec::new();
    for master in 1..=MASTERS {
        let options = KubeConfigOptions {
            context: Some(format!("m{master}")),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await;
        let mut config = config.expect("a context for each master");
        config.default_retry = false;
        config.connect_timeout = Some(REQUEST_TIMEOUT);
        clients.push(Client::try_from(config).expect("a client"));
    }
    clients
}

fn index_of(name: &str) -> usize {
    name.trim_start_matches('m').parse::<usize>().expect("m1, m2, …") - 1
}

/// Writers through all masters, and one watch that began at each.
struct Load {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    acknowledged: Arc<Mutex<BTreeMap<String, Instant>>>,
    seen: Vec<Arc<Mutex<Seen>>>,
}

/// What one watch has seen.
#[derive(Default)]
struct Seen {
    /// Revision and name, in order of arrival.
    events: Vec<(u64, String)>,
    /// How often it went on with another master.
    moves: usize,
    broken: Option<String>,
}

impl Load {
    async fn start(clients: &[Client]) -> Load {
        let (stop, acknowledged) = (CancellationToken::new(), Arc::default());
        let mut load = Load { stop, tasks: JoinSet::new(), acknowledged, seen: Vec::new() };
        let maps: Api<ConfigMap> = Api::default_namespaced(clients[0].clone());
        let listed = maps.list(&ListParams::default().labels("made=load")).await.expect("listed");
        let from: u64 = revision(listed.metadata.resource_version.as_deref());
        for first in 0..clients.len() {
            let seen = Arc::new(Mutex::new(Seen::default()));
            load.seen.push(seen.clone());
            load.tasks.spawn(watch(clients.to_vec(), first, from, seen));
        }
        for writer in 0..WRITERS {
            let (stop, acknowledged) = (load.stop.clone(), load.acknowledged.clone());
            load.tasks.spawn(write(clients.to_vec(), writer, acknowledged, stop));
        }
        load
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("no panic").len()
    }

    async fn wait_for_writes(&self, more: usize, cluster: &Cluster) {
        let want = self.count() + more;
        eventually(cluster, "more acknowledged writes", async || {
            let now = self.count();
            (now >= want).then_some(()).ok_or(format!("{now} of {want}"))
        })
        .await;
    }

    /// The longest time without an acknowledgement that touches `since`, once it is over.
    async fn gap_after(&self, since: Instant, cluster: &Cluster) -> Duration {
        // A write that was sent to the new leader, not one that was on its way back.
        let settled = WRITERS * 3;
        eventually(cluster, "writes after the leader's end", async || {
            let times = self.times();
            let after = times.iter().filter(|time| **time > since).count();
            (after >= settled).then_some(()).ok_or(format!("{after} acknowledged since"))
        })
        .await;
        let times = self.times();
        let from = times.partition_point(|time| *time <= since).saturating_sub(1);
        let gaps = times[from..].windows(2).map(|pair| pair[1] - pair[0].max(since.min(pair[1])));
        gaps.max().unwrap_or_default()
    }

    fn times(&self) -> Vec<Instant> {
        let acknowledged = self.acknowledged.lock().expect("no panic");
        let mut times: Vec<Instant> = acknowledged.values().copied().collect();
        times.sort_unstable();
        times
    }

    /// Stops the writers, waits for the watches to have seen everything, and checks it all.
    async fn finish(mut self, clients: &[Client], cluster: &Cluster) -> usize {
        self.stop.cancel();
        let acknowledged: BTreeSet<String> =
            self.acknowledged.lock().expect("no panic").keys().cloned().collect();
        for client in clients {
            let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
            let listed =
                maps.list(&ListParams::default().labels("made=load")).await.expect("listed");
            let there: BTreeSet<String> = listed.iter().map(ResourceExt::name_any).collect();
            let lost: Vec<&String> = acknowledged.difference(&there).collect();
            assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        }
        eventually(cluster, "every watch to have seen every acknowledged object", async || {
            let missing: Vec<usize> =
                self.seen.iter().map(|seen| missing(seen, &acknowledged)).collect();
            missing
                .iter()
                .all(|count| *count == 0)
                .then_some(())
                .ok_or(format!("{missing:?} missing"))
        })
        .await;
        let mut shortest = Vec::new();
        for seen in &self.seen {
            let seen = seen.lock().expect("no panic");
            assert_eq!(seen.broken, None, "a watch had to start over");
            check_order(&seen.events);
            if shortest.is_empty() || seen.events.len() < shortest.len() {
                shortest = seen.events.clone();
            }
        }
        for seen in &self.seen {
            let events = &seen.lock().expect("no panic").events;
            assert_eq!(events[..shortest.len()], shortest, "every watch tells the same story");
        }
        self.tasks.shutdown().await;
        acknowledged.len()
    }
}

fn missing(seen: &Mutex<Seen>, acknowledged: &BTreeSet<String>) -> usize {
    let seen = seen.lock().expect("no panic");
    let names: BTreeSet<&String> = seen.events.iter().map(|(_, name)| name).collect();
    acknowledged.iter().filter(|name| !names.contains(name)).count()
}

fn check_order(events: &[(u64, String)]) {
    let mut names = BTreeSet::new();
    for (_, name) in events {
        assert!(names.insert(name), "{name} was seen twice");
    }
    for pair in events.windows(2) {
        assert!(pair[0].0 < pair[1].0, "revisions go up: {pair:?}");
    }
}

fn revision(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).expect("a revision")
}

/// Creates one object after the other, each until it is acknowledged, by whichever master answers.
async fn write(
    clients: Vec<Client>,
    writer: usize,
    acknowledged: Arc<Mutex<BTreeMap<String, Instant>>>,
    stop: CancellationToken,
) {
    let mut turn = writer;
    for count in 0.. {
        let name = format!("w{writer}-{count:06}");
        let object =
            json!({"metadata": {"name": name, "labels": {"made": "load"}}, "data": {"by": name}});
        let object: ConfigMap = serde_json::from_value(object).expect("a ConfigMap");
        let mut tries = 0;
        loop {
            if stop.is_cancelled() {
                return;
            }
            let maps: Api<ConfigMap> = Api::default_namespaced(clients[turn % MASTERS].clone());
            let with = PostParams::default();
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, maps.create(&with, &object)).await;
            let done = match answer {
                Ok(Ok(_)) => true,
                // An earlier try was committed though its answer was lost.
                Ok(Err(kube::Error::Api(status))) => tries > 0 && status.reason == "AlreadyExists",
                _ => false,
            };
            if done {
                acknowledged.lock().expect("no panic").insert(name, Instant::now());
                break;
            }
            tries += 1;
            turn += 1;
            if tries % MASTERS == 0 {
                // Nobody could: not at once again, or the refusals are the load.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Follows the objects made by the writers from `after` on, on whichever master answers, resuming by
/// revision and never listing again.
async fn watch(clients: Vec<Client>, first: usize, mut after: u64, seen: Arc<Mutex<Seen>>) {
    let mut turn = first;
    let params = WatchParams::default().labels("made=load").timeout(290);
    loop {
        let maps: Api<ConfigMap> = Api::default_namespaced(clients[turn % MASTERS].clone());
        let from = after.to_string();
        if let Ok(Ok(events)) =
            tokio::time::timeout(REQUEST_TIMEOUT, maps.watch(&params, &from)).await
        {
            let mut events = events.boxed();
            // The tasks are ended by whoever reads `seen`; until then a watch goes on.
            while let Ok(Some(event)) = events.try_next().await {
                match event {
                    WatchEvent::Added(map)
                    | WatchEvent::Modified(map)
                    | WatchEvent::Deleted(map) => {
                        after = revision(map.resource_version().as_deref());
                        seen.lock().expect("no panic").events.push((after, map.name_any()));
                    }
                    WatchEvent::Bookmark(bookmark) => {
                        after = revision(Some(&bookmark.metadata.resource_version));
                    }
                    WatchEvent::Error(status) if status.code == 410 => {
                        seen.lock().expect("no panic").broken = Some(status.message.clone());
                        return;
                    }
                    WatchEvent::Error(_) => break,
                }
            }
        }
        turn += 1;
        seen.lock().expect("no panic").moves += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn leader(cluster: &Arc<Cluster>) -> (String, i32) {
    let cluster = cluster.clone();
    tokio::task::spawn_blocking(move || cluster.leader()).await.expect("no panic")
}

async fn kill_leader(cluster: &Arc<Cluster>) -> Instant {
    let (name, pid) = leader(cluster).await;
    let killed = Instant::now();
    signal(pid, "KILL");
    eprintln!("killed {name} (pid {pid})");
    killed
}

async fn wait_for_everybody(cluster: &Arc<Cluster>) {
    let (looked_at, masters) = (cluster.clone(), cluster.clone());
    let wait = tokio::task::spawn_blocking(move || {
        looked_at.eventually("every master to be there", || {
            let members = masters.members();
            let there = members.iter().filter(|member| member["reachable"] == true).count();
            (there == MASTERS).then_some(()).ok_or(format!("{members:?}"))
        });
    });
    wait.await.expect("no panic");
}

async fn make_deployment(clients: &[Client]) -> String {
    let web = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    });
    let web: Deployment = serde_json::from_value(web).expect("a Deployment");
    let deployments: Api<Deployment> = Api::default_namespaced(clients[0].clone());
    deployments.create(&PostParams::default(), &web).await.expect("created").name_any()
}

/// Asks one master after the other until one has written it.
async fn scale(clients: &[Client], name: &str, size: i32) {
    let patch = Patch::Merge(json!({"spec": {"replicas": size}}));
    let ask = async {
        for turn in 0.. {
            let deployments: Api<Deployment> =
                Api::default_namespaced(clients[turn % clients.len()].clone());
            let with = PatchParams::default();
            let asked = deployments.patch_scale(name, &with, &patch);
            if let Ok(Ok(_)) = tokio::time::timeout(REQUEST_TIMEOUT, asked).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, ask)
        .await
        .unwrap_or_else(|_| panic!("{name} is not scaled to {size}"));
}

/// Waits until the deployment's controller reports `size`, and exactly that many pods are there.
async fn wait_for_size(clients: &[Client], name: &str, size: i32, cluster: &Cluster) {
    eventually(cluster, "the deployment to have its size", async || {
        let mut last = String::from("nobody answers");
        for client in clients {
            let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
            let asked = tokio::time::timeout(REQUEST_TIMEOUT, deployments.get(name)).await;
            let Ok(Ok(deployment)) = asked else { continue };
            let replicas = deployment.status.and_then(|status| status.replicas).unwrap_or(0);
            let pods = pods(std::slice::from_ref(client)).await.len();
            if replicas == size && pods == size as usize {
                return Ok(());
            }
            last = format!("{replicas} replicas and {pods} pods of {size}");
        }
        Err(last)
    })
    .await;
}

/// Uids of the deployment's pods that are not on their way out.
async fn pods(clients: &[Client]) -> BTreeSet<String> {
    for client in clients {
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        let app = ListParams::default().labels("app=web");
        let asked = tokio::time::timeout(REQUEST_TIMEOUT, pods.list(&app)).await;
        if let Ok(Ok(list)) = asked {
            let staying = list.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            return staying.filter_map(ResourceExt::uid).collect();
        }
    }
    BTreeSet::new()
}

/// Transactions that the masters' stores refused for their term, since each started.
async fn refused_writes(clients: &[Client]) -> u64 {
    let mut sum = 0;
    for client in clients {
        let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
        let text = client.request_text(request).await.expect("metrics");
        let lines = text.lines().filter(|line| line.starts_with("coxswain_store_txns_total"));
        let refused = lines.filter(|line| line.contains("\"fenced\""));
        let counts = refused.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        sum += counts.map(|count| count as u64).sum::<u64>();
    }
    sum
}

/// Looks until `look` says `Ok`; panics with the last state if that takes longer than [`BOUND`].
async fn eventually(cluster: &Cluster, what: &str, look: impl AsyncFn() -> Result<(), String>) {
    let deadline = Instant::now() + BOUND;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        match look().await {
            Ok(()) => return,
            Err(state) if Instant::now() > deadline => {
                panic!("still waiting for {what}; last seen: {state}\n{}", cluster.logs())
            }
            Err(_) => tick.tick().await,
        };
    }
}

fn report(kills: usize, writes: usize, mut gaps: Vec<Duration>) {
    let milliseconds: Vec<u128> = gaps.iter().map(Duration::as_millis).collect();
    gaps.sort();
    let middle = gaps.get(gaps.len() / 2).map_or(0, Duration::as_millis);
    let most = gaps.last().map_or(0, Duration::as_millis);
    eprintln!(
        "{}",
        json!({"bench": "failover", "kills": kills, "writes": writes, "gap_ms": milliseconds,
               "gap_ms_p50": middle, "gap_ms_max": most})
    );
}

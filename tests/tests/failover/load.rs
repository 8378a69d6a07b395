//! The load under which masters die, stop, come and go: writers that go on until each write is
//! acknowledged, and watches that must see every object once, in order, and never list again.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tests::Cluster;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const MASTERS: usize = 3;
const WRITERS: usize = 8;
/// A request that has no answer by then is asked of another master.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// For a condition that must come true; far beyond what a loaded machine needs.
pub(crate) const BOUND: Duration = Duration::from_secs(120);

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// One client for each master, which asks only that master and never again by itself.
pub(crate) async fn clients(cluster: &Cluster) -> Vec<Client> {
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

pub(crate) fn index_of(name: &str) -> usize {
    name.trim_start_matches('m').parse::<usize>().expect("m1, m2, …") - 1
}

/// Writers through all masters, and one watch that began at each.
pub(crate) struct Load {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    acknowledged: Acknowledged,
    failed: Failed,
    seen: Vec<Arc<Mutex<Seen>>>,
}

/// When each write was acknowledged, by the name of its object.
type Acknowledged = Arc<Mutex<BTreeMap<String, Instant>>>;
/// Requests that were refused, broken off or not answered in time: when, and how.
type Failed = Arc<Mutex<Vec<(Instant, String)>>>;

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
    pub(crate) async fn start(clients: &[Client]) -> Load {
        let stop = CancellationToken::new();
        let (acknowledged, failed) = (Acknowledged::default(), Failed::default());
        let mut load = Load { stop, tasks: JoinSet::new(), acknowledged, failed, seen: Vec::new() };
        let maps: Api<ConfigMap> = Api::default_namespaced(clients[0].clone());
        let listed = maps.list(&ListParams::default().labels("made=load")).await.expect("listed");
        let from: u64 = revision(listed.metadata.resource_version.as_deref());
        for first in 0..clients.len() {
            let seen = Arc::new(Mutex::new(Seen::default()));
            load.seen.push(seen.clone());
            load.tasks.spawn(watch(clients.to_vec(), first, from, seen));
        }
        for writer in 0..WRITERS {
            let told = (load.acknowledged.clone(), load.failed.clone());
            load.tasks.spawn(write(clients.to_vec(), writer, told, load.stop.clone()));
        }
        load
    }

    /// What failed since then.
    pub(crate) fn failures(&self, since: Instant) -> Vec<String> {
        let failed = self.failed.lock().expect("no panic");
        failed.iter().filter(|(at, _)| *at > since).map(|(_, how)| how.clone()).collect()
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("no panic").len()
    }

    pub(crate) async fn wait_for_writes(&self, more: usize, cluster: &Cluster) {
        let want = self.count() + more;
        eventually(cluster, "more acknowledged writes", async || {
            let now = self.count();
            (now >= want).then_some(()).ok_or(format!("{now} of {want}"))
        })
        .await;
    }

    /// The longest time without an acknowledgement that touches `since`, once it is over.
    pub(crate) async fn gap_after(&self, since: Instant, cluster: &Cluster) -> Duration {
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
    pub(crate) async fn finish(mut self, clients: &[Client], cluster: &Cluster) -> usize {
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
    (acknowledged, failed): (Acknowledged, Failed),
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
            let maps: Api<ConfigMap> =
                Api::default_namespaced(clients[turn % clients.len()].clone());
            let with = PostParams::default();
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, maps.create(&with, &object)).await;
            let why = match answer {
                Ok(Ok(_)) => None,
                // An earlier try was committed though its answer was lost.
                Ok(Err(kube::Error::Api(status)))
                    if tries > 0 && status.reason == "AlreadyExists" =>
                {
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {REQUEST_TIMEOUT:?}")),
            };
            let Some(why) = why else {
                acknowledged.lock().expect("no panic").insert(name, Instant::now());
                break;
            };
            failed.lock().expect("no panic").push((Instant::now(), format!("{name}: {why}")));
            tries += 1;
            turn += 1;
            if tries % clients.len() == 0 {
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
        let maps: Api<ConfigMap> = Api::default_namespaced(clients[turn % clients.len()].clone());
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

/// Looks until `look` says `Ok`; panics with the last state if that takes longer than [`BOUND`].
pub(crate) async fn eventually(
    cluster: &Cluster,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<(), String>,
) {
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

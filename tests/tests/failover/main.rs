//! Three masters as real processes; the leader is killed again and again under load. Nothing
//! acknowledged is lost, every watch sees each object exactly once without a list in between, and a
//! leader that slept through its own deposition writes nothing.
//!
//! `COXSWAIN_KILLS` (default 3; the full run is 10) and `COXSWAIN_STOP_SECONDS` (default 3; the full
//! run is 30) say how much.

mod chaos;
mod exchanging;
mod load;
mod members;
mod rebuilding;
mod replacing;
mod upgrading;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::{Client, ResourceExt};
use load::{BOUND, Load, MASTERS, REQUEST_TIMEOUT, clients, eventually, index_of, runtime};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::{Cluster, cluster::signal};

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

/// Processes that are killed, as after the power of all machines went at once: what fsync promised is
/// there, and nobody has to do anything.
#[test]
fn nothing_is_lost_when_all_masters_die_at_once() {
    let cluster = Arc::new(Cluster::start(MASTERS as u8, 0));
    runtime().block_on(async {
        let clients = clients(&cluster).await;
        let load = Load::start(&clients).await;
        let mut gaps = Vec::new();
        for _ in 0..number("COXSWAIN_POWER_CUTS", 2) {
            load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
            let killed = kill_all(&cluster).await;
            gaps.push(load.gap_after(killed, &cluster).await.as_millis());
            wait_for_everybody(&cluster).await;
        }
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        let writes = load.finish(&clients, &cluster).await;
        eprintln!("{}", json!({"bench": "all_masters_die", "writes": writes, "gap_ms": gaps}));
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

/// Its watches would show nothing for as long as that lasts, however much the others write.
#[test]
fn a_master_without_a_quorum_sends_away_who_watches() {
    let cluster = Arc::new(Cluster::start(MASTERS as u8, 0));
    runtime().block_on(async {
        let clients = clients(&cluster).await;
        let deployment = make_deployment(&clients).await;
        let (name, _) = leader(&cluster).await;
        let stays = (0..MASTERS).find(|index| *index != index_of(&name)).expect("a follower");
        let mut others = pids(&cluster).await;
        others.remove(stays);
        let watched: Api<Deployment> = Api::default_namespaced(clients[stays].clone());
        let mut watch = watched.watch(&WatchParams::default(), "0").await.expect("a watch").boxed();
        watch.next().await.expect("what is there").expect("an event");
        others.iter().for_each(|pid| signal(*pid, "STOP"));
        let ends = async { while watch.next().await.is_some_and(|event| event.is_ok()) {} };
        let ended = tokio::time::timeout(BOUND, ends).await;
        others.iter().for_each(|pid| signal(*pid, "CONT"));
        ended.expect("the watch ends");
        wait_for_everybody(&cluster).await;
        scale(&clients, &deployment, 2).await;
        wait_for_size(&clients[stays..=stays], &deployment, 2, &cluster).await;
    });
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

/// Of all masters, in the order of their names.
async fn pids(cluster: &Arc<Cluster>) -> Vec<i32> {
    let masters = cluster.clone();
    let find = tokio::task::spawn_blocking(move || {
        let mut pids = Vec::new();
        masters.eventually("every master to say its pid", || {
            let members = masters.members();
            let found = members.iter().filter_map(|it| i32::try_from(it["pid"].as_i64()?).ok());
            pids = found.collect();
            (pids.len() == MASTERS).then_some(()).ok_or_else(|| format!("{members:?}"))
        });
        pids
    });
    find.await.expect("no panic")
}

/// All masters with one call; their machines start them again.
async fn kill_all(cluster: &Arc<Cluster>) -> Instant {
    let pids: Vec<String> = pids(cluster).await.iter().map(i32::to_string).collect();
    let killed = Instant::now();
    let status = std::process::Command::new("kill").arg("-KILL").args(&pids).status();
    assert!(status.expect("kill runs").success());
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

/// What a master's `/metrics` shows.
async fn metrics(client: &Client) -> kube::Result<String> {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    client.request_text(request).await
}

/// Transactions that the masters' stores refused for their term, since each started.
async fn refused_writes(clients: &[Client]) -> u64 {
    let mut sum = 0;
    for client in clients {
        let text = metrics(client).await.expect("metrics");
        let lines = text.lines().filter(|line| line.starts_with("coxswain_store_txns_total"));
        let refused = lines.filter(|line| line.contains("\"fenced\""));
        let counts = refused.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        sum += counts.map(|count| count as u64).sum::<u64>();
    }
    sum
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

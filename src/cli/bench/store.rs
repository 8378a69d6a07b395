//! `coxswain bench store`: writes, linearizable reads, a list of 10,000 and watch fan-out of the
//! store itself: three members in this process, on this disk, over mutual TLS on loopback.

use super::figures::{AsyncStep, Figures, measure};
use crate::pki::{Authority, Purpose};
use anyhow::{Context, Result};
use bytes::Bytes;
use raft_store::{Config, Guard, Key, MemberId, Op, Peer, Revision, Store, Tls, Txn};
use serde_json::json;
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Bytes of each value, as in the figures of other stores.
const VALUE_BYTES: usize = 1024;

/// Measure the replicated store alone: three members, fsync, 1 KiB values
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where the members keep their data; on the disk that is to be measured
    #[arg(long)]
    data_dir: Option<PathBuf>,

    /// Members
    #[arg(long, default_value_t = 3)]
    members: u64,

    /// Seconds for each figure
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// Numbers of concurrent clients
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    clients: Vec<usize>,

    /// Watchers of the fan-out
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let directory = args.data_dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("coxswain-bench-store-{}", std::process::id()))
    });
    let stores = open(&directory, args.members).await?;
    let result = measure_all(&args, &stores).await;
    for store in stores {
        store.shutdown().await;
    }
    std::fs::remove_dir_all(&directory)
        .with_context(|| format!("cannot remove {}", directory.display()))?;
    result
}

/// Members in this process, on ports that are free now; those that were there before go on.
pub(super) async fn open(directory: &std::path::Path, count: u64) -> Result<Vec<Store>> {
    let authority = Authority::open(&directory.join("ca"))?;
    let local = Ipv4Addr::LOCALHOST;
    let probes: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((local, 0))).collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> =
        probes.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    drop(probes);
    let peers: Vec<(MemberId, Peer)> = (1..=count)
        .zip(&addresses)
        .map(|(id, address)| {
            let peer = Peer {
                name: format!("b{id}"),
                peer_address: address.to_string(),
                api_address: String::new(),
            };
            (MemberId(id), peer)
        })
        .collect();
    let mut opening = JoinSet::new();
    for ((id, peer), address) in peers.iter().zip(&addresses) {
        let purpose = Purpose::Peer { name: &peer.name, addresses: &[local.into()] };
        let pair = authority.issue(&purpose)?;
        opening.spawn(Store::open(Config {
            member: *id,
            data_dir: directory.join(&peer.name),
            initial_members: peers.clone(),
            joins: false,
            listen: *address,
            tls: Tls {
                ca: authority.pair.cert.clone().into(),
                cert: pair.cert.into(),
                key: pair.key.into(),
            }
            .into(),
            timers: raft_store::Timers::default(),
            retention: raft_store::Retention::default(),
            disk: raft_store::Disk::default(),
            seal: Arc::new(raft_store::Plain),
            registry: prometheus::Registry::new(),
        }));
    }
    let mut stores = Vec::new();
    while let Some(store) = opening.join_next().await {
        stores.push(store??);
    }
    Ok(stores)
}

async fn measure_all(args: &Args, stores: &[Store]) -> Result<()> {
    let time = Duration::from_secs(args.seconds);
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    for &count in &args.clients {
        let clients: Vec<Store> = stores.iter().cycle().take(count).cloned().collect();
        let extra = || json!({"members": args.members, "clients": count, "bytes": VALUE_BYTES});
        let step = Put { value: value.clone() };
        measure(clients.clone(), time, step).await?.report("store_put", extra());
        measure(clients, time, Get).await?.report("store_get_linearizable", extra());
    }
    list(&stores[0], &value, time).await?;
    fan_out(args, stores, &value).await
}

#[derive(Clone)]
pub(super) struct Put {
    pub(super) value: Bytes,
}

impl AsyncStep<Store> for Put {
    async fn step(&mut self, store: &mut Store, number: usize, count: u64) -> Result<()> {
        let key = Key::new("bench", format!("{number}/{}", count % 1000));
        store.txn(Txn::one(key, Guard::Any, Op::Put(self.value.clone()))).await?;
        Ok(())
    }
}

#[derive(Clone)]
struct Get;

impl AsyncStep<Store> for Get {
    async fn step(&mut self, store: &mut Store, number: usize, _: u64) -> Result<()> {
        store.barrier().await?;
        let key = Key::new("bench", format!("{number}/0"));
        store.get(&key).context("written by the puts before")?;
        Ok(())
    }
}

async fn list(store: &Store, value: &Bytes, time: Duration) -> Result<()> {
    const OBJECTS: usize = 10_000;
    let mut writers = JoinSet::new();
    for writer in 0..100 {
        let (store, value) = (store.clone(), value.clone());
        writers.spawn(async move {
            for index in 0..OBJECTS / 100 {
                let key = Key::new("list", format!("{writer}/{index}"));
                store.txn(Txn::one(key, Guard::Any, Op::Put(value.clone()))).await?;
            }
            Ok::<_, raft_store::Error>(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        let before = Instant::now();
        store.barrier().await?;
        let page = store.range("list", "", None, None);
        anyhow::ensure!(page.items.len() == OBJECTS, "{} of {OBJECTS} objects", page.items.len());
        latencies.push(before.elapsed());
    }
    Figures::new(latencies, started.elapsed()).report("store_list", json!({"objects": OBJECTS}));
    Ok(())
}

/// Watchers on every member; each notes when it saw each change. Latency is from before the write.
async fn fan_out(args: &Args, stores: &[Store], value: &Bytes) -> Result<()> {
    const EVENTS: usize = 100;
    let (origin, start) = (Instant::now(), stores[0].barrier().await?);
    let mut watchers = JoinSet::new();
    for number in 0..args.watchers {
        let store = &stores[number % stores.len()];
        store.wait_for(start, Duration::from_secs(5)).await?;
        let mut watch = store.watch("fan", "", start)?;
        watchers.spawn(async move {
            let mut seen: Vec<(Revision, Duration)> = Vec::with_capacity(EVENTS);
            while seen.len() < EVENTS {
                let changes = watch.next().await?;
                let now = origin.elapsed();
                seen.extend(changes.iter().map(|change| (change.revision, now)));
            }
            Ok::<_, raft_store::Error>(seen)
        });
    }
    let started = Instant::now();
    let mut sent = std::collections::BTreeMap::new();
    for event in 0..EVENTS {
        let before = origin.elapsed();
        let key = Key::new("fan", event.to_string());
        let txn = Txn::one(key, Guard::Absent, Op::Put(value.clone()));
        sent.insert(stores[0].txn(txn).await?.revision, before);
    }
    let mut delays = Vec::new();
    while let Some(watcher) = watchers.join_next().await {
        for (revision, seen) in watcher?? {
            delays.push(seen.saturating_sub(sent[&revision]));
        }
    }
    let extra = json!({"watchers": args.watchers, "events": EVENTS});
    Figures::new(delays, started.elapsed()).report("store_watch_fan_out", extra);
    Ok(())
}

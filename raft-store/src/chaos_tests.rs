//! Members killed and started again at random while others write and watch. The seed is printed;
//! `COXSWAIN_SEED` and `COXSWAIN_KILLS` replay one or make it a soak.

use crate::{
    Error, Guard, Key, MemberId, Op, Revision, Store, Txn,
    cluster_tests::{Cluster, PATIENCE, eventually},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The members that run at the moment.
type Live = Arc<Mutex<BTreeMap<u64, Store>>>;

fn any_of(live: &Live, n: usize) -> Store {
    let live = live.lock().expect("the members");
    live.values().nth(n % live.len()).expect("two of three run").clone()
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Creates objects through all members; those acknowledged, by revision.
async fn write(live: Live, writer: usize, over: CancellationToken) -> BTreeMap<Revision, String> {
    let mut acknowledged = BTreeMap::new();
    for n in 0.. {
        if over.is_cancelled() {
            break;
        }
        let path = format!("{writer}/{n}");
        let put = Op::Put(path.clone().into());
        let txn = Txn::one(Key::new("pods", path.as_str()), Guard::Absent, put);
        match any_of(&live, writer + n).txn(txn).await {
            Ok(done) => assert_eq!(acknowledged.insert(done.revision, path), None),
            // The member was killed with the request in it: nobody was told anything.
            Err(Error::Stopped(_)) => {}
            Err(other) => panic!("{path}: {other}"),
        }
    }
    acknowledged
}

/// Watches all pods on a member until that is killed, then on another from where it was.
async fn watch(live: Live, mut n: usize, until: impl Fn() -> Option<Revision>) -> Vec<Revision> {
    let mut seen: Vec<Revision> = Vec::new();
    loop {
        let at = seen.last().copied().unwrap_or(Revision(0));
        if until().is_some_and(|until| at >= until) {
            return seen;
        }
        n += 1;
        let store = any_of(&live, n);
        if store.wait_for(at, Duration::from_secs(5)).await.is_err() {
            continue;
        }
        let Ok(mut watch) = store.watch("pods", "", at) else { continue };
        let slice = Duration::from_millis(500);
        while let Ok(Ok(changes)) = tokio::time::timeout(slice, watch.next()).await {
            seen.extend(changes.iter().map(|change| change.revision));
        }
    }
}

fn contents(store: &Store) -> Vec<(String, Revision)> {
    let items = store.range("pods", "", None, None).items;
    items.iter().map(|stored| (stored.key.path.to_string(), stored.revision)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_killed_at_random_lose_nothing() {
    let seed = variable("COXSWAIN_SEED", rand::random::<u32>().into());
    let kills = variable("COXSWAIN_KILLS", 6);
    eprintln!("COXSWAIN_SEED={seed} COXSWAIN_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(3);
    // Snapshots often, and members that are away a little need them.
    cluster.retention.flush = Duration::from_secs(1);
    cluster.retention.log_entries = 50;
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let live: Live = Arc::new(Mutex::new(cluster.stores.clone()));
    let over = CancellationToken::new();
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        writers.spawn(write(live.clone(), writer, over.clone()));
    }
    let last = Arc::new(Mutex::new(None));
    let until = last.clone();
    let until = move || *until.lock().expect("the end");
    let watcher = tokio::spawn(watch(live.clone(), 0, until));
    for _ in 0..kills {
        let victim = random.random_range(1..=3);
        live.lock().expect("the members").remove(&victim);
        let survivor = any_of(&live, 0);
        cluster.kill(victim).await;
        let progress = Revision(survivor.revision().0 + random.random_range(1..300));
        survivor.wait_for(progress, PATIENCE).await.expect("two of three go on");
        cluster.start(victim).await;
        let back = cluster.store(victim).clone();
        back.wait_for(progress, PATIENCE).await.expect("it catches up");
        live.lock().expect("the members").insert(victim, back);
    }
    over.cancel();
    let mut acknowledged = BTreeMap::new();
    while let Some(writer) = writers.join_next().await {
        acknowledged.append(&mut writer.expect("a writer"));
    }
    let end = cluster.store(1).barrier().await.expect("a barrier");
    *last.lock().expect("the end") = Some(end);
    let seen = tokio::time::timeout(PATIENCE, watcher).await.expect("all seen").expect("a watch");
    assert_eq!(seen, (1..=end.0).map(Revision).collect::<Vec<_>>(), "each change once, in order");
    for id in 1..=3 {
        let store = cluster.store(id).clone();
        eventually("all caught up", || store.revision() == end).await;
        assert_eq!(contents(&store), contents(cluster.store(1)), "members agree");
        for (revision, path) in &acknowledged {
            let stored = store.get(&Key::new("pods", path.as_str()));
            assert_eq!(stored.map(|s| s.revision), Some(*revision), "{path} was acknowledged");
        }
    }
    let leader = MemberId(cluster.leader().await);
    eprintln!("{} writes, {end} revisions, {leader} leads", acknowledged.len());
    cluster.shutdown().await;
}

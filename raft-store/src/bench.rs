//! Measures a running store from inside the process: writes, linearizable reads, lists and watch
//! fan-out. It starts nothing; the caller gives it members and prints the figures.

use crate::{Guard, Key, Op, Revision, Store, Txn};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// What is measured, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    pub clients: usize,
    pub value_bytes: usize,
    pub duration: Duration,
    /// Objects in the lists.
    pub objects: usize,
    pub watchers: usize,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            clients: 256,
            value_bytes: 1024,
            duration: Duration::from_secs(5),
            objects: 10_000,
            watchers: 1_000,
        }
    }
}

/// One figure, printed as one line of JSON.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub clients: usize,
    pub operations: u64,
    pub failed: u64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// All figures, in order. The members given are used in turn by the clients.
pub async fn run(stores: &[Store], plan: &Plan) -> Vec<Figure> {
    vec![
        writes(stores, plan).await,
        reads(stores, plan).await,
        lists(stores, plan).await,
        watches(stores, plan).await,
    ]
}

fn put(space: &str, path: String, plan: &Plan) -> Txn {
    let body = vec![b'x'; plan.value_bytes];
    Txn::one(Key::new(space, path), Guard::Any, Op::Put(body.into()))
}

/// Puts of distinct keys, acknowledged by a quorum.
pub async fn writes(stores: &[Store], plan: &Plan) -> Figure {
    let next = Arc::new(AtomicU64::new(0));
    measure("writes", stores, plan, move |store, plan| {
        let next = next.clone();
        async move {
            let n = next.fetch_add(1, Ordering::Relaxed);
            store.txn(put("bench", format!("w/{n:012}"), &plan)).await.is_ok()
        }
    })
    .await
}

/// A barrier and a read of one key, on the member the client is at.
pub async fn reads(stores: &[Store], plan: &Plan) -> Figure {
    let Some(first) = stores.first() else { return figure("reads", 0, Vec::new(), 0, 1.0) };
    let _ = first.txn(put("bench", "r/0".into(), plan)).await;
    measure("linearizable_reads", stores, plan, |store, _| async move {
        store.barrier().await.is_ok() && store.get(&Key::new("bench", "r/0")).is_some()
    })
    .await
}

/// Everything in a space of `objects`.
pub async fn lists(stores: &[Store], plan: &Plan) -> Figure {
    let Some(first) = stores.first() else { return figure("lists", 0, Vec::new(), 0, 1.0) };
    let mut fill = JoinSet::new();
    for n in 0..plan.objects {
        let (store, txn) = (first.clone(), put("bench-list", format!("l/{n:08}"), plan));
        fill.spawn(async move { store.txn(txn).await.is_ok() });
        if fill.len() >= 512 {
            fill.join_next().await;
        }
    }
    while fill.join_next().await.is_some() {}
    let plan = Plan { clients: 1, ..plan.clone() };
    let objects = plan.objects;
    measure("lists", stores, &plan, move |store, _| async move {
        store.barrier().await.is_ok()
            && store.range("bench-list", "", None, None).items.len() == objects
    })
    .await
}

/// Twenty writes per second, seen by every watcher; the time is from the call to each arrival.
pub async fn watches(stores: &[Store], plan: &Plan) -> Figure {
    const INTERVAL: Duration = Duration::from_millis(50);
    let Some(first) = stores.first() else { return figure("watches", 0, Vec::new(), 0, 1.0) };
    let events = (plan.duration.as_millis() / INTERVAL.as_millis()).max(1) as usize;
    let begin = first.barrier().await.unwrap_or(Revision(0));
    let epoch = Instant::now();
    let mut watchers = JoinSet::new();
    for n in 0..plan.watchers {
        let store = stores[n % stores.len()].clone();
        watchers.spawn(async move {
            let mut delays = Vec::with_capacity(events);
            let caught_up = store.wait_for(begin, Duration::from_secs(10)).await;
            let Ok(()) = caught_up else { return delays };
            let Ok(mut watch) = store.watch("bench-watch", "", begin) else { return delays };
            while delays.len() < events {
                let Ok(changes) = watch.next().await else { break };
                let now = epoch.elapsed().as_nanos() as u64;
                for change in changes {
                    let sent = change.new.as_ref().map_or(&[][..], |new| &new.body[..]);
                    let sent = sent.try_into().map(u64::from_be_bytes).unwrap_or(now);
                    delays.push(Duration::from_nanos(now.saturating_sub(sent)));
                }
            }
            delays
        });
    }
    let mut tick = tokio::time::interval(INTERVAL);
    let mut failed = 0;
    for n in 0..events {
        tick.tick().await;
        let sent = (epoch.elapsed().as_nanos() as u64).to_be_bytes().to_vec();
        let key = Key::new("bench-watch", format!("{n}"));
        let done = first.txn(Txn::one(key, Guard::Any, Op::Put(sent.into()))).await;
        failed += u64::from(done.is_err());
    }
    if failed > 0 {
        watchers.abort_all();
    }
    let mut delays = Vec::new();
    while let Some(watcher) = watchers.join_next().await {
        delays.extend(watcher.unwrap_or_default());
    }
    figure("watches", plan.watchers, delays, failed, epoch.elapsed().as_secs_f64())
}

async fn measure<F, R>(name: &'static str, stores: &[Store], plan: &Plan, operation: F) -> Figure
where
    F: Fn(Store, Plan) -> R + Clone + Send + 'static,
    R: Future<Output = bool> + Send,
{
    let over = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for n in 0..plan.clients {
        let (store, plan, operation) =
            (stores[n % stores.len()].clone(), plan.clone(), operation.clone());
        let over = over.clone();
        clients.spawn(async move {
            let (mut times, mut failed) = (Vec::new(), 0);
            while !over.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
                let called = Instant::now();
                match operation(store.clone(), plan.clone()).await {
                    true => times.push(called.elapsed()),
                    false => failed += 1,
                }
            }
            (times, failed)
        });
    }
    tokio::time::sleep(plan.duration).await;
    over.store(true, Ordering::Relaxed);
    let elapsed = begin.elapsed().as_secs_f64();
    let (mut times, mut failed) = (Vec::new(), 0);
    while let Some(client) = clients.join_next().await {
        let (some, lost) = client.unwrap_or_default();
        times.extend(some);
        failed += lost;
    }
    figure(name, plan.clients, times, failed, elapsed)
}

fn figure(
    name: &'static str,
    clients: usize,
    mut times: Vec<Duration>,
    failed: u64,
    seconds: f64,
) -> Figure {
    times.sort_unstable();
    let at = |part: f64| {
        let index = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    Figure {
        name,
        clients,
        operations: times.len() as u64,
        failed,
        per_second: times.len() as f64 / seconds,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: at(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_figure_is_measured() {
        let plan = Plan {
            clients: 4,
            value_bytes: 16,
            duration: Duration::from_millis(60),
            objects: 50,
            watchers: 3,
        };
        let figures = run(&[Store::in_memory()], &plan).await;
        let names: Vec<_> = figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["writes", "linearizable_reads", "lists", "watches"]);
        for figure in &figures {
            assert!(figure.operations > 0 && figure.failed == 0, "{figure:?}");
        }
    }
}

//! The clients that write: each does its operations one after the other, at most so many in a second,
//! until the load stops.

use super::{
    api::{Client, Shared, Write},
    election::Elector,
    objects::{step_of_binding, step_of_rolling_update},
};
use ::chaos::{
    counter,
    history::{Guard, Told},
    judge::COUNTER,
    lease,
    scenario::{Kind, Workload},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::MissedTickBehavior};

/// Few, so that clients meet.
const REGISTERS: usize = 4;

/// Objects of one client that come and go, at most.
const CHURN_MAX: usize = 10;

fn register(number: usize) -> String {
    format!("{}-{number}", Kind::Register)
}

/// Makes what the workloads write to; everything before any fault.
pub(super) async fn prepare(shared: &Shared, workloads: &[Workload]) -> anyhow::Result<()> {
    let has = |kind| workloads.iter().any(|it| it.kind == kind);
    let mut first = Vec::new();
    if has(Kind::Register) {
        let mut client = Client::new(shared, Kind::Register, 0);
        for number in 0..REGISTERS {
            let (key, value) = (register(number), Some(format!("first-{number}")));
            let write = Write { key: &key, value, guard: Guard::Absent };
            first.push((key.clone(), client.write(write).await));
        }
    }
    if has(Kind::Counter) {
        let value = Some(counter::value(0, 0, 0));
        let write = Write { key: COUNTER, value, guard: Guard::Absent };
        let told = Client::new(shared, Kind::Counter, 0).write(write).await;
        first.push((COUNTER.to_owned(), told));
    }
    if has(Kind::Lease) {
        let value = Some(lease::value(None, 0, 0));
        let write = Write { key: lease::LEASE, value, guard: Guard::Absent };
        let told = Client::new(shared, Kind::Lease, 0).write(write).await;
        first.push((lease::LEASE.to_owned(), told));
    }
    for (key, told) in first {
        let done = matches!(told, Some(Told::Done(_)));
        anyhow::ensure!(done, "{key} cannot be made: {told:?}");
    }
    Ok(())
}

/// Starts the clients that write.
pub(super) fn start(shared: &Arc<Shared>, workloads: &[Workload], tasks: &mut JoinSet<()>) {
    // 0 made what is written to.
    let mut number = 1;
    for workload in workloads.iter().filter(|it| !it.kind.only_looks()) {
        for _ in 0..workload.clients {
            let (shared, kind) = (shared.clone(), workload.kind);
            let pause = Duration::from_secs(1) / workload.per_second;
            tasks.spawn(async move { work(&shared, kind, number, pause).await });
            number += 1;
        }
    }
}

async fn work(shared: &Shared, kind: Kind, number: u64, pause: Duration) {
    let mut client = Client::new(shared, kind, number);
    let mut random = StdRng::seed_from_u64(shared.seed ^ number);
    let (mut known, mut elector, mut made) = (BTreeMap::new(), Elector::default(), Vec::new());
    let mut deployed = false;
    let mut tick = tokio::time::interval(pause);
    // What was missed while nobody answered is not made up for.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0.. {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match kind {
            Kind::Register => step_of_register(&mut client, &mut random, &mut known, turn).await,
            Kind::Counter => step_of_counter(&mut client, number, turn).await,
            Kind::Lease => elector.step(&mut client, &mut random, turn).await,
            Kind::Churn => step_of_churn(&mut client, &mut random, &mut made, turn).await,
            Kind::Binding => step_of_binding(&mut client, turn).await,
            Kind::RollingUpdate => step_of_rolling_update(&mut client, &mut deployed, turn).await,
            Kind::WatchFollow | Kind::ListAndWatch => return,
        }
    }
}

/// A list, a write whatever is there, or one only if nobody wrote since this client last looked.
async fn step_of_register(
    client: &mut Client<'_>,
    random: &mut StdRng,
    known: &mut BTreeMap<String, u64>,
    turn: u64,
) {
    let key = register(random.random_range(0..REGISTERS));
    let choice = random.random_range(0..10);
    if choice < 4 {
        let found = client.list(Kind::Register).await.unwrap_or_default();
        known.extend(found.into_iter().map(|(name, _, revision)| (name, revision)));
        return;
    }
    let guard = match known.get(&key) {
        Some(revision) if choice < 7 => Guard::At(*revision),
        _ => Guard::Nothing,
    };
    let value = Some(format!("{}-{turn}", client.number()));
    match client.write(Write { key: &key, value, guard }).await {
        Some(Told::Done(Some(revision))) => drop(known.insert(key, revision)),
        // Look again before the next one.
        _ => drop(known.remove(&key)),
    }
}

async fn step_of_counter(client: &mut Client<'_>, number: u64, turn: u64) {
    let found = client.list(Kind::Counter).await.unwrap_or_default();
    let Some((_, value, revision)) = found.first() else { return };
    let Some(current) = counter::number(value) else { return };
    let (value, guard) = (counter::value(current + 1, number, turn), Guard::At(*revision));
    client.write(Write { key: COUNTER, value: Some(value), guard }).await;
}

/// Makes an object, or deletes one that it has made; what it does not know of is left alone.
async fn step_of_churn(
    client: &mut Client<'_>,
    random: &mut StdRng,
    made: &mut Vec<String>,
    turn: u64,
) {
    let deletes = made.len() >= CHURN_MAX || (!made.is_empty() && random.random_bool(0.4));
    if deletes {
        let key = made.swap_remove(random.random_range(0..made.len()));
        client.write(Write { key: &key, value: None, guard: Guard::Nothing }).await;
        return;
    }
    let key = format!("{}-{}-{turn}", Kind::Churn, client.number());
    let write = Write { key: &key, value: Some(key.clone()), guard: Guard::Absent };
    if let Some(Told::Done(_)) = client.write(write).await {
        made.push(key);
    }
}

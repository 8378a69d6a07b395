//! What both are given to do, through one and the same client of etcd's API.

use super::{
    Figure,
    caller::Caller,
    clusters::{Cluster, kill_member},
    report::Measured,
};
use crate::cli::bench::figures::{AsyncStep, Figures, measure};
use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use etcd_door::proto::rpc::{
    Compare, PutRequest, RangeRequest, RequestOp, StatusRequest, TxnRequest, WatchCreateRequest,
    WatchRequest,
    compare::{CompareTarget, TargetUnion},
    kv_client::KvClient,
    maintenance_client::MaintenanceClient,
    request_op::Request,
    watch_client::WatchClient,
    watch_request::RequestUnion,
};
use rand::RngCore as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// Bytes of each value, as in the figures of other stores.
const VALUE_BYTES: usize = 1024;
/// Keys that are put and read again and again.
const KEYS: u64 = 10_000;
/// Puts in flight while watchers are measured.
const WATCH_WRITERS: usize = 8;
/// Between two probes of a cluster that has lost its leader.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// A cluster that has not come back by then does not come back.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const WINDOW: u32 = 4 << 20;

/// So many connections, to the members in turn.
pub(super) async fn connect(endpoints: &[String], count: usize) -> Result<Vec<Channel>> {
    let mut channels = Vec::with_capacity(count);
    for endpoint in endpoints.iter().cycle().take(count) {
        let channel = Endpoint::from_shared(endpoint.clone())?
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .connect()
            .await
            .with_context(|| format!("cannot connect to {endpoint}"))?;
        channels.push(channel);
    }
    Ok(channels)
}

fn key(number: u64) -> Bytes {
    format!("/registry/bench/default/object-{number:08}").into()
}

fn put(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest { key, value, ..PutRequest::default() }
}

fn range(key: Bytes) -> RangeRequest {
    RangeRequest { key, ..RangeRequest::default() }
}

/// As kube-apiserver creates an object: put if nobody has, else say what is there.
fn create(key: Bytes, value: Bytes) -> TxnRequest {
    let absent = Compare {
        key: key.clone(),
        target: CompareTarget::Mod.into(),
        target_union: Some(TargetUnion::ModRevision(0)),
        ..Compare::default()
    };
    let op = |request| vec![RequestOp { request: Some(request) }];
    TxnRequest {
        compare: vec![absent],
        success: op(Request::RequestPut(put(key.clone(), value))),
        failure: op(Request::RequestRange(range(key))),
    }
}

/// So many cheaper ones, for calls about keys.
pub(super) async fn callers(endpoints: &[String], count: usize) -> Result<Vec<Caller>> {
    let calls = endpoints.iter().cycle().take(count).map(|endpoint| Caller::connect(endpoint));
    futures::future::try_join_all(calls).await
}

/// Puts, creates, reads, or a mixture.
pub(super) async fn keys(
    figure: Figure,
    callers: &[Caller],
    clients: usize,
    time: Duration,
    round: usize,
) -> Result<Figures> {
    let clients: Vec<Caller> = callers.iter().cycle().take(clients).cloned().collect();
    let values = Values::new();
    let first = clients.first().context("at least one client")?.clone();
    if figure != Figure::Put {
        fill(first, &values).await?;
    }
    let step = Step { figure, values, clients: clients.len() as u64, round };
    measure(clients, time, step).await
}

/// All keys that are read are there.
async fn fill(client: Caller, values: &Values) -> Result<()> {
    let counted = RangeRequest { range_end: key(KEYS), count_only: true, ..range(key(0)) };
    let present = client.range(&counted).await?.count;
    if present == KEYS as i64 {
        return Ok(());
    }
    let mut writers = JoinSet::new();
    for writer in 0..64 {
        let (client, values) = (client.clone(), values.clone());
        writers.spawn(async move {
            for number in (writer..KEYS).step_by(64) {
                client.put(&put(key(number), values.of(number))).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(())
}

/// Bytes that no compression makes smaller, as etcd's own benchmark has them.
#[derive(Clone)]
struct Values(Bytes);

impl Values {
    fn new() -> Values {
        let mut bytes = vec![0; 1 << 20];
        rand::rng().fill_bytes(&mut bytes);
        Values(bytes.into())
    }

    fn of(&self, nth: u64) -> Bytes {
        let from = (nth as usize * 509) % (self.0.len() - VALUE_BYTES);
        self.0.slice(from..from + VALUE_BYTES)
    }
}

#[derive(Clone)]
struct Step {
    figure: Figure,
    values: Values,
    clients: u64,
    round: usize,
}

impl AsyncStep<Caller> for Step {
    async fn step(&mut self, client: &mut Caller, number: usize, count: u64) -> Result<()> {
        let nth = count * self.clients + number as u64;
        // Spread over all keys; the factor has no divisor in common with their number.
        let key = key((nth * 7919) % KEYS);
        match self.figure {
            Figure::Create => {
                let name = format!("/registry/new/{}/{}/{nth}", self.round, self.clients);
                let created = client.txn(&create(name.into(), self.values.of(nth))).await?;
                ensure!(created.succeeded, "it was there already");
            }
            Figure::Put => drop(client.put(&put(key, self.values.of(nth))).await?),
            Figure::Mixed if count.is_multiple_of(5) => {
                client.put(&put(key, self.values.of(nth))).await?;
            }
            Figure::Mixed | Figure::Range => {
                let found = client.range(&range(key)).await?;
                ensure!(found.kvs.len() == 1, "a key that was put is not there");
            }
            Figure::Watch | Figure::Failover => bail!("measured otherwise"),
        }
        Ok(())
    }
}

/// One writer of the watched keys and how many watchers have not seen its last put.
#[derive(Default)]
struct Slot {
    missing: AtomicUsize,
    seen: Notify,
}

/// So many watchers of the same keys, each on a stream of its own. A writer puts again when all watchers
/// have seen its last put. Each event at each watcher is one operation; its latency counts from the call.
pub(super) async fn watch(
    channels: &[Channel],
    watchers: usize,
    time: Duration,
) -> Result<Figures> {
    let origin = Instant::now();
    let slots: Arc<Vec<Slot>> = Arc::new((0..WATCH_WRITERS).map(|_| Slot::default()).collect());
    let mut watching = JoinSet::new();
    let over = CancellationToken::new();
    for channel in channels.iter().cycle().take(watchers) {
        let watch = open_watch(channel.clone()).await?;
        watching.spawn(follow(watch, slots.clone(), origin, over.clone()));
    }
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for slot in 0..WATCH_WRITERS {
        let client = KvClient::new(channels[slot % channels.len()].clone());
        let slots = slots.clone();
        writers.spawn(async move {
            let until = began + time;
            while Instant::now() < until {
                write_watched(client.clone(), &slots, slot, watchers, origin).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let took = began.elapsed();
    over.cancel();
    let mut delays = Vec::new();
    while let Some(seen) = watching.join_next().await {
        delays.extend(seen??);
    }
    Ok(Figures::new(delays, took))
}

async fn write_watched(
    mut client: KvClient<Channel>,
    slots: &[Slot],
    slot: usize,
    watchers: usize,
    origin: Instant,
) -> Result<()> {
    let Slot { missing, seen } = &slots[slot];
    missing.store(watchers, Ordering::SeqCst);
    let mut value = BytesMut::with_capacity(VALUE_BYTES);
    value.put_u64(slot as u64);
    value.put_u64(origin.elapsed().as_nanos() as u64);
    value.resize(VALUE_BYTES, b'x');
    client.put(put(format!("/registry/watched/{slot}").into(), value.freeze())).await?;
    tokio::time::timeout(PATIENCE, seen.notified()).await.context("not every watcher saw a put")
}

type Events = tonic::Streaming<etcd_door::proto::rpc::WatchResponse>;

/// A watch that has begun. It ends when what keeps its requests open is dropped.
async fn open_watch(channel: Channel) -> Result<(mpsc::Sender<WatchRequest>, Events)> {
    let (requests, sent) = mpsc::channel(1);
    let create = WatchCreateRequest {
        key: "/registry/watched/".into(),
        range_end: "/registry/watched0".into(),
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(create).await?;
    let sent = futures::stream::unfold(sent, |mut sent| async { Some((sent.recv().await?, sent)) });
    let mut events = WatchClient::new(channel).watch(sent).await?.into_inner();
    let begun = events.message().await?.context("the watch ended at once")?;
    ensure!(begun.created && !begun.canceled, "no watch: {}", begun.cancel_reason);
    Ok((requests, events))
}

/// The delay of each event, until it is over. etcd does not end a watch whose requests have ended.
async fn follow(
    (_requests, mut events): (mpsc::Sender<WatchRequest>, Events),
    slots: Arc<Vec<Slot>>,
    origin: Instant,
    over: CancellationToken,
) -> Result<Vec<Duration>> {
    let mut delays = Vec::new();
    while let Some(answer) = over.run_until_cancelled(events.message()).await {
        let answer = answer?.context("the watch ended early")?;
        ensure!(!answer.canceled, "the watch was cancelled: {}", answer.cancel_reason);
        let now = origin.elapsed();
        for event in answer.events {
            let mut value = event.kv.context("an event of no key")?.value;
            let slot = slots.get(value.get_u64() as usize).context("an event of no writer")?;
            delays.push(now.saturating_sub(Duration::from_nanos(value.get_u64())));
            if slot.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
                slot.seen.notify_one();
            }
        }
    }
    Ok(delays)
}

/// Kills the leader. From then until the first write that began later is acknowledged by one of the
/// others; then the killed one comes back.
pub(super) async fn failover(cluster: &mut dyn Cluster) -> Result<Measured> {
    wait_until_all_serve(cluster).await?;
    let leader = leader(cluster).await?;
    let mut endpoints = cluster.endpoints();
    endpoints.remove(leader);
    let channels = connect(&endpoints, endpoints.len()).await?;
    let killed = Instant::now();
    kill_member(cluster, leader).await?;
    let probing = probe(&channels);
    let probed = tokio::time::timeout(PATIENCE, probing).await;
    let took = killed.elapsed();
    probed.with_context(|| format!("{} took no write after a kill", cluster.name()))??;
    cluster.restart(leader)?;
    wait_until_all_serve(cluster).await?;
    Ok(Measured { figures: Figures::new(vec![took], took), cpu_seconds: 0.0 })
}

/// Ends with the first of many puts that is acknowledged.
async fn probe(channels: &[Channel]) -> Result<()> {
    let mut probes = JoinSet::new();
    let mut tick = tokio::time::interval(PROBE_EVERY);
    for channel in channels.iter().cycle() {
        loop {
            tokio::select! {
                _ = tick.tick() => break,
                Some(done) = probes.join_next() => if done? { return Ok(()) },
            }
        }
        let mut client = KvClient::new(channel.clone());
        probes.spawn(async move { client.put(put(key(0), Bytes::new())).await.is_ok() });
    }
    bail!("nobody to ask")
}

/// Which member leads.
async fn leader(cluster: &dyn Cluster) -> Result<usize> {
    for (member, endpoint) in cluster.endpoints().into_iter().enumerate() {
        let channel = Endpoint::from_shared(endpoint)?.connect().await?;
        let status = MaintenanceClient::new(channel).status(StatusRequest {}).await?.into_inner();
        let own = status.header.context("a header")?.member_id;
        if status.leader == own {
            return Ok(member);
        }
    }
    bail!("{}: no member says that it leads", cluster.name())
}

/// Each member knows a leader and has a put acknowledged.
pub(super) async fn wait_until_all_serve(cluster: &dyn Cluster) -> Result<()> {
    let serving = async {
        for endpoint in cluster.endpoints() {
            while let Err(error) = serves(&endpoint).await {
                tracing::debug!(%endpoint, %error, "not yet");
                tokio::time::sleep(PROBE_EVERY * 10).await;
            }
        }
        anyhow::Ok(())
    };
    let served = tokio::time::timeout(PATIENCE, serving).await;
    served.with_context(|| format!("{} does not serve after {PATIENCE:?}", cluster.name()))?
}

async fn serves(endpoint: &str) -> Result<()> {
    let channel = Endpoint::from_shared(endpoint.to_string())?
        .connect_timeout(ANSWER_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .connect()
        .await?;
    let status = MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await?;
    ensure!(status.get_ref().leader != 0, "no leader");
    KvClient::new(channel).put(put(key(0), Bytes::new())).await?;
    Ok(())
}

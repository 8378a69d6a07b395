//! Leases: granted, kept alive, looked at, and ended by their owner or by the leader when nobody kept
//! them alive. All of it goes through the log, so that every member knows how old each lease is and a
//! new leader goes on with real ages.

use crate::{
    keys,
    kv::Door,
    proto::rpc::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
        LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, lease_server::Lease,
    },
    record::{ATTACHED, ENDING, LEASES, LeaseId, granted, key_at, lease_body, lease_of},
    status,
};
use futures::{Stream, StreamExt};
use raft_store::{Error, Guard, Key, Op, Revision, Store, Stored, Term, Txn, View, Write};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

/// Shorter leases are made this long, in seconds: as etcd does with its own timers.
const TTL_MIN: i64 = 2;
/// As etcd bounds it, so that nothing overflows.
const TTL_MAX: i64 = 9_000_000_000;
/// Keys that go with a lease in one transaction: what fits into one entry by far.
const KEYS_PER_TXN: usize = 5_000;
/// Leases that the leader ends at a time.
const ENDING_AT_ONCE: usize = 32;
/// A lease that somebody began to end is ended by the leader after this long.
const ENDING_LATE: Duration = Duration::from_secs(5);

/// When this member saw each record of a lease for the first time.
#[derive(Default)]
pub(crate) struct Clocks(Mutex<BTreeMap<Key, (Revision, Instant)>>);

impl Clocks {
    fn seen(&self) -> MutexGuard<'_, BTreeMap<Key, (Revision, Instant)>> {
        self.0.lock().expect("only looked up and replaced")
    }

    /// How long ago this version was seen first; nothing if it was not seen yet.
    fn age(&self, stored: &Stored, now: Instant) -> Duration {
        let seen = self.seen().get(&stored.key).copied();
        let seen = seen.filter(|(revision, _)| *revision == stored.revision);
        seen.map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(at))
    }

    /// Notes what is new and forgets what is gone.
    fn look_at(&self, records: &[Arc<Stored>], now: Instant) {
        let mut seen = self.seen();
        let before = std::mem::take(&mut *seen);
        *seen = records
            .iter()
            .map(|record| {
                let known = before.get(&record.key).copied();
                let known = known.filter(|(revision, _)| *revision == record.revision);
                (record.key.clone(), known.unwrap_or((record.revision, now)))
            })
            .collect();
    }
}

fn records(view: &View<'_>) -> Vec<Arc<Stored>> {
    let living = view.between(LEASES, "", None);
    living.chain(view.between(ENDING, "", None)).cloned().collect()
}

/// Every member keeps the ages; the leader of `leading` ends what nobody keeps alive.
pub(crate) async fn tend(door: &Door, leading: Option<Term>) {
    let (store, now) = (door.store(), Instant::now());
    let records = store.look(records);
    door.leases().look_at(&records, now);
    let Some(term) = leading else { return };
    let due = records.into_iter().filter(|record| {
        let life = match &*record.key.space {
            LEASES => Duration::from_secs(granted(record).unsigned_abs()),
            _ => ENDING_LATE,
        };
        door.leases().age(record, now) >= life
    });
    let due: Vec<_> = due.collect();
    futures::stream::iter(due)
        .for_each_concurrent(ENDING_AT_ONCE, |record| async move {
            let Some(id) = LeaseId::parse(&record.key.path) else { return };
            let ended = match &*record.key.space {
                LEASES => end(store, id, &record, Some(term)).await,
                _ => finish(store, id, Some(term)).await,
            };
            match ended {
                // It was kept alive or ended meanwhile, or another leads now.
                Ok(()) | Err(Error::GuardFailed { .. } | Error::Fenced { .. }) => {}
                Err(error) => tracing::debug!(lease = %id, %error, "ending it is tried again"),
            }
        })
        .await;
}

/// From now on nothing can be attached to the lease; then its keys go.
async fn end(
    store: &Store,
    id: LeaseId,
    record: &Stored,
    fence: Option<Term>,
) -> Result<(), Error> {
    let gone = Write { key: id.record(), guard: Guard::At(record.revision), op: Op::Delete };
    let ending = Write { key: id.ending(), guard: Guard::Any, op: Op::Put(record.body.clone()) };
    store.txn(Txn { writes: vec![gone, ending], fence, one_revision: true }).await?;
    finish(store, id, fence).await
}

/// Deletes the keys of a lease to which nothing can be attached any more, all in one revision unless
/// there are very many.
async fn finish(store: &Store, id: LeaseId, fence: Option<Term>) -> Result<(), Error> {
    loop {
        let Some(writes) = store.look(|view| last_writes(view, id)) else { return Ok(()) };
        match store.txn(Txn { writes, fence, one_revision: true }).await {
            // Some of its keys were changed meanwhile, or another has ended it.
            Ok(_) | Err(Error::GuardFailed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn last_writes(view: &View<'_>, id: LeaseId) -> Option<Vec<Write>> {
    view.get(&id.ending())?;
    let mut writes = vec![Write { key: id.ending(), guard: Guard::Exists, op: Op::Check }];
    let attached = attachments(view, id);
    for (attachment, key) in attached.iter().take(KEYS_PER_TXN) {
        writes.push(Write { key: attachment.clone(), guard: Guard::Any, op: Op::Delete });
        if let Some(stored) = view.get(key).filter(|stored| lease_of(stored) == Some(id)) {
            let guard = Guard::At(stored.revision);
            writes.push(Write { key: key.clone(), guard, op: Op::Delete });
        }
    }
    if attached.len() <= KEYS_PER_TXN {
        writes[0].op = Op::Delete;
    }
    Some(writes)
}

/// What was attached to a lease: the note of it and the key, which may have another lease by now.
fn attachments(view: &View<'_>, id: LeaseId) -> Vec<(Key, Key)> {
    let prefix = id.attachments();
    // '0' comes after '/'.
    let until = format!("{id}0");
    let notes = view.between(ATTACHED, &prefix, Some(&until));
    let pair = |note: &Arc<Stored>| {
        let path = note.key.path.strip_prefix(&prefix)?;
        Some((note.key.clone(), key_at(&path.into())))
    };
    notes.filter_map(pair).collect()
}

async fn grant(store: &Store, id: LeaseId, ttl: i64) -> Result<Revision, Error> {
    let body = lease_body(ttl);
    let writes = vec![
        Write { key: id.record(), guard: Guard::Absent, op: Op::Put(body) },
        Write { key: id.ending(), guard: Guard::Absent, op: Op::Check },
    ];
    let committed = store.txn(Txn { writes, ..Txn::default() }).await?;
    Ok(committed.revision)
}

/// The record of a lease that lives; asked for again at a barrier if this member has none.
async fn record(store: &Store, id: LeaseId) -> Result<Option<Arc<Stored>>, Error> {
    if let Some(record) = store.get(&id.record()) {
        return Ok(Some(record));
    }
    store.barrier().await?;
    Ok(store.get(&id.record()))
}

/// The granted seconds, which it has again from now on; `None`: there is no such lease.
async fn keep_alive(store: &Store, id: LeaseId) -> Result<Option<i64>, Error> {
    let Some(record) = record(store, id).await? else { return Ok(None) };
    let (ttl, put) = (granted(&record), Op::Put(record.body.clone()));
    match store.txn(Txn::one(id.record(), Guard::Exists, put)).await {
        Ok(_) => Ok(Some(ttl)),
        Err(Error::GuardFailed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn revoke(store: &Store, id: LeaseId) -> Result<(), Status> {
    loop {
        let Some(record) = record(store, id).await.map_err(status::of)? else {
            // One that is being ended is as good as gone: wait until its keys are.
            if store.get(&id.ending()).is_none() {
                return Err(status::lease_not_found());
            }
            return finish(store, id, None).await.map_err(status::of);
        };
        match end(store, id, &record, None).await {
            Ok(()) => return Ok(()),
            // It was kept alive meanwhile, or another has ended it.
            Err(Error::GuardFailed { .. }) => {}
            Err(error) => return Err(status::of(error)),
        }
    }
}

type KeepAlives = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Lease for Door {
    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseGrantRequest { ttl, id } = *request.get_ref();
        if ttl > TTL_MAX {
            return Err(status::lease_ttl_too_large());
        }
        let ttl = ttl.max(TTL_MIN);
        loop {
            // As clients expect them: positive.
            let new = LeaseId::new(id).unwrap_or_else(|| LeaseId(rand::random_range(1..i64::MAX)));
            match grant(self.store(), new, ttl).await {
                Ok(revision) => {
                    let header = self.header(revision);
                    let answer =
                        LeaseGrantResponse { header, id: new.0, ttl, ..Default::default() };
                    return Ok(Response::new(answer));
                }
                Err(Error::GuardFailed { .. }) if id == 0 => {}
                Err(Error::GuardFailed { .. }) => return Err(status::lease_exists()),
                Err(error) => return Err(status::of(error)),
            }
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let id = LeaseId::new(request.get_ref().id).ok_or_else(status::lease_not_found)?;
        revoke(self.store(), id).await?;
        let header = self.header(self.store().revision());
        Ok(Response::new(LeaseRevokeResponse { header }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        let door = self.clone();
        let answers = request.into_inner().then(move |request| {
            let door = door.clone();
            async move {
                let id = request?.id;
                let ttl = match LeaseId::new(id) {
                    None => None,
                    Some(id) => keep_alive(door.store(), id).await.map_err(status::of)?,
                };
                let header = door.header(door.store().revision());
                // No time left is how a client learns that the lease is gone.
                Ok(LeaseKeepAliveResponse { header, id, ttl: ttl.unwrap_or(0) })
            }
        });
        let answers = answers.take_until(self.stopping().clone().cancelled_owned());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = *request.get_ref();
        let store = self.store();
        store.barrier().await.map_err(status::of)?;
        let (revision, found) = store.look(|view| {
            let id = LeaseId::new(id);
            let record = id.and_then(|id| view.get(&id.record()).cloned().map(|it| (id, it)));
            let found = record.map(|(id, record)| {
                let attached = if keys { attachments(view, id) } else { Vec::new() };
                let own = attached
                    .into_iter()
                    .map(|(_, key)| key)
                    .filter(|key| view.get(key).is_some_and(|stored| lease_of(stored) == Some(id)));
                (record, own.map(|key| keys::key(&key.path)).collect())
            });
            (view.revision(), found)
        });
        let mut answer = LeaseTimeToLiveResponse {
            header: self.header(revision),
            id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        if let Some((record, keys)) = found {
            let age = self.leases().age(&record, Instant::now());
            answer.granted_ttl = granted(&record);
            answer.ttl = (answer.granted_ttl - age.as_secs().cast_signed()).max(0);
            answer.keys = keys;
        }
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let store = self.store();
        store.barrier().await.map_err(status::of)?;
        let (revision, leases) = store.look(|view| {
            let records = view.between(LEASES, "", None);
            let leases = records.filter_map(|record| LeaseId::parse(&record.key.path));
            (view.revision(), leases.map(|id| LeaseStatus { id: id.0 }).collect())
        });
        Ok(Response::new(LeaseLeasesResponse { header: self.header(revision), leases }))
    }
}

//! The same requests to etcd itself and to the door: answers and refusals are the same, but for the
//! numbers of revisions, which are compared by the request that made them. Without etcd on this machine
//! (on PATH, or where COXSWAIN_ETCD says) it is skipped, and says so.

use bytes::Bytes;
use etcd_door::{
    Config, Door,
    proto::{
        mvccpb::{Event, KeyValue},
        rpc::{
            compare::{CompareResult, CompareTarget, TargetUnion},
            kv_client::KvClient,
            lease_client::LeaseClient,
            request_op::Request as Op,
            response_op::Response as Answer,
            watch_client::WatchClient,
            watch_request::RequestUnion,
            *,
        },
    },
};
use raft_store::Store;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::TcpListener,
    ops::Range,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, transport::Channel};

const PATIENCE: Duration = Duration::from_secs(60);
/// Of each seed.
const REQUESTS: usize = 400;
/// `COXSWAIN_SEEDS=FROM..UNTIL` chooses others.
const SEEDS: Range<u64> = 1..4;
/// Transactions are in transactions up to this deep.
const DEPTH: usize = 2;

/// A revision by the number of the request that made it, so that both sides can be asked alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// 0: none asked for.
    Now,
    /// Of a request that was made, by its number.
    Of(usize),
    /// None that will be.
    Never,
    Negative,
}

/// One request, with its revisions not yet worked out.
#[derive(Clone, Debug)]
enum Call {
    Range(RangeRequest, At),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest, Vec<At>),
    Compact(At),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    Leases,
    TimeToLive(LeaseTimeToLiveRequest),
}

/// One of the two.
struct Side {
    channel: Channel,
    /// The revision after each request that wrote keys, by its number.
    written: BTreeMap<usize, i64>,
}

impl Side {
    fn revision(&self, at: At) -> i64 {
        match at {
            At::Now => 0,
            At::Of(request) => self.written.get(&request).copied().unwrap_or(0),
            At::Never => 1 << 40,
            At::Negative => -3,
        }
    }

    /// The request that made a revision; for one that no request made, the last one before it.
    fn label(&self, revision: i64) -> String {
        let before = self.written.iter().filter(|(_, of)| **of <= revision);
        // Several may have seen the same one; the first made it.
        let before = before.max_by_key(|(request, of)| (**of, Reverse(**request)));
        before.map_or("r-".into(), |(request, _)| format!("r{request}"))
    }

    fn key_value(&self, kv: &KeyValue) -> String {
        let KeyValue { key, create_revision, mod_revision, version, value, lease } = kv;
        let (created, changed) = (self.label(*create_revision), self.label(*mod_revision));
        format!(
            "{key:?}={value:?} created {created} changed {changed} version {version} lease {lease}"
        )
    }

    fn key_values(&self, kvs: &[KeyValue]) -> String {
        kvs.iter().map(|kv| self.key_value(kv)).collect::<Vec<_>>().join("; ")
    }

    fn range(&self, answer: &RangeResponse) -> String {
        let kvs = self.key_values(&answer.kvs);
        format!("range count {} more {} [{kvs}]", answer.count, answer.more)
    }

    fn txn(&self, answer: &TxnResponse) -> String {
        let one = |op: &ResponseOp| match &op.response {
            None => "nothing".to_string(),
            Some(Answer::ResponseRange(range)) => self.range(range),
            Some(Answer::ResponsePut(put)) => {
                format!("put [{}]", self.key_values(put.prev_kv.as_slice()))
            }
            Some(Answer::ResponseDeleteRange(delete)) => self.delete(delete),
            Some(Answer::ResponseTxn(inner)) => self.txn(inner),
        };
        let ops: Vec<_> = answer.responses.iter().map(one).collect();
        format!("txn {} {{{}}}", answer.succeeded, ops.join(" | "))
    }

    fn delete(&self, answer: &DeleteRangeResponse) -> String {
        format!("delete {} [{}]", answer.deleted, self.key_values(&answer.prev_kvs))
    }

    /// What the answer comes to, in words that are the same on both sides.
    async fn ask(&mut self, number: usize, call: &Call) -> Result<String, Status> {
        let mut kv = KvClient::new(self.channel.clone());
        let mut lease = LeaseClient::new(self.channel.clone());
        let revision = |header: Option<ResponseHeader>| header.expect("a header").revision;
        Ok(match call {
            Call::Range(range, at) => {
                let range = RangeRequest { revision: self.revision(*at), ..range.clone() };
                let answer = kv.range(range).await?.into_inner();
                let now = self.label(revision(answer.header));
                format!("{} at {now}", self.range(&answer))
            }
            Call::Put(put) => {
                let answer = kv.put(put.clone()).await?.into_inner();
                self.written.insert(number, revision(answer.header));
                format!("put [{}]", self.key_values(answer.prev_kv.as_slice()))
            }
            Call::Delete(delete) => {
                let answer = kv.delete_range(delete.clone()).await?.into_inner();
                if answer.deleted > 0 {
                    self.written.insert(number, revision(answer.header));
                }
                self.delete(&answer)
            }
            Call::Txn(txn, ats) => self.transact(number, txn.clone(), ats).await?,
            Call::Compact(at) => {
                let revision = self.revision(*at);
                kv.compact(CompactionRequest { revision, physical: true }).await?;
                "compacted".into()
            }
            Call::Grant(grant) => {
                let answer = lease.lease_grant(*grant).await?.into_inner();
                format!("granted {} for {}", answer.id, answer.ttl)
            }
            Call::Revoke(revoke) => {
                // The keys go with it, in a revision of their own if there are any. The door counts the
                // revocation as a revision in any case.
                let asked = LeaseTimeToLiveRequest { id: revoke.id, keys: true };
                let keys = lease.lease_time_to_live(asked).await.map(|it| it.into_inner().keys);
                let answer = lease.lease_revoke(*revoke).await?.into_inner();
                if keys.is_ok_and(|keys| !keys.is_empty()) {
                    self.written.insert(number, revision(answer.header));
                }
                "revoked".into()
            }
            Call::Leases => {
                let answer = lease.lease_leases(LeaseLeasesRequest {}).await?.into_inner();
                let mut ids: Vec<_> = answer.leases.iter().map(|lease| lease.id).collect();
                ids.sort();
                format!("leases {ids:?}")
            }
            Call::TimeToLive(asked) => {
                let answer = lease.lease_time_to_live(*asked).await?.into_inner();
                let mut keys = answer.keys;
                keys.sort();
                let lives = answer.ttl > 0;
                format!("lease of {}: lives {lives}, keys {keys:?}", answer.granted_ttl)
            }
        })
    }

    /// A transaction, its comparisons with these revisions.
    async fn transact(
        &mut self,
        number: usize,
        mut txn: TxnRequest,
        ats: &[At],
    ) -> Result<String, Status> {
        for (compare, at) in txn.compare.iter_mut().zip(ats) {
            let revision = self.revision(*at);
            if let Some(TargetUnion::CreateRevision(number) | TargetUnion::ModRevision(number)) =
                &mut compare.target_union
            {
                *number = revision;
            }
        }
        let answer = KvClient::new(self.channel.clone()).txn(txn).await?.into_inner();
        if writes(&answer) {
            self.written.insert(number, answer.header.expect("a header").revision);
        }
        Ok(self.txn(&answer))
    }

    /// Everything that a watch from a revision on tells, up to and including the last key.
    async fn events(&self, from: i64, last: &Bytes) -> Vec<String> {
        let create = WatchCreateRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            start_revision: from,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
        let mut client = WatchClient::new(self.channel.clone());
        let mut answers = client.watch(requests).await.expect("a stream").into_inner();
        let mut told = Vec::new();
        loop {
            let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
            let answer = answer.expect("more is to come").expect("an answer").expect("no end");
            assert!(!answer.canceled, "{}", answer.cancel_reason);
            for event in answer.events {
                told.push(self.event(&event));
                if event.kv.is_some_and(|kv| kv.key == last) {
                    return told;
                }
            }
        }
    }

    fn event(&self, event: &Event) -> String {
        let kvs = [event.kv.as_slice(), event.prev_kv.as_slice()].map(|kv| self.key_values(kv));
        format!("{:?} {} before [{}]", event.r#type(), kvs[0], kvs[1])
    }
}

fn writes(answer: &TxnResponse) -> bool {
    answer.responses.iter().any(|op| match &op.response {
        Some(Answer::ResponsePut(_)) => true,
        Some(Answer::ResponseDeleteRange(delete)) => delete.deleted > 0,
        Some(Answer::ResponseTxn(inner)) => writes(inner),
        _ => false,
    })
}

/// Random requests over few keys, so that they meet.
struct Random {
    rng: StdRng,
    /// Numbers of the requests that have written.
    written: Vec<usize>,
}

impl Random {
    fn key(&mut self) -> Bytes {
        let keys: [&[u8]; 11] =
            [b"a", b"b", b"b/", b"b/1", b"b/2", b"b0", b"c", b"\0", b"\xff", b"\xff\xff", b""];
        let usual = self.rng.random_range(0..10);
        let last = if self.rng.random_bool(0.03) { 10 } else { usual };
        Bytes::from_static(keys[last])
    }

    fn end(&mut self) -> Bytes {
        match self.rng.random_range(0..8) {
            0..5 => Bytes::new(),
            5 => Bytes::from_static(b"\0"),
            6 => Bytes::from_static(b"b0"),
            _ => self.key(),
        }
    }

    fn at(&mut self) -> At {
        match self.rng.random_range(0..20) {
            0 => At::Never,
            1 => At::Negative,
            2..9 => self.written.choose(&mut self.rng).map_or(At::Now, |number| At::Of(*number)),
            _ => At::Now,
        }
    }

    fn lease(&mut self) -> i64 {
        if self.rng.random_bool(0.7) { 0 } else { self.rng.random_range(1..5) }
    }

    fn chance(&mut self, of: f64) -> bool {
        self.rng.random_bool(of)
    }

    fn range(&mut self) -> RangeRequest {
        RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: self.rng.random_range(-1..4).max(0),
            sort_order: self.rng.random_range(0..3),
            sort_target: self.rng.random_range(0..5),
            serializable: self.chance(0.2),
            keys_only: self.chance(0.2),
            count_only: self.chance(0.1),
            ..RangeRequest::default()
        }
    }

    fn put(&mut self) -> PutRequest {
        let (ignore_value, ignore_lease) = (self.chance(0.1), self.chance(0.1));
        let value = if ignore_value && self.chance(0.8) { 0 } else { self.rng.random_range(0..4) };
        // Which of two mistakes etcd tells depends on whether it is in a transaction.
        let no_lease = ignore_value || (ignore_lease && self.chance(0.8));
        let lease = if no_lease { 0 } else { self.lease() };
        PutRequest {
            key: self.key(),
            value: Bytes::from_static(&b"xyz"[..value]),
            lease,
            prev_kv: self.chance(0.4),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest { key: self.key(), range_end: self.end(), prev_kv: self.chance(0.5) }
    }

    fn compare(&mut self) -> Compare {
        let (target, union) = match self.rng.random_range(0..5) {
            0 => (CompareTarget::Version, TargetUnion::Version(self.rng.random_range(0..3))),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(0)),
            3 => (CompareTarget::Lease, TargetUnion::Lease(self.lease())),
            _ => (CompareTarget::Value, TargetUnion::Value(Bytes::from_static(b"x"))),
        };
        let results = [
            CompareResult::Equal,
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ];
        Compare {
            result: (*results.choose(&mut self.rng).expect("some")).into(),
            target: target.into(),
            key: self.key(),
            target_union: Some(union),
            range_end: self.end(),
        }
    }

    /// etcd overlooks some deletions of what is put in the same transaction, and the door refuses all of
    /// them: those up to the end of all keys, and those in transactions within transactions.
    fn delete_in_txn(&mut self) -> DeleteRangeRequest {
        let mut delete = self.delete();
        if delete.range_end == b"\0"[..] {
            delete.range_end = Bytes::from_static(b"b0");
        }
        delete
    }

    fn ops(&mut self, depth: usize) -> Vec<RequestOp> {
        let count = self.rng.random_range(0..4);
        let one = |random: &mut Random| match random.rng.random_range(0..7) {
            0..3 => Op::RequestPut(random.put()),
            3 if depth == DEPTH => Op::RequestDeleteRange(random.delete_in_txn()),
            4 if depth > 0 => Op::RequestTxn(random.txn(depth - 1)),
            _ => Op::RequestRange(random.range()),
        };
        (0..count).map(|_| RequestOp { request: Some(one(self)) }).collect()
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        let compare = (0..self.rng.random_range(0..3)).map(|_| self.compare()).collect();
        TxnRequest { compare, success: self.ops(depth), failure: self.ops(depth) }
    }

    fn call(&mut self) -> Call {
        match self.rng.random_range(0..100) {
            0..25 => Call::Put(self.put()),
            25..50 => {
                let range = self.range();
                Call::Range(range, self.at())
            }
            50..58 => Call::Delete(self.delete()),
            58..84 => {
                let txn = self.txn(DEPTH);
                let ats = txn.compare.iter().map(|_| self.at()).collect();
                Call::Txn(txn, ats)
            }
            84..87 => match self.at() {
                // The first time, etcd takes 0 for a revision that is not compacted.
                At::Now | At::Negative => Call::Leases,
                at => Call::Compact(at),
            },
            87..93 => {
                let id = self.rng.random_range(1..5);
                Call::Grant(LeaseGrantRequest { ttl: 1000 + id, id })
            }
            93..95 => Call::Revoke(LeaseRevokeRequest { id: self.rng.random_range(0..5) }),
            95..97 => Call::Leases,
            _ => {
                let id = self.rng.random_range(1..5);
                Call::TimeToLive(LeaseTimeToLiveRequest { id, keys: true })
            }
        }
    }
}

/// A member of etcd, alone; it ends when dropped.
struct RealEtcd {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for RealEtcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os("COXSWAIN_ETCD").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    named
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join("etcd")))
        .find(|it| it.is_file())
}

fn free_port() -> u16 {
    let probe = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    probe.local_addr().expect("bound").port()
}

async fn etcd() -> Option<(Side, RealEtcd)> {
    let program = program()?;
    let directory = tempfile::tempdir().expect("a directory");
    let (client, peer) = (free_port(), free_port());
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new(program);
    command.args(["--name=one", "--unsafe-no-fsync", "--log-level=error"]);
    command.arg("--data-dir").arg(directory.path().join("data"));
    command.arg(format!("--listen-client-urls={client}"));
    command.arg(format!("--advertise-client-urls={client}"));
    command.arg(format!("--listen-peer-urls={peer}"));
    command.arg(format!("--initial-advertise-peer-urls={peer}"));
    command.arg(format!("--initial-cluster=one={peer}"));
    command.stdin(Stdio::null());
    let child = command.spawn().expect("etcd starts");
    let etcd = RealEtcd { child, _directory: directory };
    let endpoint = Channel::from_shared(client).expect("an address");
    let connecting = async {
        loop {
            if let Ok(channel) = endpoint.connect().await
                && KvClient::new(channel.clone())
                    .range(RangeRequest { key: "ready".into(), ..RangeRequest::default() })
                    .await
                    .is_ok()
            {
                return channel;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let channel = tokio::time::timeout(PATIENCE, connecting).await.expect("etcd serves");
    Some((Side { channel, written: BTreeMap::new() }, etcd))
}

async fn door() -> (Side, DropGuard) {
    let listen = ([127, 0, 0, 1], 0).into();
    let config = Config { store: Store::in_memory(), listen, tls: None, data_dir: None };
    let door = Door::open(config).await.expect("a free port");
    let url = format!("http://{}", door.address());
    let shutdown = CancellationToken::new();
    tokio::spawn(door.serve(shutdown.clone()));
    let endpoint = Channel::from_shared(url).expect("an address");
    let channel = endpoint.connect().await.expect("it listens");
    (Side { channel, written: BTreeMap::new() }, shutdown.drop_guard())
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("COXSWAIN_SEEDS") else { return SEEDS };
    let (from, until) = text.split_once("..").expect("COXSWAIN_SEEDS=FROM..UNTIL");
    from.parse().expect("a number")..until.parse().expect("a number")
}

fn told(answer: Result<String, Status>) -> String {
    match answer {
        Ok(answer) => answer,
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

#[tokio::test]
async fn the_door_answers_as_etcd_does() {
    for seed in seeds() {
        let Some((mut etcd, _running)) = etcd().await else {
            eprintln!("SKIPPED: no etcd on PATH, and COXSWAIN_ETCD names none");
            return;
        };
        let (mut door, _open) = door().await;
        eprintln!("seed {seed}");
        let mut random = Random { rng: StdRng::seed_from_u64(seed), written: Vec::new() };
        let mut different = Vec::new();
        let mut compacted = 0;
        for number in 0..REQUESTS {
            let call = random.call();
            let expected = told(etcd.ask(number, &call).await);
            let found = told(door.ask(number, &call).await);
            if found != expected {
                different.push(format!("{number}: {call:?}\n  etcd: {expected}\n  door: {found}"));
            }
            if etcd.written.contains_key(&number) {
                random.written.push(number);
            }
            if let (Call::Compact(At::Of(at)), "compacted") = (&call, &*expected) {
                compacted = compacted.max(*at);
            }
        }
        assert!(different.is_empty(), "seed {seed}:\n{}", different.join("\n"));
        let last = Bytes::from_static(b"zz last");
        let put = Call::Put(PutRequest { key: last.clone(), ..PutRequest::default() });
        for side in [&mut etcd, &mut door] {
            side.ask(REQUESTS, &put).await.expect("put");
        }
        // What the compacted revision itself replaced is gone from etcd, and may still be there here.
        let from = |side: &Side| side.written.get(&compacted).copied().unwrap_or(0) + 1;
        let expected = etcd.events(from(&etcd), &last).await;
        assert_eq!(door.events(from(&door), &last).await, expected, "seed {seed}");
    }
}

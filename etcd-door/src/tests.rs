//! The door as its clients see it: the same messages over gRPC on loopback, in front of a real store.

use crate::{
    Config, Door,
    proto::{
        mvccpb::{Event, KeyValue},
        rpc::{
            compare::{CompareResult, CompareTarget, TargetUnion},
            kv_client::KvClient,
            lease_client::LeaseClient,
            maintenance_client::MaintenanceClient,
            request_op::Request as Op,
            response_op::Response as Answer,
            watch_client::WatchClient,
            watch_request::RequestUnion,
            *,
        },
    },
};
use bytes::Bytes;
use raft_store::Store;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status, Streaming, transport::Channel};

/// Longer than anything takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A door and a client of it; it closes when dropped.
struct Etcd {
    store: Store,
    channel: Channel,
    _open: DropGuard,
}

impl Etcd {
    async fn new() -> Etcd {
        Etcd::of(Store::in_memory()).await
    }

    async fn of(store: Store) -> Etcd {
        let listen = ([127, 0, 0, 1], 0).into();
        let config = Config { store: store.clone(), listen, tls: None, data_dir: None };
        let door = Door::open(config).await.expect("a free port");
        let url = format!("http://{}", door.address());
        let shutdown = CancellationToken::new();
        tokio::spawn(door.serve(shutdown.clone()));
        let endpoint = Channel::from_shared(url).expect("an address");
        let channel = endpoint.connect().await.expect("it listens");
        Etcd { store, channel, _open: shutdown.drop_guard() }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn leases(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    async fn put(&self, key: &'static str, value: &'static str) -> i64 {
        let answer = self.kv().put(put(key, value)).await.expect("put").into_inner();
        answer.header.expect("a header").revision
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.kv().range(request).await.map(|answer| answer.into_inner())
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.kv().txn(request).await.map(|answer| answer.into_inner())
    }

    async fn watch(&self, create: WatchCreateRequest) -> Watching {
        let (requests, receiver) = mpsc::channel(8);
        requests.send(create_watch(create)).await.expect("room");
        let mut client = WatchClient::new(self.channel.clone());
        let answers = client.watch(ReceiverStream::new(receiver)).await.expect("a stream");
        let mut watching = Watching { requests, answers: answers.into_inner() };
        assert!(watching.next().await.created);
        watching
    }
}

struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watching {
    async fn next(&mut self) -> WatchResponse {
        let next = tokio::time::timeout(PATIENCE, self.answers.next()).await;
        next.expect("an answer in time").expect("not the end").expect("no error")
    }

    /// Events until there are this many, one line each.
    async fn events(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            lines.extend(self.next().await.events.iter().map(line));
        }
        lines
    }
}

fn create_watch(create: WatchCreateRequest) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

fn line(event: &Event) -> String {
    let kv = event.kv.as_ref().expect("a key");
    let old =
        event.prev_kv.as_ref().map_or(String::new(), |old| format!(" was {}", text(&old.value)));
    let what = if event.r#type == 0 { "put" } else { "delete" };
    format!("{what} {}={} at {}{old}", text(&kv.key), text(&kv.value), kv.mod_revision)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn show(kv: &KeyValue) -> String {
    let KeyValue { create_revision, mod_revision, version, .. } = kv;
    format!("{}={} c{create_revision} m{mod_revision} v{version}", text(&kv.key), text(&kv.value))
}

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

fn get(key: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), ..RangeRequest::default() }
}

fn from_to(key: &'static str, end: &'static str) -> RangeRequest {
    RangeRequest { range_end: end.into(), ..get(key) }
}

fn delete(key: &'static str, end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: true }
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn compare(
    key: &'static str,
    target: CompareTarget,
    result: CompareResult,
    value: TargetUnion,
) -> Compare {
    Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(value),
    }
}

fn modified(key: &'static str, revision: i64) -> Compare {
    compare(key, CompareTarget::Mod, CompareResult::Equal, TargetUnion::ModRevision(revision))
}

fn keys(response: &RangeResponse) -> Vec<String> {
    response.kvs.iter().map(|kv| text(&kv.key)).collect()
}

#[tokio::test]
async fn puts_and_gets_count_versions() {
    let etcd = Etcd::new().await;
    assert_eq!(etcd.put("a", "1").await, 1);
    assert_eq!(etcd.put("a", "2").await, 2);
    let answer = etcd.kv().put(PutRequest { prev_kv: true, ..put("a", "3") }).await.expect("put");
    assert_eq!(show(&answer.into_inner().prev_kv.expect("the old")), "a=2 c1 m2 v2");
    let answer = etcd.range(get("a")).await.expect("read");
    assert_eq!(
        (show(&answer.kvs[0]), answer.count, answer.more),
        ("a=3 c1 m3 v3".into(), 1, false)
    );
    let old = etcd.range(RangeRequest { revision: 2, ..get("a") }).await.expect("read");
    assert_eq!(show(&old.kvs[0]), "a=2 c1 m2 v2");
    assert_eq!(old.header.expect("a header").revision, 3, "of the store, not of what was read");
    let kept = PutRequest { ignore_value: true, ..put("a", "") };
    etcd.kv().put(kept.clone()).await.expect("put");
    assert_eq!(show(&etcd.range(get("a")).await.expect("read").kvs[0]), "a=3 c1 m4 v4");
    let none = etcd.kv().put(PutRequest { key: "none".into(), ..kept }).await.expect_err("no key");
    assert_eq!(none.message(), "etcdserver: key not found");
    let gone = etcd.kv().delete_range(delete("a", "")).await.expect("deleted").into_inner();
    assert_eq!((gone.deleted, show(&gone.prev_kvs[0])), (1, "a=3 c1 m4 v4".into()));
    let again = etcd.kv().delete_range(delete("a", "")).await.expect("nothing").into_inner();
    assert_eq!((again.deleted, again.header.expect("a header").revision), (0, 5));
    etcd.put("a", "new").await;
    assert_eq!(show(&etcd.range(get("a")).await.expect("read").kvs[0]), "a=new c6 m6 v1");
    let future = etcd.range(RangeRequest { revision: 99, ..get("a") }).await.expect_err("future");
    assert_eq!(future.message(), "etcdserver: mvcc: required revision is a future revision");
    assert_eq!(etcd.range(get("")).await.expect_err("no key").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn ranges_are_cut_sorted_and_counted() {
    let etcd = Etcd::new().await;
    for (key, value) in [("/a/1", "z"), ("/a/2", "y"), ("/a/3", "x"), ("/b", "w"), ("/a/1", "z")] {
        etcd.put(key, value).await;
    }
    let all = etcd.range(from_to("/a/", "/a0")).await.expect("read");
    assert_eq!(keys(&all), ["/a/1", "/a/2", "/a/3"]);
    let first = RangeRequest { limit: 2, ..from_to("/a/", "/a0") };
    for revision in [0, 4] {
        let page = etcd.range(RangeRequest { revision, ..first.clone() }).await.expect("read");
        assert_eq!((keys(&page).len(), page.more, page.count), (2, true, 3));
        let next = RangeRequest { revision, ..from_to("/a/2\0", "/a0") };
        let page = etcd.range(next).await.expect("read");
        assert_eq!((keys(&page), page.more, page.count), (vec!["/a/3".into()], false, 1));
        let odd = etcd.range(RangeRequest { revision, ..from_to("/a/2", "/b\0") }).await;
        assert_eq!(keys(&odd.expect("read")), ["/a/2", "/a/3", "/b"]);
        let end = etcd.range(RangeRequest { revision, ..from_to("/a/3", "\0") }).await;
        assert_eq!(keys(&end.expect("read")), ["/a/3", "/b"]);
    }
    let by_value = RangeRequest {
        sort_target: range_request::SortTarget::Value.into(),
        limit: 1,
        ..from_to("\0", "\0")
    };
    let ascending =
        RangeRequest { sort_order: range_request::SortOrder::Ascend.into(), ..by_value.clone() };
    // Without an order only the first two are sorted, as etcd does it.
    for (request, first) in [(by_value, "/a/2"), (ascending, "/b")] {
        let found = etcd.range(request).await.expect("read");
        assert_eq!((keys(&found), found.more, found.count), (vec![first.into()], true, 4));
    }
    let newest = RangeRequest {
        sort_target: range_request::SortTarget::Mod.into(),
        sort_order: range_request::SortOrder::Descend.into(),
        min_mod_revision: 3,
        ..from_to("\0", "\0")
    };
    assert_eq!(keys(&etcd.range(newest).await.expect("read")), ["/a/1", "/b", "/a/3"]);
    let count = RangeRequest { count_only: true, ..from_to("/a/", "/a0") };
    let count = etcd.range(count).await.expect("read");
    assert_eq!((count.kvs.len(), count.count), (0, 3));
    let only = RangeRequest { keys_only: true, ..get("/b") };
    assert_eq!(show(&etcd.range(only).await.expect("read").kvs[0]), "/b= c4 m4 v1");
    assert!(etcd.range(from_to("b", "a")).await.expect("read").kvs.is_empty());
}

#[tokio::test]
async fn keys_may_be_any_bytes() {
    let etcd = Etcd::new().await;
    let key = Bytes::from_static(b"\xff\x00/\xc3");
    let request = PutRequest { key: key.clone(), value: key.clone(), ..PutRequest::default() };
    etcd.kv().put(request).await.expect("put");
    let request = RangeRequest { key: Bytes::from_static(b"\xff"), ..from_to("", "\0") };
    let found = etcd.range(request).await.expect("read");
    assert_eq!((&found.kvs[0].key, &found.kvs[0].value), (&key, &key));
}

/// Shapes in which kube-apiserver writes.
#[tokio::test]
async fn optimistic_puts_and_deletes() {
    let etcd = Etcd::new().await;
    let write = |revision, value| TxnRequest {
        compare: vec![modified("/registry/pods/a", revision)],
        success: vec![op(Op::RequestPut(put("/registry/pods/a", value)))],
        failure: vec![op(Op::RequestRange(get("/registry/pods/a")))],
    };
    let created = etcd.txn(write(0, "one")).await.expect("txn");
    assert!(created.succeeded);
    let exists = etcd.txn(write(0, "two")).await.expect("txn");
    assert!(!exists.succeeded);
    let Some(Answer::ResponseRange(found)) = &exists.responses[0].response else { panic!() };
    assert_eq!(show(&found.kvs[0]), "/registry/pods/a=one c1 m1 v1");
    assert!(etcd.txn(write(1, "two")).await.expect("txn").succeeded);
    assert!(!etcd.txn(write(1, "three")).await.expect("txn").succeeded);
    let remove = |revision| TxnRequest {
        compare: vec![modified("/registry/pods/a", revision)],
        success: vec![op(Op::RequestDeleteRange(delete("/registry/pods/a", "")))],
        failure: vec![op(Op::RequestRange(get("/registry/pods/a")))],
    };
    assert!(!etcd.txn(remove(1)).await.expect("txn").succeeded);
    let removed = etcd.txn(remove(2)).await.expect("txn");
    assert_eq!((removed.succeeded, removed.header.expect("a header").revision), (true, 3));
    let absent = etcd.txn(remove(2)).await.expect("txn");
    let Some(Answer::ResponseRange(found)) = &absent.responses[0].response else { panic!() };
    assert!(!absent.succeeded && found.kvs.is_empty());
}

#[tokio::test]
async fn a_transaction_has_one_revision_and_sees_itself() {
    let etcd = Etcd::new().await;
    etcd.put("a", "old").await;
    etcd.put("b", "old").await;
    let mut watch =
        etcd.watch(WatchCreateRequest { prev_kv: true, ..watch_from("a", "z", 3) }).await;
    let inner = TxnRequest {
        compare: vec![modified("b", 2)],
        success: vec![
            op(Op::RequestPut(put("d", "inner"))),
            op(Op::RequestRange(from_to("a", "z"))),
        ],
        failure: vec![op(Op::RequestPut(put("d", "never")))],
    };
    let request = TxnRequest {
        compare: vec![compare(
            "a",
            CompareTarget::Value,
            CompareResult::Equal,
            TargetUnion::Value("old".into()),
        )],
        success: vec![
            op(Op::RequestRange(from_to("a", "z"))),
            op(Op::RequestPut(PutRequest { prev_kv: true, ..put("c", "new") })),
            op(Op::RequestRange(from_to("a", "z"))),
            op(Op::RequestDeleteRange(delete("a", "c"))),
            op(Op::RequestTxn(inner)),
        ],
        failure: vec![],
    };
    let answer = etcd.txn(request.clone()).await.expect("txn");
    assert!(answer.succeeded);
    let at = |number: usize| answer.responses[number].response.clone().expect("an answer");
    let Answer::ResponseRange(first) = at(0) else { panic!() };
    assert_eq!(keys(&first), ["a", "b"], "before anything");
    let Answer::ResponseRange(second) = at(2) else { panic!() };
    assert_eq!(keys(&second), ["a", "b", "c"], "after the put, before the deletion");
    let Answer::ResponseDeleteRange(deleted) = at(3) else { panic!() };
    assert_eq!(
        deleted.prev_kvs.iter().map(show).collect::<Vec<_>>(),
        ["a=old c1 m1 v1", "b=old c2 m2 v1"]
    );
    let Answer::ResponseTxn(inner) = at(4) else { panic!() };
    let Some(Answer::ResponseRange(last)) = &inner.responses[1].response else { panic!() };
    let shown: Vec<_> = last.kvs.iter().map(show).collect();
    assert_eq!(shown, ["c=new c3 m3 v1", "d=inner c3 m3 v1"]);
    let events = watch.next().await;
    let lines: Vec<_> = events.events.iter().map(line).collect();
    let expected =
        ["put c=new at 3", "delete a= at 3 was old", "delete b= at 3 was old", "put d=inner at 3"];
    assert_eq!(lines, expected, "all in one answer");
    assert!(!etcd.txn(request).await.expect("txn").succeeded, "a is gone");
    assert_eq!(etcd.put("e", "x").await, 4);
}

fn watch_from(key: &'static str, end: &'static str, start: i64) -> WatchCreateRequest {
    let (key, range_end) = (key.into(), end.into());
    WatchCreateRequest { key, range_end, start_revision: start, ..WatchCreateRequest::default() }
}

#[tokio::test]
async fn every_comparison() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    use CompareTarget::{Create, Lease, Mod, Value, Version};
    let etcd = Etcd::new().await;
    for value in ["1", "2", "3"] {
        etcd.put("a", value).await;
    }
    etcd.put("ab", "9").await;
    let holds = async |compare: Compare| {
        let request = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
        etcd.txn(request).await.expect("txn").succeeded
    };
    for (target, value, less) in [
        (Version, TargetUnion::Version(3), TargetUnion::Version(2)),
        (Create, TargetUnion::CreateRevision(1), TargetUnion::CreateRevision(0)),
        (Mod, TargetUnion::ModRevision(3), TargetUnion::ModRevision(2)),
        (Value, TargetUnion::Value("3".into()), TargetUnion::Value("2".into())),
        (Lease, TargetUnion::Lease(0), TargetUnion::Lease(-1)),
    ] {
        let is = |result, value: &TargetUnion| compare("a", target, result, value.clone());
        assert!(holds(is(Equal, &value)).await && !holds(is(NotEqual, &value)).await, "{target:?}");
        assert!(holds(is(Greater, &less)).await && !holds(is(Less, &less)).await, "{target:?}");
        assert!(holds(is(NotEqual, &less)).await && !holds(is(Equal, &less)).await, "{target:?}");
    }
    let absent = |target, result, value| compare("none", target, result, value);
    assert!(holds(absent(Version, Equal, TargetUnion::Version(0))).await);
    assert!(
        !holds(absent(Value, NotEqual, TargetUnion::Value("x".into()))).await,
        "no value at all"
    );
    let all = |revision| Compare {
        range_end: "b".into(),
        ..compare("a", Mod, Greater, TargetUnion::ModRevision(revision))
    };
    assert!(holds(all(2)).await && !holds(all(3)).await);
    let none = Compare { range_end: "y".into(), key: "x".into(), ..all(0) };
    assert!(!holds(none).await, "nothing counts as 0");
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_etcds_words() {
    let etcd = Etcd::new().await;
    let refused = async |success: Vec<RequestOp>| {
        let request = TxnRequest { success, ..TxnRequest::default() };
        etcd.txn(request).await.expect_err("refused").message().to_owned()
    };
    let duplicate = "etcdserver: duplicate key given in txn request";
    let a = || op(Op::RequestPut(put("a", "x")));
    assert_eq!(refused(vec![a(), a()]).await, duplicate);
    assert_eq!(refused(vec![a(), op(Op::RequestDeleteRange(delete("\0", "\0")))]).await, duplicate);
    let inner = |success| TxnRequest { success, ..TxnRequest::default() };
    assert_eq!(refused(vec![op(Op::RequestTxn(inner(vec![a()]))), a()]).await, duplicate);
    let branches = TxnRequest { success: vec![a()], failure: vec![a()], ..TxnRequest::default() };
    let request =
        TxnRequest { success: vec![op(Op::RequestTxn(branches))], ..TxnRequest::default() };
    assert!(etcd.txn(request).await.is_ok(), "only one branch is taken");
    let many = (0..129).map(|_| op(Op::RequestRange(get("a")))).collect();
    assert_eq!(refused(many).await, "etcdserver: too many operations in txn request");
    let leased = op(Op::RequestPut(PutRequest { lease: 7, ..put("b", "x") }));
    assert_eq!(refused(vec![leased]).await, "etcdserver: requested lease not found");
    assert!(etcd.range(get("b")).await.expect("read").kvs.is_empty());
}

/// Each adds one to the same counter by comparing and setting, and no addition is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_transactions_are_as_if_one_after_another() {
    const CLIENTS: usize = 8;
    const EACH: usize = 25;
    let etcd = Etcd::new().await;
    etcd.put("counter", "0").await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let mut kv = etcd.kv();
        clients.spawn(async move {
            let mut added = 0;
            while added < EACH {
                let read = kv.range(get("counter")).await.expect("read").into_inner();
                let value: usize = text(&read.kvs[0].value).parse().expect("a number");
                let next = Bytes::from((value + 1).to_string());
                let put_next = PutRequest { value: next, ..put("counter", "") };
                // By value and over a range: what no guard of the store says by itself.
                let same = compare(
                    "counter",
                    CompareTarget::Value,
                    CompareResult::Equal,
                    TargetUnion::Value(read.kvs[0].value.clone()),
                );
                let same = Compare { range_end: "countes".into(), ..same };
                let request = TxnRequest {
                    compare: vec![same],
                    success: vec![
                        op(Op::RequestPut(put_next)),
                        op(Op::RequestPut(put("other", "x"))),
                    ],
                    failure: vec![op(Op::RequestRange(get("counter")))],
                };
                added += usize::from(kv.txn(request).await.expect("txn").into_inner().succeeded);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("no panic");
    }
    let read = etcd.range(get("counter")).await.expect("read");
    assert_eq!(text(&read.kvs[0].value), (CLIENTS * EACH).to_string());
    assert_eq!(read.kvs[0].version as usize, CLIENTS * EACH + 1);
    let revision = read.header.expect("a header").revision as usize;
    assert_eq!(revision, CLIENTS * EACH + 1, "one revision for each transaction");
}

#[tokio::test]
async fn watches_see_what_they_asked_for() {
    let etcd = Etcd::new().await;
    etcd.put("/a/1", "old").await;
    let mut past = etcd.watch(watch_from("/a/", "/a0", 1)).await;
    let mut puts = etcd
        .watch(WatchCreateRequest {
            filters: vec![watch_create_request::FilterType::Nodelete.into()],
            prev_kv: true,
            ..watch_from("/a/1", "", 0)
        })
        .await;
    let mut later = etcd.watch(watch_from("", "\0", 4)).await;
    etcd.put("/b", "x").await;
    etcd.put("/a/1", "new").await;
    etcd.kv().delete_range(delete("/a/1", "")).await.expect("deleted");
    etcd.put("/a/1", "again").await;
    assert_eq!(
        past.events(4).await,
        ["put /a/1=old at 1", "put /a/1=new at 3", "delete /a/1= at 4", "put /a/1=again at 5"]
    );
    assert_eq!(puts.events(2).await, ["put /a/1=new at 3 was old", "put /a/1=again at 5"]);
    assert_eq!(later.events(2).await, ["delete /a/1= at 4", "put /a/1=again at 5"]);
}

#[tokio::test]
async fn several_watches_share_a_stream_and_tell_their_progress() {
    let etcd = Etcd::new().await;
    let mut watch = etcd.watch(watch_from("a", "", 0)).await;
    let second = WatchCreateRequest { watch_id: 7, ..watch_from("b", "", 0) };
    watch.requests.send(create_watch(second.clone())).await.expect("room");
    let created = watch.next().await;
    assert_eq!((created.created, created.watch_id), (true, 7));
    watch.requests.send(create_watch(second)).await.expect("room");
    assert!(watch.next().await.canceled, "the id is taken");
    etcd.put("b", "x").await;
    etcd.put("c", "nobody looks").await;
    assert_eq!(watch.next().await.watch_id, 7);
    let ask = || WatchRequest {
        request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
    };
    watch.requests.send(ask()).await.expect("room");
    let progress = watch.next().await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert_eq!(progress.header.expect("a header").revision, 2);
    let cancel = WatchCancelRequest { watch_id: 7 };
    let cancel = WatchRequest { request_union: Some(RequestUnion::CancelRequest(cancel)) };
    watch.requests.send(cancel).await.expect("room");
    let canceled = watch.next().await;
    assert_eq!((canceled.canceled, canceled.watch_id), (true, 7));
    etcd.put("b", "unseen").await;
    etcd.put("a", "seen").await;
    assert_eq!(watch.events(1).await, ["put a=seen at 4"]);
    watch.requests.send(ask()).await.expect("room");
    assert_eq!(watch.next().await.header.expect("a header").revision, 4);
}

#[tokio::test]
async fn compacted_revisions_are_refused_and_end_watches() {
    let etcd = Etcd::new().await;
    for value in ["1", "2", "3", "4"] {
        etcd.put("a", value).await;
    }
    let compact = |revision| CompactionRequest { revision, physical: true };
    etcd.kv().compact(compact(3)).await.expect("compacted");
    let old = etcd.range(RangeRequest { revision: 2, ..get("a") }).await.expect_err("gone");
    assert_eq!(old.message(), "etcdserver: mvcc: required revision has been compacted");
    let kept = etcd.range(RangeRequest { revision: 3, ..get("a") }).await.expect("kept");
    assert_eq!(text(&kept.kvs[0].value), "3");
    assert_eq!(etcd.kv().compact(compact(3)).await.expect_err("again").code(), Code::OutOfRange);
    assert_eq!(etcd.kv().compact(compact(99)).await.expect_err("future").code(), Code::OutOfRange);
    let mut watch = etcd.watch(watch_from("a", "", 2)).await;
    let canceled = watch.next().await;
    assert_eq!((canceled.canceled, canceled.compact_revision), (true, 3));
    let mut watch = etcd.watch(watch_from("a", "", 3)).await;
    assert_eq!(watch.events(2).await, ["put a=3 at 3", "put a=4 at 4"]);
    let compacted = async {
        while etcd.store.look(|view| view.floor().0) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, compacted).await.expect("the leader has it compacted");
    let kept = etcd.range(RangeRequest { revision: 3, ..get("a") }).await.expect("kept");
    assert_eq!(text(&kept.kvs[0].value), "3");
}

async fn grant(etcd: &Etcd, ttl: i64) -> i64 {
    let grant = LeaseGrantRequest { ttl, id: 0 };
    etcd.leases().lease_grant(grant).await.expect("granted").into_inner().id
}

#[tokio::test]
async fn a_revoked_lease_takes_its_keys_along_in_one_revision() {
    let etcd = Etcd::new().await;
    let id = grant(&etcd, 100).await;
    for key in ["a", "b", "c"] {
        etcd.kv().put(PutRequest { lease: id, ..put(key, "x") }).await.expect("put");
    }
    etcd.put("b", "detached").await;
    let look = LeaseTimeToLiveRequest { id, keys: true };
    let look = etcd.leases().lease_time_to_live(look).await.expect("read").into_inner();
    assert_eq!((look.granted_ttl, look.keys), (100, vec![Bytes::from("a"), Bytes::from("c")]));
    assert!((98..=100).contains(&look.ttl), "{}", look.ttl);
    let kept = PutRequest { ignore_lease: true, ..put("a", "y") };
    etcd.kv().put(kept).await.expect("put");
    assert_eq!(etcd.range(get("a")).await.expect("read").kvs[0].lease, id);
    let listed = etcd.leases().lease_leases(LeaseLeasesRequest {}).await.expect("read");
    assert_eq!(listed.into_inner().leases, [LeaseStatus { id }]);
    let mut watch = etcd.watch(watch_from("a", "z", 0)).await;
    etcd.leases().lease_revoke(LeaseRevokeRequest { id }).await.expect("revoked");
    let gone = watch.next().await.events;
    assert_eq!(gone.len(), 2);
    assert_eq!(
        gone[0].kv.as_ref().map(|kv| kv.mod_revision),
        gone[1].kv.as_ref().map(|kv| kv.mod_revision)
    );
    assert_eq!(keys(&etcd.range(from_to("\0", "\0")).await.expect("read")), ["b"]);
    let late = PutRequest { lease: id, ..put("d", "x") };
    assert_eq!(etcd.kv().put(late).await.expect_err("gone").code(), Code::NotFound);
    let again = etcd.leases().lease_revoke(LeaseRevokeRequest { id }).await;
    assert_eq!(again.expect_err("gone").code(), Code::NotFound);
    let spaces = etcd.store.spaces();
    let left =
        |name: &str| spaces.iter().find(|(space, _)| **space == *name).map_or(0, |(_, n)| *n);
    assert_eq!((left("etcd/attached"), left("etcd/ending"), left("etcd/leases")), (0, 0, 0));
}

#[tokio::test]
async fn a_lease_that_nobody_keeps_alive_ends() {
    let etcd = Etcd::new().await;
    let (short, kept) = (grant(&etcd, 1).await, grant(&etcd, 1).await);
    for (key, lease) in [("short", short), ("kept", kept)] {
        etcd.kv().put(PutRequest { lease, ..put(key, "x") }).await.expect("put");
    }
    let mut watch = etcd.watch(watch_from("a", "z", 0)).await;
    let (requests, receiver) = mpsc::channel(8);
    let stream = ReceiverStream::new(receiver);
    let answers = etcd.leases().lease_keep_alive(stream).await.expect("a stream");
    let mut answers = answers.into_inner();
    let keep_alive = async {
        loop {
            requests.send(LeaseKeepAliveRequest { id: kept }).await.expect("room");
            let answer = answers.next().await.expect("an answer").expect("no error");
            assert_eq!((answer.id, answer.ttl), (kept, 2));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ended = async { assert!(watch.events(1).await[0].starts_with("delete short=")) };
    tokio::select! {
        () = keep_alive => {}
        () = ended => {}
    }
    assert_eq!(keys(&etcd.range(from_to("\0", "\0")).await.expect("read")), ["kept"]);
    requests.send(LeaseKeepAliveRequest { id: short }).await.expect("room");
    let mut last = answers.next().await.expect("an answer").expect("no error");
    if last.id == kept {
        last = answers.next().await.expect("an answer").expect("no error");
    }
    assert_eq!((last.id, last.ttl), (short, 0), "that is how a client learns it");
}

#[tokio::test]
async fn tools_find_what_they_ask_for() {
    let etcd = Etcd::new().await;
    etcd.put("a", "x").await;
    let mut maintenance = MaintenanceClient::new(etcd.channel.clone());
    let status = maintenance.status(StatusRequest {}).await.expect("a status").into_inner();
    assert_eq!((status.leader, status.version), (1, "3.5.30".into()));
    let hash = |revision| HashKvRequest { revision };
    let first = maintenance.hash_kv(hash(0)).await.expect("a hash").into_inner().hash;
    etcd.put("a", "y").await;
    let second = maintenance.hash_kv(hash(0)).await.expect("a hash").into_inner().hash;
    assert_ne!(first, second);
    assert_eq!(maintenance.hash_kv(hash(1)).await.expect("a hash").into_inner().hash, first);
    let refused = maintenance.snapshot(SnapshotRequest {}).await.expect_err("not here");
    assert!(refused.message().contains("nothing can be saved"), "{refused}");
    let alarms = maintenance.alarm(AlarmRequest::default()).await.expect("none").into_inner();
    assert!(alarms.alarms.is_empty());
    let mut cluster = cluster_client::ClusterClient::new(etcd.channel.clone());
    let members = cluster.member_list(MemberListRequest { linearizable: true }).await;
    let members = members.expect("a list").into_inner().members;
    assert_eq!(members.len(), 1);
    assert!(members[0].client_ur_ls[0].starts_with("http://127.0.0.1:"), "{members:?}");
    let refused = cluster.member_remove(MemberRemoveRequest {}).await.expect_err("not here");
    assert_eq!(refused.code(), Code::Unimplemented);
}

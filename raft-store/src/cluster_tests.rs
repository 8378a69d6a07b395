//! Three members over gRPC with mutual TLS on loopback addresses, on real disks, in one process.

use crate::{
    Change, Config, Error, Guard, Key, MemberId, Op, OpenError, Peer, Retention, Revision, Store,
    Term, Timers, Tls, Txn, raft::log::torn_frame,
};
use bytes::Bytes;
use rcgen::{CertificateParams, Issuer, KeyPair};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// Longer than anything takes, even on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Every cluster gets loopback addresses of its own: 127.(process).(cluster).(member).
static CLUSTERS: AtomicU8 = AtomicU8::new(1);

pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    ca: Issuer<'static, KeyPair>,
    ca_pem: Vec<u8>,
    /// Every member there ever was, by id from 1 on.
    pub(crate) peers: Vec<(MemberId, Peer)>,
    /// How many the group starts with; those after them join.
    founders: u64,
    pub(crate) stores: BTreeMap<u64, Store>,
    pub(crate) retention: Retention,
    pub(crate) timers: Timers,
    pub(crate) disk: crate::Disk,
    /// The version of commands up to which members that start from now on read them.
    pub(crate) knows: u32,
    seal: Arc<dyn crate::Seal>,
}

impl Cluster {
    pub(crate) fn new(members: u64) -> Cluster {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let (ca, ca_pem) = authority();
        let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id() % 250 + 1;
        let peer = |id| Peer {
            name: format!("master-{id}"),
            peer_address: format!("127.{process}.{cluster}.{id}:2380"),
            api_address: format!("https://master-{id}:6443"),
        };
        Cluster {
            dir: tempfile::tempdir().expect("a directory"),
            ca,
            ca_pem,
            peers: (1..=members).map(|id| (MemberId(id), peer(id))).collect(),
            founders: members,
            stores: BTreeMap::new(),
            retention: Retention::default(),
            timers: Timers {
                heartbeat: Duration::from_millis(50),
                election_min: Duration::from_millis(300),
                election_max: Duration::from_millis(600),
                request: Duration::from_secs(30),
                ..Timers::default()
            },
            disk: crate::Disk::default(),
            knows: crate::codec::VERSION,
            seal: Arc::new(crate::Plain),
        }
    }

    /// From now on certificates are signed by another one; the old one as PEM.
    pub(crate) fn exchange_authority(&mut self) -> Vec<u8> {
        let (ca, ca_pem) = authority();
        self.ca = ca;
        std::mem::replace(&mut self.ca_pem, ca_pem)
    }

    pub(crate) async fn started(members: u64) -> Cluster {
        let mut cluster = Cluster::new(members);
        for id in 1..=members {
            cluster.start(id).await;
        }
        cluster
    }

    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    pub(crate) fn config(&self, id: u64) -> Config {
        let peer = &self.peers[id as usize - 1].1;
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![peer.name.clone()]).expect("parameters");
        let cert = params.signed_by(&key, &self.ca).expect("a certificate");
        Config {
            member: MemberId(id),
            data_dir: self.data_dir(id),
            initial_members: match id > self.founders {
                true => self.peers.clone(),
                false => self.peers[..self.founders as usize].to_vec(),
            },
            joins: id > self.founders,
            listen: peer.peer_address.parse::<SocketAddr>().expect("an address"),
            tls: Tls {
                ca: self.ca_pem.clone(),
                cert: cert.pem().into_bytes(),
                key: key.serialize_pem().into_bytes(),
            }
            .into(),
            timers: self.timers,
            retention: self.retention,
            disk: self.disk.clone(),
            seal: self.seal.clone(),
            registry: prometheus::Registry::new(),
            knows: self.knows,
        }
    }

    pub(crate) async fn start(&mut self, id: u64) {
        let store = Store::open(self.config(id)).await.expect("a member that starts");
        self.stores.insert(id, store);
    }

    pub(crate) async fn try_start(&mut self, id: u64) -> Result<(), OpenError> {
        let store = Store::open(self.config(id)).await?;
        self.stores.insert(id, store);
        Ok(())
    }

    /// As if killed: no goodbye to the others.
    pub(crate) async fn kill(&mut self, id: u64) {
        let store = self.stores.remove(&id).expect("a running member");
        store.inside().stop(false, "killed").await;
    }

    /// Has every member that runs write its state out and forget its first 100 entries.
    pub(crate) async fn shorten_logs(&self) {
        for store in self.stores.values() {
            store.barrier().await.expect("caught up");
            store.flush().await.expect("flushed");
            eventually("the log is shortened", || {
                store.inside().raft_metrics().purged.is_some_and(|purged| purged.index > 100)
            })
            .await;
        }
    }

    pub(crate) fn store(&self, id: u64) -> &Store {
        &self.stores[&id]
    }

    /// The member that leads and may act as leader.
    pub(crate) async fn leader(&self) -> u64 {
        let find = || {
            let leads = |store: &Store| store.leadership().borrow().leading.is_some();
            self.stores.iter().find(|(_, store)| leads(store)).map(|(id, _)| *id)
        };
        eventually("a leader", || find().is_some()).await;
        find().expect("seen a moment ago")
    }

    pub(crate) fn term(&self, id: u64) -> Term {
        self.store(id).leadership().borrow().term
    }

    pub(crate) async fn shutdown(self) {
        for store in self.stores.values() {
            store.inside().stop(false, "end of test").await;
        }
    }
}

fn authority() -> (Issuer<'static, KeyPair>, Vec<u8>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&key).expect("a certificate").pem().into_bytes();
    (Issuer::new(params, key), ca_pem)
}

pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

pub(crate) fn put(path: &str, body: &str) -> Txn {
    Txn::one(Key::new("pods", path), Guard::Any, Op::Put(body.to_owned().into()))
}

pub(crate) fn create(path: &str, body: &str) -> Txn {
    Txn::one(Key::new("pods", path), Guard::Absent, Op::Put(body.to_owned().into()))
}

pub(crate) fn body(store: &Store, path: &str) -> Option<String> {
    let stored = store.get(&Key::new("pods", path))?;
    Some(String::from_utf8_lossy(&stored.body).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn members_answer_each_others_questions() {
    let mut cluster = Cluster::started(3).await;
    let shout = |question: &[u8]| Bytes::from(question.to_ascii_uppercase());
    cluster.stores[&2].answer("shout", Arc::new(shout));
    let ask = |of, topic| cluster.stores[&1].ask(MemberId(of), topic, Bytes::from("hey"));
    assert_eq!(ask(2, "shout").await, Some(Bytes::from("HEY")));
    assert_eq!(ask(3, "shout").await, None, "it answers nothing of the kind");
    assert_eq!(ask(4, "shout").await, None, "there is no such member");
    cluster.kill(2).await;
    let ask = |of, topic| cluster.stores[&1].ask(MemberId(of), topic, Bytes::from("hey"));
    assert_eq!(ask(2, "shout").await, None, "it is not there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_from_most_stops_and_stays_away() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let wrong = if leader == 1 { 2 } else { 1 };
    cluster.store(leader).txn(put("a", "before")).await.expect("committed");
    let found_out = cluster.store(wrong).clone();
    found_out.inside().shared.falsify(Key::new("pods", "never-written"));
    cluster.store(leader).txn(put("a", "after")).await.expect("committed");
    // At rest the newest entry is compared: nothing more has to be written.
    let stopped = tokio::time::timeout(PATIENCE, found_out.stopped()).await;
    let stopped = stopped.expect("it finds out").to_string();
    assert!(stopped.contains("is not that of most members"), "{stopped}");
    drop(found_out);
    cluster.kill(wrong).await;
    cluster.store(leader).txn(put("a", "without it")).await.expect("committed");
    let refused = cluster.try_start(wrong).await.expect_err("it stays away");
    assert!(matches!(refused, OpenError::Quarantined { .. }), "{refused}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_reads_through_every_member() {
    let cluster = Cluster::started(3).await;
    for id in 1..=3 {
        let done = cluster.store(id).txn(put(&format!("p{id}"), "x")).await.expect("committed");
        assert_eq!(done.revision, Revision(id), "one counter for the cluster");
        assert_eq!(body(cluster.store(id), &format!("p{id}")).as_deref(), Some("x"), "own write");
    }
    for id in 1..=3 {
        let revision = cluster.store(id).barrier().await.expect("a barrier");
        assert!(revision >= Revision(3), "member {id} reads what was acknowledged elsewhere");
        assert_eq!(cluster.store(id).range("pods", "", None, None).items.len(), 3);
    }
    let refused = cluster.store(2).txn(create("p1", "y")).await;
    let Err(Error::GuardFailed { write: 0, current: Some(current) }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(current.revision, Revision(1));
    let leader = cluster.leader().await;
    for id in 1..=3 {
        let store = cluster.store(id).clone();
        eventually("all members known", || {
            let members = store.members();
            members.len() == 3
                && members.iter().all(|m| m.reachable && m.voter && m.applied == Some(Revision(3)))
                && members.iter().filter(|m| m.leader).map(|m| m.id.0).eq([leader])
        })
        .await;
    }
    let named = || (1..=3).map(|id| cluster.store(id).cluster()).collect::<BTreeSet<_>>();
    eventually("one name of the cluster", || named().len() == 1 && !named().contains(&None)).await;
    cluster.shutdown().await;
}

/// Follows the pods on whichever members are given, from where it is, until it has seen `until`.
async fn follow(stores: &[Store], seen: &mut Vec<Arc<Change>>, until: Revision) {
    let mut after = seen.last().map_or(Revision(0), |change| change.revision);
    for store in stores.iter().cycle() {
        if after >= until {
            return;
        }
        store.wait_for(after, PATIENCE).await.expect("caught up");
        let mut watch = store.watch("pods", "", after).expect("a watch");
        let changes = watch.next().await.expect("changes");
        after = changes.last().expect("at least one").revision;
        seen.extend(changes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lost_leader_costs_no_acknowledged_write_and_no_event() {
    let mut cluster = Cluster::started(3).await;
    let mut writers = JoinSet::new();
    let killed = cluster.leader().await;
    let survivors: Vec<u64> = (1..=3).filter(|id| *id != killed).collect();
    for (n, id) in survivors.iter().cycle().take(8).enumerate() {
        let store = cluster.store(*id).clone();
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for i in 0..60 {
                let path = format!("w{n}/{i}");
                let done = store.txn(create(&path, "x")).await;
                let done = done.unwrap_or_else(|error| panic!("{path} is not ambiguous: {error}"));
                acknowledged.push((path, done.revision));
            }
            acknowledged
        });
    }
    let before = cluster.store(survivors[0]).clone();
    eventually("some writes", || before.revision() > Revision(50)).await;
    cluster.kill(killed).await;
    let mut acknowledged = BTreeMap::new();
    while let Some(writer) = writers.join_next().await {
        acknowledged.extend(writer.expect("a writer").into_iter().map(|(p, r)| (r, p)));
    }
    assert_eq!(acknowledged.len(), 8 * 60, "every revision was given once");
    assert_ne!(cluster.leader().await, killed);
    cluster.start(killed).await;
    let stores: Vec<Store> = cluster.stores.values().cloned().collect();
    for store in &stores {
        let revision = store.barrier().await.expect("a barrier");
        assert_eq!(revision, Revision(8 * 60), "each was applied once");
        for (revision, path) in &acknowledged {
            let stored = store.get(&Key::new("pods", path.as_str())).expect("acknowledged");
            assert_eq!(stored.revision, *revision);
        }
    }
    // One watch that hops from member to member with every message.
    let mut seen = Vec::new();
    follow(&stores, &mut seen, Revision(8 * 60)).await;
    let seen: Vec<_> = seen.iter().map(|c| (c.revision, c.key().path.to_string())).collect();
    assert_eq!(seen, acknowledged.into_iter().collect::<Vec<_>>());
    cluster.shutdown().await;
}

/// With a lease that outlasts the test's patience, only the closed port can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_ended_is_succeeded_before_its_lease_ends() {
    let mut cluster = Cluster::new(3);
    cluster.timers.election_max = PATIENCE * 2;
    // The first starts the group, once there is somebody to vote for it.
    for id in [3, 2, 1] {
        cluster.start(id).await;
    }
    for round in 0..6 {
        let leader = cluster.leader().await;
        let (before, after) = (format!("before {round}"), format!("after {round}"));
        cluster.store(leader).txn(put("a", &before)).await.expect("a write");
        // Only who has been under a leader misses it.
        for id in 1..=3 {
            cluster.store(id).barrier().await.expect("a barrier");
        }
        cluster.kill(leader).await;
        // It is there again before the others agree, or only after they have elected another.
        if round % 2 == 0 {
            cluster.start(leader).await;
        }
        let next = cluster.leader().await;
        cluster.store(next).txn(put("a", &after)).await.expect("a write");
        if round % 2 == 1 {
            cluster.start(leader).await;
        }
        cluster.store(leader).barrier().await.expect("a barrier");
        assert_eq!(body(cluster.store(leader), "a"), Some(after));
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart_and_the_leader_is_elected_anew() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    for n in 0..20 {
        cluster.store(leader).txn(put(&format!("p{}", n % 7), &n.to_string())).await.expect("done");
    }
    cluster
        .store(leader)
        .txn(Txn::one(Key::new("pods", "p6"), Guard::Any, Op::Delete))
        .await
        .expect("deleted");
    // One member replays its whole log, one a part, one nothing.
    cluster.store(1).flush().await.expect("flushed");
    let term = cluster.term(leader);
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    for id in 1..=3 {
        assert_eq!(cluster.store(id).barrier().await.expect("a barrier"), Revision(21));
        let bodies = (0..7).map(|n| body(cluster.store(id), &format!("p{n}")));
        let expected = ["14", "15", "16", "17", "18", "19"].map(|s| Some(s.to_owned()));
        assert_eq!(bodies.collect::<Vec<_>>(), [&expected[..], &[None]].concat());
        assert!(cluster.term(id) > term, "never a leader restored in its old term");
        let page = cluster.store(id).range_at("pods", "", None, None, Revision(7)).await;
        assert_eq!(page.expect("history is kept").items.len(), 7);
        let mut watch = cluster.store(id).watch("pods", "p6", Revision(0)).expect("a watch");
        let mut changes = Vec::new();
        while changes.len() < 3 {
            changes.extend(watch.next().await.expect("old changes"));
        }
        let old = |c: &Arc<Change>| c.old.as_ref().map(|old| old.revision.0);
        let changes: Vec<_> =
            changes.iter().map(|c| (c.revision.0, old(c), c.new.is_some())).collect();
        assert_eq!(changes, [(7, None, true), (14, Some(7), true), (21, Some(14), false)]);
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_too_long_gets_a_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.retention.log_entries = 3;
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader().await;
    let away = (1..=3).find(|id| *id != leader).expect("a follower");
    cluster.store(leader).txn(put("before", "x")).await.expect("committed");
    cluster.store(away).barrier().await.expect("caught up");
    cluster.kill(away).await;
    for n in 0..200 {
        cluster.store(leader).txn(put(&format!("p{n}"), "x")).await.expect("committed");
    }
    // Whoever leads from now on has no log that reaches back.
    cluster.shorten_logs().await;
    cluster.start(away).await;
    let back = cluster.store(away);
    assert_eq!(back.barrier().await.expect("caught up"), Revision(201));
    assert_eq!(back.range("pods", "", None, None).items.len(), 201);
    assert!(back.inside().metrics.snapshots_installed.get() >= 1, "no log could bring it this far");
    // A watch from before it went away loses nothing.
    let mut seen = Vec::new();
    follow(std::slice::from_ref(back), &mut seen, Revision(201)).await;
    assert_eq!(seen.len(), 201);
    // And it is a full member: it takes writes and survives a restart.
    cluster.store(away).txn(put("after", "x")).await.expect("committed");
    cluster.kill(away).await;
    cluster.start(away).await;
    assert_eq!(cluster.store(away).barrier().await.expect("caught up"), Revision(202));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leaders_writes_are_refused() {
    let mut cluster = Cluster::started(3).await;
    let first = cluster.leader().await;
    let term = cluster.term(first);
    let fenced = |n: u32| Txn { fence: Some(term), ..put(&format!("bound-{n}"), "x") };
    cluster.store(first).txn(fenced(1)).await.expect("the leader's own");
    let other = (1..=3).find(|id| *id != first).expect("a follower");
    cluster.store(other).txn(fenced(2)).await.expect("in the same term from anywhere");
    cluster.kill(first).await;
    let second = cluster.leader().await;
    assert!(cluster.term(second) > term);
    for id in cluster.stores.keys() {
        let refused = cluster.store(*id).txn(fenced(3)).await;
        let Err(Error::Fenced { fence, current }) = refused else { panic!("{refused:?}") };
        assert_eq!((fence, current > term), (term, true));
    }
    cluster.start(first).await;
    // Also when it does not know yet: the log refuses it.
    let back = cluster.store(first).txn(fenced(4)).await;
    assert!(matches!(back, Err(Error::Fenced { .. })), "{back:?}");
    let page = cluster.store(second).range("pods", "bound-", None, None);
    assert_eq!(page.items.len(), 2);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_when_a_leader_is_shut_down() {
    let mut cluster = Cluster::started(3).await;
    let first = cluster.leader().await;
    let store = cluster.store(first).clone();
    eventually("members know each other", || store.members().iter().all(|m| m.reachable)).await;
    cluster.stores.remove(&first).expect("a member").shutdown().await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    cluster.store(second).txn(put("after", "x")).await.expect("committed");
    let stopped = store.txn(put("late", "x")).await;
    assert!(matches!(stopped, Err(Error::Stopped(_))), "{stopped:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_acknowledged() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &others {
        cluster.kill(*id).await;
    }
    let store = cluster.store(leader).clone();
    let mut leadership = store.leadership();
    let deposed = leadership.wait_for(|now| now.leading.is_none());
    tokio::time::timeout(PATIENCE, deposed).await.expect("the gate closes").expect("a channel");
    let (write, read) = tokio::join!(
        tokio::time::timeout(Duration::from_millis(300), store.txn(put("lonely", "x"))),
        tokio::time::timeout(Duration::from_millis(300), store.barrier()),
    );
    assert!(write.is_err() && read.is_err(), "waiting: {write:?} {read:?}");
    assert_eq!(body(&store, "lonely"), None, "what nobody acknowledged is not served");
    // It degrades, does not exit, and comes back by itself.
    cluster.start(others[0]).await;
    cluster.store(leader).txn(put("together", "x")).await.expect("committed");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_reaches_all_members_and_is_swept_from_disk() {
    let mut cluster = Cluster::new(3);
    cluster.retention.ring_changes = 4;
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader().await;
    for n in 0..30 {
        cluster.store(leader).txn(put(&format!("p{}", n % 3), &n.to_string())).await.expect("done");
    }
    cluster.store(leader).compact(Revision(20)).await.expect("compacted");
    for id in 1..=3 {
        let store = cluster.store(id).clone();
        store.barrier().await.expect("caught up");
        let gone = store.watch("pods", "", Revision(19)).err();
        assert!(matches!(gone, Some(Error::Compacted { oldest: Revision(20) })), "{gone:?}");
        let mut seen = Vec::new();
        let mut after = Revision(20);
        while after < Revision(30) {
            let mut watch = store.watch("pods", "", after).expect("from disk, then from the ring");
            let changes = watch.next().await.expect("changes");
            after = changes.last().expect("one").revision;
            seen.extend(changes);
        }
        assert!(seen.iter().all(|c| c.old.is_some()), "old versions are kept as long as needed");
        assert_eq!(seen.len(), 10);
        let page = store.range_at("pods", "", None, None, Revision(20)).await.expect("a page");
        let bodies: BTreeSet<_> = page.items.iter().map(|s| s.body.clone()).collect();
        assert_eq!(bodies, BTreeSet::from(["17".into(), "18".into(), "19".into()]));
    }
    cluster.kill(leader).await;
    cluster.start(leader).await;
    assert_eq!(cluster.store(leader).barrier().await.expect("a barrier"), Revision(30));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_belongs_to_one_member() {
    let mut cluster = Cluster::started(1).await;
    cluster.leader().await;
    cluster.kill(1).await;
    let mut config = cluster.config(1);
    config.member = MemberId(9);
    config.initial_members[0].0 = MemberId(9);
    let refused = Store::open(config).await.err();
    assert!(
        matches!(refused, Some(OpenError::OtherMember { found: MemberId(1), .. })),
        "{refused:?}"
    );
}

fn newest(dir: &Path, extension: &str) -> PathBuf {
    let files =
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == extension));
    files.max().unwrap_or_else(|| panic!("no .{extension} in {}", dir.display()))
}

/// The newest file of the first member's log, without the zeros that it ends in.
fn newest_log(cluster: &Cluster) -> (PathBuf, Vec<u8>) {
    let file = newest(&cluster.data_dir(1).join("log"), "segment");
    let mut bytes = fs::read(&file).expect("the log");
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used.next_multiple_of(32));
    (file, bytes)
}

/// One member with `writes` acknowledged writes, killed.
async fn killed_member(writes: u64) -> Cluster {
    let mut cluster = Cluster::started(1).await;
    for n in 0..writes {
        cluster.store(1).txn(put(&format!("p{n}"), &"x".repeat(100))).await.expect("committed");
    }
    cluster.kill(1).await;
    cluster
}

async fn refuses_to_start(cluster: &mut Cluster, file: &Path) -> u64 {
    let refused = cluster.try_start(1).await.expect_err("acknowledged writes are gone");
    let OpenError::Damaged { file: named, offset, detail } = refused else {
        panic!("not recognised as damage: {refused}")
    };
    assert_eq!(named, file, "{detail}");
    offset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_log_is_never_served() {
    let mut cluster = killed_member(30).await;
    let (file, whole) = newest_log(&cluster);
    for part in [1, 2, 3] {
        let at = whole.len() * part / 4;
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&file, &damaged).expect("damaged");
        let offset = refuses_to_start(&mut cluster, &file).await;
        assert!(offset as usize <= at && at < offset as usize + 1000, "{offset} for {at}");
    }
    fs::write(&file, &whole).expect("repaired");
    cluster.start(1).await;
    assert_eq!(cluster.store(1).barrier().await.expect("a barrier"), Revision(30));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_too_short_is_never_served() {
    let mut cluster = killed_member(30).await;
    let (file, whole) = newest_log(&cluster);
    // The last frames are of what is not synced: how far is committed.
    for length in [whole.len() / 3, whole.len() - 1000] {
        fs::write(&file, &whole[..length]).expect("cut");
        refuses_to_start(&mut cluster, &file).await;
        // Refusing must not have made it worse.
        fs::write(&file, &whole).expect("repaired");
    }
    cluster.start(1).await;
    assert_eq!(cluster.store(1).barrier().await.expect("a barrier"), Revision(30));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_write_that_nobody_acknowledged_is_dropped() {
    let mut cluster = killed_member(30).await;
    let (file, mut torn) = newest_log(&cluster);
    let number = file.file_stem().and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
    torn.extend(torn_frame(number.expect("its number"), torn.len() as u64));
    fs::write(&file, &torn).expect("torn");
    cluster.start(1).await;
    assert_eq!(cluster.store(1).barrier().await.expect("a barrier"), Revision(30));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_is_never_served() {
    let mut cluster = Cluster::started(1).await;
    for n in 0..30 {
        cluster.store(1).txn(put(&format!("p{n}"), &"x".repeat(100))).await.expect("committed");
    }
    cluster.store(1).flush().await.expect("flushed");
    let store = cluster.store(1).clone();
    eventually("a flush", || store.inside().raft_metrics().snapshot.is_some()).await;
    drop(store);
    cluster.kill(1).await;
    let dir = cluster.data_dir(1).join("state/state-0");
    let file = newest(&dir, "sst");
    let whole = fs::read(&file).expect("the state");
    fs::write(&file, &whole[..whole.len() / 2]).expect("cut");
    refuses_to_start(&mut cluster, &dir).await;
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    fs::write(&file, &damaged).expect("damaged");
    refuses_to_start(&mut cluster, &dir).await;
    fs::write(&file, &whole).expect("repaired");
    cluster.start(1).await;
    assert_eq!(cluster.store(1).barrier().await.expect("a barrier"), Revision(30));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_stops_the_member() {
    let cluster = Cluster::started(1).await;
    cluster.store(1).txn(put("p", "x")).await.expect("committed");
    cluster.store(1).inside().shared.stop("log: no space left");
    let refused = cluster.store(1).txn(put("p", "y")).await;
    assert!(
        matches!(&refused, Err(Error::Stopped(why)) if why.contains("no space")),
        "{refused:?}"
    );
    let reason = cluster.store(1).stopped().await;
    assert!(reason.to_string().contains("no space"), "{reason}");
    cluster.shutdown().await;
}

/// Hides bodies of one space well enough for a test: bit by bit, behind a zero byte.
#[derive(Debug)]
struct Negative;

impl crate::Seal for Negative {
    fn seal(&self, key: &Key, body: &bytes::Bytes) -> bytes::Bytes {
        match &*key.space {
            "secrets" => std::iter::once(0).chain(body.iter().map(|byte| !byte)).collect(),
            _ => body.clone(),
        }
    }

    fn open(&self, _: &Key, body: bytes::Bytes) -> Result<bytes::Bytes, crate::Unopened> {
        Ok(match body.strip_prefix(&[0]) {
            Some(sealed) => sealed.iter().map(|byte| !byte).collect(),
            None => body,
        })
    }

    fn learn(&self, _: &Key, _: &bytes::Bytes) {}
}

fn files_with(dir: &Path, text: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if fs::read(&path).expect("a file").windows(text.len()).any(|part| part == text) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_body_is_on_no_disk_and_comes_back() {
    const SECRET: &[u8] = b"correct horse battery staple";
    const PUBLIC: &[u8] = b"a body for everybody to read";
    let mut cluster = Cluster::new(3);
    cluster.seal = Arc::new(Negative);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader().await;
    let (secret, public) = (Key::new("secrets", "a/b"), Key::new("pods", "a/b"));
    for (key, body) in [(&secret, SECRET), (&public, PUBLIC)] {
        let txn = Txn::one(key.clone(), Guard::Absent, Op::Put(body.into()));
        cluster.store(leader).txn(txn).await.expect("written");
    }
    for id in 1..=3 {
        cluster.store(id).barrier().await.expect("caught up");
    }
    for id in 1..=3 {
        cluster.store(id).shutdown().await;
        cluster.stores.remove(&id);
        assert_eq!(files_with(&cluster.data_dir(id), SECRET), Vec::<PathBuf>::new());
        assert!(!files_with(&cluster.data_dir(id), PUBLIC).is_empty(), "looked where bodies are");
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    cluster.leader().await;
    for id in 1..=3 {
        cluster.store(id).barrier().await.expect("a leader");
        let stored = cluster.store(id).get(&secret).expect("kept");
        assert_eq!(&stored.body[..], SECRET);
    }
}

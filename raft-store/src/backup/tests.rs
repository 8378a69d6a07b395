use super::{Base, Chain, Error, Header, Reader, Restoring, Since, check, format::Writer, restore};
use crate::{
    Change, Cluster as Name, Config, Guard, Key, MemberId, Op, Peer, Revision, Store, Txn,
    cluster_tests::{Cluster, PATIENCE, eventually},
    disk::At,
    founding::{self, Introduce},
    joining_tests::{join, voters},
    metrics::Metrics,
    raft::{
        network::{self, Links},
        wire::Grpc,
    },
};
use bytes::Bytes;
use proptest::prelude::*;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

/// When the tests' backups are taken, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

async fn take(store: &Store, since: Option<&Header>) -> Vec<u8> {
    let mut taken = store.backup(NOW, since.map(Since::from)).await.expect("a backup");
    let mut bytes = Vec::new();
    while let Some(piece) = taken.stream.recv().await {
        bytes.extend_from_slice(&piece.expect("a piece"));
    }
    bytes
}

fn reader(bytes: &[u8]) -> Reader<&[u8]> {
    Reader::open(bytes, "backup").expect("a backup")
}

fn header(bytes: &[u8]) -> Header {
    reader(bytes).header().clone()
}

fn chain<'a>(backups: &[&'a [u8]]) -> Chain<&'a [u8]> {
    Chain::new(backups.iter().map(|bytes| reader(bytes)).collect()).expect("a chain")
}

fn one(path: &str, op: Op) -> Txn {
    Txn::one(Key::new("pods", path), Guard::Any, op)
}

/// Some puts, replacements and deletions, also several at one revision.
async fn work(store: &Store, from: u64) {
    for n in from..from + 20 {
        let put = |body: String| Op::Put(Bytes::from(body.repeat(200)));
        let path = format!("p{}", n % 7);
        store.txn(one(&path, put(format!("{n}")))).await.expect("put");
        if n % 5 == 0 {
            let mut two = one(&format!("q{n}"), put("q".into()));
            two.writes.extend(one("shared", put(format!("s{n}"))).writes);
            two.one_revision = true;
            store.txn(two).await.expect("put");
        }
        if n % 4 == 0 {
            store.txn(one(&path, Op::Delete)).await.expect("deleted");
        }
    }
}

type Objects = BTreeMap<String, (Revision, Bytes)>;

fn objects(store: &Store) -> Objects {
    let page = store.range("pods", "", None, None);
    page.items.iter().map(|it| (it.key.path.to_string(), (it.revision, it.body.clone()))).collect()
}

async fn objects_at(store: &Store, at: Revision) -> Objects {
    let page = store.range_at("pods", "", None, None, at).await.expect("in the window");
    page.items.iter().map(|it| (it.key.path.to_string(), (it.revision, it.body.clone()))).collect()
}

fn restoring(data_dir: PathBuf, cluster: &Cluster, revision: Option<Revision>) -> Restoring {
    let config = cluster.config(1);
    let peer = config.initial_members[0].1.clone();
    Restoring { data_dir, revision, member: MemberId(1), peer, now: NOW + 60 }
}

async fn open(cluster: &Cluster, data_dir: PathBuf) -> Store {
    let config = Config { data_dir, ..cluster.config(1) };
    Store::open(config).await.expect("a restored member")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_revision_of_the_window_is_restored_and_revisions_never_go_back() {
    let mut cluster = Cluster::new(1);
    cluster.start(1).await;
    let store = cluster.store(1).clone();
    work(&store, 0).await;
    let compacted = Revision(store.revision().0 / 2);
    store.compact(compacted).await.expect("compacted");
    let full = take(&store, None).await;
    work(&store, 100).await;
    let more = take(&store, Some(&header(&full))).await;
    let (first, second) = (header(&full), header(&more));
    assert_eq!((first.oldest, second.oldest), (compacted, compacted));
    assert!(first.confirmed && second.confirmed);
    assert_eq!(second.base, Some(Base { id: first.id, revision: first.revision }));
    let found = check(&mut chain(&[&full, &more]), |_| {}).expect("sound");
    assert_eq!(found.objects, objects(&store).len());
    let mut expected = Vec::new();
    for at in compacted.0..=second.revision.0 {
        expected.push((Revision(at), objects_at(&store, Revision(at)).await));
    }
    cluster.kill(1).await;
    let dir = tempfile::tempdir().expect("a directory");
    for (at, expected) in expected {
        let place = dir.path().join(at.to_string());
        let wanted = restoring(place.clone(), &cluster, Some(at));
        let restored = restore(&mut chain(&[&full, &more]), &wanted, |_| {}).expect("restored");
        assert_eq!(restored.objects, expected.len() as u64, "at {at}");
        let (dir, seal) = (place.join("state/state-0"), cluster.config(1).seal);
        let disk = crate::disk::StateDisk::open(&crate::state_engine::Rocks, &dir, seal);
        let state = disk.and_then(|disk| disk.load()).expect("a state");
        let page = state.range("pods", "", None, None);
        let found: Objects = page
            .items
            .iter()
            .map(|it| (it.key.path.to_string(), (it.revision, it.body.clone())))
            .collect();
        assert_eq!(found, expected, "at {at}");
    }
    for at in [Revision(compacted.0 - 1), Revision(second.revision.0 + 1)] {
        let wanted = restoring(dir.path().join("none"), &cluster, Some(at));
        let refused = restore(&mut chain(&[&full, &more]), &wanted, |_| {});
        assert!(matches!(refused, Err(Error::Refused(_))), "at {at}");
    }
    assert!(!dir.path().join("none").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_member_is_of_another_cluster_and_all_of_the_past_is_compacted() {
    let mut cluster = Cluster::new(3);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    work(cluster.store(2), 0).await;
    let backup = take(cluster.store(2), None).await;
    let after = cluster.store(3).txn(one("later", Op::Put("x".into()))).await.expect("put");
    let objects_then = objects_at(cluster.store(2), header(&backup).revision).await;
    cluster.kill(1).await;
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("new");
    let wanted = restoring(place.clone(), &cluster, None);
    let restored = restore(&mut chain(&[&backup]), &wanted, |_| {}).expect("restored");
    let refused = restore(&mut chain(&[&backup]), &wanted, |_| {});
    assert!(matches!(refused, Err(Error::Refused(why)) if why.contains("not empty")));

    let store = open(&cluster, place.clone()).await;
    assert_eq!(objects(&store), objects_then);
    let revision = store.barrier().await.expect("it leads alone");
    assert_eq!(revision, restored.revision);
    assert!(revision > Revision(1_000_000_000_000));
    for past in [Revision(1), header(&backup).revision, after.revision] {
        let watch = store.watch("pods", "", past).err();
        assert!(matches!(watch, Some(crate::Error::Compacted { .. })), "{watch:?}");
        let list = store.range_at("pods", "", None, None, past).await.err();
        assert!(matches!(list, Some(crate::Error::Compacted { .. })), "{list:?}");
    }
    let mut watch = store.watch("pods", "", revision).expect("from now on");
    let done = store.txn(one("new", Op::Put("y".into()))).await.expect("put");
    assert_eq!(done.revision, Revision(revision.0 + 1));
    let seen = watch.next().await.expect("seen");
    assert_eq!(
        seen.iter().map(|change: &Arc<Change>| change.revision).collect::<Vec<_>>(),
        [done.revision]
    );
    let ids: Vec<MemberId> = store.members().iter().map(|member| member.id).collect();
    assert_eq!(ids, [MemberId(1)], "the others join anew");

    let (old, new) = (cluster.store(2).cluster(), store.cluster().expect("named"));
    assert_eq!((new.epoch, &new), (2, &restored.cluster));
    assert_ne!(old, Some(new.clone()));
    let config = cluster.config(2);
    let peer: Peer = config.initial_members[0].1.clone();
    let links = |of: &Store| {
        let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
        let introduce = Introduce::new(&of.inside().shared);
        Links::new(Arc::new(Grpc::new(&config, introduce)), config.timers, metrics)
    };
    let asks = |of: &Store| links(of).link(peer.clone()).expect("a link");
    let deadline = Duration::from_secs(10);
    assert!(network::status(&asks(&store), deadline).await.is_some(), "its own are answered");
    assert!(network::status(&asks(cluster.store(2)), deadline).await.is_none(), "the old are not");
    let known = founding::known_to(&links(&store), &config.initial_members[..1], deadline).await;
    assert_eq!(known, Some((peer.name.clone(), new.clone())), "nobody starts a group beside it");
    cluster.store(3).txn(one("old", Op::Put("z".into()))).await.expect("they have a majority");
    assert!(store.get(&Key::new("pods", "old")).is_none());

    store.inside().stop(false, "again").await;
    let store = open(&cluster, place).await;
    store.wait_for(done.revision, PATIENCE).await.expect("what it wrote is there");
    store.inside().stop(false, "end of test").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_join_a_restored_one() {
    let mut cluster = Cluster::started(1).await;
    work(cluster.store(1), 0).await;
    let backup = take(cluster.store(1), None).await;
    let then = objects(cluster.store(1));
    cluster.kill(1).await;
    let place = cluster.data_dir(1);
    std::fs::remove_dir_all(&place).expect("destroyed");
    let wanted = restoring(place, &cluster, None);
    let restored = restore(&mut chain(&[&backup]), &wanted, |_| {}).expect("restored");
    cluster.start(1).await;
    for _ in 2..=3 {
        let id = join(&mut cluster, 1).await;
        eventually("it votes", || voters(cluster.store(1)).contains(&id)).await;
        let store = cluster.store(id);
        let revision = store.barrier().await.expect("it follows");
        assert!(revision >= restored.revision);
        assert_eq!(objects(store), then);
        assert_eq!(store.cluster(), Some(restored.cluster.clone()));
        let past = store.watch("pods", "", header(&backup).revision).err();
        assert!(matches!(past, Some(crate::Error::Compacted { .. })), "{past:?}");
    }
    // Without the one that was restored.
    cluster.kill(1).await;
    let done = cluster.store(2).txn(one("new", Op::Put("y".into()))).await.expect("put");
    assert!(done.revision > restored.revision);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_continues_only_what_it_can() {
    let mut cluster = Cluster::new(1);
    cluster.start(1).await;
    let store = cluster.store(1).clone();
    work(&store, 0).await;
    let full = header(&take(&store, None).await);
    let nothing_new = take(&store, Some(&full)).await;
    assert_eq!(header(&nothing_new).revision, full.revision);
    let foreign = Header { cluster: Name { id: "x".into(), epoch: 1 }, ..full.clone() };
    let refused = store.backup(NOW, Some(Since::from(&foreign))).await.err();
    assert!(matches!(refused, Some(Error::Mismatch(_))), "{refused:?}");
    work(&store, 100).await;
    store.compact(store.revision()).await.expect("compacted");
    let refused = store.backup(NOW, Some(Since::from(&full))).await.err();
    assert!(matches!(refused, Some(Error::Compacted { .. })), "{refused:?}");
    let lone = chain(&[&nothing_new]);
    assert!(!lone.is_whole());
    cluster.shutdown().await;
}

fn sample() -> Vec<u8> {
    let header = Header {
        id: "a".into(),
        cluster: Name { id: "c".into(), epoch: 1 },
        program: "0".into(),
        feature_level: 1,
        taken_at: NOW,
        member: MemberId(1),
        confirmed: true,
        base: None,
        oldest: Revision(0),
        revision: Revision(3),
        members: Vec::new(),
        keys: Vec::new(),
    };
    let (mut writer, first) = Writer::new(&header);
    let mut bytes = first.to_vec();
    let mut old = 0u64;
    for revision in 1..=3u64 {
        let mut record = vec![1u8];
        record.extend([revision, old].iter().flat_map(|number| number.to_be_bytes()));
        for text in ["s", "p"] {
            record.extend(1u32.to_be_bytes());
            record.extend(text.as_bytes());
        }
        record.extend(vec![b'x'; 50]);
        let at = At::first(Revision(revision));
        let more = writer.push(&super::Unit { at, record: record.into() });
        bytes.extend(more.unwrap_or_default());
        old = revision;
    }
    bytes.extend(writer.finish());
    bytes
}

fn sound(bytes: &[u8]) -> Result<(), Error> {
    let mut chain = Chain::new(vec![Reader::open(bytes, "backup")?])?;
    check(&mut chain, |_| {}).map(drop)
}

proptest! {
    /// One bit changed anywhere, or the end cut off anywhere, or anything after it.
    #[test]
    fn damage_is_noticed(at: prop::sample::Index, bit in 0u8..8) {
        let bytes = sample();
        prop_assert!(sound(&bytes).is_ok());
        let at = at.index(bytes.len());
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        prop_assert!(sound(&damaged).is_err(), "bit {bit} of byte {at}");
        prop_assert!(sound(&bytes[..at]).is_err(), "cut at {at}");
        prop_assert!(sound(&[&bytes[..], &[0]].concat()).is_err());
    }

    /// Whatever bytes come: an error, never a panic, and not much memory.
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(sound(&bytes).is_err());
        prop_assert!(sound(&[b"coxswain-backup\n\0\0\0\x01".as_slice(), &bytes].concat()).is_err());
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let mut bytes = sample();
    bytes[19] = 9;
    let refused = sound(&bytes).expect_err("format 9").to_string();
    assert!(refused.contains("format 9"), "{refused}");
}

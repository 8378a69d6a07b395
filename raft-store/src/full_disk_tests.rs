//! A group whose disks fill up.

use crate::{
    Disk, Error, FreeSpace, Guard, Key, Op, Store, Txn,
    cluster_tests::{Cluster, body, eventually, put},
};
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const RESERVE: u64 = 1_000;

/// Disks with as much room as the test says; members are told apart by their directories.
#[derive(Debug)]
struct Disks([AtomicU64; 3]);

impl Disks {
    fn set(&self, member: u64, free: u64) {
        self.0[member as usize - 1].store(free, Ordering::Relaxed);
    }
}

impl FreeSpace for Disks {
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let name = dir.file_name().and_then(|name| name.to_str()).expect("a member's directory");
        let member: usize = name.parse().expect("named by its id");
        Ok(self.0[member - 1].load(Ordering::Relaxed))
    }
}

async fn cluster() -> (Cluster, Arc<Disks>) {
    let disks = Arc::new(Disks([const { AtomicU64::new(1_000_000) }; 3]));
    let mut cluster = Cluster::new(3);
    cluster.disk = Disk { reserve: RESERVE, free_space: disks.clone() };
    for id in 1..=3 {
        cluster.start(id).await;
    }
    (cluster, disks)
}

/// Waits until a member refuses, or no longer refuses, what grows.
async fn until_refused(store: &Store, refused: bool) {
    let grows = put("probe", "x");
    let room = store.inside().room();
    eventually("the disks were measured", || room.admit(&grows).is_err() == refused).await;
}

fn delete(path: &str) -> Txn {
    Txn::one(Key::new("pods", path), Guard::Any, Op::Delete)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_growth_and_nothing_else() {
    let (cluster, disks) = cluster().await;
    let leader = cluster.leader().await;
    let before = cluster.store(leader).txn(put("a", "1")).await.expect("written").revision;
    let mut watch = cluster.store(leader).watch("pods", "", before).expect("a watch");

    disks.set(leader, RESERVE / 2);
    for id in 1..=3 {
        let store = cluster.store(id);
        until_refused(store, true).await;
        let refused = store.txn(put("b", "2")).await;
        let Err(Error::DiskFull { members }) = refused else { panic!("{refused:?}") };
        assert_eq!(members, format!("master-{leader}"), "who lacks room is named");
        assert!(store.barrier().await.expect("reads go on") >= before);
    }
    cluster.store(leader).txn(delete("a")).await.expect("room can be made");
    let change = watch.next().await.expect("watches go on").pop().expect("one change");
    assert!(change.new.is_none());

    disks.set(leader, RESERVE * 2);
    for id in 1..=3 {
        until_refused(cluster.store(id), false).await;
        cluster.store(id).txn(put("b", "2")).await.expect("written without anybody's help");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_follower_stays_and_catches_up_when_it_has_room() {
    let (cluster, disks) = cluster().await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).expect("another");
    disks.set(follower, 0);
    let (leading, full) = (cluster.store(leader), cluster.store(follower));
    let room = full.inside().room();
    eventually("the follower is full", || room.spent()).await;
    let mut last = leading.txn(put("a", "first")).await.expect("two of three have room");
    for body in ["second", "third"] {
        last = leading.txn(put("a", body)).await.expect("two of three have room");
    }
    assert!(full.revision() < last.revision, "nothing is taken that there is no room for");

    disks.set(follower, RESERVE * 2);
    eventually("caught up", || full.revision() >= last.revision).await;
    assert_eq!(body(full, "a").as_deref(), Some("third"));
}

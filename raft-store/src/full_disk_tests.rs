//! A group whose disks fill up.

use crate::{
    Disk, Error, FreeSpace, Guard, Key, Op, Store, Txn,
    cluster_tests::{Cluster, PATIENCE, body, eventually, put},
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
async fn full_disks_refuse_growth_and_nothing_else() {
    let (cluster, disks) = cluster().await;
    let leader = cluster.leader().await;
    let other = (1..=3).find(|id| *id != leader).expect("another");
    let before = cluster.store(leader).txn(put("a", "1")).await.expect("written").revision;
    let mut watch = cluster.store(leader).watch("pods", "", before).expect("a watch");

    // Nobody could lead who would change it: a quorum lacks room.
    for id in [other, leader] {
        disks.set(id, RESERVE / 2);
        let room = cluster.store(id).inside().room();
        eventually("the disk was measured", || room.full()).await;
    }
    let both = [leader.min(other), leader.max(other)].map(|id| format!("master-{id}")).join(", ");
    for id in 1..=3 {
        let store = cluster.store(id);
        let refused = || store.inside().room().admit(&put("b", "2"));
        let named = || matches!(refused(), Err(Error::DiskFull { members }) if members == both);
        eventually("who lacks room is named", named).await;
        let refused = store.txn(put("b", "2")).await;
        assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
        assert!(store.barrier().await.expect("reads go on") >= before);
    }
    cluster.store(leader).txn(delete("a")).await.expect("room can be made");
    let change = watch.next().await.expect("watches go on").pop().expect("one change");
    assert!(change.new.is_none());

    for id in [leader, other] {
        disks.set(id, RESERVE * 2);
    }
    for id in 1..=3 {
        until_refused(cluster.store(id), false).await;
        cluster.store(id).txn(put("b", "2")).await.expect("written without anybody's help");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_full_hands_over_and_the_group_grows_on() {
    let (cluster, disks) = cluster().await;
    let full = cluster.leader().await;
    disks.set(full, RESERVE / 2);
    for id in 1..=3 {
        let mut leadership = cluster.store(id).leadership();
        let moved = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader.0 != full));
        tokio::time::timeout(PATIENCE, moved).await.expect("handed over").expect("a member");
        until_refused(cluster.store(id), false).await;
        cluster.store(id).txn(put("a", "1")).await.expect("written while that disk is full");
    }
    assert!(cluster.store(full).inside().room().full());
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

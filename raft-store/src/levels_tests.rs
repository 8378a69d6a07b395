//! A group whose members are upgraded one after the other, while others write.

use crate::{
    Error, Guard, Key, MemberId, Op, OpenError, Txn,
    cluster_tests::{Cluster, eventually},
    codec,
    joining_tests::Load,
};

/// What a program reads that is one version behind.
const EARLIER: u32 = codec::VERSION - 1;

/// What not every version of commands has.
fn deletes_a_span() -> Txn {
    Txn::one(Key::new("pods", "span/a"), Guard::Any, Op::DeleteUntil(Some("span/b".into())))
}

/// Stops a member and starts it as a program that knows so much, while both others write.
async fn restart(cluster: &mut Cluster, id: u64, knows: u32, step: &str) {
    if cluster.leader().await == id {
        let next = id % 3 + 1;
        let now = cluster.store(id).transfer_leader(Some(MemberId(next))).await;
        assert_eq!(now.expect("handed over"), MemberId(next));
        eventually("the others see it", || cluster.stores.values().all(|it| leads(it, next))).await;
    }
    let others = cluster.stores.iter().filter(|(other, _)| **other != id);
    let load = Load::named(step, &others.map(|(_, store)| store).collect::<Vec<_>>());
    cluster.kill(id).await;
    cluster.knows = knows;
    cluster.start(id).await;
    let newest = cluster.store(cluster.leader().await).revision();
    eventually("it has caught up", || cluster.store(id).revision() >= newest).await;
    load.finish(cluster).await;
}

fn leads(store: &crate::Store, id: u64) -> bool {
    store.leadership().borrow().leader == Some(MemberId(id))
}

fn levels(cluster: &Cluster) -> Vec<u32> {
    cluster.stores.values().map(crate::Store::level).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_upgraded_and_gone_back_with_while_others_write() {
    let mut cluster = Cluster::new(3);
    cluster.knows = EARLIER;
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let last = cluster.leader().await;
    let (first, second) = (last % 3 + 1, (last + 1) % 3 + 1);
    restart(&mut cluster, first, codec::VERSION, "upgraded").await;
    restart(&mut cluster, first, EARLIER, "gone back with").await;
    restart(&mut cluster, first, codec::VERSION, "upgraded again").await;
    restart(&mut cluster, second, codec::VERSION, "the second").await;
    // The newest programs have the majority, and may lead: nothing is written that the last cannot read.
    let refused = cluster.store(first).txn(deletes_a_span()).await;
    assert!(matches!(refused, Err(Error::NotYet { version: 2, level: 1 })), "{refused:?}");
    assert_eq!(levels(&cluster), [0, 0, 0]);

    restart(&mut cluster, last, codec::VERSION, "the last").await;
    for id in 1..=3 {
        cluster.store(id).txn(deletes_a_span()).await.expect("all can read it");
    }
    assert_eq!(levels(&cluster), [codec::VERSION; 3]);
    cluster.kill(first).await;
    cluster.knows = EARLIER;
    let refused = cluster.try_start(first).await;
    assert!(matches!(refused, Err(OpenError::Unreadable { .. })), "{refused:?}");
    cluster.knows = codec::VERSION;
    cluster.start(first).await;
    assert_eq!(cluster.store(first).level(), codec::VERSION, "it is on disk");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_member_may_be_of_an_earlier_version() {
    let mut cluster = Cluster::new(3);
    cluster.start(1).await;
    cluster.start(2).await;
    let leader = cluster.leader().await;
    let refused = cluster.store(leader).txn(deletes_a_span()).await;
    assert!(matches!(refused, Err(Error::NotYet { version: 2, .. })), "{refused:?}");
    cluster.start(3).await;
    eventually("the level rises", || levels(&cluster) == [codec::VERSION; 3]).await;
    cluster.store(leader).txn(deletes_a_span()).await.expect("all can read it");
    cluster.shutdown().await;
}

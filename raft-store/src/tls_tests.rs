//! Certificates and authorities of members are exchanged while they run.

use crate::{
    OwnTls, Revision, Store, Tls,
    cluster_tests::{Cluster, put},
};
use std::{collections::BTreeMap, sync::Arc};

/// What each member shows, to be replaced.
async fn start(cluster: &mut Cluster) -> BTreeMap<u64, OwnTls> {
    let mut shown = BTreeMap::new();
    for id in 1..=3 {
        let config = cluster.config(id);
        shown.insert(id, config.tls.clone());
        cluster.stores.insert(id, Store::open(config).await.expect("a member that starts"));
    }
    shown
}

/// The order of the steps is the operator's: trust both, then show the new, then trust the new alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_exchanged_while_the_group_writes() {
    let mut cluster = Cluster::new(3);
    let shown = start(&mut cluster).await;
    cluster.store(1).txn(put("before", "x")).await.expect("committed");
    let old = cluster.exchange_authority();
    let new: BTreeMap<u64, Arc<Tls>> =
        (1..=3).map(|id| (id, cluster.config(id).tls.current())).collect();
    let both = |id: &u64| [&old[..], &new[id].ca].concat();
    for (id, tls) in &shown {
        tls.replace(Tls { ca: both(id), ..(*tls.current()).clone() });
        cluster.store(*id).txn(put("both-are-trusted", "x")).await.expect("committed");
    }
    for (id, tls) in &shown {
        tls.replace(Tls { ca: both(id), ..(*new[id]).clone() });
        cluster.store(*id).txn(put("the-new-is-shown", "x")).await.expect("committed");
    }
    for (id, tls) in &shown {
        tls.replace((*new[id]).clone());
        cluster.store(*id).txn(put("the-new-alone", "x")).await.expect("committed");
    }
    // Each knows the new authority alone from its start on, and meets members that were never started anew.
    for id in [3, 2] {
        cluster.kill(id).await;
        cluster.start(id).await;
        assert_eq!(cluster.store(id).barrier().await.expect("a barrier"), Revision(10));
    }
    cluster.shutdown().await;
}

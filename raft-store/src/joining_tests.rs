//! Members that come, go, move and are replaced, over gRPC with mutual TLS, on real disks. The seed
//! is printed; `COXSWAIN_SEED` replays it.

use crate::{
    Error, MemberError, MemberId, OpenError, Peer, Refusal, Revision, Store,
    cluster_tests::{Cluster, PATIENCE, body, create, eventually, put},
    membership::Request,
    steward::Answer,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Another loopback address of this cluster.
fn address(cluster: &Cluster, last: u64) -> String {
    let (host, port) = cluster.peers[0].1.peer_address.split_once(':').expect("a port");
    let (net, _) = host.rsplit_once('.').expect("an address");
    format!("{net}.{last}:{port}")
}

fn new_peer(cluster: &Cluster) -> Peer {
    let id = cluster.peers.len() as u64 + 1;
    Peer {
        name: format!("master-{id}"),
        peer_address: address(cluster, id),
        api_address: format!("https://master-{id}:6443"),
    }
}

/// Adds a learner through member `via`; it is not started.
async fn add(cluster: &mut Cluster, via: u64) -> u64 {
    let peer = new_peer(cluster);
    let id = cluster.store(via).add_learner(None, peer.clone()).await.expect("added");
    assert_eq!(id, MemberId(cluster.peers.len() as u64 + 1), "the next id");
    cluster.peers.push((id, peer));
    id.0
}

pub(crate) async fn join(cluster: &mut Cluster, via: u64) -> u64 {
    let id = add(cluster, via).await;
    cluster.start(id).await;
    id
}

pub(crate) fn voters(store: &Store) -> BTreeSet<u64> {
    store.members().into_iter().filter(|member| member.voter).map(|member| member.id.0).collect()
}

fn members(store: &Store) -> BTreeSet<u64> {
    store.members().into_iter().map(|member| member.id.0).collect()
}

async fn wait_for_voters(cluster: &Cluster, expected: &[u64]) {
    let expected: BTreeSet<u64> = expected.iter().copied().collect();
    for (id, store) in &cluster.stores {
        let what = format!("member {id} to know the voters {expected:?}");
        eventually(&what, || voters(store) == expected).await;
    }
}

/// Creates objects through some members until told to stop; everything must be acknowledged.
pub(crate) struct Load {
    over: CancellationToken,
    writers: JoinSet<BTreeMap<Revision, (String, Instant)>>,
}

impl Load {
    fn start(stores: &[&Store]) -> Load {
        Load::named("load", stores)
    }

    /// Of objects that no other load has.
    pub(crate) fn named(name: &str, stores: &[&Store]) -> Load {
        let (over, mut writers) = (CancellationToken::new(), JoinSet::new());
        for (writer, store) in stores.iter().cycle().take(8).enumerate() {
            let (store, over, name) = ((*store).clone(), over.clone(), name.to_owned());
            writers.spawn(async move {
                let mut acknowledged = BTreeMap::new();
                for n in 0.. {
                    if over.is_cancelled() {
                        break;
                    }
                    let path = format!("{name}-{writer}/{n}");
                    let done = store.txn(create(&path, "x")).await;
                    let done = done.unwrap_or_else(|error| panic!("{path}: {error}"));
                    acknowledged.insert(done.revision, (path, Instant::now()));
                }
                acknowledged
            });
        }
        Load { over, writers }
    }

    /// Every acknowledged write is there on every member; the longest time without one.
    pub(crate) async fn finish(mut self, cluster: &Cluster) -> Duration {
        self.over.cancel();
        let mut acknowledged = BTreeMap::new();
        while let Some(writer) = self.writers.join_next().await {
            acknowledged.append(&mut writer.expect("no write failed"));
        }
        for store in cluster.stores.values() {
            store.barrier().await.expect("a barrier");
            for (revision, (path, _)) in &acknowledged {
                let stored = store.get(&crate::Key::new("pods", path.as_str()));
                assert_eq!(
                    stored.map(|it| it.revision),
                    Some(*revision),
                    "{path} was acknowledged"
                );
            }
        }
        let mut times: Vec<Instant> = acknowledged.into_values().map(|(_, at)| at).collect();
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let gap = gaps.max().unwrap_or_default();
        eprintln!("{} writes, longest gap {gap:?}", times.len());
        gap
    }
}

async fn progress(store: &Store, writes: u64) {
    let until = Revision(store.revision().0 + writes);
    store.wait_for(until, PATIENCE).await.expect("writes go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_follows_and_votes_by_itself_once_it_has_caught_up() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    for n in 0..50 {
        cluster.store(leader).txn(put(&format!("p{n}"), "x")).await.expect("committed");
    }
    let follower = (1..=3).find(|id| *id != leader).expect("a follower");
    let four = join(&mut cluster, follower).await;
    wait_for_voters(&cluster, &[1, 2, 3, four]).await;
    assert_eq!(cluster.store(four).barrier().await.expect("a barrier"), Revision(50));
    cluster.store(four).txn(put("own", "x")).await.expect("a full member");
    // It counts: with it, one of the first may be lost, and it comes back from its own disk.
    cluster.kill(follower).await;
    cluster.kill(four).await;
    cluster.start(four).await;
    cluster.store(four).txn(put("again", "x")).await.expect("three of four");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_is_far_behind_gets_a_snapshot_and_the_members_with_it() {
    let mut cluster = Cluster::new(3);
    cluster.retention.log_entries = 3;
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader().await;
    for n in 0..200 {
        cluster.store(leader).txn(put(&format!("p{n}"), "x")).await.expect("committed");
    }
    cluster.shorten_logs().await;
    let four = join(&mut cluster, leader).await;
    wait_for_voters(&cluster, &[1, 2, 3, four]).await;
    assert!(cluster.store(four).inside().metrics.snapshots_installed.get() >= 1);
    assert_eq!(cluster.store(four).barrier().await.expect("a barrier"), Revision(200));
    // Alone, so that only its own disk can tell it.
    for id in 1..=four {
        cluster.kill(id).await;
    }
    cluster.start(four).await;
    wait_for_voters(&cluster, &[1, 2, 3, four]).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dead_member_is_replaced_while_others_write() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let dead = (1..=3).find(|id| *id != leader).expect("a follower");
    let other = (1..=3).find(|id| *id != leader && *id != dead).expect("another");
    let load = Load::start(&[cluster.store(leader), cluster.store(other)]);
    progress(cluster.store(leader), 50).await;
    cluster.kill(dead).await;
    progress(cluster.store(leader), 50).await;
    cluster.store(other).remove_member(MemberId(dead)).await.expect("removed");
    cluster.store(other).remove_member(MemberId(dead)).await.expect("it is so");
    let four = join(&mut cluster, other).await;
    wait_for_voters(&cluster, &[leader, other, four]).await;
    progress(cluster.store(leader), 50).await;
    load.finish(&cluster).await;
    // The new one is as good as the old one was.
    cluster.kill(other).await;
    cluster.store(four).txn(put("after", "x")).await.expect("two of three");
    cluster.start(other).await;
    // The dead one comes back, is told, and stays away.
    cluster.start(dead).await;
    let why = tokio::time::timeout(PATIENCE, cluster.store(dead).stopped()).await;
    assert!(why.expect("it learns it").to_string().contains("was removed"));
    cluster.kill(dead).await;
    let refused = cluster.try_start(dead).await.expect_err("removed");
    assert!(matches!(refused, OpenError::Removed { .. }), "{refused}");
    assert!(refused.to_string().contains("join as a new member"), "{refused}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_hands_over_first_and_stops() {
    let mut cluster = Cluster::started(3).await;
    let first = cluster.leader().await;
    let load = Load::start(&[cluster.store(first % 3 + 1)]);
    progress(cluster.store(first), 20).await;
    cluster.store(first).remove_member(MemberId(first)).await.expect("removed");
    let why = tokio::time::timeout(PATIENCE, cluster.store(first).stopped()).await;
    assert!(why.expect("it learns it").to_string().contains("was removed"));
    cluster.kill(first).await;
    assert_ne!(cluster.leader().await, first);
    let left: Vec<u64> = (1..=3).filter(|id| *id != first).collect();
    wait_for_voters(&cluster, &left).await;
    load.finish(&cluster).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_stop_the_group_is_refused() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let dead = (1..=3).find(|id| *id != leader).expect("a follower");
    let other = (1..=3).find(|id| *id != leader && *id != dead).expect("another");
    cluster.kill(dead).await;
    for (via, who) in [(leader, other), (other, other), (other, leader)] {
        let refused = cluster.store(via).remove_member(MemberId(who)).await;
        let Err(MemberError::Refused(Refusal::LosesQuorum { needed: 2, voters: 2, .. })) = refused
        else {
            panic!("{refused:?}")
        };
    }
    let refused = cluster.store(leader).transfer_leader(Some(MemberId(dead))).await;
    let Err(MemberError::Refused(Refusal::Unreachable { .. })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(voters(cluster.store(leader)), BTreeSet::from([1, 2, 3]));
    cluster.store(other).txn(put("still", "x")).await.expect("two of three");
    let again = Peer { peer_address: address(&cluster, 99), ..cluster.peers[0].1.clone() };
    let refused = cluster.store(leader).add_learner(None, again.clone()).await;
    let Err(MemberError::Refused(Refusal::NameTaken { .. })) = refused else {
        panic!("{refused:?}")
    };
    let named = Peer { name: "other".into(), ..again };
    let refused = cluster.store(leader).add_learner(Some(MemberId(dead)), named).await;
    let Err(MemberError::Refused(Refusal::IdUsed { .. })) = refused else { panic!("{refused:?}") };
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_never_comes_costs_no_quorum_and_is_let_go() {
    let mut cluster = Cluster::new(3);
    cluster.timers.joiner_silence = Duration::from_secs(2);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader().await;
    let four = add(&mut cluster, leader).await;
    let follower = (1..=3).find(|id| *id != leader).expect("a follower");
    cluster.kill(follower).await;
    cluster.store(leader).txn(put("a", "x")).await.expect("two of three are a quorum");
    let store = cluster.store(leader).clone();
    eventually("the joiner is let go", || !members(&store).contains(&four)).await;
    assert_eq!(voters(&store), BTreeSet::from([1, 2, 3]));
    // Too late: it is told so, and its id is spent.
    cluster.start(four).await;
    let why = tokio::time::timeout(PATIENCE, cluster.store(four).stopped()).await;
    assert!(why.expect("it learns it").to_string().contains("was removed"));
    cluster.kill(four).await;
    let five = join(&mut cluster, leader).await;
    assert_eq!(five, 5);
    wait_for_voters(&cluster, &[1, 2, 3, five]).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moved_is_found_and_the_members_say_so() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let moved = (1..=3).find(|id| *id != leader).expect("a follower");
    cluster.kill(moved).await;
    let there = address(&cluster, 100 + moved);
    let others = cluster.peers.clone();
    cluster.peers[moved as usize - 1].1.peer_address = there.clone();
    cluster.start(moved).await;
    let address_of = |store: &Store, id: u64| {
        let member = store.members().into_iter().find(|member| member.id.0 == id);
        member.map(|member| member.peer_address)
    };
    for (id, store) in &cluster.stores {
        let what = format!("member {id} to know where {moved} is");
        eventually(&what, || address_of(store, moved).as_ref() == Some(&there)).await;
    }
    cluster.store(moved).txn(put("moved", "x")).await.expect("committed");
    assert_eq!(body(cluster.store(moved), "moved").as_deref(), Some("x"));
    // All at once, as when a whole site gets new addresses: nobody finds anybody by the log.
    for id in 1..=3 {
        cluster.kill(id).await;
        cluster.peers[id as usize - 1].1.peer_address = address(&cluster, 200 + id);
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    for id in 1..=3 {
        assert_eq!(cluster.store(id).barrier().await.expect("a quorum"), Revision(1));
        let store = cluster.store(id).clone();
        eventually("every address is the new one", || {
            (1..=3).all(|other| {
                address_of(&store, other) != Some(others[other as usize - 1].1.peer_address.clone())
            })
        })
        .await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leadership_moves_under_load_and_no_write_fails() {
    let cluster = Cluster::started(3).await;
    let mut leader = cluster.leader().await;
    let load = Load::start(&[cluster.store(1), cluster.store(2), cluster.store(3)]);
    let mut gaps = Vec::new();
    for _ in 0..6 {
        progress(cluster.store(leader), 100).await;
        let to = leader % 3 + 1;
        let asked = Instant::now();
        let now = cluster.store(leader).transfer_leader(Some(MemberId(to))).await;
        assert_eq!(now.expect("moved"), MemberId(to));
        gaps.push(asked.elapsed());
        leader = to;
    }
    progress(cluster.store(leader), 100).await;
    let longest = load.finish(&cluster).await;
    eprintln!("transfers took {gaps:?}");
    // An election by timeout would take longer than that: 300 to 600 ms after a lease of 600 ms.
    assert!(longest < Duration::from_millis(900), "{longest:?}");
    cluster.shutdown().await;
}

/// It hears nobody any more, which is no reason to say that a change would stop the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_ending_refuses_nothing() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let store = cluster.store(leader).clone();
    // Both at once: it still takes itself for the leader.
    for id in &followers {
        cluster.stores.remove(id).expect("a follower").inside().stop(false, "killed").await;
    }
    let asked = Request::Remove { id: MemberId(followers[0]) };
    let answer = store.inside().execute(&asked).await;
    assert_eq!(answer, Answer::NotLeader, "it does not lead, and so cannot know");
    cluster.shutdown().await;
}

fn seed() -> u64 {
    let given = std::env::var("COXSWAIN_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| rand::random::<u32>().into());
    eprintln!("COXSWAIN_SEED={seed}");
    seed
}

/// The leader is killed some milliseconds after the change was asked for: before it is decided,
/// proposed, committed or answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_dies_in_the_middle_of_a_change_leaves_it_made_or_not() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut cluster = Cluster::started(3).await;
    let mut ever: BTreeSet<u64> = BTreeSet::from([1, 2, 3]);
    for round in 0..4 {
        let leader = cluster.leader().await;
        let asker = cluster.stores.keys().copied().find(|id| *id != leader).expect("a follower");
        let peer = new_peer(&cluster);
        let store = cluster.store(asker).clone();
        let asked = peer.clone();
        let adding = tokio::spawn(async move { store.add_learner(None, asked).await });
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
        cluster.kill(leader).await;
        let id = adding.await.expect("no panic").expect("added in the end").0;
        assert!(ever.insert(id), "round {round}: id {id} was given before");
        // Ids that a lost leader gave are spent; they have no machine.
        while cluster.peers.len() < id as usize {
            cluster.peers.push((MemberId(cluster.peers.len() as u64 + 1), peer.clone()));
        }
        cluster.start(leader).await;
        cluster.start(id).await;
        let store = cluster.store(asker).clone();
        eventually("the joiner votes", || voters(&store).contains(&id)).await;
        let leader = cluster.leader().await;
        let asker = cluster.stores.keys().copied().find(|it| *it != leader && *it != id);
        let store = cluster.store(asker.expect("a follower")).clone();
        let removing = tokio::spawn(async move { store.remove_member(MemberId(id)).await });
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
        cluster.kill(leader).await;
        removing.await.expect("no panic").expect("removed in the end");
        if leader != id {
            cluster.start(leader).await;
            cluster.kill(id).await;
        }
        wait_for_voters(&cluster, &[1, 2, 3]).await;
        let path = format!("round-{round}");
        let done = cluster.store(1).txn(create(&path, "x")).await;
        assert!(!matches!(done, Err(Error::GuardFailed { .. })), "{done:?}");
        done.expect("a group that works");
    }
    cluster.shutdown().await;
}

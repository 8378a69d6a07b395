//! Three masters on one log: whichever is asked, the answer is the same; when the leader stops, nothing
//! acknowledged is lost and no watch has to begin again.

use crate::harness::config_map;
use apiserver::{Config, Identity, Server};
use futures::StreamExt;
use k8s::{Api, Object, Request, Resource, Revision, WatchEvent, WatchRequest};
use raft_store::{MemberId, Peer, Retention, Store, Timers, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

const MASTERS: u64 = 3;
/// Each cluster of this process has loopback addresses of its own.
static CLUSTERS: AtomicU8 = AtomicU8::new(100);

struct Masters {
    _dir: tempfile::TempDir,
    stores: BTreeMap<u64, Store>,
    servers: BTreeMap<u64, Server>,
    clients: BTreeMap<u64, Arc<dyn Api>>,
}

fn resource() -> Resource {
    Resource::new("", "v1", "configmaps")
}

impl Masters {
    async fn start() -> Masters {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("a certificate").pem().into_bytes();
        let issuer = Issuer::new(params, key);
        let process = std::process::id() % 250 + 1;
        let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let peer = |id: u64| Peer {
            name: format!("master-{id}"),
            peer_address: format!("127.{process}.{cluster}.{id}:2380"),
            api_address: format!("127.0.0.1:644{id}"),
        };
        let peers: Vec<(MemberId, Peer)> =
            (1..=MASTERS).map(|id| (MemberId(id), peer(id))).collect();
        let mut stores = BTreeMap::new();
        let (mut servers, mut clients) = (BTreeMap::new(), BTreeMap::new());
        for (member, peer) in &peers {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![peer.name.clone()]).expect("parameters");
            let cert = params.signed_by(&key, &issuer).expect("a certificate");
            let config = raft_store::Config {
                member: *member,
                data_dir: dir.path().join(member.to_string()),
                initial_members: peers.clone(),
                joins: false,
                listen: peer.peer_address.parse().expect("an address"),
                tls: Tls {
                    ca: ca.clone(),
                    cert: cert.pem().into_bytes(),
                    key: key.serialize_pem().into_bytes(),
                }
                .into(),
                timers: Timers {
                    heartbeat: Duration::from_millis(50),
                    election_min: Duration::from_millis(300),
                    election_max: Duration::from_millis(600),
                    request: Duration::from_secs(30),
                    ..Timers::default()
                },
                retention: Retention::default(),
                disk: raft_store::Disk::default(),
                seal: Arc::new(raft_store::Plain),
                registry: prometheus::Registry::new(),
            };
            let store = Store::open(config).await.expect("a member that starts");
            let server = Server::new(Config::new(store.clone()));
            stores.insert(member.0, store);
            let admin = Identity::authenticated("admin", &["system:masters"]);
            clients.insert(member.0, server.client(admin));
            servers.insert(member.0, server);
        }
        let masters = Masters { _dir: dir, stores, servers, clients };
        let namespace =
            Object::from_value(serde_json::json!({ "metadata": { "name": "default" } }));
        let namespaces = Resource::new("", "v1", "namespaces");
        let request = Request::create(namespaces, namespace.expect("an object"));
        masters.clients[&1].call(request).await.expect("a namespace");
        masters
    }

    /// The member that leads, waiting for one for a while.
    async fn leader(&self) -> u64 {
        let waits = self.stores.iter().map(|(id, store)| {
            let mut leadership = store.leadership();
            Box::pin(async move {
                let leads = leadership.wait_for(|now| now.leading.is_some()).await;
                leads.map(|_| *id).expect("a running member")
            })
        });
        let first = futures::future::select_all(waits);
        tokio::time::timeout(Duration::from_secs(20), first).await.expect("a leader").0
    }

    async fn create(&self, at: u64, name: &str) -> Revision {
        let mut object = Object::from_value(config_map(name)).expect("an object");
        object.metadata_mut().insert("namespace".into(), "default".into());
        let made = self.clients[&at].call(Request::create(resource(), object)).await;
        made.unwrap_or_else(|refused| panic!("{name}: {refused:?}")).revision().expect("a revision")
    }

    async fn watch(&self, at: u64, after: Revision) -> k8s::Events {
        let request = WatchRequest {
            resource: resource(),
            namespace: "default".into(),
            label_selector: None,
            field_selector: None,
            after: Some(after),
        };
        self.clients[&at].watch(request).await.expect("a watch")
    }

    async fn stop(self) {
        for store in self.stores.values() {
            store.shutdown().await;
        }
    }
}

async fn added(events: &mut k8s::Events) -> (String, Revision) {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(30), events.next());
        match next.await.expect("an event in time").expect("an open watch").expect("no error") {
            WatchEvent::Added(object) => {
                return (object.name().to_string(), object.revision().expect("a revision"));
            }
            WatchEvent::Bookmark { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_master_answers_for_the_whole_cluster() {
    let masters = Masters::start().await;
    for round in 0..6 {
        let (writer, reader) = (round % MASTERS + 1, (round + 1) % MASTERS + 1);
        let name = format!("m{round}");
        masters.create(writer, &name).await;
        let read = Request::get(resource(), "default", &name);
        masters.clients[&reader].call(read.clone()).await.expect("what was just acknowledged");
        let label = serde_json::json!({ "metadata": { "labels": { "round": round.to_string() } } });
        let merge = k8s::PatchType::Merge;
        let patch = Request::patch(resource(), "default", &name, merge, label);
        masters.clients[&writer].call(patch).await.expect("patched");
        let patched = masters.clients[&reader].call(read).await.expect("read");
        assert_eq!(patched.label("round"), Some(round.to_string().as_str()));
        let delete = Request::delete(resource(), "default", &name);
        masters.clients[&reader].call(delete).await.expect("deleted elsewhere");
    }
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_costs_no_write_and_no_event() {
    let mut masters = Masters::start().await;
    let leader = masters.leader().await;
    let others: Vec<u64> = (1..=MASTERS).filter(|id| *id != leader).collect();
    let from = masters.create(leader, "first").await;
    // One watch on a master that stays, one on the leader.
    let mut staying = masters.watch(others[0], from).await;
    let mut moving = masters.watch(leader, from).await;
    let before = masters.create(others[1], "before").await;
    assert_eq!(added(&mut moving).await, ("before".into(), before));
    masters.stores.remove(&leader).expect("the leader").shutdown().await;
    let during = masters.create(others[1], "during").await;
    assert!(during > before, "revisions never go back");
    assert!(moving.next().await.is_none(), "ends without an error");
    let mut moved = masters.watch(others[1], before).await;
    let after = masters.create(others[0], "after").await;
    for events in [&mut moved, &mut staying] {
        let mut seen = vec![added(events).await];
        if seen[0].0 == "before" {
            seen = vec![added(events).await];
        }
        seen.push(added(events).await);
        assert_eq!(seen, [("during".into(), during), ("after".into(), after)]);
    }
    masters.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_master_knows_the_heartbeats_that_one_heard() {
    let mut masters = Masters::start().await;
    let mut sharing = tokio::task::JoinSet::new();
    for server in masters.servers.values() {
        let server = server.clone();
        sharing.spawn(async move { server.share_heartbeats().await });
    }
    let object = |value: serde_json::Value| Object::from_value(value).expect("an object");
    let namespace = object(serde_json::json!({ "metadata": { "name": "kube-node-lease" } }));
    let create = Request::create(Resource::new("", "v1", "namespaces"), namespace);
    masters.clients[&1].call(create).await.expect("a namespace");
    let leases = Resource::new("coordination.k8s.io", "v1", "leases");
    let time = |second: u32| format!("2026-01-01T00:00:{second:02}.000000Z");
    let lease = serde_json::json!({
        "metadata": { "name": "n1", "namespace": "kube-node-lease" },
        "spec": { "holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": time(0) },
    });
    masters.servers[&1].heartbeats_heard_out().await;
    let create = Request::create(leases.clone(), object(lease));
    let made = masters.clients[&1].call(create).await.expect("a lease");
    let renewal = serde_json::json!({ "spec": { "renewTime": time(10) } });
    let merge = k8s::PatchType::Merge;
    let renew = Request::patch(leases.clone(), "kube-node-lease", "n1", merge, renewal);
    masters.clients[&1].call(renew).await.expect("a renewal");
    for id in 1..=MASTERS {
        masters.servers[&id].heartbeats_heard_out().await;
        let read = Request::get(leases.clone(), "kube-node-lease", "n1");
        let read = masters.clients[&id].call(read).await.expect("the lease");
        assert_eq!(read.str_at("/spec/renewTime"), time(10), "at master {id}");
        assert_eq!(read.revision(), made.revision(), "nothing was written");
    }
    masters.stores.remove(&1).expect("the master that heard it").shutdown().await;
    masters.servers[&2].heartbeats_heard_out().await;
    assert!(masters.servers[&2].heartbeat_age("n1").is_some(), "known after it is gone");
    sharing.shutdown().await;
    masters.stop().await;
}

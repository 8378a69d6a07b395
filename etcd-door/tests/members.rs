//! The door on each of three members: what is written through one is there through all, chores are done
//! by whoever leads, and who has no role stays outside.

use etcd_door::{
    Config, Door, ROLE,
    proto::rpc::{
        kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient, *,
    },
};
use raft_store::{MemberId, OwnTls, Peer, Retention, Store, Timers, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// For server and client use, as PEM.
    fn issue(&self, names: &[&str], organization: &str) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        (cert.pem(), key.serialize_pem())
    }

    /// It vouches for a listener, and for who may connect to it.
    fn of_listener(&self) -> Tls {
        let (cert, key) = self.issue(&["localhost"], "masters");
        Tls { ca: self.pem.clone().into(), cert: cert.into(), key: key.into() }
    }
}

/// Over a new connection, with a certificate of this organization.
async fn get(
    address: SocketAddr,
    authority: &Authority,
    organization: Option<&str>,
) -> Result<tonic::Response<RangeResponse>, tonic::Status> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&authority.pem))
        .domain_name("localhost");
    if let Some(organization) = organization {
        let (cert, key) = authority.issue(&["client"], organization);
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
    let channel = endpoint.tls_config(tls).expect("certificates").connect_lazy();
    KvClient::new(channel).range(all()).await
}

/// Loopback addresses of this process alone.
fn address(member: u64) -> SocketAddr {
    let process = (std::process::id() % 250 + 1) as u8;
    ([127, process, 200, member as u8], 2380).into()
}

async fn open(dir: &Path, authority: &Authority, id: u64) -> Store {
    let peer = |id: u64| Peer {
        name: format!("m{id}"),
        peer_address: address(id).to_string(),
        api_address: String::new(),
    };
    let (cert, key) = authority.issue(&[&format!("m{id}"), "localhost"], "members");
    let config = raft_store::Config {
        member: MemberId(id),
        data_dir: dir.join(id.to_string()),
        initial_members: (1..=3).map(|id| (MemberId(id), peer(id))).collect(),
        joins: false,
        listen: address(id),
        tls: Tls { ca: authority.pem.clone().into(), cert: cert.into(), key: key.into() }.into(),
        timers: Timers { request: PATIENCE, ..Timers::default() },
        retention: Retention::default(),
        disk: raft_store::Disk::default(),
        seal: Arc::new(raft_store::Plain),
        registry: prometheus::Registry::new(),
    };
    Store::open(config).await.expect("a member")
}

async fn door(store: &Store, tls: Option<OwnTls>) -> (SocketAddr, DropGuard) {
    let listen = ([127, 0, 0, 1], 0).into();
    let config = Config { store: store.clone(), listen, tls, data_dir: None };
    let door = Door::open(config).await.expect("a free port");
    let (address, shutdown) = (door.address(), CancellationToken::new());
    tokio::spawn(door.serve(shutdown.clone()));
    (address, shutdown.drop_guard())
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("it listens")
}

fn put(key: String, lease: i64) -> PutRequest {
    PutRequest { value: "x".into(), lease, key: key.into(), ..PutRequest::default() }
}

fn all() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_serves_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let opening = (1..=3).map(|id| open(dir.path(), &authority, id));
    let stores = futures::future::join_all(opening).await;
    let (mut channels, mut open_doors) = (Vec::new(), Vec::new());
    for store in &stores {
        let (address, guard) = door(store, None).await;
        channels.push(connect(address).await);
        open_doors.push(guard);
    }
    let kv = |member: usize| KvClient::new(channels[member].clone());
    let lease = |member: usize| LeaseClient::new(channels[member].clone());

    let grant = LeaseGrantRequest { ttl: 2, id: 0 };
    let id = lease(0).lease_grant(grant).await.expect("granted").into_inner().id;
    for member in 0..3 {
        kv(member).put(put(format!("k{member}"), id)).await.expect("put");
        for reader in 0..3 {
            let read = kv(reader).range(all()).await.expect("read").into_inner();
            assert_eq!(read.count, member as i64 + 1, "written by {member}, read by {reader}");
        }
    }
    // Not granted by whoever is asked, and ended by whoever leads.
    let emptied = async {
        while kv(1).range(all()).await.expect("read").into_inner().count > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, emptied).await.expect("nobody keeps the lease alive");
    let last = kv(2).put(put("last".into(), 0)).await.expect("put").into_inner();
    let revision = last.header.expect("a header").revision;
    for member in 0..3 {
        // Whoever is asked for a revision later than the last compaction.
        let compact = CompactionRequest { revision: revision - 2 + member as i64, physical: false };
        kv(member).compact(compact).await.expect("compacted");
    }
    let mut hashes = Vec::new();
    for channel in &channels {
        let mut client = MaintenanceClient::new(channel.clone());
        stores[0].barrier().await.expect("a quorum");
        let hash = client.hash_kv(HashKvRequest { revision }).await.expect("a hash").into_inner();
        hashes.push((hash.hash, hash.compact_revision));
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    let floors = async {
        while stores.iter().any(|store| store.look(|view| view.floor().0) < revision as u64 - 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, floors).await.expect("all members compact");
    drop(open_doors);
    for store in stores {
        store.shutdown().await;
    }
}

#[tokio::test]
async fn who_has_no_role_stays_outside() {
    let authority = Authority::new();
    let (address, _open) = door(&Store::in_memory(), Some(authority.of_listener().into())).await;
    assert!(get(address, &authority, Some(ROLE)).await.is_ok());
    let refused = get(address, &authority, Some("system:masters")).await.expect_err("another role");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains(ROLE), "{refused}");
    assert!(get(address, &authority, None).await.is_err(), "no certificate");
}

#[tokio::test]
async fn a_listener_shows_and_trusts_what_is_newest() {
    let [old, new] = [(); 2].map(|()| Authority::new());
    let tls = OwnTls::from(old.of_listener());
    let (address, _open) = door(&Store::in_memory(), Some(tls.clone())).await;
    assert!(get(address, &old, Some(ROLE)).await.is_ok());
    assert!(get(address, &new, Some(ROLE)).await.is_err(), "not known yet");
    tls.replace(new.of_listener());
    assert!(get(address, &new, Some(ROLE)).await.is_ok());
    assert!(get(address, &old, Some(ROLE)).await.is_err(), "not trusted any more");
}

#[tokio::test]
async fn no_tls_only_on_loopback() {
    let (store, listen) = (Store::in_memory(), ([0, 0, 0, 0], 0).into());
    let refused = Door::open(Config { store, listen, tls: None, data_dir: None }).await;
    let refused = refused.map(|_| ()).expect_err("an open door").to_string();
    assert!(refused.contains("needs TLS"), "{refused}");
}

//! For tests: two nodes on one link, each a network namespace with a running [`Network`], and an
//! API whose objects the test sets.

use super::{Config, GATEWAY, Network, PodNetwork, link, namespace};
use futures::{StreamExt, TryStreamExt, future::BoxFuture};
use k8s::{Api, Events, Object, Request, Revision, Status, WatchEvent, WatchRequest};
use prometheus::Registry;
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::link::{InfoData, InfoKind, InfoVeth},
};
use serde_json::{Value, json};
use std::{
    fs::File,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{oneshot, watch},
    time::timeout,
};

/// Longer than anything here takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// For one connection that may be dropped silently.
const CONNECT: Duration = Duration::from_secs(3);

/// Objects and their changes in order; every watch replays what it has not seen.
#[derive(Default)]
pub(super) struct Objects {
    log: Mutex<Vec<(String, WatchEvent)>>,
    length: watch::Sender<usize>,
}

impl Objects {
    /// Adds or replaces an object of a resource (plural name).
    pub(super) fn set(&self, plural: &str, mut value: Value) {
        let mut log = self.log.lock().unwrap();
        value["metadata"]["resourceVersion"] = (log.len() + 1).to_string().into();
        let object = Arc::new(Object::from_value(value).unwrap());
        log.push((plural.to_string(), WatchEvent::Modified(object)));
        self.length.send_replace(log.len());
    }

    fn since(&self, plural: &str, seen: usize) -> (usize, Vec<WatchEvent>) {
        let log = self.log.lock().unwrap();
        let new = log[seen..].iter().filter(|(of, _)| of == plural);
        (log.len(), new.map(|(_, event)| event.clone()).collect())
    }
}

pub(super) struct FakeApi(pub(super) Arc<Objects>);

impl Api for FakeApi {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Object, Status>> {
        Box::pin(async move { Err(Status::not_found(&request.resource, &request.name)) })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Events, Status>> {
        let (objects, plural) = (self.0.clone(), request.resource.plural.to_string());
        let length = objects.length.subscribe();
        let start = (objects, plural, length, None);
        let events =
            futures::stream::unfold(start, |(objects, plural, mut length, seen)| async move {
                if seen.is_some() {
                    length.changed().await.ok()?;
                }
                length.mark_unchanged();
                let (now, mut events) = objects.since(&plural, seen.unwrap_or(0));
                if seen.is_none() {
                    let revision = Revision(now as u64);
                    events.push(WatchEvent::Bookmark { revision, initial_events_end: true });
                }
                Some((events, (objects, plural, length, Some(now))))
            });
        let events: Events = Box::pin(events.flat_map(futures::stream::iter).map(Ok));
        Box::pin(async move { Ok(events) })
    }
}

/// A thread in a namespace that serves until it is dropped.
pub(super) struct Inhabitant {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Inhabitant {
    /// Runs `work` in the namespace and returns once it has said that it is ready.
    pub(super) async fn start<T, F, W>(namespace: &File, work: F) -> (Inhabitant, T)
    where
        T: Send + 'static,
        F: FnOnce(oneshot::Sender<T>) -> W + Send + 'static,
        W: Future<Output = ()>,
    {
        let namespace = namespace.try_clone().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let flags = nix::sched::CloneFlags::CLONE_NEWNET;
            nix::sched::setns(namespace, flags).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                tokio::select! {
                    () = work(ready) => {}
                    _ = stopped => {}
                }
            });
        });
        let inhabitant = Inhabitant { stop: Some(stop), thread: Some(thread) };
        (inhabitant, is_ready.await.expect("the inhabitant starts"))
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A machine with an agent's network.
pub(super) struct Machine {
    pub(super) namespace: File,
    pub(super) pods: PodNetwork,
    pub(super) registry: Registry,
    _agent: Inhabitant,
}

/// A pod with a server on TCP and UDP port 8080 that says the pod's name and the client's address.
pub(super) struct Pod {
    pub(super) namespace: File,
    pub(super) address: Ipv4Addr,
    _server: Inhabitant,
}

pub(super) struct Lab {
    pub(super) objects: Arc<Objects>,
    pub(super) namespaces: [File; 2],
    directory: tempfile::TempDir,
}

impl Lab {
    /// Two namespaces with a cable between them: 10.90.0.21 and 10.90.0.22.
    pub(super) async fn new() -> Lab {
        let namespaces = [namespace::fresh(), namespace::fresh()];
        let other = namespaces[1].try_clone().unwrap();
        let first = namespaces[0].try_clone().unwrap();
        namespace::inside(first, move || cable(other)).await.unwrap();
        for (index, namespace) in namespaces.iter().enumerate() {
            let namespace = namespace.try_clone().unwrap();
            namespace::inside(namespace, move || configure(node_ip(index))).await.unwrap();
        }
        let objects = Arc::new(Objects::default());
        for index in 0..2 {
            objects.set(
                "nodes",
                json!({
                    "metadata": {"name": node_name(index)},
                    "spec": {"podCIDR": format!("10.244.{index}.0/24")},
                    "status": {"addresses": [{
                        "type": "InternalIP", "address": node_ip(index).to_string(),
                    }]},
                }),
            );
        }
        Lab { objects, namespaces, directory: tempfile::tempdir().unwrap() }
    }

    /// Starts the agent's network of a node; again, if the last was dropped: an agent restart.
    pub(super) async fn start(&self, index: usize) -> Machine {
        let config = Config {
            node_name: node_name(index),
            node_ip: node_ip(index),
            data_dir: self.directory.path().join(node_name(index)),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            cluster_dns: Ipv4Addr::new(10, 96, 0, 10),
            cluster_domain: "cluster.local".into(),
            resolv_conf: None,
        };
        let api: Arc<dyn Api> = Arc::new(FakeApi(self.objects.clone()));
        let registry = Registry::new();
        let metrics = registry.clone();
        let namespace = self.namespaces[index].try_clone().unwrap();
        let (agent, pods) = Inhabitant::start(&namespace, move |ready| async move {
            let network = Network::start(config, api, &metrics).await.unwrap();
            let _ = ready.send(network.pods());
            std::future::pending::<()>().await;
        })
        .await;
        let machine = Machine { namespace, pods, registry, _agent: agent };
        eventually("the network is ready", || async { machine.pods.is_ready().then_some(()) })
            .await;
        machine
    }
}

impl Machine {
    pub(super) async fn pod(&self, name: &'static str) -> Pod {
        let namespace = namespace::fresh();
        let address = self.pods.attach(name, &path(&namespace), vec![]).await.unwrap();
        let (server, ()) = Inhabitant::start(&namespace, move |ready| serve(name, ready)).await;
        Pod { namespace, address, _server: server }
    }
}

/// A path that opens the namespace.
pub(super) fn path(namespace: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()).into()
}

pub(super) fn node_name(index: usize) -> String {
    format!("n{index}")
}

pub(super) fn node_ip(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 90, 0, 21 + index as u8)
}

/// Answers every client with `name client-address`, on TCP and UDP port 8080.
pub(super) async fn serve(name: &'static str, ready: oneshot::Sender<()>) {
    let any = (Ipv4Addr::UNSPECIFIED, 8080);
    let listener = TcpListener::bind(any).await.unwrap();
    let socket = UdpSocket::bind(any).await.unwrap();
    let _ = ready.send(());
    let mut buffer = [0; 512];
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (mut stream, peer) = accepted.unwrap();
                let _ = stream.write_all(format!("{name} {}", peer.ip()).as_bytes()).await;
            }
            received = socket.recv_from(&mut buffer) => {
                let (_, peer) = received.unwrap();
                let _ = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer).await;
            }
        }
    }
}

/// Connects from the namespace and returns what the server says.
pub(super) async fn ask(from: &File, to: (Ipv4Addr, u16)) -> io::Result<String> {
    let from = from.try_clone()?;
    namespace::inside(from, move || async move {
        let exchange = async {
            let mut stream = TcpStream::connect(to).await?;
            let mut said = String::new();
            stream.read_to_string(&mut said).await?;
            Ok(said)
        };
        timeout(CONNECT, exchange).await.map_err(io::Error::from)?
    })
    .await?
}

/// The same by one datagram.
pub(super) async fn ask_udp(from: &File, to: (Ipv4Addr, u16)) -> io::Result<String> {
    let said = datagram(from, SocketAddr::from(to), b"?".to_vec()).await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

pub(super) async fn datagram(from: &File, to: SocketAddr, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let from = from.try_clone()?;
    namespace::inside(from, move || async move {
        let exchange = async {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            socket.connect(to).await?;
            socket.send(&bytes).await?;
            let mut buffer = vec![0; 2048];
            let length = socket.recv(&mut buffer).await?;
            buffer.truncate(length);
            Ok(buffer)
        };
        timeout(CONNECT, exchange).await.map_err(io::Error::from)?
    })
    .await?
}

/// Tries until there is an answer; fails the test with `what` if there is none in time.
pub(super) async fn eventually<T, W>(what: &str, mut attempt: impl FnMut() -> W) -> T
where
    W: Future<Output = Option<T>>,
{
    let tries = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(PATIENCE, tries).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain until {what}"),
    }
}

async fn cable(other: File) {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let peer = LinkUnspec::new_with_name("eth0").setns_by_fd(other.as_raw_fd()).build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name("eth0")
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .up()
        .build();
    handle.link().add(pair).execute().await.unwrap();
}

async fn configure(address: Ipv4Addr) {
    assert_ne!(address, GATEWAY);
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let links: Vec<_> =
        handle.link().get().match_name("eth0").execute().try_collect().await.unwrap();
    let index = links[0].header.index;
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
    let add = handle.address().add(index, address.into(), 24);
    link::unless_there(add.execute().await).unwrap();
}

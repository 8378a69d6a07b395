//! Several machines on one: a network namespace per master and node on a common link, and processes
//! started inside them. Nothing of it appears in this machine's own network namespace.

use anyhow::{Context, Result};
use futures::TryStreamExt;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::link::{InfoData, InfoKind, InfoVeth},
};
use std::{
    fs::{self, File},
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
};

/// Masters are 10.90.0.11, .12, …; nodes 10.90.0.21, .22, …
const NETWORK: [u8; 3] = [10, 90, 0];
const FIRST_MASTER: u8 = 11;
const FIRST_NODE: u8 = 21;
const MASTERS_MAX: usize = 10;
const NODES_MAX: usize = 230;
const PREFIX: u8 = 24;
const BRIDGE: &str = "br0";
/// A machine's end of its cable.
const LINK: &str = "eth0";

/// A network namespace pinned by a bind mount.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    /// May be opened for `setns` and passed to `ip -n`, `nsenter --net=`.
    pub(crate) path: PathBuf,
    /// Its address on the common link.
    pub(crate) address: Ipv4Addr,
}

/// The namespaces of one development cluster.
#[derive(Debug)]
pub(crate) struct Fabric {
    directory: PathBuf,
    masters: Vec<Namespace>,
    nodes: Vec<Namespace>,
}

impl Fabric {
    /// Where the namespaces will be pinned, under `directory`, and their addresses.
    pub(crate) fn plan(directory: &Path, masters: usize, nodes: usize) -> Result<Fabric> {
        anyhow::ensure!(masters <= MASTERS_MAX, "at most {MASTERS_MAX} masters");
        anyhow::ensure!(nodes <= NODES_MAX, "at most {NODES_MAX} nodes");
        let name = |kind: &str, index: usize, first: u8| Namespace {
            path: directory.join(format!("{kind}-{}", index + 1)),
            address: address(first, index),
        };
        Ok(Fabric {
            directory: directory.to_path_buf(),
            masters: (0..masters).map(|index| name("master", index, FIRST_MASTER)).collect(),
            nodes: (0..nodes).map(|index| name("node", index, FIRST_NODE)).collect(),
        })
    }

    /// Makes the namespaces and cables; no other cluster may use the directory. What a crashed run
    /// left there is removed first. Needs root.
    pub(crate) async fn create(&self) -> Result<()> {
        remove(&self.directory)?;
        let directory = &self.directory;
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let built = self.build().await;
        if built.is_err() {
            // The first error is the one to report.
            let _ = remove(directory);
        }
        built
    }

    pub(crate) fn masters(&self) -> &[Namespace] {
        &self.masters
    }

    pub(crate) fn nodes(&self) -> &[Namespace] {
        &self.nodes
    }

    /// This machine's own network namespace, for processes inside that must be reachable from
    /// outside; see [`bind_in`].
    pub(crate) fn outside(&self) -> PathBuf {
        self.directory.join("outside")
    }

    /// Unpins everything. Namespaces in which processes still run go with the last of them.
    pub(crate) fn remove(&self) -> Result<()> {
        remove(&self.directory)
    }

    async fn build(&self) -> Result<()> {
        pin(self.outside(), false)?;
        let switch = self.directory.join("switch");
        pin(switch.clone(), true)?;
        for machine in self.masters.iter().chain(&self.nodes) {
            pin(machine.path.clone(), true)?;
        }
        let machines: Vec<Namespace> = self.masters.iter().chain(&self.nodes).cloned().collect();
        inside(&switch, move || cable(machines)).await?
    }
}

/// Unpins what is pinned under `directory`; nothing happens if there is nothing.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| directory.display().to_string()),
    };
    for entry in entries {
        let path = entry?.path();
        // EINVAL: a file that nothing is mounted on, left by a run that died in between.
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL) => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
        fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    fs::remove_dir(directory).with_context(|| directory.display().to_string())
}

/// A listener that accepts in another network namespace, whichever thread uses it.
pub(crate) fn bind_in(namespace: &Path, address: SocketAddr) -> io::Result<TcpListener> {
    let file = File::open(namespace)?;
    on_a_thread(move || {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
}

/// Starts a program in another network namespace.
pub(crate) fn spawn_in(namespace: &Path, mut command: Command) -> io::Result<Child> {
    let file = File::open(namespace)?;
    on_a_thread(move || {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        command.spawn()
    })
}

/// Runs `work` inside the namespace, on a thread of its own.
pub(crate) async fn inside<T, F, W>(namespace: &Path, work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = T>,
{
    let file = File::open(namespace)?;
    let task = tokio::task::spawn_blocking(move || {
        on_a_thread(move || {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(work()))
        })
    });
    task.await.map_err(io::Error::other)?
}

fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = thread::Builder::new().name("netns".into()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
}

/// Keeps a network namespace alive by a mount at `path`: a fresh one, or this machine's own.
fn pin(path: PathBuf, fresh: bool) -> Result<()> {
    let at = path.display().to_string();
    let pinned = on_a_thread(move || {
        if fresh {
            unshare(CloneFlags::CLONE_NEWNET)?;
        }
        File::create(&path)?;
        let none: Option<&str> = None;
        let own = Some("/proc/thread-self/ns/net");
        mount(own, &path, none, MsFlags::MS_BIND, none)?;
        Ok(())
    });
    pinned.with_context(|| format!("pin a network namespace at {at} (needs root)"))
}

fn address(first: u8, index: usize) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, first + index as u8)
}

/// Runs in the switch's namespace: the bridge, and a cable from it to each machine.
async fn cable(machines: Vec<Namespace>) -> Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection().context("netlink socket")?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    handle.link().add(LinkBridge::new(BRIDGE).up().build()).execute().await.context("bridge")?;
    let bridge = index(&handle, BRIDGE).await?;
    for (number, machine) in machines.iter().enumerate() {
        let file = File::open(&machine.path).with_context(|| machine.path.display().to_string())?;
        let peer = LinkUnspec::new_with_name(LINK).setns_by_fd(file.as_raw_fd()).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(format!("port{number}"))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(bridge)
            .up()
            .build();
        let what = || format!("cable to {}", machine.path.display());
        handle.link().add(pair).execute().await.with_context(what)?;
        let address = machine.address;
        inside(&machine.path, move || configure(address)).await?.with_context(what)?;
    }
    Ok(())
}

/// Runs in a machine's namespace.
async fn configure(address: Ipv4Addr) -> Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection().context("netlink socket")?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    for name in ["lo", LINK] {
        let link = index(&handle, name).await?;
        let up = LinkUnspec::new_with_index(link).up().build();
        handle.link().set(up).execute().await.with_context(|| format!("{name} up"))?;
    }
    let eth0 = index(&handle, LINK).await?;
    let add = handle.address().add(eth0, IpAddr::V4(address), PREFIX);
    add.execute().await.with_context(|| format!("address {address}"))
}

async fn index(handle: &Handle, name: &str) -> Result<u32> {
    let mut links = handle.link().get().match_name(name).execute();
    let link = links.try_next().await.with_context(|| format!("link {name}"))?;
    Ok(link.with_context(|| format!("link {name} is not there"))?.header.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    async fn connect(from: &Namespace, to: SocketAddr) -> io::Result<()> {
        inside(&from.path, move || async move { TcpStream::connect(to).map(drop) }).await?
    }

    #[tokio::test]
    async fn machines_reach_each_other_and_vanish_without_a_trace() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("fabric");
        let fabric = Fabric::plan(&directory, 1, 2).unwrap();
        fabric.create().await.unwrap();
        let [master] = fabric.masters() else { panic!("one master") };
        let [one, two] = fabric.nodes() else { panic!("two nodes") };
        assert_eq!(master.address, Ipv4Addr::new(10, 90, 0, 11));
        assert_eq!(two.address, Ipv4Addr::new(10, 90, 0, 22));
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 6443));
        let _listener = bind_in(&master.path, listen).unwrap();
        for node in [one, two] {
            connect(node, (master.address, 6443).into()).await.unwrap();
        }
        let refused = connect(one, (two.address, 6443).into()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // Inside, an outside listener still accepts what comes to this machine.
        let outside = bind_in(&fabric.outside(), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        TcpStream::connect(outside.local_addr().unwrap()).unwrap();
        fabric.remove().unwrap();
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn a_crashed_run_is_cleaned_up_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("fabric");
        Fabric::plan(&directory, 1, 0).unwrap().create().await.unwrap();
        let next = Fabric::plan(&directory, 2, 1).unwrap();
        next.create().await.unwrap();
        next.remove().unwrap();
        assert!(!directory.exists());
    }
}

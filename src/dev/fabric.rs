//! Several machines on one: a network namespace per master and node on a common link, and processes
//! started inside them. Nothing of it appears in this machine's own network namespace.

use anyhow::{Context, Result};
use futures::TryStreamExt;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::SignalFd,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
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
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::Duration,
};

/// Masters are 10.90.0.11, .12, …; nodes 10.90.0.21, .22, …
const NETWORK: [u8; 3] = [10, 90, 0];
const FIRST_MASTER: u8 = 11;
const FIRST_NODE: u8 = 21;
const MASTERS_MAX: usize = 10;
const NODES_MAX: usize = 230;
const PREFIX: u8 = 24;
const BRIDGE: &str = "br0";
/// Between the death of what an init runs and its next start.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// A machine's end of its cable.
const LINK: &str = "eth0";

/// A network namespace pinned by a bind mount.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// May be opened for `setns` and passed to `ip -n`, `nsenter --net=`.
    pub path: PathBuf,
    /// Its address on the common link.
    pub address: Ipv4Addr,
}

/// How much of the machine a process gets for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// A network namespace; for masters.
    Network,
    /// Also its own mounts and process ids: the process is the init of a machine, and when it is
    /// killed everything it ever started is gone at once, as in a power cut. For nodes; see
    /// [`run_init`].
    Machine,
}

/// The namespaces of one development cluster.
#[derive(Debug)]
pub struct Fabric {
    directory: PathBuf,
    masters: Vec<Namespace>,
    nodes: Vec<Namespace>,
}

impl Fabric {
    /// Makes the namespaces and cables, pinned under `directory`, which no other cluster may use.
    /// What a crashed run left there is removed first. Needs root.
    pub async fn create(directory: &Path, masters: usize, nodes: usize) -> Result<Fabric> {
        anyhow::ensure!(masters <= MASTERS_MAX, "at most {MASTERS_MAX} masters");
        anyhow::ensure!(nodes <= NODES_MAX, "at most {NODES_MAX} nodes");
        remove(directory)?;
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let name = |kind: &str, index: usize, first: u8| Namespace {
            path: directory.join(format!("{kind}-{}", index + 1)),
            address: address(first, index),
        };
        let fabric = Fabric {
            directory: directory.to_path_buf(),
            masters: (0..masters).map(|index| name("master", index, FIRST_MASTER)).collect(),
            nodes: (0..nodes).map(|index| name("node", index, FIRST_NODE)).collect(),
        };
        if let Err(error) = fabric.build().await {
            // The first error is the one to report.
            let _ = remove(directory);
            return Err(error);
        }
        Ok(fabric)
    }

    pub fn masters(&self) -> &[Namespace] {
        &self.masters
    }

    pub fn nodes(&self) -> &[Namespace] {
        &self.nodes
    }

    /// This machine's own network namespace, for processes inside that must be reachable from
    /// outside; see [`bind_in`].
    pub fn outside(&self) -> PathBuf {
        self.directory.join("outside")
    }

    /// Unpins everything. Namespaces in which processes still run go with the last of them.
    pub fn remove(self) -> Result<()> {
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
pub fn remove(directory: &Path) -> Result<()> {
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

/// Starts `command` inside the namespace.
pub fn spawn(namespace: &Namespace, isolation: Isolation, command: Command) -> Result<Child> {
    let network =
        File::open(&namespace.path).with_context(|| namespace.path.display().to_string())?;
    let program = command.get_program().to_string_lossy().into_owned();
    // On a thread that ends with it, since a new process id namespace is for all later children of
    // the thread that asked for it.
    let started = on_a_thread(move || {
        if isolation == Isolation::Machine {
            unshare(CloneFlags::CLONE_NEWPID)?;
        }
        let mut command = command;
        enter_before_exec(&mut command, network, isolation);
        command.spawn()
    });
    started.with_context(|| format!("start {program} in {}", namespace.path.display()))
}

#[expect(unsafe_code, reason = "namespaces are entered between fork and exec")]
fn enter_before_exec(command: &mut Command, network: File, isolation: Isolation) {
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            setns(&network, CloneFlags::CLONE_NEWNET)?;
            if isolation == Isolation::Machine {
                let none: Option<&str> = None;
                unshare(CloneFlags::CLONE_NEWNS)?;
                // Unmounts outside are followed, mounts inside stay inside.
                let propagation = MsFlags::MS_REC | MsFlags::MS_SLAVE;
                mount(none, "/", none, propagation, none)?;
                mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
            }
            Ok(())
        });
    }
}

/// The life of a machine's first process: runs what `command` makes, starts it again when it dies
/// (its containers live on meanwhile), buries orphans, and returns once SIGTERM or SIGINT asked it to
/// stop and the command has ended. Must be called before the process has other threads.
pub fn run_init(mut command: impl FnMut() -> Command) -> io::Result<()> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        mask.add(signal);
    }
    // Blocked here, so that they wait to be read; children start with none blocked.
    mask.thread_block()?;
    let signals = SignalFd::new(&mask)?;
    let mut stopping = false;
    while !stopping {
        let child = Pid::from_raw(command().spawn()?.id() as i32);
        let mut running = true;
        while running {
            match signals.read_signal() {
                Ok(Some(signal)) if signal.ssi_signo != Signal::SIGCHLD as u32 => {
                    stopping = true;
                    kill(child, Signal::SIGTERM)?;
                }
                Ok(_) => running = !bury(child)?,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        thread::sleep(RESTART_PAUSE);
    }
    Ok(())
}

/// Reaps every dead child; true if `wanted` was among them.
fn bury(wanted: Pid) -> io::Result<bool> {
    let mut found = false;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(found),
            Ok(status) => found |= status.pid() == Some(wanted),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A listener that accepts in another network namespace, whichever thread uses it.
pub fn bind_in(namespace: &Path, address: SocketAddr) -> io::Result<TcpListener> {
    let file = File::open(namespace)?;
    on_a_thread(move || {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
}

/// Runs `work` inside the namespace, on a thread of its own.
pub async fn inside<T, F, W>(namespace: &Path, work: F) -> io::Result<T>
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
    use std::{
        io::{Read, Write},
        net::TcpStream,
        os::unix::process::ExitStatusExt,
        process::Stdio,
    };

    async fn connect(from: &Namespace, to: SocketAddr) -> io::Result<()> {
        inside(&from.path, move || async move { TcpStream::connect(to).map(drop) }).await?
    }

    #[tokio::test]
    async fn machines_reach_each_other_and_vanish_without_a_trace() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("fabric");
        let fabric = Fabric::create(&directory, 1, 2).await.unwrap();
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
        let lost = Fabric::create(&directory, 1, 0).await.unwrap();
        drop(lost);
        Fabric::create(&directory, 2, 1).await.unwrap().remove().unwrap();
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn killing_a_machines_init_ends_all_its_processes() {
        let parent = tempfile::tempdir().unwrap();
        let fabric = Fabric::create(&parent.path().join("fabric"), 0, 1).await.unwrap();
        let mut command = Command::new("sh");
        // The child keeps standard output open: its end is seen as the end of the pipe.
        command.args(["-c", "setsid sleep 1000 & echo $$ $(ls /sys/class/net >/dev/null; ip -br addr show eth0); wait"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut init = spawn(&fabric.nodes()[0], Isolation::Machine, command).unwrap();
        let mut output = init.stdout.take().unwrap();
        let mut said = Vec::new();
        let mut byte = [0];
        while output.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            said.push(byte[0]);
        }
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("1 ") && said.contains("10.90.0.21/24"), "{said}");
        init.kill().unwrap();
        assert_eq!(init.wait().unwrap().signal(), Some(9));
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).unwrap();
        let _ = io::stderr().flush();
        fabric.remove().unwrap();
    }
}

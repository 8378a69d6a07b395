//! Where everything of a development cluster is: names, addresses, directories, certificates, and
//! the command line of each machine. A value worked out from the arguments, before anything runs.

use super::{clock, disk::SOCKET, fabric::Fabric, remove_tree};
use crate::{
    cli::client::{Target, client_tls},
    cli::dev::Args,
    cli::token::JoinToken,
    kubeconfig,
    pki::{self, Authority, MasterNames, Purpose, write_pair, write_private},
};
use anyhow::{Context, Result};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};
use tokio::process::Command;

pub(super) const SERVICE_CIDR: &str = "10.96.0.0/16";
pub(super) const CLUSTER_CIDR: &str = "10.244.0.0/16";

/// First address of the service range: the `kubernetes` service, as upstream has it.
const KUBERNETES_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

pub(super) struct Layout {
    pub(super) root: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) api_port: u16,
    pub(super) masters: Vec<Master>,
    pub(super) nodes: Vec<Node>,
    /// `None` without nodes, unless asked for: then everything is on loopback.
    pub(super) fabric: Option<Fabric>,
    /// Masters' data is on disks that can be made to fail.
    pub(super) faulty_disks: bool,
    /// What makes masters' clocks jump, if they are to.
    faulty_clocks: Option<PathBuf>,
}

pub(super) struct Master {
    pub(super) name: String,
    id: u8,
    /// On 127.0.0.1 of this machine, for clients here.
    local_port: u16,
    /// As other machines of the cluster see it.
    address: IpAddr,
    api_port: u16,
    peer_port: u16,
    etcd_port: Option<u16>,
    netns: Option<PathBuf>,
}

pub(super) struct Node {
    pub(super) name: String,
    address: IpAddr,
    netns: PathBuf,
}

impl Layout {
    pub(super) fn plan(args: &Args) -> Result<Layout> {
        let root = match &args.data_dir {
            Some(path) => std::path::absolute(path)?,
            None => {
                let home = std::env::var_os("HOME").context("no HOME; name a --data-dir")?;
                PathBuf::from(home).join(".local/share/coxswain/dev")
            }
        };
        let counts = (args.masters.into(), args.nodes.into());
        let fabric = match args.nodes {
            0 if !args.isolate => None,
            _ => Some(Fabric::plan(&root.join("fabric"), counts.0, counts.1)?),
        };
        let machines = fabric.as_ref().map_or(&[][..], Fabric::nodes).iter();
        let nodes = machines.zip(1..).map(|(machine, number)| Node {
            name: format!("n{number}"),
            address: machine.address.into(),
            netns: machine.path.clone(),
        });
        let masters = (1..=args.masters).map(|id| {
            let machine = fabric.as_ref().map(|fabric| &fabric.masters()[usize::from(id) - 1]);
            let local_port = args.api_port + u16::from(id);
            Master {
                name: format!("m{id}"),
                id,
                local_port,
                address: machine.map_or(Ipv4Addr::LOCALHOST, |machine| machine.address).into(),
                api_port: machine.map_or(local_port, |_| 6443),
                // Beside the API ports, so that clusters with other --api-port do not meet.
                peer_port: machine.map_or(local_port + 100, |_| 2380),
                etcd_port: args.etcd_port.map(|port| port + u16::from(id)),
                netns: machine.map(|machine| machine.path.clone()),
            }
        });
        Ok(Layout {
            kubeconfig: args.kubeconfig.clone().unwrap_or_else(|| root.join("kubeconfig")),
            api_port: args.api_port,
            masters: masters.collect(),
            nodes: nodes.collect(),
            fabric,
            faulty_disks: args.faulty_disks,
            faulty_clocks: clock::library().filter(|_| args.faulty_clocks),
            root,
        })
    }

    /// Held while the cluster runs: two on one directory would destroy each other.
    pub(super) fn lock(&self) -> Result<nix::fcntl::Flock<fs::File>> {
        fs::create_dir_all(&self.root)
            .with_context(|| format!("cannot create {}", self.root.display()))?;
        let file = fs::File::create(self.root.join("lock"))?;
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(
            |(_, _)| {
                anyhow::anyhow!(
                    "another cluster runs in {}; stop it, or name another --data-dir and --api-port",
                    self.root.display()
                )
            },
        )
    }

    /// Directories, certificates and the kubeconfig; what is there from an earlier run is kept.
    pub(super) fn prepare(&self) -> Result<()> {
        let authority = self.authority("ca", &self.pki_dir())?;
        let accounts = self.pki_dir().join("sa.key");
        if !accounts.exists() {
            write_private(&accounts, &rcgen::KeyPair::generate()?.serialize_pem())?;
        }
        // What opens Secrets at rest: lost, they are lost.
        let secrets = self.pki_dir().join("secrets.key");
        if !secrets.exists() {
            write_private(&secrets, &apiserver::Keyring::generate())?;
        }
        for master in &self.masters {
            self.prepare_master(&authority, master, &accounts)?;
            let own = self.machine_dir(&master.name).join("pki/secrets.key");
            fs::copy(&secrets, own).context("cannot copy secrets.key")?;
        }
        for node in &self.nodes {
            let directory = self.machine_dir(&node.name);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let admin = authority.issue(&Purpose::Client { user: "admin", group: "system:masters" })?;
        write_pair(&self.pki_dir(), "admin", &admin)?;
        let masters: Vec<(String, String)> =
            self.masters.iter().map(|master| (master.name.clone(), master.url())).collect();
        let text = kubeconfig::render(
            &authority.pair.cert,
            "admin",
            &admin,
            &format!("https://127.0.0.1:{}", self.api_port),
            &masters,
        );
        write_private(&self.kubeconfig, &text)
    }

    /// That of masters from an earlier run, who may have exchanged it since; or else the one kept in `ours`.
    fn authority(&self, name: &str, ours: &Path) -> Result<Authority> {
        let mut masters = self.masters.iter().map(|master| self.master_pki(master));
        if let Some(pki) = masters.find(|pki| pki.join(format!("{name}.crt")).exists()) {
            write_pair(ours, "ca", &Authority::read(&pki, name)?.pair)?;
        }
        Authority::open(ours)
    }

    fn master_pki(&self, master: &Master) -> PathBuf {
        self.machine_dir(&master.name).join("pki")
    }

    fn prepare_master(&self, ca: &Authority, master: &Master, accounts: &Path) -> Result<()> {
        let directory = self.master_pki(master);
        // Each master has the authorities' keys: it lets new ones in.
        for (kept, name) in [("peers", "peer-ca"), ("front-proxy", "front-proxy-ca")] {
            let authority = self.authority(name, &self.pki_dir().join(kept))?;
            write_missing(&directory, name, &authority)?;
        }
        write_missing(&directory, "ca", ca)?;
        fs::copy(accounts, directory.join("sa.key")).context("cannot copy sa.key")?;
        let addresses = [Ipv4Addr::LOCALHOST.into(), master.address, KUBERNETES_SERVICE_IP.into()];
        pki::issue_master(
            &directory,
            &MasterNames { name: &master.name, addresses: &addresses },
            pki::CERTIFICATE_LIFE,
        )
    }

    /// As admin, over the addresses on this machine.
    pub(super) fn target(&self) -> Result<Target> {
        let read = |name: &str| {
            let path = self.pki_dir().join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let tls = client_tls(&read("ca.crt")?, &read("admin.crt")?, &read("admin.key")?)?;
        let front = format!("https://127.0.0.1:{}", self.api_port);
        let masters = self.masters.iter().map(Master::url);
        let servers = std::iter::once(front).chain(masters).collect();
        Ok(Target { servers, tls, ca: read("ca.crt")?, cert: read("admin.crt")? })
    }

    pub(super) fn machine_dir(&self, name: &str) -> PathBuf {
        self.root.join("machines").join(name)
    }

    pub(super) fn log(&self, name: &str) -> String {
        self.machine_dir(name).join("log").display().to_string()
    }

    /// Only what we made: the directory itself may be the user's.
    pub(super) fn remove(&self) -> Result<()> {
        for part in ["machines", "fabric", "pki", "images"] {
            remove_tree(&self.root.join(part))?;
        }
        for file in [&self.kubeconfig, &self.root.join("lock")] {
            if file.exists() {
                fs::remove_file(file)
                    .with_context(|| format!("cannot remove {}", file.display()))?;
            }
        }
        Ok(())
    }

    fn pki_dir(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The demo image, made once from this machine's busybox.
    fn demo_image(&self) -> Result<PathBuf> {
        let path = self.root.join("images").join("demo.tar");
        if !path.exists() {
            fs::create_dir_all(self.root.join("images"))?;
            node_agent::images::demo::build_demo_archive(&path)
                .context("cannot make the demo image")?;
        }
        Ok(path)
    }
}

impl Master {
    /// As clients on this machine dial it.
    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.local_port)
    }

    fn member(&self) -> String {
        let Master { id, name, address, peer_port, api_port, .. } = self;
        format!("{id}={name}={address}:{peer_port}={address}:{api_port}")
    }

    pub(super) fn command(&self, layout: &Layout) -> Result<Command> {
        let directory = layout.machine_dir(&self.name);
        let mut command = machine(self.netns.as_deref(), false)?;
        if let Some(library) = &layout.faulty_clocks {
            let file = directory.join("clock");
            clock::set(&file, 0)?;
            clock::apply(&mut command, library, &file);
        }
        let members: Vec<String> = layout.masters.iter().map(Master::member).collect();
        let mut listen = vec![format!("127.0.0.1:{}", self.local_port)];
        if self.netns.is_some() {
            // In the namespace of whoever runs `coxswain dev`, beside the cluster's own network.
            listen[0] = format!("{}@/proc/{}/ns/net", listen[0], std::process::id());
            listen.push(format!("{}:{}", self.address, self.api_port));
        }
        command.arg("server");
        command.args(["--name", &self.name]).args(["--id", &self.id.to_string()]);
        command.arg("--data-dir").arg(self.data(layout));
        command.arg("--pki").arg(directory.join("pki"));
        for address in listen {
            command.args(["--listen", &address]);
        }
        if let Some(port) = self.etcd_port {
            command.args(["--etcd-listen", &format!("127.0.0.1:{port}")]);
        }
        command.args(["--initial-members", &members.join(",")]);
        command.args(["--service-cidr", SERVICE_CIDR, "--cluster-cidr", CLUSTER_CIDR]);
        // Quick for people who try it, but twice as long as a real kubelet takes between two
        // heartbeats; `coxswain server` has Kubernetes' own defaults.
        command.args(["--node-monitor-grace-period", "20s"]);
        command.args(["--default-toleration-seconds", "5"]);
        Ok(command)
    }

    /// The name of its disk, which is a machine of its own.
    pub(super) fn disk(&self) -> String {
        format!("{}-disk", self.name)
    }

    pub(super) fn data(&self, layout: &Layout) -> PathBuf {
        layout.machine_dir(&self.name).join("data")
    }

    pub(super) fn disk_socket(&self, layout: &Layout) -> PathBuf {
        layout.machine_dir(&self.name).join(SOCKET)
    }

    pub(super) fn disk_command(&self, layout: &Layout) -> Result<Command> {
        let binary = std::env::current_exe().context("cannot tell where this program is")?;
        let mut command = Command::new(binary);
        command.arg("disk").arg(self.data(layout)).arg(self.disk_socket(layout));
        command.process_group(0).kill_on_drop(true);
        Ok(command)
    }
}

impl Node {
    pub(super) fn command(&self, layout: &Layout, token: &JoinToken) -> Result<Command> {
        let directory = layout.machine_dir(&self.name);
        let mut command = machine(Some(&self.netns), true)?;
        let masters: Vec<String> = layout
            .masters
            .iter()
            .map(|master| format!("https://{}:{}", master.address, master.api_port))
            .collect();
        command.arg("agent");
        command.args(["--name", &self.name]).args(["--address", &self.address.to_string()]);
        command.arg("--data-dir").arg(directory.join("data"));
        command.arg("--pki").arg(directory.join("pki"));
        command.args(["--join", &masters.join(",")]);
        // Not where `ps` shows it.
        command.env("COXSWAIN_JOIN_TOKEN", token.to_string());
        command.args(["--service-cidr", SERVICE_CIDR, "--cluster-cidr", CLUSTER_CIDR]);
        command.args(["--lease-renew-interval", "2s"]);
        command.arg("--import-image").arg(layout.demo_image()?);
        Ok(command)
    }
}

fn machine(netns: Option<&Path>, isolate: bool) -> Result<Command> {
    let binary = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = Command::new(&binary);
    command.arg("machine");
    if let Some(path) = netns {
        command.arg("--netns").arg(path);
    }
    if isolate {
        command.arg("--isolate");
    }
    command.arg("--").arg(&binary);
    // Ctrl-C on the terminal is for us; we stop the machines in order.
    command.process_group(0).kill_on_drop(true);
    Ok(command)
}
/// A master that has one keeps it: an exchange may be half done.
fn write_missing(pki: &Path, name: &str, authority: &Authority) -> Result<()> {
    match pki.join(format!("{name}.crt")).exists() {
        true => Ok(()),
        false => write_pair(pki, name, &authority.pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(name: &str) -> Master {
        Master {
            name: name.into(),
            id: 1,
            local_port: 6444,
            address: Ipv4Addr::LOCALHOST.into(),
            api_port: 6444,
            peer_port: 6544,
            etcd_port: None,
            netns: None,
        }
    }

    #[test]
    fn a_cluster_whose_authorities_were_exchanged_starts_with_the_new_ones() {
        let directory = tempfile::tempdir().unwrap();
        let mut layout = Layout {
            root: directory.path().into(),
            kubeconfig: directory.path().join("kubeconfig"),
            api_port: 6443,
            masters: vec![master("m1")],
            nodes: Vec::new(),
            fabric: None,
            faulty_disks: false,
            faulty_clocks: None,
        };
        layout.prepare().unwrap();
        let pki = layout.master_pki(&layout.masters[0]);
        for name in ["ca", "peer-ca", "front-proxy-ca"] {
            let other = Authority::open(&directory.path().join("new").join(name)).unwrap().pair;
            write_pair(&pki, name, &other).unwrap();
        }
        layout.masters.push(master("m2"));
        layout.prepare().unwrap();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        for name in ["ca", "peer-ca", "front-proxy-ca"] {
            let new = read(directory.path().join("new").join(name).join("ca.crt"));
            for master in &layout.masters {
                let own = layout.master_pki(master);
                assert_eq!(read(own.join(format!("{name}.crt"))), new, "{} of {name}", master.name);
            }
        }
        let (ca, peer) = (read(pki.join("ca.crt")), read(pki.join("peer.crt")));
        let authority = read(pki.join("peer-ca.crt"));
        assert!(pki::is_signed_by(peer.as_bytes(), authority.as_bytes()));
        assert_eq!(layout.target().unwrap().ca, ca.into_bytes());
    }
}

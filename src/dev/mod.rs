//! A development cluster on one machine: real masters and real nodes, each a process of its own, in
//! a network of its own.

pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod fabric;
mod front;
mod layout;
mod preflight;
pub(crate) mod progress;

use crate::cli::{
    client::Target,
    dev::Args,
    output, stop_signal,
    token::{self, JoinToken},
};
use anyhow::{Context, Result, bail};
use layout::{Layout, Master, Node};
use progress::Progress;
use std::{fs, path::Path, time::Duration};
use tokio::process::{Child, Command};

/// How long masters and nodes are given to become ready before we say what is wrong.
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// How long nodes may join with the token they are started with: as long as they may take, and much more.
const TOKEN_LIFE: Duration = Duration::from_secs(10 * 60);

/// Between two looks at whether something is ready.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long a machine is given to stop by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: Args) -> Result<()> {
    preflight::check(&args)?;
    let progress = Progress::start();
    let layout = Layout::plan(&args)?;
    let _lock = layout.lock()?;
    layout.prepare()?;
    progress.say(&format!("certificates and kubeconfig in {}", layout.root.display()));
    let mut cluster = Cluster::default();
    let result = tokio::select! {
        result = cluster.run(&layout, &progress) => result,
        signal = stop_signal() => signal,
    };
    progress.say("stopping");
    let stopped = cluster.stop(&layout, &progress).await;
    if !args.keep && result.is_ok() {
        layout.remove()?;
    }
    result.and(stopped)
}

/// What runs, in the order in which it was started.
#[derive(Default)]
struct Cluster {
    machines: Vec<(String, Child)>,
}

impl Cluster {
    /// Starts everything, says so, and then lasts until a machine ends.
    async fn run(&mut self, layout: &Layout, progress: &Progress) -> Result<()> {
        if let Some(fabric) = &layout.fabric {
            fabric.create().await?;
            progress.say("network: one namespace per machine, joined by a bridge");
        }
        let target = layout.target()?;
        if layout.faulty_disks {
            self.start_disks(layout).await?;
            progress.say("disks: masters' data is on ones that can be made to fail");
        }
        for master in &layout.masters {
            self.start(layout, &master.name, master.command(layout)?)?;
        }
        let urls = layout.masters.iter().map(Master::url).collect();
        let _front = front::Front::listen(layout.api_port, urls, target.clone()).await?;
        for master in &layout.masters {
            wait_for(
                &format!("master {} (log: {})", master.name, layout.log(&master.name)),
                || is_ready(&target, master),
            )
            .await?;
            progress.say(&format!("master {} is ready at {}", master.name, master.url()));
        }
        if !layout.nodes.is_empty() {
            let token = token_for_nodes(&target).await?;
            for node in &layout.nodes {
                self.start(layout, &node.name, node.command(layout, &token)?)?;
            }
        }
        for node in &layout.nodes {
            wait_for(&format!("node {} (log: {})", node.name, layout.log(&node.name)), || {
                is_node_ready(&target, node)
            })
            .await?;
            progress.say(&format!("node {} is Ready", node.name));
        }
        welcome(layout, progress);
        self.last().await
    }

    /// Before the masters, so that they stop after them.
    async fn start_disks(&mut self, layout: &Layout) -> Result<()> {
        for master in &layout.masters {
            let (name, socket) = (master.disk(), master.disk_socket(layout));
            disk::clear(&master.data(layout))?;
            fs::create_dir_all(layout.machine_dir(&name))?;
            if socket.exists() {
                fs::remove_file(&socket).with_context(|| socket.display().to_string())?;
            }
            self.start(layout, &name, master.disk_command(layout)?)?;
        }
        for master in &layout.masters {
            let (name, socket) = (master.disk(), master.disk_socket(layout));
            let answers = || {
                let answers = disk::tell(&socket, disk::Order::Ping).is_ok();
                async move { answers }
            };
            wait_for(&format!("disk {name} (log: {})", layout.log(&name)), answers).await?;
        }
        Ok(())
    }

    fn start(&mut self, layout: &Layout, name: &str, mut command: Command) -> Result<()> {
        let path = layout.log(name);
        let log = fs::OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {path}"))?;
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start machine {name}"))?;
        if let Some(pid) = child.id() {
            fs::write(layout.machine_dir(name).join("pid"), format!("{pid}\n"))?;
        }
        self.machines.push((name.to_string(), child));
        Ok(())
    }

    /// A machine whose power was cut stays off; the cluster goes on without it. Lasts for ever: the
    /// caller stops it.
    async fn last(&mut self) -> Result<()> {
        let ends = self.machines.iter_mut().map(|(name, child)| {
            Box::pin(async move {
                let status = child.wait().await;
                output::warn(&format!("machine {name} has ended: {status:?}"));
            })
        });
        futures::future::join_all(ends).await;
        bail!("every machine has ended")
    }

    /// Nodes first, so that their last words find a master.
    async fn stop(&mut self, layout: &Layout, progress: &Progress) -> Result<()> {
        for (name, mut child) in self.machines.drain(..).rev() {
            let Some(pid) = child.id() else { continue };
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            // Gone already is as good as stopped.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
                output::warn(&format!(
                    "machine {name} did not stop within {STOP_TIMEOUT:?}; killed"
                ));
                child.kill().await?;
            }
        }
        if layout.faulty_disks {
            layout.masters.iter().try_for_each(|master| disk::clear(&master.data(layout)))?;
        }
        if let Some(fabric) = &layout.fabric {
            fabric.remove()?;
        }
        progress.say("stopped");
        Ok(())
    }
}

/// Nodes here come as nodes anywhere do. Those that are kept from an earlier run do not look at it.
async fn token_for_nodes(target: &Target) -> Result<JoinToken> {
    let made = token::make(target, token::Joiner::Node, TOKEN_LIFE, "coxswain dev").await;
    made.context("no token that nodes could join with")
}

async fn is_ready(target: &Target, master: &Master) -> bool {
    matches!(target.get(&master.url(), "/readyz", Duration::from_secs(1)).await, Ok((200, _)))
}

async fn is_node_ready(target: &Target, node: &Node) -> bool {
    let path = format!("/api/v1/nodes/{}", node.name);
    let Ok((200, body)) = target.get(&target.servers[0], &path, Duration::from_secs(1)).await
    else {
        return false;
    };
    let object: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

async fn wait_for<F, R>(what: &str, mut look: F) -> Result<()>
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let looking = async {
        while !look().await {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let looked = tokio::time::timeout(READY_TIMEOUT, looking).await;
    looked.with_context(|| format!("{what} is not ready after {READY_TIMEOUT:?}"))
}

fn welcome(layout: &Layout, progress: &Progress) {
    let (masters, nodes) = (layout.masters.len(), layout.nodes.len());
    progress.say(&format!("{masters} masters and {nodes} nodes are Ready"));
    output::say(&format!(
        "\n  export KUBECONFIG={}\n  kubectl get nodes\n  coxswain members\n\n\
         Logs are in {}. Ctrl-C stops the cluster.",
        layout.kubeconfig.display(),
        layout.root.join("machines").display(),
    ));
}

/// Removes a directory and what is in it; one that is not there is removed already.
fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

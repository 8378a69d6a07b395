//! The two that are compared: how they are started, asked who leads, killed and stopped. Only processes
//! that were started here are ever killed.

use crate::cli::{bench::api::OwnCluster, client::Target, members, output};
use anyhow::{Context, Result, bail, ensure};
use futures::future::{BoxFuture, FutureExt as _};
use nix::{
    sys::{
        signal::{Signal, kill},
        statfs::{TMPFS_MAGIC, statfs},
    },
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::{Child, Command};

/// How many of each.
const MEMBERS: u16 = 3;
/// How long a member is given to end when it is asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Three members that serve etcd's API on loopback.
pub(super) trait Cluster: Send + Sync {
    fn name(&self) -> &'static str;

    /// One for each member, in order.
    fn endpoints(&self) -> Vec<String>;

    /// The process of each member.
    fn pids(&self) -> BoxFuture<'_, Result<Vec<u32>>>;

    /// Starts a member again that was killed.
    fn restart(&mut self, member: usize) -> Result<()>;
}

/// SIGKILL: no last word, as after a power cut of its machine.
pub(super) async fn kill_member(cluster: &dyn Cluster, member: usize) -> Result<()> {
    let pids = cluster.pids().await?;
    let pid = pids.get(member).copied().context("no such member")?;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)
        .with_context(|| format!("cannot kill process {pid}"))
}

/// Three masters, each with etcd's API.
pub(super) struct Masters {
    own: OwnCluster,
    target: Target,
    endpoints: Vec<String>,
}

impl Masters {
    pub(super) async fn start(api_port: u16, directory: &Path) -> Result<Masters> {
        let etcd_port = api_port + 300;
        let own = OwnCluster::start_in(directory, api_port, Some(etcd_port)).await?;
        let target = Target::of_masters(Some(&own.kubeconfig()))?;
        let endpoint = |id| format!("http://127.0.0.1:{}", etcd_port + id);
        Ok(Masters { own, target, endpoints: (1..=MEMBERS).map(endpoint).collect() })
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.own.stop().await
    }
}

impl Cluster for Masters {
    fn name(&self) -> &'static str {
        "coxswain"
    }

    fn endpoints(&self) -> Vec<String> {
        self.endpoints.clone()
    }

    fn pids(&self) -> BoxFuture<'_, Result<Vec<u32>>> {
        async {
            let members = members::ask(&self.target).await?;
            members.iter().map(members::local_pid).collect()
        }
        .boxed()
    }

    /// Its machine does that.
    fn restart(&mut self, _: usize) -> Result<()> {
        Ok(())
    }
}

/// Three members of etcd.
pub(super) struct Etcd {
    members: Vec<Member>,
}

struct Member {
    program: PathBuf,
    arguments: Vec<String>,
    directory: PathBuf,
    endpoint: String,
    child: Child,
}

impl Member {
    fn spawn(program: &Path, arguments: &[String], directory: &Path) -> Result<Child> {
        let log = directory.with_extension("log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Settings of another etcd on this machine are not meant for these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        // Ctrl-C on the terminal is for us; we stop them in order.
        command.process_group(0).kill_on_drop(true);
        command.spawn().with_context(|| format!("cannot start {}", program.display()))
    }
}

impl Etcd {
    /// As it is by default, fsync included; with a quota that the benchmark does not reach.
    pub(super) async fn start(
        program: &Path,
        directory: &Path,
        ports: u16,
        peer_tls: bool,
    ) -> Result<Etcd> {
        fs::create_dir_all(directory)?;
        let scheme = if peer_tls { "https" } else { "http" };
        let peer = |id: u16| format!("{scheme}://127.0.0.1:{}", ports + 100 + id);
        let all: Vec<String> = (1..=MEMBERS).map(|id| format!("e{id}={}", peer(id))).collect();
        let mut members = Vec::new();
        for id in 1..=MEMBERS {
            let directory = directory.join(format!("e{id}"));
            let endpoint = format!("http://127.0.0.1:{}", ports + id);
            let mut arguments = vec![
                format!("--name=e{id}"),
                format!("--data-dir={}", directory.display()),
                format!("--listen-client-urls={endpoint}"),
                format!("--advertise-client-urls={endpoint}"),
                format!("--listen-peer-urls={}", peer(id)),
                format!("--initial-advertise-peer-urls={}", peer(id)),
                format!("--initial-cluster={}", all.join(",")),
                format!("--initial-cluster-token=coxswain-bench-{}", std::process::id()),
                "--log-level=warn".to_string(),
                format!("--quota-backend-bytes={}", 8_u64 << 30),
            ];
            if peer_tls {
                arguments.push("--peer-auto-tls".to_string());
            }
            let child = Member::spawn(program, &arguments, &directory)?;
            let program = program.to_path_buf();
            members.push(Member { program, arguments, directory, endpoint, child });
        }
        let mut etcd = Etcd { members };
        if let Err(error) = super::load::wait_until_all_serve(&etcd).await {
            let logs = directory.display().to_string();
            etcd.stop().await?;
            return Err(error.context(format!("etcd did not start; its logs are in {logs}")));
        }
        Ok(etcd)
    }

    pub(super) async fn stop(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(pid) = member.child.id() {
                // Gone already is as good as stopped.
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
            }
        }
        for member in &mut self.members {
            if tokio::time::timeout(STOP_TIMEOUT, member.child.wait()).await.is_err() {
                member.child.kill().await?;
            }
        }
        Ok(())
    }
}

impl Cluster for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    fn pids(&self) -> BoxFuture<'_, Result<Vec<u32>>> {
        let pid = |member: &Member| {
            let log = member.directory.with_extension("log");
            member.child.id().with_context(|| format!("etcd has ended; see {}", log.display()))
        };
        let pids = self.members.iter().map(pid).collect();
        futures::future::ready(pids).boxed()
    }

    fn restart(&mut self, member: usize) -> Result<()> {
        let member = self.members.get_mut(member).context("no such member")?;
        member.child = Member::spawn(&member.program, &member.arguments, &member.directory)?;
        Ok(())
    }
}

/// What the program says that it is; an error that helps if it is not there.
pub(super) async fn etcd_version(program: &Path) -> Result<String> {
    let asked = Command::new(program).arg("--version").stdin(Stdio::null()).output().await;
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "there is no {} to compare with: install etcd (Debian: apt install etcd-server), or say \
             where it is with --etcd PATH",
            program.display()
        ),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot start {}", program.display()));
        }
    };
    let text = String::from_utf8_lossy(&answer.stdout);
    let first = text.lines().next().unwrap_or_default().to_string();
    ensure!(first.starts_with("etcd"), "{} is not etcd: it says {text:?}", program.display());
    Ok(first)
}

/// In memory an fsync costs nothing, and the figures say little.
pub(super) fn warn_of_memory(directory: &Path) {
    if statfs(directory).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC) {
        let directory = directory.display();
        output::warn(&format!(
            "bench: {directory} is in memory: name a --data-dir on the disk that is to be measured"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_etcd_the_error_says_what_to_install() {
        let missing = etcd_version(Path::new("/nowhere/etcd")).await.expect_err("nothing there");
        assert!(missing.to_string().contains("apt install etcd-server"), "{missing}");
        let other = etcd_version(Path::new("true")).await.expect_err("another program");
        assert!(other.to_string().contains("is not etcd"), "{other}");
    }
}

//! Running containers: one trait with the meaning of Kubernetes' container runtime interface, and
//! the embedded implementation. Knows sandboxes, containers and processes; never the API.

mod cgroup;
mod embedded;
mod fds;
mod inroot;
mod log;
mod oci;
mod protocol;
mod shim;
mod spec;
mod stream;
mod users;

pub use embedded::{Embedded, Settings};
pub(crate) use inroot::{make_dir_in_root, open_in_root};
pub(crate) use log::rotated;
pub use stream::{Exited, Session, Terminal};

use async_trait::async_trait;
use jiff::Timestamp;
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};
use tokio::sync::broadcast;

/// The part of the program that runs before any thread exists: `shim …` and `oci …`. `args` are
/// the program's arguments without its name; `None` if they are not for this crate.
pub fn reexec(args: &[String]) -> Option<ExitCode> {
    match args.split_first() {
        Some((verb, rest)) if verb == "shim" => Some(shim::main(rest)),
        Some((verb, rest)) if verb == "oci" => Some(oci::main(rest)),
        _ => None,
    }
}

/// What a runtime call failed at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such sandbox or container: it is gone.
    #[error("{0} not found")]
    NotFound(String),
    /// The pod's shim does not answer; its containers are dead or will be killed.
    #[error("the shim of pod {pod} does not answer")]
    ShimLost {
        pod: String,
        #[source]
        source: std::io::Error,
    },
    /// The runtime refused; the text is for the pod's status.
    #[error("{0}")]
    Refused(String),
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }

    /// The error and its causes in one line, for status messages and events.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// The namespaces and identity shared by a pod's containers.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SandboxSpec {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// Host name inside; unused with `host_network`.
    pub hostname: String,
    pub host_network: bool,
    pub host_ipc: bool,
}

/// Everything needed to create one container.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ContainerSpec {
    /// 64 hexadecimal digits, chosen by the caller.
    pub id: String,
    pub name: String,
    /// How often this container was started before in its pod.
    pub attempt: u32,
    /// As the pod names it.
    pub image: String,
    /// The image's configuration digest.
    pub image_id: String,
    /// Unpacked layers, the lowest first.
    pub layers: Vec<PathBuf>,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    pub mounts: Vec<Mount>,
    pub security: Security,
    pub resources: Resources,
    pub log: PathBuf,
    pub host_pid: bool,
    /// Id of the container whose process namespace this one enters.
    #[serde(default)]
    pub processes_of: Option<String>,
    /// Path inside the container that is read as termination message.
    pub termination_message: Option<PathBuf>,
    /// Hash of the container's part of the pod spec: another one means start again.
    pub spec_hash: u64,
}

/// A bind mount.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
    /// `private`, `rslave` or `rshared`.
    pub propagation: String,
}

/// Who the process is and what it may do.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Security {
    /// A number, or a `user[:group]` to be looked up in the image.
    pub user: String,
    pub group: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    pub run_as_non_root: bool,
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    /// Without the `CAP_` prefix; `ALL` means all.
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
    pub sysctls: BTreeMap<String, String>,
}

/// Limits in the kernel's units.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    pub cpu_shares: u64,
    /// Microseconds per 100 ms.
    pub cpu_quota: Option<i64>,
    pub memory_bytes: Option<i64>,
    pub pids_max: Option<i64>,
    pub oom_score_adj: i32,
}

/// A pod as the runtime sees it.
#[derive(Clone, Debug)]
pub struct SandboxStatus {
    pub spec: SandboxSpec,
    /// Its shim answers.
    pub ready: bool,
    /// In order of attempt, then name.
    pub containers: Vec<ContainerStatus>,
}

/// A container that exists, running or not.
#[derive(Clone, Debug)]
pub struct ContainerStatus {
    pub id: String,
    pub name: String,
    pub attempt: u32,
    pub image: String,
    pub image_id: String,
    pub spec_hash: u64,
    pub log: PathBuf,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Created,
    Running {
        started_at: Timestamp,
    },
    Exited {
        code: i32,
        signal: Option<i32>,
        started_at: Option<Timestamp>,
        finished_at: Timestamp,
        /// The kernel killed a process of it for memory.
        oom_killed: bool,
        /// What the container left in its termination message file.
        message: String,
    },
}

impl State {
    pub fn is_running(&self) -> bool {
        matches!(self, State::Running { .. })
    }
}

/// A process to run in a container.
#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// What a container uses now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu_nanoseconds: u64,
    pub memory_bytes: u64,
    /// Without inactive page cache.
    pub working_set_bytes: u64,
    pub pids: u64,
}

/// A pod in which something ended.
#[derive(Clone, Debug)]
pub struct Change {
    pub pod_uid: String,
}

/// A container runtime. Every call is idempotent in the sense of CRI: removing what is gone
/// succeeds, stopping what has stopped succeeds.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Makes the pod's namespaces and supervisor; returns its network namespace, `None` if that
    /// is the node's.
    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<Option<PathBuf>>;

    /// Kills everything in the pod and lets go of all it holds, logs excepted.
    async fn remove_sandbox(&self, uid: &str) -> Result<()>;

    /// The pod's network namespace; `None` if that is the node's.
    fn network_namespace(&self, uid: &str) -> Option<PathBuf>;

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>>;

    async fn sandbox(&self, uid: &str) -> Result<SandboxStatus>;

    async fn create(&self, uid: &str, spec: &ContainerSpec) -> Result<()>;

    async fn start(&self, uid: &str, id: &str) -> Result<()>;

    async fn signal(&self, uid: &str, id: &str, signal: i32) -> Result<()>;

    /// Kills it if it runs, and forgets it; its log stays.
    async fn remove(&self, uid: &str, id: &str) -> Result<()>;

    async fn exec(&self, uid: &str, id: &str, spec: &ExecSpec) -> Result<Session>;

    /// Streams of the container's first process; `spec.command` is not used.
    async fn attach(&self, uid: &str, id: &str, spec: &ExecSpec) -> Result<Session>;

    async fn usage(&self, uid: &str, id: &str) -> Result<Usage>;

    /// Says when a container ended. Hints only: the truth is in [`Runtime::sandbox`].
    fn changes(&self) -> broadcast::Receiver<Change>;
}

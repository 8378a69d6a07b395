//! The embedded runtime: pinned namespaces, overlay root file systems, and one shim per pod that
//! runs everything else. All state is in directories and shims, so a new agent finds it again.

use super::{
    Change, ContainerSpec, ContainerStatus, Error, ExecSpec, Exited, Result, Runtime, SandboxSpec,
    SandboxStatus, Session, State, Terminal, Usage, cgroup, fds,
    protocol::{Call, Entry, Exit, Reply, SOCKET},
    spec::{self, Means, Places},
    stream::{Pty, pipe_to_read, pipe_to_write},
    users::{self, Ids},
};
use async_trait::async_trait;
use jiff::Timestamp;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt, sync::broadcast};
use tokio_util::task::AbortOnDropHandle;

/// Longer than the shim gives an `oci` process.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);
/// Hints that may queue before a slow listener is told to look at everything.
const CHANGES_MAX: usize = 1024;
/// How long killed processes may take to leave their cgroup.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Upstream's limit on a termination message.
const MESSAGE_BYTES_MAX: u64 = 4096;

/// Where the runtime keeps things and what it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Pods' directories are made below it.
    pub data_dir: PathBuf,
    /// Below every controller's root, such as `/coxswain/node-1`; this agent's alone.
    pub cgroup_parent: String,
    /// The program that answers to `shim` and `oci`; this one if `None`.
    pub program: Option<PathBuf>,
    /// A runtime with runc's command line; libcontainer if `None`.
    pub oci_runtime: Option<PathBuf>,
}

/// See [`Runtime`] for the calls.
pub struct Embedded {
    inner: Arc<Inner>,
    changes: broadcast::Sender<Change>,
    listeners: Mutex<BTreeMap<String, AbortOnDropHandle<()>>>,
}

struct Inner {
    settings: Settings,
    program: PathBuf,
    means: Means,
}

impl Embedded {
    pub fn new(settings: Settings) -> Result<Embedded> {
        let pods = settings.data_dir.join("pods");
        fs::create_dir_all(&pods).map_err(Error::io(pods.display().to_string()))?;
        let program = match &settings.program {
            Some(program) => program.clone(),
            None => guarded_program(&settings.data_dir)?,
        };
        let means = Means::of_this_process();
        let inner = Arc::new(Inner { settings, program, means });
        inner.remove_stale_cgroups();
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        Ok(Embedded { inner, changes, listeners: Mutex::default() })
    }

    /// Kills every pod below `data_dir` and undoes its mounts, whether or not its agent lives.
    pub fn sweep(settings: Settings) -> Result<()> {
        let program = PathBuf::new();
        let inner = Inner { settings, program, means: Means::of_this_process() };
        for uid in inner.uids()? {
            inner.remove_sandbox(&uid)?;
        }
        cgroup::remove_tree(&inner.settings.cgroup_parent);
        let _ = umount2(&guarded_path(&inner.settings.data_dir), MntFlags::MNT_DETACH);
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        let joined = tokio::task::spawn_blocking(move || work(&inner)).await;
        joined.unwrap_or_else(|error| Err(Error::Refused(error.to_string())))
    }

    /// Makes sure that ends of this pod's containers become [`Change`]s.
    fn listen(&self, uid: &str) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.get(uid).is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (inner, changes, pod_uid) = (self.inner.clone(), self.changes.clone(), uid.to_string());
        let task = tokio::spawn(async move {
            if let Err(error) = subscribe(&inner, &changes, &pod_uid).await {
                tracing::debug!(pod = pod_uid, %error, "shim subscription ended");
            }
            let _ = changes.send(Change { pod_uid });
        });
        listeners.insert(uid.to_string(), AbortOnDropHandle::new(task));
    }
}

async fn subscribe(
    inner: &Inner,
    changes: &broadcast::Sender<Change>,
    uid: &str,
) -> io::Result<()> {
    let socket = fds::connect(&inner.pod(uid), SOCKET)?;
    let mut line = serde_json::to_vec(&Call::Subscribe)?;
    line.push(b'\n');
    fds::send(&socket, &line, &[])?;
    socket.set_nonblocking(true)?;
    let mut socket = tokio::net::UnixStream::from_std(socket)?;
    let mut buffer = Vec::new();
    while socket.read_buf(&mut buffer).await? > 0 {
        while fds::take_line(&mut buffer).is_some() {
            let _ = changes.send(Change { pod_uid: uid.to_string() });
        }
    }
    Ok(())
}

#[async_trait]
impl Runtime for Embedded {
    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<Option<PathBuf>> {
        let owned = spec.clone();
        let netns = self.blocking(move |inner| inner.run_sandbox(&owned)).await?;
        self.listen(&spec.uid);
        Ok(netns)
    }

    async fn remove_sandbox(&self, uid: &str) -> Result<()> {
        let owned = uid.to_string();
        self.blocking(move |inner| inner.remove_sandbox(&owned)).await?;
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        Ok(())
    }

    fn network_namespace(&self, uid: &str) -> Option<PathBuf> {
        Some(self.inner.pod(uid).join("ns").join("net")).filter(|path| path.exists())
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>> {
        let found = self
            .blocking(|inner| {
                let uids = inner.uids()?;
                Ok(uids.iter().filter_map(|uid| inner.sandbox(uid).ok()).collect::<Vec<_>>())
            })
            .await?;
        for sandbox in found.iter().filter(|sandbox| sandbox.ready) {
            self.listen(&sandbox.spec.uid);
        }
        Ok(found)
    }

    async fn sandbox(&self, uid: &str) -> Result<SandboxStatus> {
        let uid = uid.to_string();
        self.blocking(move |inner| inner.sandbox(&uid)).await
    }

    async fn create(&self, uid: &str, spec: &ContainerSpec) -> Result<()> {
        let (uid, spec) = (uid.to_string(), spec.clone());
        self.blocking(move |inner| inner.create(&uid, &spec)).await
    }

    async fn start(&self, uid: &str, id: &str) -> Result<()> {
        let (uid, id) = (uid.to_string(), id.to_string());
        self.blocking(move |inner| inner.call(&uid, &Call::Start { id }, &[]).map(drop)).await
    }

    async fn signal(&self, uid: &str, id: &str, signal: i32) -> Result<()> {
        let (uid, id) = (uid.to_string(), id.to_string());
        self.blocking(move |inner| inner.call(&uid, &Call::Signal { id, signal }, &[]).map(drop))
            .await
    }

    async fn remove(&self, uid: &str, id: &str) -> Result<()> {
        let (uid, id) = (uid.to_string(), id.to_string());
        self.blocking(move |inner| inner.remove(&uid, &id)).await
    }

    async fn exec(&self, uid: &str, id: &str, spec: &ExecSpec) -> Result<Session> {
        let (uid, id, spec) = (uid.to_string(), id.to_string(), spec.clone());
        let (tty, wants) = (spec.tty, (spec.stdin, spec.stdout));
        let ours = Streams::open(&spec, !tty).map_err(Error::io("pipes"))?;
        let (mut session, theirs) = (ours.session, ours.theirs);
        let answer = self
            .blocking(move |inner| {
                let process = inner.exec_process(&uid, &id, &spec)?;
                let fds: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).collect();
                let call = Call::Exec { id, process, tty };
                inner.call_streaming(&uid, &call, &fds)
            })
            .await?;
        if tty {
            session.terminal_streams(answer.terminal, wants).map_err(Error::io("terminal"))?;
        }
        answer.socket.set_nonblocking(true).map_err(Error::io("socket"))?;
        let socket = tokio::net::UnixStream::from_std(answer.socket);
        let socket = socket.map_err(Error::io("socket"))?;
        session.exited = Some(Exited { socket, read: answer.rest });
        Ok(session)
    }

    async fn attach(&self, uid: &str, id: &str, spec: &ExecSpec) -> Result<Session> {
        let (uid, id, spec) = (uid.to_string(), id.to_string(), spec.clone());
        let ours = Streams::open(&spec, false).map_err(Error::io("pipes"))?;
        let (mut session, theirs) = (ours.session, ours.theirs);
        let answer = self
            .blocking(move |inner| {
                let (stdin, stdout, stderr) = (spec.stdin, spec.stdout, spec.stderr);
                let fds: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).collect();
                inner.call_streaming(&uid, &Call::Attach { id, stdin, stdout, stderr }, &fds)
            })
            .await?;
        session.terminal = answer.terminal.map(Terminal);
        Ok(session)
    }

    async fn usage(&self, uid: &str, id: &str) -> Result<Usage> {
        let path = self.inner.cgroup(uid, id);
        self.blocking(move |_| Ok(cgroup::usage(&path))).await
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}

/// Pipes for the streams asked for: our ends and the child's.
struct Streams {
    session: Session,
    theirs: Vec<OwnedFd>,
}

impl Streams {
    /// With `all`, streams nobody wants are `/dev/null`; with a terminal there are no pipes unless
    /// this is an attachment.
    fn open(spec: &ExecSpec, all: bool) -> io::Result<Streams> {
        let (mut session, mut theirs) = (Session::default(), Vec::new());
        let null = || {
            let file = fs::File::options().read(true).write(true).open("/dev/null")?;
            io::Result::Ok(OwnedFd::from(file))
        };
        let pipes = all || spec.command.is_empty();
        if spec.stdin && pipes {
            let (ours, fd) = pipe_to_write()?;
            session.stdin = Some(Box::new(ours));
            theirs.push(fd);
        } else if all {
            theirs.push(null()?);
        }
        for (wanted, slot) in
            [(spec.stdout, &mut session.stdout), (spec.stderr, &mut session.stderr)]
        {
            if wanted && pipes {
                let (ours, fd) = pipe_to_read()?;
                *slot = Some(Box::new(ours));
                theirs.push(fd);
            } else if all {
                theirs.push(null()?);
            }
        }
        Ok(Streams { session, theirs })
    }
}

impl Session {
    fn terminal_streams(
        &mut self,
        terminal: Option<OwnedFd>,
        (stdin, stdout): (bool, bool),
    ) -> io::Result<()> {
        let terminal = terminal.ok_or_else(|| io::Error::other("the process has no terminal"))?;
        if stdin {
            self.stdin = Some(Box::new(Pty::new(terminal.try_clone()?)?));
        }
        if stdout {
            self.stdout = Some(Box::new(Pty::new(terminal.try_clone()?)?));
        }
        self.terminal = Some(Terminal(terminal));
        Ok(())
    }
}

/// A reply, the terminal that came with it, and the connection, on which an exit may follow.
struct Answer {
    reply: Reply,
    terminal: Option<OwnedFd>,
    socket: UnixStream,
    /// What came after the answer's line: a quick exec's exit may be in the same packet.
    rest: Vec<u8>,
}

impl Inner {
    fn pods(&self) -> PathBuf {
        self.settings.data_dir.join("pods")
    }

    fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    fn container(&self, uid: &str, id: &str) -> PathBuf {
        self.pod(uid).join("containers").join(id)
    }

    fn cgroup(&self, uid: &str, id: &str) -> String {
        format!("{}/pod{uid}/{id}", self.settings.cgroup_parent.trim_end_matches('/'))
    }

    /// Cgroups outlive a machine that died as a process namespace does: at once.
    fn remove_stale_cgroups(&self) {
        let living = self.uids().unwrap_or_default();
        let parent = self.settings.cgroup_parent.trim_end_matches('/');
        for name in cgroup::children(parent) {
            let uid = name.strip_prefix("pod").unwrap_or(&name);
            if !living.iter().any(|living| living == uid) {
                cgroup::remove_tree(&format!("{parent}/{name}"));
            }
        }
    }

    fn uids(&self) -> Result<Vec<String>> {
        names(&self.pods()).map_err(Error::io("list of pods"))
    }

    fn run_sandbox(&self, spec: &SandboxSpec) -> Result<Option<PathBuf>> {
        let dir = self.pod(&spec.uid);
        let pinned = dir.join("ns");
        let netns = (!spec.host_network).then(|| pinned.join("net"));
        if fds::connect(&dir, SOCKET).is_ok() {
            return Ok(netns);
        }
        if dir.join("sandbox.json").exists() {
            self.kill_all(&spec.uid)?;
        }
        fs::create_dir_all(&pinned).map_err(Error::io(pinned.display().to_string()))?;
        write_json(&dir.join("sandbox.json"), spec)?;
        pin_namespaces(&pinned, spec).map_err(Error::io("namespaces of the pod"))?;
        self.spawn_shim(&dir)?;
        Ok(netns)
    }

    fn spawn_shim(&self, dir: &Path) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("shim").arg(dir);
        match &self.settings.oci_runtime {
            Some(path) => command.arg(path),
            None => command.args(["/proc/self/exe", "oci"]),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // The shim outlives this agent and must not hold what the agent was given.
        command.env_clear();
        let mut child = command.spawn().map_err(Error::io("shim"))?;
        let status = child.wait().map_err(Error::io("shim"))?;
        if status.success() {
            return Ok(());
        }
        let mut text = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = io::Read::read_to_string(&mut stderr, &mut text);
        }
        Err(Error::Refused(format!("shim: {status}: {}", text.trim())))
    }

    fn remove_sandbox(&self, uid: &str) -> Result<()> {
        let dir = self.pod(uid);
        if !dir.exists() {
            return Ok(());
        }
        // Best effort: what a shim cannot do any more, the cgroups do below.
        let _ = self.call(uid, &Call::Quit, &[]);
        self.kill_all(uid)?;
        for id in names(&dir.join("containers")).unwrap_or_default() {
            let _ = umount2(&self.container(uid, &id).join("rootfs"), MntFlags::MNT_DETACH);
        }
        for name in ["net", "ipc", "uts"] {
            let _ = umount2(&dir.join("ns").join(name), MntFlags::MNT_DETACH);
        }
        cgroup::remove_tree(&format!("{}/pod{uid}", self.settings.cgroup_parent));
        fs::remove_dir_all(&dir).map_err(Error::io(dir.display().to_string()))
    }

    /// Kills by cgroup what a lost shim has left behind.
    fn kill_all(&self, uid: &str) -> Result<()> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        for id in names(&self.pod(uid).join("containers")).unwrap_or_default() {
            let path = self.cgroup(uid, &id);
            loop {
                let pids = cgroup::pids(&path);
                if pids.is_empty() {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(Error::Refused(format!("processes {pids:?} do not die")));
                }
                for pid in pids {
                    let pid = nix::unistd::Pid::from_raw(pid);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    fn sandbox(&self, uid: &str) -> Result<SandboxStatus> {
        let dir = self.pod(uid);
        let spec: SandboxSpec = read_json(&dir.join("sandbox.json"))
            .ok_or_else(|| Error::NotFound(format!("sandbox {uid}")))?;
        let (ready, entries) = match self.call(uid, &Call::List, &[]) {
            Ok(reply) => (true, reply.containers),
            Err(Error::ShimLost { .. }) => (false, Vec::new()),
            Err(error) => return Err(error),
        };
        let ids = names(&dir.join("containers")).unwrap_or_default();
        let mut containers: Vec<ContainerStatus> = ids
            .iter()
            .filter_map(|id| {
                let entry = entries.iter().find(|entry| entry.id == *id);
                self.status(uid, id, entry, ready)
            })
            .collect();
        containers.sort_by(|a, b| (a.attempt, &a.name).cmp(&(b.attempt, &b.name)));
        Ok(SandboxStatus { spec, ready, containers })
    }

    /// `None` for a container whose creation did not finish.
    fn status(
        &self,
        uid: &str,
        id: &str,
        entry: Option<&Entry>,
        ready: bool,
    ) -> Option<ContainerStatus> {
        let dir = self.container(uid, id);
        let spec: ContainerSpec = read_json(&dir.join("spec.json"))?;
        let started = |entry: &Entry| entry.started_at.as_ref()?.parse::<Timestamp>().ok();
        let remembered: Option<Entry> = read_json(&dir.join("started.json"));
        let state = match entry {
            Some(entry) => match (&entry.exit, started(entry)) {
                (Some(exit), started_at) => self.exited(uid, &spec, &dir, exit, started_at),
                (None, Some(started_at)) => State::Running { started_at },
                (None, None) => State::Created,
            },
            None if ready => return None,
            None => {
                let started_at = remembered.as_ref().and_then(started);
                let exit = read_json(&dir.join("exit.json")).unwrap_or_else(|| Exit {
                    code: 137,
                    signal: None,
                    finished_at: modified(&dir).to_string(),
                });
                self.exited(uid, &spec, &dir, &exit, started_at)
            }
        };
        Some(ContainerStatus {
            id: spec.id,
            name: spec.name,
            attempt: spec.attempt,
            image: spec.image,
            image_id: spec.image_id,
            spec_hash: spec.spec_hash,
            log: spec.log,
            state,
        })
    }

    fn exited(
        &self,
        uid: &str,
        spec: &ContainerSpec,
        dir: &Path,
        exit: &Exit,
        started_at: Option<Timestamp>,
    ) -> State {
        let mut message = String::new();
        if let Ok(file) = fs::File::open(dir.join("termination")) {
            let mut bytes = Vec::new();
            let _ = io::Read::read_to_end(&mut io::Read::take(file, MESSAGE_BYTES_MAX), &mut bytes);
            message = String::from_utf8_lossy(&bytes).into_owned();
        }
        State::Exited {
            code: exit.code,
            signal: exit.signal,
            started_at,
            finished_at: exit.finished_at.parse().unwrap_or_else(|_| modified(dir)),
            oom_killed: exit.code != 0 && cgroup::oom_killed(&self.cgroup(uid, &spec.id)),
            message,
        }
    }

    fn create(&self, uid: &str, spec: &ContainerSpec) -> Result<()> {
        let pod: SandboxSpec = read_json(&self.pod(uid).join("sandbox.json"))
            .ok_or_else(|| Error::NotFound(format!("sandbox {uid}")))?;
        let dir = self.container(uid, &spec.id);
        let result = self.create_in(&dir, &pod, spec);
        if result.is_err() {
            let _ = self.remove(uid, &spec.id);
        }
        result
    }

    fn create_in(&self, dir: &Path, pod: &SandboxSpec, spec: &ContainerSpec) -> Result<()> {
        let root = dir.join("rootfs");
        mount_overlay(dir, &spec.layers).map_err(Error::io("root file system"))?;
        let ids = identify(&root, spec)?;
        let cwd = if spec.cwd.is_empty() { "/" } else { &spec.cwd };
        super::make_dir_in_root(&root, Path::new(cwd), 0o755).map_err(Error::io(cwd))?;
        let mut spec = spec.clone();
        if let Some(path) = &spec.termination_message {
            let source = dir.join("termination");
            fs::write(&source, "").map_err(Error::io("termination message"))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
            fs::set_permissions(&source, mode).map_err(Error::io("termination message"))?;
            let target = path.to_string_lossy().into_owned();
            let propagation = String::new();
            spec.mounts.push(super::Mount { source, target, read_only: false, propagation });
        }
        write_json(&dir.join("spec.json"), &spec)?;
        write_json(&dir.join("ids.json"), &(ids.uid, ids.gid, &ids.groups, &ids.home))?;
        let path = self.cgroup(&pod.uid, &spec.id);
        let namespaces = self.pod(&pod.uid).join("ns");
        let processes = match &spec.processes_of {
            Some(target) => Some(self.process_namespace(&pod.uid, target)?),
            None => None,
        };
        let places = Places {
            root: &root,
            namespaces: &namespaces,
            processes: processes.as_deref(),
            cgroup: &path,
        };
        let config = spec::config(pod, &spec, &ids, places, self.means);
        write_json(&dir.join("config.json"), &config)?;
        let call = Call::Create {
            id: spec.id.clone(),
            bundle: dir.to_path_buf(),
            log: spec.log.clone(),
            tty: spec.tty,
            stdin: spec.stdin,
            stdin_once: spec.stdin_once,
        };
        self.call(&pod.uid, &call, &[]).map(drop)
    }

    /// Of a running container.
    fn process_namespace(&self, uid: &str, id: &str) -> Result<PathBuf> {
        let all = self.call(uid, &Call::List, &[])?.containers;
        let entry = all.iter().find(|entry| entry.id == id && entry.exit.is_none());
        let entry = entry.ok_or_else(|| Error::NotFound(format!("container {id}")))?;
        Ok(PathBuf::from(format!("/proc/{}/ns/pid", entry.pid)))
    }

    fn remove(&self, uid: &str, id: &str) -> Result<()> {
        let dir = self.container(uid, id);
        if !dir.exists() {
            return Ok(());
        }
        match self.call(uid, &Call::Delete { id: id.to_string() }, &[]) {
            Ok(_) | Err(Error::ShimLost { .. }) => {}
            Err(error) => return Err(error),
        }
        let _ = umount2(&dir.join("rootfs"), MntFlags::MNT_DETACH);
        fs::remove_dir_all(&dir).map_err(Error::io(dir.display().to_string()))
    }

    fn exec_process(&self, uid: &str, id: &str, exec: &ExecSpec) -> Result<serde_json::Value> {
        let dir = self.container(uid, id);
        let missing = || Error::NotFound(format!("container {id}"));
        let spec: ContainerSpec = read_json(&dir.join("spec.json")).ok_or_else(missing)?;
        let stored: (u32, u32, Vec<u32>, Option<String>) =
            read_json(&dir.join("ids.json")).ok_or_else(missing)?;
        let ids = Ids { uid: stored.0, gid: stored.1, groups: stored.2, home: stored.3 };
        Ok(spec::process(&spec, &ids, &exec.command, exec.tty, self.means))
    }

    fn call(&self, uid: &str, call: &Call, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        self.call_streaming(uid, call, fds).map(|answer| answer.reply)
    }

    fn call_streaming(&self, uid: &str, call: &Call, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
        let dir = self.pod(uid);
        if !dir.exists() {
            return Err(Error::NotFound(format!("sandbox {uid}")));
        }
        let lost = |source| Error::ShimLost { pod: uid.to_string(), source };
        let answer = exchange(&dir, call, fds).map_err(lost)?;
        match answer.reply.error {
            Some(text) => Err(Error::Refused(text)),
            None => Ok(answer),
        }
    }
}

fn exchange(dir: &Path, call: &Call, sent: &[BorrowedFd<'_>]) -> io::Result<Answer> {
    let socket = fds::connect(dir, SOCKET)?;
    socket.set_read_timeout(Some(CALL_TIMEOUT))?;
    socket.set_write_timeout(Some(CALL_TIMEOUT))?;
    let mut line = serde_json::to_vec(call)?;
    line.push(b'\n');
    fds::send(&socket, &line, sent)?;
    let (mut buffer, mut received) = (Vec::new(), Vec::new());
    let line = loop {
        if let Some(line) = fds::take_line(&mut buffer) {
            break line;
        }
        if fds::receive(&socket, &mut buffer, &mut received)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let reply = serde_json::from_slice(&line)?;
    Ok(Answer { reply, terminal: received.pop(), socket, rest: buffer })
}

/// The numbers the container's first process runs with.
fn identify(root: &Path, spec: &ContainerSpec) -> Result<Ids> {
    let security = &spec.security;
    let mut ids = users::resolve(root, &security.user).map_err(Error::Refused)?;
    if let Some(group) = security.group {
        ids.gid = group;
    }
    if security.run_as_non_root && ids.uid == 0 {
        let text = "container has runAsNonRoot and image will run as root";
        return Err(Error::Refused(text.to_string()));
    }
    Ok(ids)
}

/// Namespaces that live as long as their bind mounts: made by a thread that ends, so that no
/// process has to hold them and nothing forks.
fn pin_namespaces(dir: &Path, spec: &SandboxSpec) -> io::Result<()> {
    let mut kinds = Vec::new();
    if !spec.host_network {
        kinds.push((CloneFlags::CLONE_NEWNET, "net"));
        kinds.push((CloneFlags::CLONE_NEWUTS, "uts"));
    }
    if !spec.host_ipc {
        kinds.push((CloneFlags::CLONE_NEWIPC, "ipc"));
    }
    let (dir, hostname) = (dir.to_path_buf(), spec.hostname.clone());
    let host_network = spec.host_network;
    let thread = std::thread::Builder::new().name("pin-namespaces".into());
    let worker = thread.spawn(move || -> io::Result<()> {
        let flags = kinds.iter().fold(CloneFlags::empty(), |all, (flag, _)| all | *flag);
        unshare(flags)?;
        if !host_network {
            nix::unistd::sethostname(&hostname)?;
        }
        for (_, name) in &kinds {
            let target = dir.join(name);
            let _ = umount2(&target, MntFlags::MNT_DETACH);
            fs::File::create(&target)?;
            let source = PathBuf::from(format!("/proc/thread-self/ns/{name}"));
            mount(Some(&source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        Ok(())
    })?;
    worker.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// Mounts the layers and a fresh upper directory at `dir/rootfs`.
fn mount_overlay(dir: &Path, layers: &[PathBuf]) -> io::Result<()> {
    for name in ["upper", "work", "rootfs", "empty"] {
        fs::create_dir_all(dir.join(name))?;
    }
    let mut lower: Vec<String> =
        layers.iter().rev().map(|layer| layer.to_string_lossy().into_owned()).collect();
    if lower.is_empty() {
        lower.push(dir.join("empty").to_string_lossy().into_owned());
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        dir.join("upper").display(),
        dir.join("work").display()
    );
    let (kind, flags) = (Some("overlay"), MsFlags::empty());
    mount(Some("overlay"), &dir.join("rootfs"), kind, flags, Some(options.as_str()))?;
    Ok(())
}

fn guarded_path(data_dir: &Path) -> PathBuf {
    data_dir.join("run/coxswain")
}

/// This program through a read-only mount: a container that gets hold of the `/proc/…/exe` of the
/// process starting it cannot write to it (CVE-2019-5736).
fn guarded_program(data_dir: &Path) -> Result<PathBuf> {
    let program = std::env::current_exe().map_err(Error::io("path of this program"))?;
    let target = guarded_path(data_dir);
    let guard = || -> io::Result<()> {
        fs::create_dir_all(data_dir.join("run"))?;
        let _ = umount2(&target, MntFlags::MNT_DETACH);
        fs::File::create(&target)?;
        mount(Some(&program), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &target, None::<&str>, flags, None::<&str>)?;
        Ok(())
    };
    guard().map_err(Error::io("read-only mount of this program"))?;
    Ok(target)
}

fn modified(path: &Path) -> Timestamp {
    let time = fs::metadata(path).and_then(|metadata| metadata.modified());
    time.ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Names in a directory, sorted; none if it does not exist.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let doing = path.display().to_string();
    let text = serde_json::to_vec(value).map_err(|error| Error::Refused(error.to_string()))?;
    fs::write(path, text).map_err(Error::io(doing))
}

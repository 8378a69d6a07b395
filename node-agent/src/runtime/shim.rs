//! The shim: one single-threaded process per pod that outlives the agent. It is the parent of the
//! pod's containers, writes their logs, remembers how they ended, and passes terminals and pipes
//! to whoever asks. It starts every container and exec through a short-lived `oci` process.

use super::{
    fds,
    log::{Log, Partial},
    protocol::{Call, Entry, Exit, Reply, SOCKET},
};
use anyhow::{Context, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{ForkResult, Pid},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{net::UnixListener, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// An `oci` process that has not finished by then is killed: creating takes 50 ms.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// What an attached reader may lag behind before it is cut off.
const SINK_BYTES_MAX: usize = 1 << 20;

/// `coxswain shim DIR OCI [ARG…]`: `OCI ARG…` is the command that speaks runc's command line.
/// Returns in the parent when the socket accepts calls.
pub(crate) fn main(args: &[String]) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "shim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let [dir, oci @ ..] = args else { bail!("usage: shim DIR OCI [ARG…]") };
    let dir = PathBuf::from(dir);
    let listener = fds::bind(&dir, SOCKET).context("socket")?;
    listener.set_nonblocking(true)?;
    if detach(&dir)? {
        return Ok(());
    }
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut shim = Shim {
        dir,
        oci: oci.to_vec(),
        signals,
        containers: BTreeMap::new(),
        outputs: BTreeMap::new(),
        clients: BTreeMap::new(),
        exits: BTreeMap::new(),
        next: 0,
        quit: false,
    };
    while !shim.quit {
        shim.turn(&listener)?;
    }
    let _ = std::fs::remove_file(shim.dir.join(SOCKET));
    Ok(())
}

/// Leaves the agent's session and streams; true in the parent, which has nothing more to do.
#[expect(unsafe_code, reason = "fork in a process that has never had a second thread")]
fn detach(dir: &Path) -> Result<bool> {
    if let ForkResult::Parent { child } = unsafe { nix::unistd::fork()? } {
        std::fs::write(dir.join("shim.pid"), child.to_string())?;
        return Ok(true);
    }
    nix::unistd::setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let log = File::options().create(true).append(true).open(dir.join("shim.log"))?;
    nix::unistd::dup2(null.as_raw_fd(), 0)?;
    nix::unistd::dup2(null.as_raw_fd(), 1)?;
    nix::unistd::dup2(log.as_raw_fd(), 2)?;
    Ok(false)
}

/// Time as CRI logs have it: RFC 3339 with nine digits.
fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

struct Shim {
    dir: PathBuf,
    oci: Vec<String>,
    signals: SignalFd,
    containers: BTreeMap<String, Container>,
    outputs: BTreeMap<u64, Output>,
    clients: BTreeMap<u64, Client>,
    /// Children that ended and that nobody has asked for yet, by pid.
    exits: BTreeMap<i32, Exit>,
    next: u64,
    quit: bool,
}

struct Container {
    entry: Entry,
    bundle: PathBuf,
    log: Log,
    /// The terminal, or the write end of the stdin pipe.
    terminal: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdin_once: bool,
    sinks: Vec<Sink>,
    input: Option<Input>,
}

/// A stream of a container that this process reads.
struct Output {
    fd: OwnedFd,
    id: String,
    stream: &'static str,
    partial: Partial,
}

/// Somebody attached to a stream.
struct Sink {
    fd: OwnedFd,
    stream: &'static str,
    pending: Vec<u8>,
}

/// Somebody's stdin on its way into the container.
struct Input {
    fd: OwnedFd,
    pending: Vec<u8>,
    ended: bool,
}

struct Client {
    socket: std::os::unix::net::UnixStream,
    buffer: Vec<u8>,
    fds: Vec<OwnedFd>,
    role: Role,
}

#[derive(PartialEq)]
enum Role {
    Caller,
    Subscriber,
    /// Waits for the exit of this pid.
    Waiter(i32),
}

/// What became ready.
enum Ready {
    Signal,
    Listener,
    Client(u64),
    Output(u64),
    Sinks(String),
    Input(String),
}

impl Shim {
    fn turn(&mut self, listener: &UnixListener) -> Result<()> {
        for ready in self.wait(listener)? {
            match ready {
                Ready::Signal => self.reap(),
                Ready::Listener => self.accept(listener),
                Ready::Client(key) => self.serve(key),
                Ready::Output(key) => self.pump(key),
                Ready::Sinks(id) => self.flush(&id),
                Ready::Input(id) => self.feed(&id),
            }
        }
        Ok(())
    }

    fn wait(&self, listener: &UnixListener) -> Result<Vec<Ready>> {
        let mut wanted = vec![
            (self.signals.as_fd(), PollFlags::POLLIN, Ready::Signal),
            (listener.as_fd(), PollFlags::POLLIN, Ready::Listener),
        ];
        for (key, client) in &self.clients {
            wanted.push((client.socket.as_fd(), PollFlags::POLLIN, Ready::Client(*key)));
        }
        for (key, output) in &self.outputs {
            wanted.push((output.fd.as_fd(), PollFlags::POLLIN, Ready::Output(*key)));
        }
        for (id, container) in &self.containers {
            for sink in container.sinks.iter().filter(|sink| !sink.pending.is_empty()) {
                wanted.push((sink.fd.as_fd(), PollFlags::POLLOUT, Ready::Sinks(id.clone())));
            }
            let Some(input) = &container.input else { continue };
            if input.pending.is_empty() {
                wanted.push((input.fd.as_fd(), PollFlags::POLLIN, Ready::Input(id.clone())));
            } else if let Some(stdin) = container.stdin.as_ref() {
                wanted.push((stdin.as_fd(), PollFlags::POLLOUT, Ready::Input(id.clone())));
            }
        }
        let mut polled: Vec<PollFd<'_>> =
            wanted.iter().map(|(fd, flags, _)| PollFd::new(*fd, *flags)).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened: Vec<bool> =
            polled.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect();
        let names = wanted.into_iter().map(|(_, _, name)| name);
        Ok(names.zip(happened).filter(|(_, ready)| *ready).map(|(name, _)| name).collect())
    }

    /// Collects every child that ended and tells those who wait for it.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Some((pid, code, signal)) = wait_child() {
            let exit = Exit { code, signal, finished_at: now() };
            let ended = self
                .containers
                .values_mut()
                .find(|container| container.entry.pid == pid && container.entry.exit.is_none());
            if let Some(container) = ended {
                container.entry.exit = Some(exit.clone());
                container.input = None;
                remember(&container.bundle, &exit);
                let id = container.entry.id.clone();
                self.drain(&id);
                self.publish(&id);
                continue;
            }
            let waits = |client: &&mut Client| client.role == Role::Waiter(pid);
            if let Some(client) = self.clients.values_mut().find(waits) {
                client.role = Role::Caller;
                answer(client, &Reply { exit_code: Some(code), ..Reply::default() });
            } else {
                self.exits.insert(pid, exit);
            }
        }
    }

    /// Reads what a container wrote before it ended, so that its log is whole when its exit is seen.
    fn drain(&mut self, id: &str) {
        let of = |output: &Output| output.id == id;
        let keys: Vec<u64> =
            self.outputs.iter().filter(|(_, output)| of(output)).map(|(key, _)| *key).collect();
        for key in keys {
            // A pipe holds 64 KiB: four reads of 16 KiB.
            for _ in 0..5 {
                self.pump(key);
            }
        }
    }

    fn publish(&mut self, id: &str) {
        let reply = Reply { exited: Some(id.to_string()), ..Reply::default() };
        for client in self.clients.values_mut().filter(|client| client.role == Role::Subscriber) {
            answer(client, &reply);
        }
    }

    fn accept(&mut self, listener: &UnixListener) {
        let Ok((socket, _)) = listener.accept() else { return };
        if socket.set_nonblocking(false).is_err() {
            return;
        }
        let client = Client { socket, buffer: Vec::new(), fds: Vec::new(), role: Role::Caller };
        let key = self.key();
        self.clients.insert(key, client);
    }

    fn key(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn serve(&mut self, key: u64) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        match fds::receive(&client.socket, &mut client.buffer, &mut client.fds) {
            Ok(0) | Err(_) => {
                self.clients.remove(&key);
                return;
            }
            Ok(_) => {}
        }
        let Some(line) = fds::take_line(&mut client.buffer) else { return };
        let sent = std::mem::take(&mut client.fds);
        let result = match serde_json::from_slice::<Call>(&line) {
            Ok(call) => self.handle(call, sent, key),
            Err(error) => Err(error.into()),
        };
        let (reply, terminal) = match result {
            Ok(done) => done,
            Err(error) => (Reply { error: Some(format!("{error:#}")), ..Reply::default() }, None),
        };
        let Some(client) = self.clients.get_mut(&key) else { return };
        let mut line = serde_json::to_vec(&reply).unwrap_or_default();
        line.push(b'\n');
        let terminals: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
        let _ = fds::send(&client.socket, &line, &terminals);
        // An exec that ended before its answer was sent.
        if let Role::Waiter(pid) = client.role
            && let Some(exit) = self.exits.remove(&pid)
        {
            client.role = Role::Caller;
            answer(client, &Reply { exit_code: Some(exit.code), ..Reply::default() });
        }
    }

    fn handle(
        &mut self,
        call: Call,
        sent: Vec<OwnedFd>,
        client: u64,
    ) -> Result<(Reply, Option<OwnedFd>)> {
        let done = Reply::default();
        match call {
            Call::Create { id, bundle, log, tty, stdin, stdin_once } => {
                self.create(id, bundle, &log, tty, stdin, stdin_once)?;
            }
            Call::Start { id } => self.start(&id)?,
            Call::Signal { id, signal } => self.signal(&id, signal)?,
            Call::Exec { id, process, tty } => {
                let (pid, terminal) = self.exec(&id, &process, tty, sent)?;
                self.role(client, Role::Waiter(pid));
                return Ok((done, terminal));
            }
            Call::Attach { id, stdin, stdout, stderr } => {
                return Ok((done, self.attach(&id, [stdin, stdout, stderr], sent)?));
            }
            Call::Delete { id } => self.delete(&id)?,
            Call::List => {
                self.reap();
                let containers =
                    self.containers.values().map(|container| container.entry.clone()).collect();
                return Ok((Reply { containers, ..done }, None));
            }
            Call::Subscribe => self.role(client, Role::Subscriber),
            Call::Quit => self.stop_all(),
        }
        Ok((done, None))
    }

    fn role(&mut self, client: u64, role: Role) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.role = role;
        }
    }

    fn create(
        &mut self,
        id: String,
        bundle: PathBuf,
        log: &Path,
        tty: bool,
        stdin: bool,
        stdin_once: bool,
    ) -> Result<()> {
        if self.containers.contains_key(&id) {
            bail!("container {id} exists");
        }
        let log = Log::open(log).with_context(|| format!("log {}", log.display()))?;
        let pid_file = bundle.join("pid");
        let mut args = vec![
            "create".to_string(),
            "--bundle".into(),
            path_text(&bundle)?,
            "--pid-file".into(),
            path_text(&pid_file)?,
        ];
        let (mut terminal, mut input, mut outputs) = (None, None, Vec::new());
        if tty {
            let console = fds::bind(&bundle, "console.sock")?;
            args.extend(["--console-socket".into(), path_text(&bundle.join("console.sock"))?]);
            self.helper(&args, &id, [Stdio::null(), Stdio::null(), Stdio::null()])?;
            let master = receive_terminal(&console)?;
            nonblocking(&master)?;
            outputs.push((master.try_clone()?, "stdout"));
            if stdin {
                input = Some(master.try_clone()?);
            }
            terminal = Some(master);
        } else {
            let (out_read, out_write) = pipe()?;
            let (err_read, err_write) = pipe()?;
            let source = if stdin {
                let (read, write) = pipe()?;
                nonblocking(&write)?;
                input = Some(write);
                Stdio::from(read)
            } else {
                Stdio::null()
            };
            self.helper(&args, &id, [source, out_write.into(), err_write.into()])?;
            outputs.push((out_read, "stdout"));
            outputs.push((err_read, "stderr"));
        }
        let pid = read_pid(&pid_file)?;
        for (fd, stream) in outputs {
            nonblocking(&fd)?;
            let key = self.key();
            let output = Output { fd, id: id.clone(), stream, partial: Partial::default() };
            self.outputs.insert(key, output);
        }
        let exit = self.exits.remove(&pid);
        let entry = Entry { id: id.clone(), pid, started_at: None, exit };
        let container = Container {
            entry,
            bundle,
            log,
            terminal,
            stdin: input,
            stdin_once,
            sinks: Vec::new(),
            input: None,
        };
        self.containers.insert(id, container);
        Ok(())
    }

    fn start(&mut self, id: &str) -> Result<()> {
        self.container(id)?;
        self.helper(&["start".into()], id, [Stdio::null(), Stdio::null(), Stdio::null()])?;
        let container = self.container(id)?;
        container.entry.started_at = Some(now());
        let text = serde_json::to_vec(&container.entry)?;
        std::fs::write(container.bundle.join("started.json"), text)?;
        Ok(())
    }

    fn signal(&mut self, id: &str, signal: i32) -> Result<()> {
        self.reap();
        let container = self.container(id)?;
        // Not reaped, so the pid is still this container's.
        if container.entry.exit.is_none() {
            nix::sys::signal::kill(Pid::from_raw(container.entry.pid), Signal::try_from(signal)?)?;
        }
        Ok(())
    }

    fn exec(
        &mut self,
        id: &str,
        process: &serde_json::Value,
        tty: bool,
        sent: Vec<OwnedFd>,
    ) -> Result<(i32, Option<OwnedFd>)> {
        let bundle = self.container(id)?.bundle.clone();
        let number = self.key();
        let process_file = bundle.join(format!("exec-{number}.json"));
        let pid_file = bundle.join(format!("exec-{number}.pid"));
        std::fs::write(&process_file, serde_json::to_vec(process)?)?;
        let mut args = vec![
            "exec".to_string(),
            "--detach".into(),
            "--process".into(),
            path_text(&process_file)?,
            "--pid-file".into(),
            path_text(&pid_file)?,
        ];
        let console = format!("exec-{number}.sock");
        let result = if tty {
            let listener = fds::bind(&bundle, &console)?;
            args.extend(["--console-socket".into(), path_text(&bundle.join(&console))?]);
            self.helper(&args, id, [Stdio::null(), Stdio::null(), Stdio::null()])
                .and_then(|()| receive_terminal(&listener).map(Some))
        } else {
            let mut sent = sent.into_iter().map(Stdio::from);
            let mut take = || sent.next().unwrap_or_else(Stdio::null);
            let streams = [take(), take(), take()];
            self.helper(&args, id, streams).map(|()| None)
        };
        let pid = read_pid(&pid_file);
        for name in [process_file, pid_file, bundle.join(console)] {
            let _ = std::fs::remove_file(name);
        }
        let terminal = result?;
        Ok((pid?, terminal))
    }

    fn attach(
        &mut self,
        id: &str,
        wanted: [bool; 3],
        sent: Vec<OwnedFd>,
    ) -> Result<Option<OwnedFd>> {
        let container = self.container(id)?;
        if container.entry.exit.is_some() {
            bail!("container {id} has ended");
        }
        let mut sent = sent.into_iter();
        let mut take = || sent.next().context("a descriptor is missing");
        if wanted[0] {
            let fd = take()?;
            nonblocking(&fd)?;
            container.input = Some(Input { fd, pending: Vec::new(), ended: false });
        }
        for (wanted, stream) in [(wanted[1], "stdout"), (wanted[2], "stderr")] {
            if wanted {
                let fd = take()?;
                nonblocking(&fd)?;
                container.sinks.push(Sink { fd, stream, pending: Vec::new() });
            }
        }
        Ok(container.terminal.as_ref().map(OwnedFd::try_clone).transpose()?)
    }

    fn delete(&mut self, id: &str) -> Result<()> {
        self.reap();
        let known = self.containers.contains_key(id);
        let args = ["delete".to_string(), "--force".into()];
        let result = self.helper(&args, id, [Stdio::null(), Stdio::null(), Stdio::null()]);
        self.reap();
        if known {
            result?;
        }
        self.containers.remove(id);
        self.outputs.retain(|_, output| output.id != id);
        Ok(())
    }

    fn stop_all(&mut self) {
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            let _ = self.signal(&id, libc::SIGKILL);
            let _ = self.delete(&id);
        }
        self.quit = true;
    }

    fn container(&mut self, id: &str) -> Result<&mut Container> {
        self.containers.get_mut(id).with_context(|| format!("container {id} not found"))
    }

    /// Runs the `oci` command on container `id` to its end. Its container stays: an orphan that
    /// comes to this process, the subreaper.
    fn helper(&mut self, args: &[String], id: &str, streams: [Stdio; 3]) -> Result<()> {
        let root = self.dir.join("oci");
        std::fs::create_dir_all(&root)?;
        let log = self.dir.join("oci.log");
        let _ = std::fs::remove_file(&log);
        let oci = self.oci.clone();
        let (program, prefix) = oci.split_first().context("no oci command")?;
        let [stdin, stdout, stderr] = streams;
        let mut command = Command::new(program);
        command.args(prefix).arg("--root").arg(&root).arg("--log").arg(&log);
        command.args(["--log-format", "json"]).args(args).arg(id);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let pid = spawn_unmasked(&mut command)?;
        drop(command);
        let deadline = Instant::now() + HELPER_TIMEOUT;
        let exit = loop {
            self.reap();
            if let Some(exit) = self.exits.remove(&pid) {
                break exit;
            }
            if Instant::now() > deadline {
                nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            }
            let mut signal = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut signal, PollTimeout::from(1000u16));
        };
        if exit.code == 0 {
            return Ok(());
        }
        bail!("{}", helper_error(&log).unwrap_or_else(|| format!("{program}: exit {}", exit.code)))
    }

    /// Moves bytes from a container's stream to its log and to those attached.
    fn pump(&mut self, key: u64) {
        let Some(output) = self.outputs.get_mut(&key) else { return };
        let mut chunk = [0u8; 16 * 1024];
        let read = nix::unistd::read(output.fd.as_raw_fd(), &mut chunk);
        let count = match read {
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return,
            Ok(count) => count,
            // A terminal whose other end is closed reads as EIO.
            Err(_) => 0,
        };
        let time = now();
        let container = self.containers.get_mut(&output.id);
        if count == 0 {
            if let Some(container) = container {
                let _ = container.log.finish(&time, output.stream, &mut output.partial);
                container.sinks.retain(|sink| sink.stream != output.stream);
            }
            self.outputs.remove(&key);
            return;
        }
        let Some(container) = container else { return };
        let bytes = &chunk[..count];
        if let Err(error) = container.log.append(&time, output.stream, &mut output.partial, bytes) {
            let _ = writeln!(std::io::stderr(), "{time} log of {}: {error}", output.id);
        }
        for sink in container.sinks.iter_mut().filter(|sink| sink.stream == output.stream) {
            sink.pending.extend_from_slice(bytes);
        }
        let id = output.id.clone();
        self.flush(&id);
    }

    fn flush(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.sinks.retain_mut(|sink| {
            write_some(&sink.fd, &mut sink.pending) && sink.pending.len() <= SINK_BYTES_MAX
        });
    }

    /// Moves bytes from an attached stdin into the container.
    fn feed(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(input) = &mut container.input else { return };
        if input.pending.is_empty() && !input.ended {
            let mut chunk = [0u8; 16 * 1024];
            match nix::unistd::read(input.fd.as_raw_fd(), &mut chunk) {
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return,
                Ok(0) | Err(_) => input.ended = true,
                Ok(count) => input.pending.extend_from_slice(&chunk[..count]),
            }
        }
        let open = match &container.stdin {
            Some(stdin) => write_some(stdin, &mut input.pending),
            None => false,
        };
        if !open || (input.ended && input.pending.is_empty()) {
            container.input = None;
            if container.stdin_once {
                container.stdin = None;
            }
        }
    }
}

/// False when the other end is gone.
fn write_some(fd: &OwnedFd, pending: &mut Vec<u8>) -> bool {
    while !pending.is_empty() {
        match nix::unistd::write(fd, pending) {
            Ok(count) => drop(pending.drain(..count)),
            Err(nix::errno::Errno::EAGAIN) => return true,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
    true
}

fn answer(client: &mut Client, reply: &Reply) {
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    line.push(b'\n');
    let _ = fds::send(&client.socket, &line, &[]);
}

/// Survives the shim: an agent that finds no shim reads how the container ended.
fn remember(bundle: &Path, exit: &Exit) {
    let write = || -> Result<()> {
        let mut file = File::create(bundle.join("exit.json"))?;
        file.write_all(&serde_json::to_vec(exit)?)?;
        Ok(file.sync_all()?)
    };
    if let Err(error) = write() {
        let _ = writeln!(std::io::stderr(), "{} exit.json: {error:#}", now());
    }
}

/// One child that ended: pid, exit code (128 + signal), signal.
#[expect(unsafe_code, reason = "nix's waitpid loses children ended by real-time signals")]
fn wait_child() -> Option<(i32, i32, Option<i32>)> {
    let mut status = 0;
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    if libc::WIFEXITED(status) {
        return Some((pid, libc::WEXITSTATUS(status), None));
    }
    let signal = libc::WTERMSIG(status);
    Some((pid, 128 + signal, Some(signal)))
}

/// The signal mask is inherited over exec; containers must not start with SIGCHLD blocked.
#[expect(unsafe_code, reason = "pre_exec; sigprocmask is async-signal-safe")]
fn spawn_unmasked(command: &mut Command) -> Result<i32> {
    unsafe {
        command.pre_exec(|| {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            Ok(())
        });
    }
    let child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
    // Reaped with all other children.
    Ok(child.id() as i32)
}

/// The last error of a runc-style JSON log.
fn helper_error(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let mut messages = text.lines().filter_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        let level = entry.get("level")?.as_str()?;
        matches!(level, "error" | "fatal")
            .then(|| entry.get("msg")?.as_str().map(str::to_string))?
    });
    messages.next_back()
}

fn read_pid(file: &Path) -> Result<i32> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(text.trim().parse()?)
}

fn receive_terminal(listener: &UnixListener) -> Result<OwnedFd> {
    listener.set_nonblocking(true)?;
    let (socket, _) = listener.accept().context("the container sent no terminal")?;
    let (mut buffer, mut received) = (Vec::new(), Vec::new());
    fds::receive(&socket, &mut buffer, &mut received)?;
    received.pop().context("the container sent no terminal")
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

fn nonblocking(fd: &OwnedFd) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd.as_raw_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn path_text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_string).context("a path that is not UTF-8")
}

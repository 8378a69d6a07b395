//! `coxswain machine`: stands in for one machine of a development cluster. Enters its network
//! namespace, gives it its own processes and mounts where asked, runs one program and starts it
//! again when it dies. Killing this process is cutting the machine's power.

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

/// A program that keeps dying is started again after this, so that it does not burn a core.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// One machine of a development cluster (used by `coxswain dev`)
#[derive(clap::Args)]
pub(super) struct Args {
    /// Network namespace to enter
    #[arg(long)]
    netns: Option<PathBuf>,

    /// Own process and mount namespaces: everything on the machine ends with it
    #[arg(long)]
    isolate: bool,

    /// Set on the first process inside the new namespaces
    #[arg(long, hide = true)]
    first: bool,

    /// The program to run, and to start again when it ends
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    // With whoever started us gone, nobody could stop this machine any more.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().collect();
    signals.thread_block()?;
    if args.first {
        own_mounts()?;
    }
    if let Some(path) = &args.netns {
        let namespace =
            File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        setns(&namespace, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter {}", path.display()))?;
    }
    if args.isolate {
        return isolate(args, &signals);
    }
    keep_running(&args.program, &signals)
}

/// Makes the namespaces and waits for the first process in them.
fn isolate(args: &Args, signals: &SigSet) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        .context("cannot make process and mount namespaces")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["machine", "--first", "--"]).args(&args.program);
    let mut child = command.spawn().context("cannot start the machine's first process")?;
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if child.try_wait()?.is_some() {
                    return Ok(());
                }
            }
            stop => forward(&child, stop),
        }
    }
}

fn own_mounts() -> Result<()> {
    let none = None::<&str>;
    // Unmounts outside are followed, mounts inside stay inside.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .context("cannot make the mounts the machine's own")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).context("cannot mount /proc")
}

/// Runs `program` until told to stop, reaping whatever else ends up with us.
fn keep_running(program: &[String], signals: &SigSet) -> Result<()> {
    let Some((path, arguments)) = program.split_first() else { bail!("no program") };
    let mut stopping = false;
    let mut started;
    let start = || start(path, arguments);
    let mut child = start().with_context(|| format!("cannot start {path}"))?;
    started = Instant::now();
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                let Some(how) = reap(&child)? else { continue };
                if stopping {
                    return Ok(());
                }
                tracing::warn!(program = path, pid = child.id(), how, "ended; starting it again");
                thread::sleep(RESTART_PAUSE.saturating_sub(started.elapsed()));
                child = start().with_context(|| format!("cannot start {path}"))?;
                started = Instant::now();
            }
            stop => {
                stopping = true;
                forward(&child, stop);
            }
        }
    }
}

/// The program gets no blocked signals from us, and ends with us.
#[expect(
    unsafe_code,
    reason = "the signal mask and the death signal are set between fork and exec"
)]
fn start(path: &str, arguments: &[String]) -> std::io::Result<Child> {
    let mut command = Command::new(path);
    command.args(arguments);
    // SAFETY: only system calls; nothing allocates or locks.
    unsafe {
        command.pre_exec(|| {
            SigSet::empty().thread_set_mask()?;
            Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
        });
    }
    command.spawn()
}

/// Reaps every process that has ended; how `child` ended, if it did.
fn reap(child: &Child) -> Result<Option<String>> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(ended),
            Ok(status) => {
                if status.pid().map(Pid::as_raw) == Some(child.id() as i32) {
                    ended = Some(match status {
                        WaitStatus::Signaled(_, signal, _) => format!("signal {signal}"),
                        WaitStatus::Exited(_, code) => format!("exit code {code}"),
                        other => format!("{other:?}"),
                    });
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn forward(child: &Child, signal: Signal) {
    // A child that is already gone needs no signal.
    let _ = kill(Pid::from_raw(child.id() as i32), signal);
}

//! The processes of masters and nodes' agents on this machine: which they are, and the signals they get.
//! Only a process whose program is coxswain is ever signalled: that of a master has the pid that the
//! cluster named, and the command line of that master; that of a node has the command line of that
//! node's agent, and its data beside that of the cluster's masters.

use super::undo::Undo;
use crate::cli::members;
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Until a process that was stopped stands still, at most; and between two looks.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const STOP_LOOK: Duration = Duration::from_millis(1);

/// A process that is the master, or the node's agent, of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
    /// The words it was started with.
    pub(super) command: Vec<String>,
    /// Its parent is `coxswain dev`'s, and starts it again.
    pub(super) in_dev: bool,
}

impl Process {
    /// The master `name` says that it has this pid.
    pub(super) fn of_master(name: &str, pid: u32) -> Result<Process> {
        let proc = Path::new("/proc").join(pid.to_string());
        let gone = || format!("master {name} says it has pid {pid}, which is not on this machine");
        let program = fs::read_link(proc.join("exe")).with_context(gone)?;
        let command = words(&fs::read(proc.join("cmdline")).with_context(gone)?);
        ensure!(
            is_master(&program, &command, name),
            "pid {pid}, which master {name} says it has, is another program here ({}): is the \
             master on another machine?",
            program.display()
        );
        let stat = fs::read_to_string(proc.join("stat")).with_context(gone)?;
        let parent = parent(&stat).with_context(|| format!("/proc/{pid}/stat is odd"))?;
        let parent = fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
        let in_dev = words(&parent).get(1).is_some_and(|verb| verb == "machine");
        Ok(Process { pid, command, in_dev })
    }

    /// The process of a master, as it says itself which it is.
    pub(super) fn of_member(member: &Value) -> Result<Process> {
        Process::of_master(members::name(member), members::local_pid(member)?)
    }

    /// The agent of the node `name` of the `coxswain dev` whose machines are there.
    pub(super) fn of_node(name: &str, machines: &Path) -> Result<Process> {
        for entry in fs::read_dir("/proc")? {
            let proc = entry?.path();
            let pid = proc.file_name().and_then(|pid| pid.to_str()?.parse().ok());
            let Some(pid) = pid else { continue };
            // Those that have just ended are none.
            let program = fs::read_link(proc.join("exe")).unwrap_or_default();
            let command = words(&fs::read(proc.join("cmdline")).unwrap_or_default());
            let process = Process { pid, command, in_dev: true };
            let data = process.word("--data-dir").map(Path::new);
            let there = data.is_some_and(|data| data.starts_with(machines.join(name)));
            if there && is_agent(&program, &process.command, name) {
                return Ok(process);
            }
        }
        bail!(
            "node {name} has no agent of this `coxswain dev` on this machine (under {}; root?)",
            machines.display()
        )
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// What it was started with after this word.
    pub(super) fn word(&self, flag: &str) -> Option<&str> {
        let pair = self.command.windows(2).find(|pair| pair[0] == flag)?;
        Some(&pair[1])
    }

    /// What it was started with as the environment's variable of this name.
    pub(super) fn variable(&self, name: &str) -> Result<Option<String>> {
        let path = format!("/proc/{}/environ", self.pid);
        let variables = words(&fs::read(&path).with_context(|| format!("cannot read {path}"))?);
        let value = |it: &String| Some(it.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        Ok(variables.iter().find_map(value))
    }

    /// Returns when none of its threads runs any more.
    pub(super) fn stand_still(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let since = Instant::now();
        loop {
            let mut threads = fs::read_dir(format!("/proc/{}/task", self.pid))?;
            let stands = |thread: &fs::DirEntry| {
                let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                // One that has ended does nothing either.
                state(&stat).is_none_or(|state| "TtZX".contains(state))
            };
            if threads.all(|thread| thread.is_ok_and(|thread| stands(&thread))) {
                return Ok(());
            }
            ensure!(since.elapsed() < STOP_TIMEOUT, "pid {} does not stand still", self.pid);
            std::thread::park_timeout(STOP_LOOK);
        }
    }

    /// Stands still until that is dropped, and little longer than `hold` at most.
    pub(super) fn pause(&self, hold: Duration) -> Result<Undo> {
        let undo = Undo::new(&format!("kill -CONT {}", self.pid), &[], hold)?;
        self.signal(Signal::SIGSTOP)?;
        Ok(undo)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid)?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to pid {}", self.pid))
    }
}

/// Whether the process at `/proc/PID` is the master of a name, or the machine that it runs on.
pub(super) fn is_of_master(proc: &Path, name: &str) -> bool {
    let program = fs::read_link(proc.join("exe")).unwrap_or_default();
    let command = words(&fs::read(proc.join("cmdline")).unwrap_or_default());
    is_master(&program, &command, name)
}

fn words(cmdline: &[u8]) -> Vec<String> {
    let words = cmdline.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Whether a program with this command line is the master of this name.
fn is_master(program: &Path, command: &[String], name: &str) -> bool {
    let serves = command.iter().skip(1).any(|word| word == "server");
    is_ours(program) && serves && is_named(command, name)
}

/// Whether a program with this command line is the agent of this node, and not the machine it runs on.
fn is_agent(program: &Path, command: &[String], name: &str) -> bool {
    let verb = command.get(1).is_some_and(|verb| verb == "agent");
    is_ours(program) && verb && is_named(command, name)
}

fn is_ours(program: &Path) -> bool {
    let file = program.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    // As the kernel says it when the file was replaced since.
    file.strip_suffix(" (deleted)").unwrap_or(file) == "coxswain"
}

fn is_named(command: &[String], name: &str) -> bool {
    command.windows(2).any(|pair| pair[0] == "--name" && pair[1] == name)
        || command.contains(&format!("--name={name}"))
}

/// Of a `/proc/PID/stat`: the third field of all.
fn state(stat: &str) -> Option<char> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next()
}

/// Of a `/proc/PID/stat`: the fourth field of all.
fn parent(stat: &str) -> Option<u32> {
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_master_of_that_name_is_one() {
        let is = |program: &str, command: &str, name: &str| {
            is_master(Path::new(program), &words(command.replace(' ', "\0").as_bytes()), name)
        };
        let server = "/x/coxswain server --name m2 --id 2";
        assert!(is("/x/coxswain", server, "m2"));
        assert!(is("/x/coxswain (deleted)", "coxswain server --name=m2", "m2"));
        assert!(!is("/x/coxswain", server, "m1"));
        assert!(!is("/x/sleep", server, "m2"));
        assert!(!is("/x/coxswain", "/x/coxswain agent --name m2", "m2"));
        assert!(!is("/x/coxswain", "server --name m2", "m2"), "the program's own name");
    }

    #[test]
    fn only_the_agent_of_that_node_is_one() {
        let is = |program: &str, command: &str, name: &str| {
            is_agent(Path::new(program), &words(command.replace(' ', "\0").as_bytes()), name)
        };
        let agent = "/x/coxswain agent --name n2 --data-dir /d";
        assert!(is("/x/coxswain", agent, "n2"));
        assert!(!is("/x/coxswain", agent, "n1"));
        assert!(!is("/x/sleep", agent, "n2"));
        assert!(!is("/x/coxswain", &format!("coxswain machine -- {agent}"), "n2"));
        assert!(!is("/x/coxswain", "coxswain server --name n2", "n2"));
        let nowhere = Process::of_node("n1", Path::new("/nowhere")).expect_err("no such cluster");
        assert!(format!("{nowhere:#}").contains("no agent"), "{nowhere:#}");
    }

    #[test]
    fn the_parent_is_after_the_name_and_the_state() {
        assert_eq!(parent("12 (a (b) c) S 34 12 12 0"), Some(34));
        assert_eq!(parent("12 (a"), None);
        assert_eq!(state("12 (a (b) c) T 34 12 12 0"), Some('T'));
    }

    #[test]
    fn another_program_is_never_signalled() {
        let own = std::process::id();
        let error = Process::of_master("m1", own).expect_err("this test is no master");
        assert!(format!("{error:#}").contains("is another program here"), "{error:#}");
    }
}

//! A cluster of real processes, made with the binary's own `dev` command and ended with the test.

use crate::ports::free_ports;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How long a cluster is given to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks at a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A running `coxswain dev`. Stopped, and its directory removed, when dropped.
pub struct Cluster {
    child: Child,
    directory: PathBuf,
    /// What `coxswain dev` printed until everything was ready.
    pub output: Vec<String>,
}

impl Cluster {
    /// Starts `coxswain dev` and waits until it says that all is Ready. Panics with its output and
    /// the machines' logs if it does not.
    pub fn start(masters: u8, nodes: u8) -> Cluster {
        Cluster::start_with(masters, nodes, &[])
    }

    /// The same with more words for `coxswain dev`.
    pub fn start_with(masters: u8, nodes: u8, words: &[&str]) -> Cluster {
        Cluster::start_in(new_directory(), &binary(), (masters, nodes), words)
    }

    /// The same in a directory in which there may be something already, with a program that may be another than ours.
    pub fn start_in(
        directory: PathBuf,
        program: &Path,
        (masters, nodes): (u8, u8),
        words: &[&str],
    ) -> Cluster {
        let mut command = Command::new(program);
        command.args(["dev", "--masters", &masters.to_string(), "--nodes", &nodes.to_string()]);
        command.args(words);
        command.args(["--api-port", &free_ports().to_string()]).arg("--data-dir").arg(&directory);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let (send, lines) = mpsc::channel();
        // Ends when the cluster closes its output.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut cluster = Cluster { child, directory, output: Vec::new() };
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let ready = line.contains("are Ready");
                    cluster.output.push(line);
                    if ready {
                        return cluster;
                    }
                }
                Err(_) => panic!(
                    "the cluster is not ready after {READY_TIMEOUT:?}; it said:\n{}\n{}",
                    cluster.output.join("\n"),
                    cluster.logs()
                ),
            }
        }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// Where machine `name` keeps its pid, log and data.
    pub fn machine(&self, name: &str) -> PathBuf {
        self.directory.join("machines").join(name)
    }

    /// The process that stands for machine `name`: killing it cuts the machine's power.
    pub fn machine_pid(&self, name: &str) -> i32 {
        let path = self.machine(name).join("pid");
        let text = fs::read_to_string(&path).expect("the machine's pid file");
        text.trim().parse().expect("a pid")
    }

    /// `coxswain members -o json`.
    pub fn members(&self) -> Vec<Value> {
        let mut command = Command::new(binary());
        command.args(["members", "-o", "json", "--kubeconfig"]).arg(self.kubeconfig());
        let output = command.output().expect("the binary runs");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// The leader's name and pid, once there is one.
    pub fn leader(&self) -> (String, i32) {
        let mut found = None;
        self.eventually("a leader that answers", || {
            let members = self.members();
            let leader = members.iter().find(|member| member["leader"] == true);
            found = leader.and_then(|leader| {
                Some((leader["name"].as_str()?.to_string(), leader["pid"].as_i64()? as i32))
            });
            found.is_some().then_some(()).ok_or_else(|| format!("{members:?}"))
        });
        found.expect("found above")
    }

    /// Runs `kubectl` with `arguments` (split at spaces) and returns what it printed; panics if it
    /// fails.
    pub fn kubectl(&self, arguments: &str) -> String {
        let words: Vec<&str> = arguments.split(' ').collect();
        self.kubectl_with(&words, "")
    }

    /// The same with words as they are, and an input.
    pub fn kubectl_with(&self, words: &[&str], input: &str) -> String {
        let output = self.try_kubectl(words, input);
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {words:?} failed: {err}\n{out}\n{}", self.logs());
        out.into_owned()
    }

    pub fn try_kubectl(&self, words: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut command = Command::new(kubectl());
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl is installed");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("kubectl reads its input");
        drop(stdin);
        child.wait_with_output().expect("kubectl ends")
    }

    /// `kubectl` that runs until it is killed, and its output.
    pub fn spawn_kubectl(&self, words: &[&str]) -> (Child, BufReader<ChildStdout>) {
        let mut command = Command::new(kubectl());
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("kubectl is installed");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        (child, output)
    }

    /// Looks until `look` says `Ok`; after a minute panics with `what` and the last state.
    pub fn eventually(&self, what: &str, mut look: impl FnMut() -> Result<(), String>) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match look() {
                Ok(()) => return,
                Err(state) if Instant::now() > deadline => {
                    panic!("still waiting for {what}; last seen: {state}\n{}", self.logs())
                }
                Err(_) => thread::park_timeout(LOOK_INTERVAL),
            }
        }
    }

    /// The last lines of every machine's log.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.directory.join("machines")).into_iter().flatten().flatten() {
            let log = fs::read_to_string(entry.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(25)..];
            text += &format!("--- {}\n{}\n", entry.path().display(), tail.join("\n"));
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its own clean stop: machines, namespaces and directories go with it.
        signal(self.child.id() as i32, "TERM");
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Sends `name` (`KILL`, `STOP`, `CONT`, …) to a process this test started.
pub fn signal(pid: i32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.expect("kill runs").success(), "kill -{name} {pid}");
}

/// The binary that the workspace's build made, beside this test's own directory.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let path = profile.join("coxswain");
    assert!(Path::new(&path).exists(), "{} is not built: cargo build --workspace", path.display());
    path
}

/// For one cluster.
pub fn new_directory() -> PathBuf {
    let directory = tempfile::Builder::new().prefix("coxswain-test-").tempdir();
    directory.expect("a directory for the cluster").keep()
}

/// The `kubectl` to drive: `$KUBECTL`, else what `scripts/clients.sh` fetched, else the machine's.
pub fn kubectl() -> PathBuf {
    let fetched = clients().join("bin/kubectl");
    match std::env::var_os("KUBECTL") {
        Some(path) => path.into(),
        None if fetched.exists() => fetched,
        None => "kubectl".into(),
    }
}

/// Where `scripts/clients.sh` puts clients that this project did not write.
pub fn clients() -> PathBuf {
    match std::env::var_os("COXSWAIN_CLIENTS") {
        Some(path) => path.into(),
        None => {
            let home = std::env::var_os("HOME").unwrap_or_default();
            Path::new(&home).join(".cache/coxswain/clients")
        }
    }
}

pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    output.stdout == b"0\n"
}

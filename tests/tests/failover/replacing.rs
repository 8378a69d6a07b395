//! A dead master is replaced by one command while others write; whoever may not join costs nothing
//! and is told why.

use super::leader;
use super::members::{coxswain, refused, succeed};
use crate::WRITES_BETWEEN;
use crate::load::{Load, MASTERS, clients, index_of, runtime};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::{
    Cluster,
    cluster::{binary, signal},
    ports::free_address,
};

/// A master beside those that `coxswain dev` runs; ended with the test.
struct NewMaster {
    command: Command,
    child: Child,
    url: String,
    directory: tempfile::TempDir,
}

impl NewMaster {
    /// Starts what a printed line means, with what is the machine's own filled in.
    fn start(line: &str, name: &str) -> NewMaster {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut command, url) = join_command(line, name, directory.path());
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let child = command.stderr(log).spawn().expect("the binary starts");
        NewMaster { command, child, url, directory }
    }

    /// Its power is cut, and it is started again with the same command line.
    fn restart(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        self.child = self.command.spawn().expect("the binary starts");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for NewMaster {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command, and where clients reach the master.
fn join_command(line: &str, name: &str, directory: &Path) -> (Command, String) {
    let (api, peer) = (free_address(), free_address());
    let line = line.replace("\\\n", " ");
    let given = line.split(" --name ").next().expect("what goes before the machine's own");
    let mut command = Command::new(binary());
    command.args(given.split_whitespace().skip(1)).args(["--name", name]);
    command.args(["--listen", &api, "--peer-address", &peer]);
    command.arg("--data-dir").arg(directory.join("data")).arg("--pki").arg(directory.join("pki"));
    (command, format!("https://{api}"))
}

/// Why a master that was started with that line is not let in.
fn not_let_in(line: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let output = join_command(line, "m8", directory.path()).0.output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(1), "it is not let in");
    assert!(!directory.path().join("pki").exists(), "it has no keys");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The line with one part of its token (id, secret, hash) turned into another.
fn with_wrong(line: &str, part: usize) -> String {
    let token = line.split(" --token ").nth(1).and_then(|rest| rest.split(' ').next());
    let token = token.expect("a token");
    let mut parts: Vec<String> = token.split('.').map(String::from).collect();
    let last = parts[part].pop();
    parts[part].push(if last == Some('0') { '1' } else { '0' });
    line.replace(token, &parts.join("."))
}

/// A master that holds a token and never comes.
fn admit_ghost(cluster: &Cluster, line: &str) {
    let token = line.split(" --token ").nth(1).expect("a token");
    let token: Vec<&str> = token.split(' ').next().expect("a token").split('.').collect();
    let body = json!({"name": "ghost", "peerAddress": "127.0.0.1:1", "apiAddress": "127.0.0.1:1"});
    let bearer = format!("--token={}.{}", token[0], token[1]);
    let words = ["create", "--raw", "/coxswain/members/join", "-f", "-", &bearer];
    cluster.kubectl_with(&words, &body.to_string());
}

/// `coxswain replace`, running; and the line that it printed.
fn replace(cluster: &Cluster, dead: &str) -> (Child, BufReader<ChildStdout>, String) {
    let mut command = coxswain(cluster, &format!("replace {dead}"));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut said = String::new();
    while !said.contains("--peer-address") {
        let read = output.read_line(&mut said).expect("text");
        assert!(read > 0, "no line to join with: {said}\n{}", cluster.logs());
    }
    assert!(said.contains(&format!("{dead} (id ")), "{said}");
    let line = said[said.find("coxswain server").expect("the command")..].to_string();
    (child, output, line)
}

pub(crate) fn member(cluster: &Cluster, name: &str) -> Option<Value> {
    cluster.members().into_iter().find(|member| member["name"] == name)
}

/// The command line of a process.
pub(crate) fn words_of(pid: i32) -> Vec<String> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).expect("the process runs");
    let words = String::from_utf8(words).expect("text");
    words.trim_end_matches('\0').split('\0').map(String::from).collect()
}

/// To run it again.
fn command_of(pid: i32) -> Command {
    let words = words_of(pid);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

async fn output(mut command: Command) -> Output {
    let run = move || command.output().expect("the binary runs");
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

#[test]
fn a_dead_master_is_replaced_while_others_write() {
    let cluster = Arc::new(Cluster::start(MASTERS as u8, 0));
    runtime().block_on(async {
        let all = clients(&cluster).await;
        let (dead, pid) = leader(&cluster).await;
        let others = (0..MASTERS).filter(|it| *it != index_of(&dead));
        let others: Vec<_> = others.map(|it| all[it].clone()).collect();
        let load = Load::start(&others).await;
        let begun = Instant::now();
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        nobody_else_gets_in(&cluster, &dead).await;
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        assert_eq!(load.failures(begun), Vec::<String>::new());

        let again = command_of(pid);
        let killed = Instant::now();
        signal(cluster.machine_pid(&dead), "KILL");
        let gap = load.gap_after(killed, &cluster).await;
        let over = Instant::now();
        refuses_to_lose_another(&cluster, &dead).await;
        let (mut replacing, mut rest, line) = replace(&cluster, &dead);
        let mut new = NewMaster::start(&line, "m4");
        let waited = tokio::task::spawn_blocking(move || {
            let mut said = String::new();
            std::io::Read::read_to_string(&mut rest, &mut said).expect("text");
            (replacing.wait().expect("it ends"), said)
        });
        let waited = tokio::time::timeout(Duration::from_secs(60), waited).await;
        let (status, said) = waited
            .unwrap_or_else(|_| panic!("{}\n{}", new.log(), cluster.logs()))
            .expect("no panic");
        assert!(status.success() && said.contains("m4 (id 5) votes"), "{said}\n{}", new.log());
        let whole = over.elapsed();
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        assert_eq!(load.failures(over), Vec::<String>::new(), "nothing fails after the failover");
        does_not_come_back(again, &dead).await;
        let writes = load.finish(&others, &cluster).await;
        serves_everything(&cluster, &new, writes);
        comes_back(&cluster, &mut new);
        eprintln!(
            "{}",
            json!({"bench": "replace_dead_master", "writes": writes, "lost": 0,
                   "failover_gap_ms": gap.as_millis(), "whole_again_ms": whole.as_millis()})
        );
    });
}

/// Wrong ones are told why; one that never comes is a learner, and no vote counts on it.
async fn nobody_else_gets_in(cluster: &Cluster, leader: &str) {
    let line = succeed(cluster, "token create --ttl 10m").await;
    let why = not_let_in(&with_wrong(&line, 1));
    assert!(why.contains("the token is unknown or its time is over"), "{why}");
    let why = not_let_in(&with_wrong(&line, 2));
    assert!(why.contains("it is of another cluster, or somebody is between"), "{why}");
    let why = refused(cluster, &format!("replace {leader}")).await;
    assert!(why.contains("it is not dead"), "{why}");
    admit_ghost(cluster, &line);
    let ghost = member(cluster, "ghost").expect("it is listed");
    assert_eq!((&ghost["voter"], &ghost["reachable"]), (&json!(false), &json!(false)));
}

/// With one of three gone, another one stays.
async fn refuses_to_lose_another(cluster: &Cluster, dead: &str) {
    let alive = ["m1", "m2", "m3"].into_iter().find(|name| *name != dead).expect("another");
    let why = refused(cluster, &format!("members remove {alive}")).await;
    assert!(why.contains("the cluster would stop"), "{why}");
    assert!(member(cluster, alive).is_some());
    succeed(cluster, "members remove ghost").await;
}

/// The replaced one, started again with its data, ends and says why.
async fn does_not_come_back(again: Command, name: &str) {
    let ended = tokio::time::timeout(Duration::from_secs(30), output(again)).await;
    let ended = ended.expect("it ends by itself");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success());
    assert!(said.contains(&format!("({name}) was removed from the cluster")), "{said}");
}

/// The new master, started again as it was the first time, is the same member.
fn comes_back(cluster: &Cluster, new: &mut NewMaster) {
    let before = member(cluster, "m4").expect("it is there");
    new.restart();
    cluster.eventually("the new master to be back", || {
        let now = member(cluster, "m4").unwrap_or_default();
        let same = now["id"] == before["id"] && now["voter"] == true;
        let back = now["reachable"] == true && now["pid"] != before["pid"];
        (same && back).then_some(()).ok_or_else(|| format!("{now}\n{}", new.log()))
    });
}

/// The new master answers for itself, with everything that was acknowledged.
fn serves_everything(cluster: &Cluster, new: &NewMaster, writes: usize) {
    let words = ["--server", &new.url, "get", "configmaps", "-l", "made=load", "-o", "name"];
    let listed = cluster.kubectl_with(&words, "");
    assert!(
        listed.lines().count() >= writes,
        "{} of {writes}\n{}",
        listed.lines().count(),
        new.log()
    );
}

//! `coxswain bench api`: creates, reads, a list of 10,000 pods and the fan-out of a watch, through
//! TLS, authentication, authorization and admission, against three masters or a named cluster.

use super::{
    figures::{self, AsyncStep, Figures, measure},
    process::resident_bytes,
};
use crate::cli::{
    client::{Connection, Target},
    members,
};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{
    process::{Child, Command},
    task::JoinSet,
};

/// Measure the API through TLS: writes, reads, a list of 10,000, watch fan-out
#[derive(clap::Args)]
pub(super) struct Args {
    /// Measure this cluster; without it, three masters are started for the occasion
    #[arg(long)]
    kubeconfig: Option<PathBuf>,

    /// Seconds for each figure
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// Connections that write and read
    #[arg(long, default_value_t = 50)]
    clients: usize,

    /// Pods in the list
    #[arg(long, default_value_t = 10_000)]
    pods: usize,

    /// Watchers of the fan-out
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,

    /// Port for the masters that are started
    #[arg(long, default_value_t = 16443)]
    api_port: u16,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let own = match args.kubeconfig {
        Some(_) => None,
        None => Some(OwnCluster::start(args.api_port).await?),
    };
    let path = args.kubeconfig.clone().or(own.as_ref().map(OwnCluster::kubeconfig));
    let target = Target::of_masters(path.as_deref())?;
    let namespace = format!("bench-{}", std::process::id());
    let bench = Bench { namespace, target, local: own.is_some(), args };
    let result = bench.run().await;
    if let Some(own) = own {
        own.stop().await?;
    }
    result
}

struct Bench {
    target: Target,
    namespace: String,
    /// The masters are processes of this machine.
    local: bool,
    args: Args,
}

impl Bench {
    async fn run(&self) -> Result<()> {
        let mut admin = self.connect(0).await?;
        let namespace = json!({"metadata": {"name": self.namespace}});
        expect(201, admin.call(Method::POST, "/api/v1/namespaces", body(&namespace)).await?)?;
        self.creates("configmaps", config_map).await?;
        self.creates("pods", pod).await?;
        self.reads().await?;
        self.list(&mut admin).await?;
        if self.local {
            self.memory().await?;
        }
        self.fan_out(&mut admin).await?;
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        admin.call(Method::DELETE, &path, Vec::new()).await?;
        Ok(())
    }

    async fn connect(&self, number: usize) -> Result<Connection> {
        let server = &self.target.servers[number % self.target.servers.len()];
        Connection::open(server, self.target.tls.clone()).await
    }

    async fn connections(&self, count: usize) -> Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            connections.push(self.connect(number).await?);
        }
        Ok(connections)
    }

    fn path(&self, plural: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}", self.namespace)
    }

    async fn creates(&self, plural: &'static str, make: fn(&str) -> Value) -> Result<()> {
        let clients = self.connections(self.args.clients).await?;
        let step = Create { path: self.path(plural), make };
        let time = Duration::from_secs(self.args.seconds);
        let figures = measure(clients, time, step).await?;
        figures.report(&format!("api_create_{plural}"), json!({"clients": self.args.clients}));
        Ok(())
    }

    async fn reads(&self) -> Result<()> {
        let clients = self.connections(self.args.clients).await?;
        let step = Read { path: format!("{}/c0-0", self.path("configmaps")) };
        let time = Duration::from_secs(self.args.seconds);
        let figures = measure(clients, time, step).await?;
        figures.report("api_get_linearizable", json!({"clients": self.args.clients}));
        Ok(())
    }

    /// Fills the namespace up to the wished number of pods, then lists them, in JSON and in
    /// protobuf.
    async fn list(&self, admin: &mut Connection) -> Result<()> {
        let path = self.path("pods");
        let (_, all) = expect(200, admin.call(Method::GET, &path, Vec::new()).await?)?;
        let present =
            serde_json::from_slice::<Value>(&all)?["items"].as_array().map_or(0, Vec::len);
        let mut clients = JoinSet::new();
        let count = self.args.clients;
        for number in 0..count {
            let (mut connection, path) = (self.connect(number).await?, path.clone());
            let share = self.args.pods.saturating_sub(present) / count;
            clients.spawn(async move {
                for index in 0..share {
                    let object = pod(&format!("fill-{number}-{index}"));
                    expect(201, connection.call(Method::POST, &path, body(&object)).await?)?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(filled) = clients.join_next().await {
            filled??;
        }
        let pods = self.args.pods.max(present);
        let codings = [
            ("api_list_pods", "application/json"),
            ("api_list_pods_protobuf", "application/vnd.kubernetes.protobuf"),
        ];
        for (figure, accept) in codings {
            self.lists(admin, &path, figure, accept, pods).await?;
        }
        Ok(())
    }

    /// The same list again and again in one coding.
    async fn lists(
        &self,
        admin: &mut Connection,
        path: &str,
        figure: &str,
        accept: &'static str,
        pods: usize,
    ) -> Result<()> {
        let before = std::mem::replace(&mut admin.accept, accept);
        let (mut latencies, started, mut bytes) = (Vec::new(), Instant::now(), 0);
        while started.elapsed() < Duration::from_secs(self.args.seconds) || latencies.is_empty() {
            let began = Instant::now();
            let (code, body) = admin.send(Method::GET, path, Vec::new()).await?;
            ensure!(code == 200, "{path}: expected HTTP 200, got {code}");
            bytes = arrived(body).await?;
            latencies.push(began.elapsed());
        }
        admin.accept = before;
        let extra = json!({"pods": pods, "bytes": bytes});
        Figures::new(latencies, started.elapsed()).report(figure, extra);
        Ok(())
    }

    /// What each master's process holds once the pods are there: resident, in bytes.
    async fn memory(&self) -> Result<()> {
        let mut masters = Vec::new();
        for member in members::ask(&self.target).await? {
            let resident = resident_bytes(members::local_pid(&member)?)?;
            masters.push(json!({
                "name": member["name"], "leader": member["leader"], "resident_bytes": resident,
            }));
        }
        let extra = json!({"pods": self.args.pods, "masters": masters});
        figures::note("api_master_memory", extra);
        Ok(())
    }

    /// Each watcher notes when each event arrived; the writer put the time of sending in it.
    async fn fan_out(&self, admin: &mut Connection) -> Result<()> {
        const EVENTS: usize = 100;
        const PAUSE: Duration = Duration::from_millis(50); // 20 events per second
        let origin = Instant::now();
        let path = self.path("secrets");
        let mut watchers = JoinSet::new();
        for number in 0..self.args.watchers {
            let mut connection = self.connect(number).await?;
            let path = format!("{path}?watch=true");
            let (code, stream) = connection.send(Method::GET, &path, Vec::new()).await?;
            ensure!(code == 200, "watch: HTTP {code}");
            watchers.spawn(async move {
                let delays = follow(stream, origin, EVENTS).await;
                drop(connection);
                delays
            });
        }
        let started = Instant::now();
        for event in 0..EVENTS {
            let sent = origin.elapsed().as_micros().to_string();
            let object = json!({
                "metadata": {"name": format!("event-{event}"), "annotations": {"sent": sent}},
            });
            expect(201, admin.call(Method::POST, &path, body(&object)).await?)?;
            tokio::time::sleep(PAUSE).await;
        }
        let mut delays = Vec::new();
        let all = async {
            while let Some(watcher) = watchers.join_next().await {
                delays.extend(watcher??);
            }
            anyhow::Ok(())
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, all).await.context("watchers did not see every event")??;
        let extra = json!({"watchers": self.args.watchers, "events": EVENTS});
        Figures::new(delays, started.elapsed()).report("api_watch_fan_out", extra);
        Ok(())
    }
}

/// The delay of each of `events` events, from the annotation that says when it was sent.
async fn follow(
    mut stream: hyper::body::Incoming,
    origin: Instant,
    events: usize,
) -> Result<Vec<Duration>> {
    let (mut delays, mut buffer) = (Vec::with_capacity(events), Vec::new());
    while delays.len() < events {
        let Some(frame) = stream.frame().await else { bail!("the watch ended early") };
        let Some(data) = frame?.into_data().ok() else { continue };
        let now = origin.elapsed();
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            let sent = event["object"]["metadata"]["annotations"]["sent"].as_str();
            let Some(sent) = sent.and_then(|sent| sent.parse().ok()) else { continue };
            delays.push(now.saturating_sub(Duration::from_micros(sent)));
        }
    }
    Ok(delays)
}

#[derive(Clone)]
struct Create {
    path: String,
    make: fn(&str) -> Value,
}

impl AsyncStep<Connection> for Create {
    async fn step(&mut self, client: &mut Connection, number: usize, count: u64) -> Result<()> {
        let object = (self.make)(&format!("c{number}-{count}"));
        expect(201, client.call(Method::POST, &self.path, body(&object)).await?)?;
        Ok(())
    }
}

#[derive(Clone)]
struct Read {
    path: String,
}

impl AsyncStep<Connection> for Read {
    async fn step(&mut self, client: &mut Connection, _: usize, _: u64) -> Result<()> {
        expect(200, client.call(Method::GET, &self.path, Vec::new()).await?)?;
        Ok(())
    }
}

pub(super) fn expect(code: u16, answer: (u16, Bytes)) -> Result<(u16, Bytes)> {
    let text = || String::from_utf8_lossy(&answer.1).into_owned();
    ensure!(answer.0 == code, "expected HTTP {code}, got {}: {}", answer.0, text());
    Ok(answer)
}

/// How many bytes an answer has. They are not kept: that would measure how fast this process finds room for them.
async fn arrived(mut body: hyper::body::Incoming) -> Result<usize> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(bytes)
}

pub(super) fn body(object: &Value) -> Vec<u8> {
    object.to_string().into_bytes()
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"value": "x".repeat(256)}})
}

/// Unschedulable on purpose: the API is measured, not the scheduler.
fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "schedulingGates": [{"name": "coxswain.io/bench"}],
            "containers": [{"name": "main", "image": "example/none:1", "resources": {
                "requests": {"cpu": "10m", "memory": "16Mi"},
            }}],
        },
    })
}

/// Three masters for the occasion, in a directory that goes with them.
pub(super) struct OwnCluster {
    child: Child,
    directory: PathBuf,
}

impl OwnCluster {
    pub(super) async fn start(api_port: u16) -> Result<OwnCluster> {
        let directory = std::env::temp_dir().join(format!("coxswain-bench-{}", std::process::id()));
        OwnCluster::start_in(&directory, api_port, None).await
    }

    /// Master N serves etcd's API at `etcd_port` + N, if there is one.
    pub(super) async fn start_in(
        directory: &Path,
        api_port: u16,
        etcd_port: Option<u16>,
    ) -> Result<OwnCluster> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["dev", "--masters", "3", "--nodes", "0"]);
        command.args(["--api-port", &api_port.to_string()]).arg("--data-dir").arg(directory);
        if let Some(port) = etcd_port {
            command.args(["--etcd-port", &port.to_string()]);
        }
        command.stdout(std::process::Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the masters")?;
        let output = child.stdout.take().context("the masters' output is piped")?;
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(output));
        while let Some(line) = lines.next_line().await? {
            if line.contains("are Ready") {
                // Nobody reads further lines; the pipe has room for the few that come.
                return Ok(OwnCluster { child, directory: directory.to_path_buf() });
            }
        }
        bail!("the masters did not become ready; see {}", directory.display())
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    pub(super) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        }
        self.child.wait().await?;
        let directory = &self.directory;
        std::fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))
    }
}

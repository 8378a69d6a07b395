//! Pods from the API to real containers and back. Needs root; says so loudly where there is none.

#![allow(clippy::unwrap_used, clippy::result_large_err, reason = "a test fails by panicking")]

mod api;

use api::Masters;
use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use node_agent::{Agent, Authorities, Config, images::build_demo_archive, pods::PodNetwork};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest, http::HeaderValue};
use tokio_util::sync::CancellationToken;

/// Bound on every wait.
const PATIENCE: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(20);

fn root_or_skip() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: pods need root; run the tests as root to have them checked");
    }
    root
}

/// Every pod is reached through the node's own loopback: these tests are not about networks.
struct Loopback;

#[async_trait]
impl PodNetwork for Loopback {
    async fn attach(&self, _: &Pod, _: &Path) -> Result<String, String> {
        Ok("127.0.0.1".into())
    }

    async fn detach(&self, _: &Pod) -> Result<(), String> {
        Ok(())
    }

    async fn retain(&self, _: &BTreeSet<String>) -> Result<(), String> {
        Ok(())
    }

    fn address(&self, _: &str) -> Option<String> {
        Some("127.0.0.1".into())
    }

    fn is_ready(&self) -> bool {
        true
    }
}

struct Cluster {
    dir: tempfile::TempDir,
    masters: Arc<Masters>,
    agent: Option<(JoinHandle<anyhow::Result<()>>, CancellationToken)>,
    port: u16,
}

impl Cluster {
    async fn new() -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        build_demo_archive(&dir.path().join("demo.tar")).unwrap();
        // One certificate for all three: the CA, the node's, and the masters' that call it.
        let mut params = rcgen::CertificateParams::new(["localhost".to_string()]).unwrap();
        let caller = "kube-apiserver-kubelet-client";
        params.distinguished_name.push(rcgen::DnType::CommonName, caller);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut cluster = Cluster { dir, masters: Masters::new(), agent: None, port };
        cluster.start();
        cluster
            .until("the node is ready", |cluster| {
                let node = cluster.masters.get("nodes", "", &cluster.node())?;
                let conditions = node["status"]["conditions"].as_array()?.clone();
                let ready = conditions.into_iter().find(|one| one["type"] == "Ready")?;
                (ready["status"] == "True").then_some(())
            })
            .await;
        cluster
    }

    fn node(&self) -> String {
        format!("node-{}", self.port)
    }

    fn start(&mut self) {
        let test = std::env::current_exe().unwrap();
        let program = test.parent().and_then(Path::parent).unwrap().join("examples/agent");
        let path = |name: &str| self.dir.path().join(name);
        let config = Config {
            node_name: self.node(),
            node_ip: "127.0.0.1".parse().unwrap(),
            masters: Vec::new(),
            ca: path("cert.pem"),
            client_cert: path("cert.pem"),
            client_key: path("key.pem"),
            server_cert: path("cert.pem"),
            server_key: path("key.pem"),
            data_dir: path("data"),
            service_cidr: "10.96.0.0/16".into(),
            cluster_cidr: "10.244.0.0/16".into(),
            cluster_dns: "10.96.0.10".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
            lease_renew_interval: Duration::from_secs(1),
            images: vec![path("demo.tar")],
            oci_runtime: std::env::var_os("COXSWAIN_TEST_OCI_RUNTIME").map(PathBuf::from),
            kubelet_port: self.port,
        };
        let authorities = Authorities::open(config.ca.clone()).unwrap();
        let agent = Agent {
            config,
            authorities,
            api: self.masters.clone(),
            network: Arc::new(Loopback),
            registry: prometheus::Registry::new(),
            program: Some(program),
        };
        let shutdown = CancellationToken::new();
        self.agent = Some((tokio::spawn(agent.run(shutdown.clone())), shutdown));
    }

    async fn stop(&mut self) {
        let (task, shutdown) = self.agent.take().unwrap();
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }

    fn run(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!(self.node());
        let meta = json!({"name": name, "namespace": "default", "labels": {"app": name}});
        self.masters.put("pods", json!({"metadata": meta, "spec": spec}));
    }

    fn status(&self, name: &str) -> Option<Value> {
        Some(self.masters.get("pods", "default", name)?["status"].clone())
    }

    async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(&format!("{name} is {phase}"), |cluster| {
            cluster.status(name).filter(|status| status["phase"] == phase)
        })
        .await
    }

    /// Looks until `find` finds; panics with what there is when patience is over.
    async fn until<T>(&self, what: &str, find: impl Fn(&Cluster) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = find(self) {
                    return found;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(found) => found,
            Err(_) => {
                let pods = serde_json::to_string_pretty(&self.masters.all("pods")).unwrap();
                panic!("never: {what}\n{pods}\n{}", self.events().join("\n"));
            }
        }
    }

    fn events(&self) -> Vec<String> {
        let text = |event: &Value| {
            format!("{} {}", event["reason"].as_str().unwrap(), event["message"].as_str().unwrap())
        };
        self.masters.all("events").iter().map(text).collect()
    }

    /// A connection to the kubelet API, with the masters' certificate or without any.
    async fn dial(&self, with_certificate: bool) -> TlsStream<TcpStream> {
        let pem = |name: &str| std::fs::read(self.dir.path().join(name)).unwrap();
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&pem("cert.pem")).collect::<Result<_, _>>().unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = if with_certificate {
            let key = PrivateKeyDer::from_pem_slice(&pem("key.pem")).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        } else {
            config.with_no_client_auth()
        };
        let socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect("localhost".try_into().unwrap(), socket).await.unwrap()
    }

    /// What a command in a container says on each channel of the WebSocket, and the close code.
    async fn exec(&self, path: &str, protocol: &str, sent: &[&[u8]]) -> (Vec<(u8, String)>, u16) {
        let mut request = format!("wss://localhost{path}").into_client_request().unwrap();
        let protocol = HeaderValue::from_str(protocol).unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let stream = self.dial(true).await;
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        for bytes in sent {
            socket.send(Message::binary(bytes.to_vec())).await.unwrap();
        }
        let mut said: Vec<(u8, String)> = Vec::new();
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => {
                    let text = String::from_utf8_lossy(&bytes[1..]).into_owned();
                    match said.iter_mut().find(|(channel, _)| *channel == bytes[0]) {
                        Some((_, all)) => all.push_str(&text),
                        None => said.push((bytes[0], text)),
                    }
                }
                Message::Close(frame) => {
                    said.sort();
                    return (said, frame.unwrap().code.into());
                }
                _ => {}
            }
        }
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = self.dial(true).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        // A peer that closes without saying so in TLS is of no interest here.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    fn log(&self, name: &str, container: &str, attempt: u32) -> String {
        let pod = self.masters.get("pods", "default", name).unwrap();
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let path = format!("data/logs/default_{name}_{uid}/{container}/{attempt}.log");
        let text = std::fs::read_to_string(self.dir.path().join(path)).unwrap_or_default();
        text.lines().map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap())).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((task, _)) = &self.agent {
            task.abort();
        }
        if let Err(error) = node_agent::sweep(&self.dir.path().join("data"), &self.node()) {
            eprintln!("sweep: {error}");
        }
    }
}

fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "coxswain.local/demo:1", "command": ["sh", "-c", script]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_init_containers_volumes_and_variables_completes() {
    if !root_or_skip() {
        return;
    }
    let cluster = Cluster::new().await;
    let meta = |name: &str| json!({"name": name, "namespace": "default"});
    cluster.masters.put("configmaps", json!({"metadata": meta("conf"), "data": {"a": "map"}}));
    cluster.masters.put("secrets", json!({"metadata": meta("key"), "data": {"k": "czNjcmV0"}}));
    let mut init = container("init", "echo from-init > /share/file");
    init["volumeMounts"] = json!([{"name": "share", "mountPath": "/share"}]);
    let script = "cat /share/file /conf/a /key/k; echo; echo $COLOUR-$NAME-$(hostname); id -u; \
                  touch /conf/x 2>/dev/null || echo read-only; grep localhost /etc/hosts | head -1";
    let mut main = container("main", script);
    main["volumeMounts"] = json!([
        {"name": "share", "mountPath": "/share"},
        {"name": "conf", "mountPath": "/conf"},
        {"name": "key", "mountPath": "/key"},
    ]);
    main["env"] = json!([
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "a"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]);
    cluster.run(
        "job",
        json!({
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
            "initContainers": [init],
            "containers": [main],
            "volumes": [
                {"name": "share", "emptyDir": {}},
                {"name": "conf", "configMap": {"name": "conf"}},
                {"name": "key", "secret": {"secretName": "key"}},
            ],
        }),
    );
    let status = cluster.phase("job", "Succeeded").await;
    let expected = "from-init\nmaps3cret\nmap-job-job\n1000\nread-only\n127.0.0.1\tlocalhost\n";
    assert_eq!(cluster.log("job", "main", 0), expected);
    let state = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (state["exitCode"].as_i64(), state["reason"].as_str()),
        (Some(0), Some("Completed"))
    );
    assert_eq!(status["initContainerStatuses"][0]["ready"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashing_container_is_restarted_and_backed_off() {
    if !root_or_skip() {
        return;
    }
    let cluster = Cluster::new().await;
    cluster.run("crash", json!({"containers": [container("app", "echo no; exit 3")]}));
    let status = cluster
        .until("it backs off", |cluster| {
            let status = cluster.status("crash")?;
            let reason = &status["containerStatuses"][0]["state"]["waiting"]["reason"];
            (reason == "CrashLoopBackOff").then_some(status)
        })
        .await;
    let container = &status["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(status["phase"], "Running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_ends_gracefully_and_its_object_goes() {
    if !root_or_skip() {
        return;
    }
    let cluster = Cluster::new().await;
    let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    cluster.run("web", json!({"containers": [container("app", script)]}));
    let status = cluster.phase("web", "Running").await;
    assert_eq!(status["podIP"], "127.0.0.1");
    cluster
        .until("it logs", |cluster| cluster.log("web", "app", 0).contains("up").then_some(()))
        .await;
    cluster.masters.delete_gracefully("web", 30);
    cluster.until("the object goes", |cluster| cluster.status("web").is_none().then_some(())).await;
    let pods = std::fs::read_dir(cluster.dir.path().join("data/pods")).unwrap().count();
    assert_eq!(pods, 0, "nothing of the pod is left");
    let events = cluster.events().join("\n");
    for wanted in ["Pulled Container image", "Created", "Started", "Killing Stopping container app"]
    {
        assert!(events.contains(wanted), "{wanted:?} is not in {events}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_readiness_and_restarts() {
    if !root_or_skip() {
        return;
    }
    let cluster = Cluster::new().await;
    let mut ready = container("ready", "sleep 0.5; touch /ok; exec sleep 1000");
    ready["readinessProbe"] =
        json!({"exec": {"command": ["cat", "/ok"]}, "periodSeconds": 1, "failureThreshold": 1});
    let mut sick = container("sick", "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    sick["livenessProbe"] =
        json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1});
    cluster.run("probed", json!({"containers": [ready, sick]}));
    cluster
        .until("one is ready and one restarted", |cluster| {
            let status = cluster.status("probed")?;
            let all = status["containerStatuses"].as_array()?.clone();
            let good = all[0]["ready"] == true && all[0]["restartCount"] == 0;
            (good && all[1]["restartCount"].as_i64()? > 0).then_some(())
        })
        .await;
    let events = cluster.events().join("\n");
    let wanted = "Killing Container sick failed liveness probe, will be restarted";
    assert!(events.contains(wanted), "{events}");
    assert!(events.contains("Unhealthy Readiness probe failed"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_restart_changes_nothing_for_its_pods() {
    if !root_or_skip() {
        return;
    }
    let mut cluster = Cluster::new().await;
    let script = "echo up; exec sleep 1000";
    for name in ["stays", "orphan"] {
        cluster.run(name, json!({"containers": [container("app", script)]}));
        cluster.phase(name, "Running").await;
    }
    let id = |cluster: &Cluster| {
        cluster.status("stays").unwrap()["containerStatuses"][0]["containerID"].clone()
    };
    let before = id(&cluster);
    cluster.stop().await;
    cluster.masters.forget("orphan");
    cluster.start();
    let pods = cluster.dir.path().join("data/pods");
    cluster
        .until("the orphan is killed", |_| {
            (std::fs::read_dir(&pods).unwrap().count() == 1).then_some(())
        })
        .await;
    let status = cluster.phase("stays", "Running").await;
    assert_eq!(id(&cluster), before);
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configmap_changes_in_a_running_pod_and_a_missing_one_is_waited_for() {
    if !root_or_skip() {
        return;
    }
    let cluster = Cluster::new().await;
    let script = "while :; do cat /conf/a; sleep 0.2; done";
    let mut main = container("app", script);
    main["volumeMounts"] = json!([{"name": "conf", "mountPath": "/conf"}]);
    let volumes = json!([{"name": "conf", "configMap": {"name": "late"}}]);
    cluster.run("conf", json!({"containers": [main], "volumes": volumes}));
    cluster
        .until("the mount fails", |cluster| {
            cluster.events().iter().any(|e| e.starts_with("FailedMount")).then_some(())
        })
        .await;
    let map = |text: &str| {
        let meta = json!({"name": "late", "namespace": "default"});
        json!({"metadata": meta, "data": {"a": format!("{text}\n")}})
    };
    cluster.masters.put("configmaps", map("old"));
    let shows = |text: &'static str| {
        move |cluster: &Cluster| cluster.log("conf", "app", 0).contains(text).then_some(())
    };
    cluster.until("it shows the old", shows("old")).await;
    cluster.masters.put("configmaps", map("new"));
    cluster.until("it shows the new", shows("new")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_read_logs_and_run_commands() {
    if !root_or_skip() {
        return;
    }
    let cluster = Cluster::new().await;
    cluster.run("web", json!({"containers": [container("app", "echo hello; exec sleep 1000")]}));
    cluster.phase("web", "Running").await;
    let path = "/exec/default/web/app?command=sh&command=-c&input=1&output=1&error=1&command=";
    let script = "read%20x;echo%20got=$x;echo%20oops%3E%262;exit%2042";
    let (said, code) = cluster
        .exec(&format!("{path}{script}"), "v5.channel.k8s.io", &[b"\x00hello\n", b"\xff\x00"])
        .await;
    assert_eq!(said[0], (1, "got=hello\n".to_string()));
    assert_eq!(said[1], (2, "oops\n".to_string()));
    let status: Value = serde_json::from_str(&said[2].1).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0]["message"], "42");
    assert_eq!(code, 1000);

    let tty = "/exec/default/web/app?command=sh&input=1&output=1&tty=1";
    let typed: [&[u8]; 2] = [b"\x04{\"Width\":77,\"Height\":11}", b"\x00stty size; exit\n"];
    let (said, _) = cluster.exec(tty, "v4.channel.k8s.io", &typed).await;
    assert!(said[0].1.contains("11 77"), "{said:?}");
    assert_eq!(serde_json::from_str::<Value>(&said[1].1).unwrap()["status"], "Success");

    cluster
        .until("it logs", |cluster| cluster.log("web", "app", 0).contains("hello").then_some(()))
        .await;
    let answer = cluster.get("/containerLogs/default/web/app?tailLines=1").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("hello\n"), "{answer}");
    let answer = cluster.get("/containerLogs/default/web/app?previous=true").await;
    let text = "previous terminated container \"app\" in pod \"web\" not found";
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(text), "{answer}");
    let answer = cluster.get("/metrics").await;
    assert!(answer.contains("kubelet_running_pods 1"), "{answer}");
    let answer = cluster.get("/stats/summary").await;
    assert!(answer.contains("workingSetBytes"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_heard_without_a_certificate() {
    if !root_or_skip() {
        return;
    }
    let cluster = Cluster::new().await;
    let mut stream = cluster.dial(false).await;
    let mut byte = [0];
    let _ = stream.write_all(b"GET /pods HTTP/1.1\r\nHost: n\r\n\r\n").await;
    assert!(!matches!(stream.read(&mut byte).await, Ok(1)), "an answer came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_and_a_lack_of_memory_end_a_pod() {
    if !root_or_skip() {
        return;
    }
    let cluster = Cluster::new().await;
    let mut absent = container("app", "");
    absent["command"] = json!(["nope"]);
    cluster.run("absent", json!({"restartPolicy": "Never", "containers": [absent]}));
    let mut greedy = container("app", "x=a; while :; do x=$x$x$x; done");
    greedy["resources"] = json!({"limits": {"memory": "16Mi"}});
    cluster.run("greedy", json!({"restartPolicy": "Never", "containers": [greedy]}));
    let ended = |status: Value| status["containerStatuses"][0]["state"]["terminated"].clone();
    let absent = ended(cluster.phase("absent", "Failed").await);
    assert_eq!((&absent["reason"], &absent["exitCode"]), (&json!("StartError"), &json!(128)));
    let text = absent["message"].as_str().unwrap();
    assert!(text.contains("executable file not found in $PATH"), "{text}");
    cluster.phase("greedy", "Failed").await;
    let pods = cluster.dir.path().join("data/pods");
    cluster
        .until("both are taken down", |_| {
            (std::fs::read_dir(&pods).unwrap().count() == 0).then_some(())
        })
        .await;
    let greedy = ended(cluster.status("greedy").unwrap());
    assert_eq!((&greedy["reason"], &greedy["exitCode"]), (&json!("OOMKilled"), &json!(137)));
}

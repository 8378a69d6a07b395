//! Real containers through real shims. Needs root; says so loudly where there is none.

#![allow(clippy::unwrap_used, clippy::result_large_err, reason = "a test fails by panicking")]

use node_agent::{
    images::{Images, build_demo_archive},
    runtime::{
        ContainerSpec, Embedded, Error, ExecSpec, Resources, Runtime, SandboxSpec, Settings, State,
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bound on every wait for a container.
const PATIENCE: Duration = Duration::from_secs(20);

/// A runtime in a directory of its own, swept when dropped.
struct Machine {
    dir: tempfile::TempDir,
    images: Arc<Images>,
    runtime: Embedded,
}

fn root_or_skip() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: containers need root; run the tests as root to have them checked");
    }
    root
}

/// Built beside the tests by cargo.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples/agent");
    assert!(program.exists(), "{} is missing: cargo builds it with the tests", program.display());
    program
}

impl Machine {
    fn new() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("demo.tar");
        build_demo_archive(&archive).unwrap();
        let images = Arc::new(Images::open(dir.path().join("images")).unwrap());
        images.import(&archive).unwrap();
        let runtime = Embedded::new(settings(dir.path())).unwrap();
        Machine { dir, images, runtime }
    }

    async fn sandbox(&self, uid: &str) {
        let spec = SandboxSpec {
            uid: uid.into(),
            namespace: "default".into(),
            name: uid.into(),
            hostname: format!("{uid}-host"),
            ..SandboxSpec::default()
        };
        self.runtime.run_sandbox(&spec).await.unwrap();
    }

    fn spec(&self, name: &str, script: &str) -> ContainerSpec {
        let image = self.images.get("coxswain.local/demo:1").unwrap().unwrap();
        ContainerSpec {
            id: format!("{name}-{}", std::process::id()),
            name: name.into(),
            image: "coxswain.local/demo:1".into(),
            image_id: image.id,
            layers: image.layers,
            args: vec!["sh".into(), "-c".into(), script.into()],
            log: self.dir.path().join(format!("logs/{name}.log")),
            resources: Resources {
                cpu_shares: 102,
                memory_bytes: Some(64 << 20),
                ..Resources::default()
            },
            ..ContainerSpec::default()
        }
    }

    async fn run(&self, uid: &str, spec: &ContainerSpec) {
        self.runtime.create(uid, spec).await.unwrap();
        self.runtime.start(uid, &spec.id).await.unwrap();
    }

    fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.dir.path().join(format!("logs/{name}.log")));
        let text = text.unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_string() + "\n").collect()
    }
}

fn settings(dir: &Path) -> Settings {
    Settings {
        data_dir: dir.to_path_buf(),
        cgroup_parent: format!("/coxswain-test/{}", dir.file_name().unwrap().to_str().unwrap()),
        program: Some(program()),
        oci_runtime: None,
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = Embedded::sweep(settings(self.dir.path())) {
            eprintln!("sweep: {error}");
        }
    }
}

/// The container's final state, waiting on the runtime's hints.
async fn ended(runtime: &Embedded, uid: &str, id: &str) -> State {
    let mut changes = runtime.changes();
    let wait = async {
        loop {
            let status = runtime.sandbox(uid).await.unwrap();
            let found = status.containers.iter().find(|container| container.id == id).unwrap();
            if matches!(found.state, State::Exited { .. }) {
                return found.state.clone();
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), changes.recv()).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the container ends")
}

fn code(state: &State) -> (i32, bool) {
    match state {
        State::Exited { code, oom_killed, .. } => (*code, *oom_killed),
        other => panic!("{other:?}"),
    }
}

async fn output(runtime: &Embedded, id: &str, command: &[&str], tty: bool) -> (i32, String) {
    let spec = ExecSpec {
        command: command.iter().map(ToString::to_string).collect(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    let mut session = runtime.exec("pod", id, &spec).await.unwrap();
    let mut text = String::new();
    session.stdin.take().unwrap().write_all(b"hello\n").await.unwrap();
    session.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    if let Some(mut stderr) = session.stderr.take() {
        stderr.read_to_string(&mut text).await.unwrap();
    }
    (session.exited.take().unwrap().wait().await.unwrap(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_logs_and_ends() {
    if !root_or_skip() {
        return;
    }
    let machine = Machine::new();
    machine.sandbox("pod").await;
    let script = "hostname; echo err >&2; cat /sys/fs/cgroup/memory/memory.limit_in_bytes \
                  /sys/fs/cgroup/memory.max 2>/dev/null; printf end; exit 7";
    let spec = machine.spec("app", script);
    machine.run("pod", &spec).await;
    let state = ended(&machine.runtime, "pod", &spec.id).await;
    assert_eq!(code(&state), (7, false));
    let log = machine.log("app");
    for line in ["stdout F pod-host\n", "stderr F err\n", "stdout F 67108864\n", "stdout P end\n"] {
        assert!(log.contains(line), "{line:?} is not in {log}");
    }
    machine.runtime.remove("pod", &spec.id).await.unwrap();
    machine.runtime.remove_sandbox("pod").await.unwrap();
    assert!(matches!(machine.runtime.sandbox("pod").await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_and_a_lack_of_memory_are_told_apart() {
    if !root_or_skip() {
        return;
    }
    let machine = Machine::new();
    machine.sandbox("pod").await;
    let trapped = machine.spec("trap", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done");
    machine.run("pod", &trapped).await;
    while !machine.log("trap").contains("up") {
        tokio::task::yield_now().await;
    }
    machine.runtime.signal("pod", &trapped.id, libc::SIGTERM).await.unwrap();
    assert_eq!(code(&ended(&machine.runtime, "pod", &trapped.id).await), (3, false));

    let mut greedy = machine.spec("greedy", "x=a; while :; do x=$x$x$x; done");
    greedy.resources.memory_bytes = Some(16 << 20);
    machine.run("pod", &greedy).await;
    assert_eq!(code(&ended(&machine.runtime, "pod", &greedy.id).await), (137, true));

    let mut absent = machine.spec("absent", "");
    absent.args = vec!["/no/such/program".into()];
    let error = machine.runtime.create("pod", &absent).await.unwrap_err();
    assert!(error.to_string().contains("no such file or directory"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_inside_with_pipes_and_terminals() {
    if !root_or_skip() {
        return;
    }
    let machine = Machine::new();
    machine.sandbox("pod").await;
    let spec = machine.spec("app", "exec sleep 1000");
    machine.run("pod", &spec).await;
    let script = "read x; echo got=$x; echo oops >&2; exit 42";
    let (code, text) = output(&machine.runtime, &spec.id, &["sh", "-c", script], false).await;
    assert_eq!((code, text.as_str()), (42, "got=hello\noops\n"));
    let script = "read x; tty; exit 5";
    let (code, text) = output(&machine.runtime, &spec.id, &["sh", "-c", script], true).await;
    assert_eq!(code, 5);
    assert!(text.contains("/dev/pts/"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_agent() {
    if !root_or_skip() {
        return;
    }
    let mut machine = Machine::new();
    machine.sandbox("pod").await;
    let lives = machine.spec("lives", "exec sleep 1000");
    let ends = machine.spec("ends", "read x; exit 9");
    machine.run("pod", &lives).await;
    machine.run("pod", &ends).await;
    machine.runtime = Embedded::new(settings(machine.dir.path())).unwrap();
    let found = machine.runtime.sandboxes().await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].ready);
    assert_eq!(code(&ended(&machine.runtime, "pod", &ends.id).await).0, 9);
    let status = machine.runtime.sandbox("pod").await.unwrap();
    let state = &status.containers.iter().find(|found| found.name == "lives").unwrap().state;
    assert!(state.is_running(), "{state:?}");
    machine.runtime.signal("pod", &lives.id, libc::SIGKILL).await.unwrap();
    assert_eq!(code(&ended(&machine.runtime, "pod", &lives.id).await), (137, false));
}

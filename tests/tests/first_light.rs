//! The README's walk through a cluster, with the real `kubectl`, real containers and real deaths.

use std::{
    fs,
    io::{BufRead as _, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::Instant,
};
use tests::{
    Cluster,
    cluster::{is_root, kubectl, signal},
};

const HELLO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/hello.yaml");

/// One cluster for all chapters: starting one takes seconds, and users do all this on one.
#[test]
fn a_user_follows_the_readme() {
    if !is_root() || Command::new(kubectl()).arg("version").output().is_err() {
        eprintln!("SKIPPED: needs root (containers) and kubectl");
        return;
    }
    let cluster = Cluster::start(3, 2);
    eprintln!("{}", cluster.output.join("\n"));
    deploy(&cluster);
    look_inside(&cluster);
    reach_into(&cluster);
    converse(&cluster);
    call_from_inside(&cluster);
    change(&cluster);
    ask(&cluster);
    reach_the_service(&cluster);
    lose_the_leader(&cluster);
    lose_a_node(&cluster);
    clean_up(&cluster);
}

fn deploy(cluster: &Cluster) {
    cluster.kubectl(&format!("apply -f {HELLO}"));
    cluster.kubectl("rollout status deployment/hello --timeout=60s");
    let wide = cluster.kubectl("get pods -o wide");
    assert_eq!(wide.matches("1/1").count(), 3, "{wide}");
    assert!(wide.contains("n1") && wide.contains("n2"), "spread over both nodes:\n{wide}");
    let again = cluster.kubectl(&format!("apply -f {HELLO}"));
    // The Secret is "configured": kubectl sees its stringData missing each time, as upstream.
    assert_eq!(again.matches("unchanged").count(), 3, "{again}");
}

fn look_inside(cluster: &Cluster) {
    let pods = cluster.kubectl("get pods -l app=hello -o name");
    let pod = pods.lines().next().expect("a pod");
    cluster.eventually("the container's first line", || {
        let logs = cluster.kubectl(&format!("logs {pod}"));
        logs.contains("token of 17 characters").then_some(()).ok_or(logs)
    });
    let words = ["exec", "-i", pod, "--", "sh", "-c", "read line; echo heard $line; exit 3"];
    let output = cluster.try_kubectl(&words, "you\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "heard you\n");
    assert_eq!(output.status.code(), Some(3), "the exit code of the process inside");
    let page = cluster.kubectl(&format!("exec {pod} -- cat /srv/www/index.html"));
    assert_eq!(page, "Hello from Coxswain.\n");
    let described = cluster.kubectl(&format!("describe {pod}"));
    for expected in ["Scheduled", "Started", "QoS Class", "Ready"] {
        assert!(described.contains(expected), "no {expected} in:\n{described}");
    }
}

/// Forwarded ports, proxies, copies, a debugging container, and what all of it uses.
fn reach_into(cluster: &Cluster) {
    let pods = cluster.kubectl("get pods -l app=hello -o name");
    let pod = pods.lines().next().and_then(|pod| pod.strip_prefix("pod/")).expect("a pod");
    let (mut forward, mut said) = cluster.spawn_kubectl(&["port-forward", pod, ":8080"]);
    let mut line = String::new();
    said.read_line(&mut line).expect("kubectl says where");
    let port = line.split([':', ' ']).find_map(|word| word.parse::<u16>().ok());
    let port = port.unwrap_or_else(|| panic!("no port in {line:?}\n{}", cluster.logs()));
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("forwarded");
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").expect("asked");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("answered");
        assert!(page.ends_with("Hello from Coxswain.\n"), "{page}\n{}", cluster.logs());
    }
    forward.kill().expect("killed");
    forward.wait().expect("ended");
    for proxy in [format!("pods/{pod}:8080"), "services/hello:80".to_string()] {
        let path = format!("/api/v1/namespaces/default/{proxy}/proxy/index.html");
        assert_eq!(cluster.kubectl(&format!("get --raw {path}")), "Hello from Coxswain.\n");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("page");
    cluster.kubectl(&format!("cp {pod}:/srv/www/..data/index.html {}", copy.display()));
    assert_eq!(fs::read_to_string(&copy).expect("copied"), "Hello from Coxswain.\n");
    let look = ["debug", pod, "--image=coxswain.local/demo:1", "--target=web", "-c", "look", "--"];
    let look = [&look[..], &["sh", "-c", "ps | grep -c httpd; wget -qO- localhost:8080"]].concat();
    cluster.kubectl_with(&look, "");
    cluster.eventually("the debugging container's words", || {
        let words = cluster.try_kubectl(&["logs", pod, "-c", "look"], "");
        let words = String::from_utf8_lossy(&words.stdout).into_owned();
        words.ends_with("Hello from Coxswain.\n").then_some(()).ok_or(words)
    });
    cluster.eventually("what nodes and pods use", || {
        let (nodes, pods) = (["top", "nodes"], ["top", "pods", "-l", "app=hello", "--containers"]);
        let top = [cluster.try_kubectl(&nodes, ""), cluster.try_kubectl(&pods, "")];
        let text: String =
            top.iter().map(|one| String::from_utf8_lossy(&one.stdout).into_owned()).collect();
        let both = text.contains("n1 ") && text.contains("web");
        both.then_some(()).ok_or(text)
    });
}

const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: coxswain.local/demo:1
    stdin: true
    command: ["sh", "-c", "echo begun; read line; echo heard $line; read line; exit 3"]
"#;

/// Attached, followed and looked back at; and what `kubectl run` and `debug` make of it.
fn converse(cluster: &Cluster) {
    cluster.kubectl_with(&["apply", "-f", "-"], TALKER);
    cluster.kubectl("wait --for=condition=Ready pod/talker --timeout=60s");
    let output = cluster.try_kubectl(&["logs", "talker", "--previous"], "");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = r#"previous terminated container "main" in pod "talker" not found"#;
    assert!(error.contains(expected), "{error}");
    let (mut following, mut log) = cluster.spawn_kubectl(&["logs", "-f", "talker"]);
    let mut line = String::new();
    log.read_line(&mut line).expect("a line");
    assert_eq!(line, "begun\n");
    cluster.try_kubectl(&["attach", "-i", "talker"], "you\nagain\n");
    let mut rest = String::new();
    // Ends with the container.
    log.read_to_string(&mut rest).expect("the rest of the log");
    assert_eq!(rest, "heard you\n");
    following.wait().expect("ended");
    cluster.eventually("the log of the container before", || {
        let output = cluster.try_kubectl(&["logs", "talker", "--previous"], "");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text == "begun\nheard you\n").then_some(()).ok_or(text)
    });
    cluster.kubectl("delete pod talker --now");
    let words = ["run", "once", "-i", "--rm", "--restart=Never", "--image=coxswain.local/demo:1"];
    let words = [&words[..], &["--command", "--", "sh", "-c", "cat; exit 4"]].concat();
    let output = cluster.try_kubectl(&words, "to and fro\n");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("to and fro\n") && said.contains("deleted"), "{said}");
    assert_eq!(output.status.code(), Some(4), "of the process inside");
    let words =
        ["debug", "node/n1", "--image=coxswain.local/demo:1", "--", "test", "-d", "/host/etc"];
    let made = cluster.kubectl_with(&words, "");
    let pod = made.split(' ').find(|word| word.starts_with("node-debugger")).expect("a name");
    cluster.kubectl(&format!("wait --for=jsonpath={{.status.phase}}=Succeeded pod/{pod}"));
    cluster.kubectl(&format!("delete pod {pod}"));
}

/// A program in a pod calls the API with what the pod was given: the kubectl of this test, if it
/// needs no libraries, which the image does not have.
fn call_from_inside(cluster: &Cluster) {
    let Some(program) = static_kubectl() else {
        eprintln!("SKIPPED: calls from inside a pod need a kubectl without shared libraries");
        return;
    };
    // Not all in braces: older kubectl takes that for JSON.
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: inside}}\nspec: {{
           terminationGracePeriodSeconds: 0,
           volumes: [{{name: kubectl, hostPath: {{path: {program:?}, type: File}}}}],
           containers: [{{name: main, image: coxswain.local/demo:1, command: [sleep, '1000'],
                          volumeMounts: [{{name: kubectl, mountPath: /kubectl}}]}}]}}"
    );
    cluster.kubectl_with(&["apply", "-f", "-"], &pod);
    cluster.kubectl("wait --for=condition=Ready pod/inside --timeout=60s");
    let get = ["exec", "inside", "--", "/kubectl", "get", "pods", "-o", "name"];
    let refused = cluster.try_kubectl(&get, "");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    let expected = "User \"system:serviceaccount:default:default\" cannot list resource \"pods\"";
    assert!(error.contains(expected), "{error}");
    cluster
        .kubectl("create rolebinding inside --clusterrole=view --serviceaccount=default:default");
    assert!(cluster.kubectl_with(&get, "").contains("pod/inside\n"));
    let who = cluster.kubectl("exec inside -- /kubectl auth whoami");
    assert!(who.contains("authentication.kubernetes.io/pod-name"), "{who}");
    cluster.kubectl("delete pod/inside rolebinding/inside --wait=false");
}

/// The path of this test's kubectl, if it is one file that needs no other: no program interpreter.
fn static_kubectl() -> Option<PathBuf> {
    let named = kubectl();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&path).map(|directory| directory.join(&named));
    let file =
        candidates.filter_map(|path| path.canonicalize().ok()).find(|path| path.is_file())?;
    let mut head = Vec::new();
    fs::File::open(&file).ok()?.take(4096).read_to_end(&mut head).ok()?;
    let is_elf = head.starts_with(b"\x7fELF");
    (is_elf && !head.windows(4).any(|four| four == b"/ld-")).then_some(file)
}

fn change(cluster: &Cluster) {
    cluster.kubectl("scale deployment/hello --replicas=4");
    cluster.kubectl("rollout status deployment/hello --timeout=60s");
    cluster.kubectl("set image deployment/hello web=coxswain.local/demo:2");
    cluster.kubectl("rollout status deployment/hello --timeout=120s");
    let image = "get deployment hello -o jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(cluster.kubectl(image), "coxswain.local/demo:2");
    cluster.kubectl("rollout undo deployment/hello");
    cluster.kubectl("rollout status deployment/hello --timeout=120s");
    assert_eq!(cluster.kubectl(image), "coxswain.local/demo:1");
    cluster.kubectl("label deployment/hello tier=front");
    cluster.kubectl("annotate deployment/hello note=kept");
    let patch = r#"{"spec":{"template":{"metadata":{"annotations":{"edited":"yes"}}}}}"#;
    cluster.kubectl_with(&["patch", "deployment/hello", "-p", patch], "");
    cluster.kubectl("rollout status deployment/hello --timeout=120s");
    let found = cluster.kubectl("get deployments -l tier=front -o name");
    assert_eq!(found, "deployment.apps/hello\n");
}

fn ask(cluster: &Cluster) {
    let resources = cluster.kubectl("api-resources");
    for expected in ["deployments", "configmaps", "cronjobs", "storageclasses"] {
        assert!(resources.contains(expected), "no {expected} in:\n{resources}");
    }
    let all = cluster.kubectl("get all -A");
    for expected in ["pod/hello-", "service/hello", "deployment.apps/hello", "replicaset.apps/"] {
        assert!(all.contains(expected), "no {expected} in:\n{all}");
    }
    let rights = cluster.kubectl("auth can-i --list");
    assert!(rights.contains("*.*"), "{rights}");
    let words = ["auth", "can-i", "list", "pods", "--as", "nobody"];
    let denied = cluster.try_kubectl(&words, "");
    assert_eq!(String::from_utf8_lossy(&denied.stdout).trim(), "no");
    let refused =
        cluster.try_kubectl(&["apply", "-f", "-"], "kind: Pod\napiVersion: v1\nspce: {}\n");
    assert!(!refused.status.success());
}

/// By name through cluster DNS and the service's address, from a pod of each node.
fn reach_the_service(cluster: &Cluster) {
    let template = "{{range .items}}{{.metadata.name}} {{.spec.nodeName}}\n{{end}}";
    let words = ["get", "pods", "-l", "app=hello", "-o", &format!("go-template={template}")];
    let list = cluster.kubectl_with(&words, "");
    for node in ["n1", "n2"] {
        let line = list.lines().find(|line| line.ends_with(node));
        let pod = line.and_then(|line| line.split(' ').next()).expect("a pod on each node");
        cluster.eventually("the service to answer by its name", || {
            let url = "http://hello.default.svc.cluster.local/index.html";
            let output = cluster.try_kubectl(&["exec", pod, "--", "wget", "-q", "-O-", url], "");
            let page = String::from_utf8_lossy(&output.stdout).into_owned();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            (page == "Hello from Coxswain.\n").then_some(()).ok_or(page + &error)
        });
    }
}

fn lose_the_leader(cluster: &Cluster) {
    let (name, pid) = cluster.leader();
    let killed = Instant::now();
    signal(pid, "KILL");
    cluster.eventually("a write after the leader's death", || {
        let output = cluster.try_kubectl(&["scale", "deployment/hello", "--replicas=5"], "");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(error)
    });
    eprintln!("{name} killed; a kubectl write succeeded {:?} later", killed.elapsed());
    cluster.kubectl("rollout status deployment/hello --timeout=60s");
    cluster.eventually("the killed master to be back", || {
        let members = cluster.members();
        let back = members.iter().filter(|member| member["reachable"] == true).count() == 3;
        back.then_some(()).ok_or(format!("{members:?}"))
    });
}

fn lose_a_node(cluster: &Cluster) {
    signal(cluster.machine_pid("n2"), "KILL");
    let killed = Instant::now();
    cluster.eventually("five ready pods on the other node", || {
        let words = "get pods -l app=hello -o wide --no-headers";
        let list = cluster.kubectl(words);
        let ready = |line: &&str| line.contains("1/1") && line.contains("n1");
        (list.lines().filter(ready).count() == 5).then_some(()).ok_or(list)
    });
    eprintln!("n2 lost its power; its pods were replaced {:?} later", killed.elapsed());
}

fn clean_up(cluster: &Cluster) {
    cluster.kubectl(&format!("delete -f {HELLO} --wait=false"));
    cluster.eventually("the deployment's pods on the living node to be gone", || {
        let list = cluster.kubectl("get pods -o wide --no-headers");
        (!list.contains("n1")).then_some(()).ok_or(list)
    });
}

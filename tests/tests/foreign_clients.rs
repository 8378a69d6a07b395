//! Clients that this project did not write, unmodified, against a real cluster: the Python and the
//! Node.js client, client-go, and Helm. `scripts/clients.sh` fetches them; `make test` calls it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tests::{
    Cluster,
    cluster::{clients, is_root},
};

const FLOWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// One cluster for all of them, as in life.
#[test]
fn they_work_without_noticing() {
    let clients = clients();
    if !is_root() || !clients.join("bin/helm").exists() {
        eprintln!("SKIPPED: needs root (containers) and the clients of scripts/clients.sh");
        return;
    }
    let cluster = Cluster::start(3, 2);
    let python =
        run(&cluster, Command::new(clients.join("python/bin/python")).arg(flow("python/flow.py")));
    assert_eq!(python.matches("ok ").count(), 7, "{python}");
    // Modules are looked for beside the program, so it is run from where they are.
    let node = clients.join("node/flow.mjs");
    std::fs::copy(flow("node/flow.mjs"), &node).expect("copied beside its modules");
    let said = run(&cluster, Command::new("node").arg(node));
    assert_eq!(said.matches("ok ").count(), 6, "{said}");
    let go = clients.join("bin/go-flow");
    if go.exists() {
        let said = run(&cluster, &mut Command::new(go));
        assert_eq!(said.matches("ok ").count(), 4, "{said}");
    } else {
        eprintln!("SKIPPED client-go: this machine's distribution carries none that is recent");
    }
    helm(&cluster, &clients.join("bin/helm"));
}

/// A chart's life: install, upgrade, test, roll back, uninstall.
fn helm(cluster: &Cluster, helm: &Path) {
    let chart = flow("chart");
    let helm = |words: &str| {
        run(cluster, Command::new(helm).args(words.split(' ')).arg("--namespace=harbour"))
    };
    let chart = chart.display();
    helm(&format!("install quay {chart} --create-namespace --wait --timeout 60s"));
    let buoys = cluster.kubectl("get by -n harbour --no-headers");
    assert!(buoys.contains("quay") && buoys.contains("green"), "{buoys}");
    helm(&format!("upgrade quay {chart} --set greeting=ahoy,replicas=3 --wait --timeout 60s"));
    let tested = helm("test quay --timeout 60s --logs");
    assert!(tested.contains("ahoy from release 2"), "{tested}");
    helm("rollback quay 1 --wait --timeout 60s");
    let history = helm("history quay");
    assert_eq!(history.matches("superseded").count(), 2, "{history}");
    let replicas = "get deployment quay -n harbour -o jsonpath={.spec.replicas}";
    assert_eq!(cluster.kubectl(replicas), "2");
    helm("uninstall quay --wait --timeout 60s");
    let left = cluster.kubectl("get all,cm,secrets,by -n harbour -o name");
    let left: Vec<&str> = left.lines().filter(|line| line.contains("quay")).collect();
    assert_eq!(left, ["pod/quay-test"], "Helm leaves what its hooks made");
}

fn run(cluster: &Cluster, command: &mut Command) -> String {
    let output = command.env("KUBECONFIG", cluster.kubeconfig()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{said}\n{error}\n{}", cluster.logs());
    said
}

fn flow(name: &str) -> PathBuf {
    Path::new(FLOWS).join(name)
}

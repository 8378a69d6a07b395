//! `coxswain chaos` against real masters: a leader is killed, everything holds, and the report says so;
//! what cannot be run is told apart from what is broken.

use super::members::coxswain;
use crate::load::MASTERS;
use std::fs;
use tests::Cluster;

/// Runs a scenario, in which all checks must hold; what it said.
fn holds(cluster: &Cluster, words: &str) -> String {
    let output = coxswain(cluster, words).output().expect("the binary runs");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{errors}\n{}", cluster.logs());
    for check in ["linearizable", "counter", "watches", "writes go on", "masters come back"] {
        let holds = said.lines().any(|it| it.starts_with("holds") && it.contains(check));
        assert!(holds, "{check}:\n{said}");
    }
    eprintln!("{}", said.lines().find(|it| it.contains("failovers")).unwrap_or_default());
    said.into_owned()
}

#[test]
fn the_leader_is_killed_on_purpose_and_everything_holds() {
    let cluster = Cluster::start(MASTERS as u8, 0);
    let directory = tempfile::tempdir().expect("a directory for the report");
    let report = directory.path().join("report.html");
    let words = "chaos run leader-kill --duration 20s --seed 7 --report";
    let before: Vec<_> = cluster.members().iter().map(|it| it["pid"].clone()).collect();
    let said = holds(&cluster, &format!("{words} {}", report.display()));
    for left_out in ["not run: binding (no node is ready", "not run: rolling-update"] {
        assert!(said.contains(left_out), "{left_out}:\n{said}");
    }
    let after: Vec<_> = cluster.members().iter().map(|it| it["pid"].clone()).collect();
    assert_ne!(before, after, "a master was killed, and is there again");
    let html = fs::read_to_string(&report).expect("the report");
    assert!(html.contains("All checks hold.") && html.contains("--duration 20s --seed 7"));
    assert!(html.contains("Not run: binding (no node is ready"));

    // The cluster is left as it was: the run's namespace goes.
    cluster.eventually("the namespace of the run to be gone", || {
        let names = cluster.kubectl("get namespaces -o name");
        (!names.contains("chaos-")).then_some(()).ok_or(names)
    });
    let mut dry = coxswain(&cluster, "chaos run leader-pause --dry-run");
    let output = dry.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("pause the leader for 4.0s"), "{said}");
    let mut nowhere = coxswain(&cluster, "chaos run nothing-of-that-name");
    assert_eq!(nowhere.output().expect("the binary runs").status.code(), Some(2));

    // All these masters are in the machine's own network: nothing in it is cut.
    let output = coxswain(&cluster, "chaos run leader-partition --yes").output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("coxswain dev --isolate"), "{errors}");
}

#[test]
fn the_leader_is_cut_off_on_purpose_and_everything_holds() {
    let cluster = Cluster::start_with(MASTERS as u8, 0, &["--isolate"]);
    let before: Vec<_> = cluster.members().iter().map(|it| it["pid"].clone()).collect();
    let said = holds(&cluster, "chaos run leader-partition --duration 20s --seed 7");
    assert!(said.contains("from all others, which leads"), "{said}");
    let after: Vec<_> = cluster.members().iter().map(|it| it["pid"].clone()).collect();
    assert_eq!(before, after, "nobody died of it");
}

#[test]
fn power_is_cut_on_purpose_and_everything_holds() {
    let cluster = Cluster::start_with(MASTERS as u8, 0, &["--faulty-disks"]);
    let before: Vec<_> = cluster.members().iter().map(|it| it["pid"].clone()).collect();
    let said = holds(&cluster, "chaos run power-cut --duration 20s --seed 7");
    assert!(said.contains("power-cut m"), "{said}");
    let after: Vec<_> = cluster.members().iter().map(|it| it["pid"].clone()).collect();
    assert_ne!(before, after, "a master lost its power, and is there again");
}

/// One of each that a run of twenty seconds has room for.
const NODES_AND_CERTIFICATES: &str = r#"
name = "nodes-and-certificates"
description = "Agents of nodes are killed, and the certificates of a master have ended."
duration = "20s"
workloads = [{ kind = "register", clients = 4 }, { kind = "counter" }, { kind = "watch-follow" }]

[[faults]]
kind = "node-kill"
target = "node"
every = "6s"

[[faults]]
kind = "certificate-end"
target = "any"
every = "8s"
hold = "12s"
"#;

#[test]
fn nodes_are_killed_and_certificates_end_on_purpose_and_everything_holds() {
    let cluster = Cluster::start(MASTERS as u8, 2);
    let directory = tempfile::tempdir().expect("a directory for the scenario");
    let scenario = directory.path().join("own.toml");
    fs::write(&scenario, NODES_AND_CERTIFICATES).expect("written");
    let words = format!("chaos run {} --seed 9", scenario.display());
    let said = holds(&cluster, &words);
    assert!(said.contains("node-kill n"), "{said}");
    assert!(said.contains("and it starts with that"), "{said}");
    let shown = said.split_once("of those who connected meanwhile, ").expect("how many").1;
    assert!(!shown.starts_with("0 "), "nobody was shown that it had ended: {said}");
}

#[test]
fn a_cluster_that_could_lose_nobody_is_left_alone() {
    let cluster = Cluster::start(1, 0);
    let before: Vec<_> = cluster.members().iter().map(|it| it["pid"].clone()).collect();
    let output = coxswain(&cluster, "chaos run leader-kill --yes").output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("at least 3 are needed"), "{errors}");
    let after: Vec<_> = cluster.members().iter().map(|it| it["pid"].clone()).collect();
    assert_eq!(before, after);
}

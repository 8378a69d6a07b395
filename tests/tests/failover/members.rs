//! The masters as an operator changes them, under load: leadership moves and a leader is stopped
//! without a failed request.

use super::{WRITES_BETWEEN, leader, wait_for_everybody};
use crate::load::{Load, MASTERS, clients, index_of, runtime};
use serde_json::json;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Instant;
use tests::{
    Cluster,
    cluster::{binary, signal},
};

/// `coxswain` with `words` (split at spaces), against this cluster.
pub(crate) fn coxswain(cluster: &Cluster, words: &str) -> Command {
    let mut command = Command::new(binary());
    command.args(words.split(' ')).arg("--kubeconfig").arg(cluster.kubeconfig());
    command
}

async fn run(mut command: Command) -> Output {
    let run = move || command.output().expect("the binary runs");
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

/// What it printed; it must have succeeded.
pub(crate) async fn succeed(cluster: &Cluster, words: &str) -> String {
    let output = run(coxswain(cluster, words)).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {text}{errors}\n{}", cluster.logs());
    text
}

/// Why it was refused, as the operator reads it.
pub(crate) async fn refused(cluster: &Cluster, words: &str) -> String {
    let output = run(coxswain(cluster, words)).await;
    assert_eq!(output.status.code(), Some(1), "{words} is refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn leadership_moves_without_a_failed_request() {
    let cluster = Arc::new(Cluster::start(MASTERS as u8, 0));
    runtime().block_on(async {
        let clients = clients(&cluster).await;
        let load = Load::start(&clients).await;
        let begun = Instant::now();
        let mut gaps = Vec::new();
        for _ in 0..MASTERS {
            load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
            let (before, asked) = (leader(&cluster).await.0, Instant::now());
            let said = succeed(&cluster, "members transfer-leader").await;
            gaps.push(load.gap_after(asked, &cluster).await.as_millis());
            let (after, _) = leader(&cluster).await;
            assert_ne!(before, after);
            assert!(said.contains(&format!("{after} leads")), "{said}");
        }
        let (leads, _) = leader(&cluster).await;
        let followers = ["m1", "m2", "m3"].into_iter().filter(|name| *name != leads);
        let chosen: Vec<&str> = followers.collect();
        succeed(&cluster, &format!("members transfer-leader --to {}", chosen[1])).await;
        assert_eq!(leader(&cluster).await.0, chosen[1]);
        let why = refused(&cluster, "members transfer-leader --to m9").await;
        assert!(why.contains("there is no master \"m9\", but m1, m2, m3"), "{why}");
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        assert_eq!(load.failures(begun), Vec::<String>::new());
        let writes = load.finish(&clients, &cluster).await;
        eprintln!(
            "{}",
            json!({"bench": "leader_transfer", "writes": writes, "failed": 0, "gap_ms": gaps})
        );
    });
}

#[test]
fn a_leader_that_is_told_to_stop_costs_the_others_no_request() {
    let cluster = Arc::new(Cluster::start(MASTERS as u8, 0));
    runtime().block_on(async {
        let all = clients(&cluster).await;
        let (name, pid) = leader(&cluster).await;
        let stops = index_of(&name);
        let others: Vec<_> = (0..MASTERS).filter(|it| *it != stops).map(|it| all[it].clone()).collect();
        let load = Load::start(&others).await;
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        let told = Instant::now();
        signal(pid, "TERM");
        let gap = load.gap_after(told, &cluster).await;
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        assert_ne!(leader(&cluster).await.0, name);
        // Its machine starts it again; nobody notices that either.
        wait_for_everybody(&cluster).await;
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        assert_eq!(load.failures(told), Vec::<String>::new());
        let writes = load.finish(&others, &cluster).await;
        eprintln!(
            "{}",
            json!({"bench": "planned_stop", "writes": writes, "failed": 0, "gap_ms": gap.as_millis()})
        );
    });
}

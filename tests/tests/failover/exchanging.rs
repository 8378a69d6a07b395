//! The authority of clients and nodes is exchanged under load: nobody fails, the old kubeconfig goes on until the
//! end, and is shut out then.

use super::WRITES_BETWEEN;
use crate::{
    load::{Load, MASTERS, clients, runtime},
    members::{refused, succeed},
};
use serde_json::Value;
use std::{fs, path::Path, process::Command, sync::Arc, time::Instant};
use tests::{Cluster, cluster::binary};

/// What the binary says with `words` (split at spaces), given this kubeconfig or none.
fn said(words: &str, kubeconfig: Option<&Path>) -> Result<String, String> {
    let mut command = Command::new(binary());
    command.args(words.split(' '));
    if let Some(kubeconfig) = kubeconfig {
        command.arg("--kubeconfig").arg(kubeconfig);
    }
    let output = command.output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// The old kubeconfig, which knows how each master is reached from here, with what is in the new one instead of it.
fn renewed(old: &str, new: &str) -> String {
    let [mut old, new]: [Value; 2] =
        [old, new].map(|text| serde_json::from_str(text).expect("ours are JSON"));
    let authority = "certificate-authority-data";
    for cluster in old["clusters"].as_array_mut().expect("clusters") {
        cluster["cluster"][authority] = new["clusters"][0]["cluster"][authority].clone();
    }
    old["users"][0]["user"] = new["users"][0]["user"].clone();
    old.to_string()
}

/// Of a table, the line that begins with `name`.
fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|row| row.first() == Some(&name)).expect("a row")
}

#[test]
fn an_authority_is_exchanged_while_everybody_writes() {
    let cluster = Arc::new(Cluster::start(MASTERS as u8, 1));
    runtime().block_on(async {
        let clients = clients(&cluster).await;
        let load = Load::start(&clients).await;
        let begun = Instant::now();
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        let told = succeed(&cluster, "certs exchange start").await;
        assert!(told.contains("it signs on every master"), "{told}");
        assert!(told.contains("every node is certified by it"), "{told}");
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        let status = succeed(&cluster, "certs exchange status").await;
        assert_eq!(row(&status, "n1"), ["n1", "yes", "yes"], "the node has followed");
        let again = succeed(&cluster, "certs exchange start").await;
        assert!(again.contains("every node is certified by it"), "{again}");
        let why = refused(&cluster, "certs exchange finish").await;
        assert!(why.contains("would be shut out"), "{why}");
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        assert_eq!(load.failures(begun), Vec::<String>::new());
        load.finish(&clients, &cluster).await;
    });
    let address = cluster.members()[0]["apiAddress"].as_str().expect("an address").to_owned();
    let pki = cluster.machine("m1").join("pki");
    let made = format!("certs admin --pki {} --server https://{address}", pki.display());
    let new = pki.with_file_name("kubeconfig.new");
    let old = fs::read_to_string(cluster.kubeconfig()).expect("a kubeconfig");
    fs::write(&new, renewed(&old, &said(&made, None).expect("a kubeconfig"))).expect("written");
    let finished = said("certs exchange finish", Some(&new)).expect("finished");
    assert!(finished.contains("the new authority alone"), "{finished}");
    let status = said("certs exchange status", Some(&new)).expect("shown");
    for name in ["m1", "m2", "m3"] {
        let row = row(&status, name);
        assert_eq!((row[1], row[3]), (row[2], "-"), "it believes who signs, and nobody else");
    }
    said("members", Some(&cluster.kubeconfig())).expect_err("shut out");
    assert!(said("members", Some(&new)).expect("let in").contains("m3"));
}

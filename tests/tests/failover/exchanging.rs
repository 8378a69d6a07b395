//! Authorities are exchanged under load: nobody fails, the old kubeconfig goes on until the end, and is shut out
//! then. One that ends before long is exchanged without anybody asking.

use super::WRITES_BETWEEN;
use crate::{
    load::{Load, MASTERS, clients, runtime},
    members::{refused, succeed},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Instant, SystemTime},
};
use tests::{
    Cluster,
    cluster::{binary, new_directory},
};

/// Those of the Gregorian calendar, on average.
const SECONDS_A_YEAR: u64 = 31_556_952;

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
        assert_eq!((row[1], row[5]), (row[4], "-"), "it believes who signs, and nobody else");
    }
    said("members", Some(&cluster.kubeconfig())).expect_err("shut out");
    assert!(said("members", Some(&new)).expect("let in").contains("m3"));
}

#[test]
fn the_authorities_of_masters_and_proxies_are_exchanged_while_everybody_writes() {
    let cluster = Arc::new(Cluster::start(MASTERS as u8, 0));
    runtime().block_on(async {
        let clients = clients(&cluster).await;
        let load = Load::start(&clients).await;
        let begun = Instant::now();
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        for authority in ["peer-ca", "front-proxy-ca"] {
            let ask = async |command: &str| {
                let words = format!("certs exchange {command} --authority {authority}");
                succeed(&cluster, &words).await
            };
            let before = ask("status").await;
            let told = ask("start").await;
            assert!(told.contains("it signs on every master"), "{told}");
            load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
            let finished = ask("finish").await;
            assert!(finished.contains("the new authority alone"), "{finished}");
            load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
            let after = ask("status").await;
            let (before, after) = (row(&before, "m1"), row(&after, "m1"));
            assert_ne!(before[1], after[1], "another one signs");
            assert_eq!((after[1], after[5]), (after[4], "-"), "and it alone is believed");
        }
        assert_eq!(load.failures(begun), Vec::<String>::new());
        load.finish(&clients, &cluster).await;
    });
}

/// With nine or ten of eleven years behind it.
fn write_old_authority(directory: &Path) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let year = 1970 + i32::try_from(since.as_secs() / SECONDS_A_YEAR).expect("a year");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "old-ca");
    params.not_before = date_time_ymd(year - 9, 1, 1);
    params.not_after = date_time_ymd(year + 2, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("signed");
    fs::create_dir_all(directory).expect("a directory");
    fs::write(directory.join("ca.key"), key.serialize_pem()).expect("written");
    fs::write(directory.join("ca.crt"), certificate.pem()).expect("written");
}

#[test]
fn authorities_that_end_before_long_are_exchanged_unasked() {
    let directory = new_directory();
    for kept in ["pki", "pki/peers", "pki/front-proxy"] {
        write_old_authority(&directory.join(kept));
    }
    let cluster = Cluster::start_in(directory, &binary(), (MASTERS as u8, 0), &[]);
    let kubeconfig = cluster.kubeconfig();
    for authority in ["ca", "peer-ca", "front-proxy-ca"] {
        let every = |what: &str, holds: &dyn Fn(&[&str]) -> bool| {
            cluster.eventually(&format!("{authority}: {what}"), || {
                let words = format!("certs exchange status --authority {authority}");
                let status = said(&words, Some(&kubeconfig))?;
                let every = ["m1", "m2", "m3"].into_iter().all(|name| holds(&row(&status, name)));
                every.then_some(()).ok_or(status)
            });
        };
        every("a new one is on its way in", &|row| row[5] != "-");
        every("it signs, and the old one is believed", &|row| {
            (row[1], row[3]) == (row[5], "yes") && row[4].split(',').count() == 3
        });
    }
    assert!(said("members", Some(&kubeconfig)).expect("let in").contains("m3"));
}

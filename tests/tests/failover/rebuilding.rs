//! A master whose log is damaged does not serve from it and does not stay away: it is a new member by
//! itself, with everything, while others write.

use super::replacing::{self, words_of};
use super::{WRITES_BETWEEN, leader};
use crate::load::{Load, MASTERS, clients, index_of, runtime};
use serde_json::{Value, json};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tests::{Cluster, cluster::signal};

/// `Null` while it is none.
fn member(cluster: &Cluster, name: &str) -> Value {
    replacing::member(cluster, name).unwrap_or_default()
}

/// What a running master was given as `--data-dir`.
fn data_dir(pid: i32) -> PathBuf {
    let mut words = words_of(pid).into_iter().skip_while(|word| word != "--data-dir");
    words.nth(1).expect("a data directory").into()
}

/// Turns a bit of a frame that was synced long ago.
fn damage(log: &Path) -> PathBuf {
    let files = std::fs::read_dir(log).expect("the log").map(|entry| entry.expect("a file").path());
    let segment = files.filter(|path| path.extension().is_some_and(|it| it == "segment")).max();
    let segment = segment.expect("a segment");
    let file = std::fs::File::options().read(true).write(true).open(&segment).expect("opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 200).expect("it is longer than that");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, 200).expect("damaged");
    segment
}

#[test]
fn a_master_with_a_damaged_disk_is_rebuilt_while_others_write() {
    let cluster = Arc::new(Cluster::start(MASTERS as u8, 0));
    runtime().block_on(async {
        let all = clients(&cluster).await;
        let (leads, _) = leader(&cluster).await;
        let name = ["m1", "m2", "m3"].into_iter().find(|name| *name != leads).expect("a follower");
        let others = (0..MASTERS).filter(|it| *it != index_of(name));
        let others: Vec<_> = others.map(|it| all[it].clone()).collect();
        let load = Load::start(&others).await;
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;

        let before = member(&cluster, name);
        let pid = before["pid"].as_i64().expect("a pid") as i32;
        let data_dir = data_dir(pid);
        let segment = damage(&data_dir.join("log"));
        let begun = Instant::now();
        signal(pid, "KILL");
        let (looking, wanted) = (cluster.clone(), name.to_owned());
        let id = before["id"].clone();
        let rebuilt = move || {
            looking.eventually("the damaged master to vote as a new member", || {
                let now = member(&looking, &wanted);
                let new = now["id"] != id && now["voter"] == true && now["reachable"] == true;
                new.then_some(()).ok_or_else(|| format!("{now}"))
            });
        };
        tokio::task::spawn_blocking(rebuilt).await.expect("no panic");
        let after = member(&cluster, name);
        let took = begun.elapsed();
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        assert_eq!(load.failures(begun), Vec::<String>::new());
        assert_eq!(cluster.members().len(), MASTERS, "the old member is gone");
        let kept = data_dir.join("damaged").join(segment.file_name().expect("its name"));
        assert!(kept.is_file(), "what was damaged can be looked at");

        let writes = load.finish(&others, &cluster).await;
        let url = format!("https://{}", after["apiAddress"].as_str().expect("an address"));
        let words = ["--server", &url, "get", "configmaps", "-l", "made=load", "-o", "name"];
        let listed = cluster.kubectl_with(&words, "").lines().count();
        assert!(listed >= writes, "{listed} of {writes}\n{}", cluster.logs());
        // The same command line, later: the same new member.
        signal(after["pid"].as_i64().expect("a pid") as i32, "KILL");
        cluster.eventually("it to be back", || {
            let now = member(&cluster, name);
            let same = now["id"] == after["id"] && now["pid"] != after["pid"];
            let back = same && now["voter"] == true && now["reachable"] == true;
            back.then_some(()).ok_or_else(|| format!("{now}"))
        });
        eprintln!(
            "{}",
            json!({"bench": "rebuild_damaged_master", "writes": writes, "lost": 0, "failed": 0,
                   "whole_again_ms": took.as_millis()})
        );
    });
}

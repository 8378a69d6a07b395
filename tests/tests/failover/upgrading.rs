//! Masters get another program one after the other while others write, and go back to the one before until all have it.
//! With `make upgrade OLD=…` between two programs; otherwise it is the same one twice.

use super::{WRITES_BETWEEN, leader, metrics, pids, replacing, wait_for_everybody};
use crate::load::{Load, MASTERS, clients, eventually, index_of, runtime};
use kube::Client;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};
use tests::{
    Cluster,
    cluster::{binary, new_directory, signal},
};

/// The program that masters start from.
struct Installed(PathBuf);

impl Installed {
    /// Whoever runs it goes on with what it was until it starts again.
    fn replace(&self, program: &Path) {
        let next = self.0.with_extension("next");
        fs::copy(program, &next).expect("copied");
        fs::rename(&next, &self.0).expect("renamed");
    }
}

/// Stops a master as its supervisor does, and waits until it is back.
async fn restart(cluster: &Arc<Cluster>, name: &str) {
    let pid = pids(cluster).await[index_of(name)];
    signal(pid, "TERM");
    let (looking, wanted) = (cluster.clone(), name.to_owned());
    let back = move || {
        looking.eventually("a master with another pid", || {
            let member = replacing::member(&looking, &wanted);
            let now = member.as_ref().and_then(|member| member["pid"].as_i64());
            now.filter(|now| *now != i64::from(pid)).map(|_| ()).ok_or(format!("{member:?}"))
        });
    };
    tokio::task::spawn_blocking(back).await.expect("it is back");
    wait_for_everybody(cluster).await;
}

/// `coxswain_store_level` of each master, once it has one; nothing of a program that does not know it.
async fn levels(clients: &[Client], cluster: &Cluster) -> Vec<Option<u64>> {
    let mut levels = Vec::new();
    for client in clients {
        eventually(cluster, "a level", async || {
            let text = metrics(client).await.map_err(|error| error.to_string())?;
            let level = text.lines().find_map(|line| line.strip_prefix("coxswain_store_level "));
            let level = level.and_then(|level| level.parse().ok());
            if level == Some(0) {
                return Err(text);
            }
            levels.push(level);
            Ok(())
        })
        .await;
    }
    levels
}

#[test]
fn masters_are_upgraded_and_gone_back_with_while_others_write() {
    let new = binary();
    let old = std::env::var_os("COXSWAIN_OLD").map_or(new.clone(), PathBuf::from);
    let directory = new_directory();
    let installed = Installed(directory.join("coxswain"));
    installed.replace(&old);
    let cluster = Cluster::start_in(directory, &installed.0, (MASTERS as u8, 0), &[]);
    let cluster = Arc::new(cluster);
    runtime().block_on(async {
        let clients = clients(&cluster).await;
        let load = Load::start(&clients).await;
        let begun = Instant::now();
        load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        let before = levels(&clients, &cluster).await;

        // One, and back; two, and back; then all, the leader last.
        let (leads, _) = leader(&cluster).await;
        let followers = ["m1", "m2", "m3"].into_iter().filter(|name| *name != leads);
        let followers: Vec<&str> = followers.collect();
        for upgraded in [&followers[..1], &followers[..]] {
            for program in [&new, &old] {
                installed.replace(program);
                for name in upgraded {
                    restart(&cluster, name).await;
                    load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
                }
            }
        }
        assert_eq!(
            levels(&clients, &cluster).await,
            before,
            "nothing was raised that some cannot read"
        );
        installed.replace(&new);
        for name in followers.iter().copied().chain([leads.as_str()]) {
            restart(&cluster, name).await;
            load.wait_for_writes(WRITES_BETWEEN, &cluster).await;
        }
        let after = levels(&clients, &cluster).await;
        assert!(before.iter().zip(&after).all(|(before, after)| before <= after));
        let failed = load.failures(begun).len();
        let writes = load.finish(&clients, &cluster).await;
        eprintln!(
            "{}",
            json!({"bench": "upgrade", "restarts": 9, "writes": writes, "tried_again": failed,
                   "level_before": before, "level_after": after})
        );
    });
}

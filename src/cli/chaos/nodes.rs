//! The nodes of a run: how they are by what the API says of them, and the processes of their agents,
//! which only a `coxswain dev` has on this machine.

use super::{faults::LOOK_TIMEOUT, processes::Process};
use crate::cli::client::Target;
use ::chaos::schedule::Node;
use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Why nothing can be done to nodes, if nothing can; asked before anything is broken.
pub(super) async fn check(target: &Target, members: &[Value]) -> Result<()> {
    let nodes = ask(target).await?;
    ensure!(
        !nodes.is_empty(),
        "there are no nodes: start the cluster with nodes (`coxswain dev --nodes 3`; needs root)"
    );
    let machines = machines(members)?;
    for node in nodes {
        Process::of_node(&node.name, &machines)?;
    }
    Ok(())
}

/// Every node as the API describes it now.
pub(super) async fn ask(target: &Target) -> Result<Vec<Node>> {
    let list = get(target, "/api/v1/nodes").await?;
    let node = |node: &Value| {
        let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Node { name, ready: is_ready(node) }
    };
    Ok(list["items"].as_array().into_iter().flatten().map(node).collect())
}

/// Where the machines of a `coxswain dev` are, by the data of one of its masters: its nodes are beside
/// it, and those of another cluster on this machine, of the same names, are not.
pub(super) fn machines(members: &[Value]) -> Result<PathBuf> {
    // Whoever is away says no pid.
    let master = members.iter().find_map(|member| Process::of_member(member).ok());
    let master = master.context("no master of this cluster is found on this machine")?;
    let data = master.word("--data-dir").context("a master was started without --data-dir")?;
    let machines = Path::new(data).parent().and_then(Path::parent);
    Ok(machines.context("a master's data is at /")?.to_owned())
}

/// Whether a node has shown itself since then, and counts as ready.
pub(super) async fn is_back(target: &Target, name: &str, since: Timestamp) -> bool {
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
    let Ok(lease) = get(target, &lease).await else { return false };
    let renewed = lease["spec"]["renewTime"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    if renewed.is_none_or(|renewed| renewed <= since) {
        return false;
    }
    get(target, &format!("/api/v1/nodes/{name}")).await.is_ok_and(|node| is_ready(&node))
}

fn is_ready(node: &Value) -> bool {
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// What the first master that answers has to say.
async fn get(target: &Target, path: &str) -> Result<Value> {
    for server in &target.servers {
        match target.get(server, path, LOOK_TIMEOUT).await {
            Ok((200, body)) => return Ok(serde_json::from_str(&body)?),
            Ok((code @ 400..500, body)) => bail!("{path}: HTTP {code}: {body}"),
            Ok(_) | Err(_) => {}
        }
    }
    bail!("{path}: no master answers")
}

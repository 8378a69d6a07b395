//! `coxswain status`: what is healthy and what is not, on one screen.

use super::{client::Target, members, output};
use anyhow::{Result, bail};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Show what is healthy and what is not; exits with 1 if anything is not
#[derive(clap::Args)]
pub(super) struct Args {
    /// Kubeconfig of the cluster (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let target = Target::from_kubeconfig(args.kubeconfig.as_deref())?;
    let members = members::ask(&target).await?;
    let mut findings = vec![judge_masters(&members)];
    match list(&target, "/api/v1/nodes").await {
        Ok(nodes) => findings.push(judge_nodes(&nodes)),
        Err(error) => findings.push(Finding::bad("nodes", format!("cannot be listed: {error:#}"))),
    }
    match list(&target, "/api/v1/pods").await {
        Ok(pods) => findings.push(judge_pods(&pods)),
        Err(error) => findings.push(Finding::bad("pods", format!("cannot be listed: {error:#}"))),
    }
    for finding in &findings {
        let mark = if finding.healthy { "ok " } else { "BAD" };
        output::say(&format!("{mark}  {:8} {}", finding.what, finding.summary));
        for detail in &finding.details {
            output::say(&format!("              {detail}"));
        }
    }
    match findings.iter().filter(|finding| !finding.healthy).count() {
        0 => Ok(()),
        count => bail!("{count} of {} areas need attention", findings.len()),
    }
}

/// One area: whether it is healthy, and what to look at if not.
struct Finding {
    what: &'static str,
    healthy: bool,
    summary: String,
    details: Vec<String>,
}

impl Finding {
    fn bad(what: &'static str, summary: String) -> Finding {
        Finding { what, healthy: false, summary, details: Vec::new() }
    }
}

async fn list(target: &Target, path: &str) -> Result<Vec<Value>> {
    let mut last = None;
    for server in &target.servers {
        match target.get(server, path, ANSWER_TIMEOUT).await {
            Ok((200, body)) => {
                let mut list: Value = serde_json::from_str(&body)?;
                return Ok(serde_json::from_value(list["items"].take())?);
            }
            Ok((code, body)) => last = Some(anyhow::anyhow!("{server}: HTTP {code}: {body}")),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("the kubeconfig names no server")))
}

fn judge_masters(members: &[Value]) -> Finding {
    let name = |member: &Value| member["name"].as_str().unwrap_or("?").to_string();
    let reachable = members.iter().filter(|member| member["reachable"] == true).count();
    let voters = members.iter().filter(|member| member["voter"] == true).count();
    let leader = members.iter().find(|member| member["leader"] == true);
    let mut details: Vec<String> = members
        .iter()
        .filter(|member| member["reachable"] != true)
        .map(|member| format!("{} does not answer", name(member)))
        .collect();
    if leader.is_none() {
        details.push("no leader: writes wait until a majority of masters is back".into());
    }
    let tolerates = reachable.saturating_sub(voters / 2 + 1);
    let lead = leader
        .map_or("none".to_string(), |leader| format!("{} (term {})", name(leader), leader["term"]));
    Finding {
        what: "masters",
        healthy: details.is_empty(),
        summary: format!(
            "{reachable} of {} answer, leader {lead}, can lose {tolerates} more",
            members.len()
        ),
        details,
    }
}

fn judge_nodes(nodes: &[Value]) -> Finding {
    let ready = |node: &&Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let details: Vec<String> = nodes
        .iter()
        .filter(|node| !ready(node))
        .map(|node| format!("{} is not Ready", node["metadata"]["name"].as_str().unwrap_or("?")))
        .collect();
    let count = nodes.len() - details.len();
    Finding {
        what: "nodes",
        healthy: details.is_empty(),
        summary: format!("{count} of {} Ready", nodes.len()),
        details,
    }
}

fn judge_pods(pods: &[Value]) -> Finding {
    let done = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let bad: Vec<&Value> = pods.iter().filter(|pod| !done(pod) && !ready(pod)).collect();
    // Ten: the screen is for what to look at first; `kubectl get pods -A` has them all.
    let details = bad.iter().take(10).map(|pod| {
        format!(
            "{}/{} is {}",
            pod["metadata"]["namespace"].as_str().unwrap_or("?"),
            pod["metadata"]["name"].as_str().unwrap_or("?"),
            pod["status"]["phase"].as_str().unwrap_or("Pending"),
        )
    });
    Finding {
        what: "pods",
        healthy: bad.is_empty(),
        summary: format!("{} of {} ready or done", pods.len() - bad.len(), pods.len()),
        details: details.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_that_lost_a_master_says_which_and_what_it_can_still_lose() {
        let members = [
            json!({"name": "m1", "reachable": true, "voter": true, "leader": true, "term": 4}),
            json!({"name": "m2", "reachable": false, "voter": true, "leader": false}),
            json!({"name": "m3", "reachable": true, "voter": true, "leader": false}),
        ];
        let finding = judge_masters(&members);
        assert!(!finding.healthy);
        assert_eq!(finding.summary, "2 of 3 answer, leader m1 (term 4), can lose 0 more");
        assert_eq!(finding.details, ["m2 does not answer"]);
    }
}

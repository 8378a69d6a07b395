//! `coxswain members`: every master, who leads, and how far each has applied.

use super::{client::Target, output};
use anyhow::{Result, bail};
use futures::future::join_all;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// A master that does not answer within this is reported as unreachable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// List the masters: id, addresses, leader, term, applied revision, and pid where local
#[derive(clap::Args)]
pub(super) struct Args {
    /// Kubeconfig of the cluster (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(long)]
    kubeconfig: Option<PathBuf>,

    /// `json` for a list that scripts read
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let target = Target::from_kubeconfig(args.kubeconfig.as_deref())?;
    let members = ask(&target).await?;
    if args.output == Output::Json {
        output::say(&serde_json::to_string_pretty(&members)?);
        return Ok(());
    }
    let text = |member: &Value, field: &str| match &member[field] {
        Value::Null => "-".to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|member| {
            let role = match (member["leader"] == true, member["voter"] == true) {
                (true, _) => "leader",
                (false, true) => "follower",
                (false, false) => "learner",
            };
            let fields = ["apiAddress", "peerAddress", "term", "appliedRevision", "pid"];
            let mut row = vec![text(member, "id"), text(member, "name"), role.to_string()];
            row.extend(fields.map(|field| text(member, field)));
            row.push(if member["reachable"] == true { "yes" } else { "no" }.to_string());
            row
        })
        .collect();
    let header = ["ID", "NAME", "ROLE", "API", "PEER", "TERM", "APPLIED", "PID", "REACHABLE"];
    output::say(&output::table(&header, &rows));
    Ok(())
}

/// What the masters say of themselves and of each other. Each answers for itself (only it knows its
/// pid and what it has applied); of one that does not answer we know what the others say.
pub(crate) async fn ask(target: &Target) -> Result<Vec<Value>> {
    let answers = join_all(target.servers.iter().map(|server| async move {
        let (code, body) = target.get(server, "/coxswain/members", ANSWER_TIMEOUT).await?;
        if code != 200 {
            bail!("{server}: HTTP {code}: {body}");
        }
        Ok(serde_json::from_str::<Vec<Value>>(&body)?)
    }))
    .await;
    let mut members = BTreeMap::new();
    let mut failures = Vec::new();
    for answer in answers {
        match answer {
            Ok(list) => merge(&mut members, list),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if members.is_empty() {
        bail!("no master answered: {}", failures.join("; "));
    }
    Ok(settle_leader(members))
}

fn merge(members: &mut BTreeMap<u64, Value>, list: Vec<Value>) {
    for member in list {
        let id = member["id"].as_u64().unwrap_or_default();
        let own = member["self"] == true;
        let known = members.entry(id).or_insert(Value::Null);
        if own || known.is_null() {
            let mut member = member;
            member["reachable"] = json!(own);
            *known = member;
        }
    }
}

/// A deposed leader may not know it yet: of several, the one of the highest term leads.
fn settle_leader(members: BTreeMap<u64, Value>) -> Vec<Value> {
    let highest = members
        .values()
        .filter(|member| member["leader"] == true && member["reachable"] == true)
        .filter_map(|member| member["term"].as_u64())
        .max();
    let settled = members.into_values().map(|mut member| {
        let leads = member["leader"] == true
            && member["reachable"] == true
            && member["term"].as_u64() == highest;
        member["leader"] = json!(leads);
        if let Some(fields) = member.as_object_mut() {
            fields.remove("self");
        }
        member
    });
    settled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_claim_to_lead_the_later_term_leads() {
        let mut members = BTreeMap::new();
        merge(
            &mut members,
            vec![
                json!({"id": 1, "self": true, "leader": true, "term": 3, "pid": 7}),
                json!({"id": 3, "leader": false, "term": 3}),
            ],
        );
        merge(&mut members, vec![json!({"id": 2, "self": true, "leader": true, "term": 4})]);
        let settled = settle_leader(members);
        let leaders: Vec<_> = settled.iter().map(|m| m["leader"] == true).collect();
        assert_eq!(leaders, [false, true, false]);
        assert_eq!(settled[2]["reachable"], false);
        assert_eq!(settled[0]["pid"], 7);
    }
}

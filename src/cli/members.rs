//! `coxswain members`: every master, who leads, and how far each has applied; removes one, or hands
//! leadership over.

use super::{
    client::{Connection, Target},
    output,
};
use crate::dev::progress::Progress;
use anyhow::{Context, Result, bail};
use futures::future::join_all;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// A master that does not answer within this is reported as unreachable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// For a change: the masters themselves wait ten seconds for a leader and a quorum.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);

/// List the masters: id, role, addresses, term, applied revision, lag, and pid where local
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    change: Option<Change>,

    #[command(flatten)]
    list: ListArgs,
}

#[derive(clap::Args)]
struct ListArgs {
    /// Kubeconfig of the cluster (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(long)]
    kubeconfig: Option<PathBuf>,

    /// `json` for a list that scripts read
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(clap::Subcommand)]
enum Change {
    /// Remove a master for ever; refused, with the reason, where the cluster would stop
    Remove {
        /// Name or id of the master
        master: String,

        /// Kubeconfig of the cluster (default: $KUBECONFIG, then ~/.kube/config)
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
    /// Hand leadership to another master; no request fails
    TransferLeader {
        /// Name or id of the master that is to lead (default: the one that is furthest)
        #[arg(long)]
        to: Option<String>,

        /// Kubeconfig of the cluster (default: $KUBECONFIG, then ~/.kube/config)
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let target = |path: Option<PathBuf>| Target::from_kubeconfig(path.as_deref());
    match args.change {
        Some(Change::Remove { master, kubeconfig }) => remove(&target(kubeconfig)?, &master).await,
        Some(Change::TransferLeader { to, kubeconfig }) => {
            transfer(&target(kubeconfig)?, to.as_deref()).await
        }
        None => {
            let members = ask(&target(args.list.kubeconfig)?).await?;
            let json = args.list.output == Output::Json;
            output::say(&if json {
                serde_json::to_string_pretty(&members)?
            } else {
                table(&members)
            });
            Ok(())
        }
    }
}

fn table(members: &[Value]) -> String {
    let text = |member: &Value, field: &str| match &member[field] {
        Value::Null => "-".to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let row = |member: &Value| {
        let role = match (member["leader"] == true, member["voter"] == true) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "learner",
        };
        let fields = ["apiAddress", "peerAddress", "term", "appliedRevision", "lag", "pid"];
        let mut row = vec![text(member, "id"), text(member, "name"), role.to_string()];
        row.extend(fields.map(|field| text(member, field)));
        row.push(if member["reachable"] == true { "yes" } else { "no" }.to_string());
        row
    };
    let header =
        ["ID", "NAME", "ROLE", "API", "PEER", "TERM", "APPLIED", "LAG", "PID", "REACHABLE"];
    output::table(&header, &members.iter().map(row).collect::<Vec<_>>())
}

pub(super) fn name(member: &Value) -> &str {
    member["name"].as_str().unwrap_or("?")
}

pub(super) fn id(member: &Value) -> u64 {
    member["id"].as_u64().unwrap_or_default()
}

/// Of a master on this machine.
pub(super) fn local_pid(member: &Value) -> Result<u32> {
    let pid = member["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.with_context(|| format!("master {} says no pid", name(member)))
}

/// The member with this name or id.
pub(super) fn find<'a>(members: &'a [Value], wanted: &str) -> Result<&'a Value> {
    let is = |member: &&Value| name(member) == wanted || wanted.parse() == Ok(id(member));
    let known: Vec<&str> = members.iter().map(name).collect();
    let found = members.iter().find(is);
    found.with_context(|| format!("there is no master {wanted:?}, but {}", known.join(", ")))
}

async fn remove(target: &Target, wanted: &str) -> Result<()> {
    let progress = Progress::start();
    let members = ask(target).await?;
    let member = find(&members, wanted)?;
    take_out(target, &progress, member).await?;
    progress.say(&whats_left(&ask(target).await?));
    Ok(())
}

/// Removes a master and says so.
pub(super) async fn take_out(target: &Target, progress: &Progress, member: &Value) -> Result<()> {
    let (id, name) = (id(member), name(member));
    if member["leader"] == true {
        progress.say(&format!("{name} leads: it hands over first"));
    }
    let path = format!("/coxswain/members/{id}");
    match change(target, http::Method::DELETE, &path, &Value::Null).await? {
        Changed::Done(_) => {}
        Changed::Refused(why) => bail!("{name} is not removed: {why}"),
        // Who was asked may be the one that is gone: the others know.
        Changed::Unknown(error) => match ask(target).await?.iter().any(|it| self::id(it) == id) {
            false => {}
            true => return Err(error.context(format!("{name} is not removed"))),
        },
    }
    progress.say(&format!("{name} (id {id}) is removed; its id is not given again"));
    Ok(())
}

/// What a cluster of these masters survives.
fn whats_left(members: &[Value]) -> String {
    let voters = members.iter().filter(|member| member["voter"] == true).count();
    let spare = voters - (voters / 2 + 1).min(voters);
    format!("{voters} vote; the cluster goes on while at most {spare} of them are away")
}

async fn transfer(target: &Target, to: Option<&str>) -> Result<()> {
    let progress = Progress::start();
    let members = ask(target).await?;
    let to = to.map(|to| find(&members, to)).transpose()?;
    let body = json!({ "to": to.map(id) });
    let path = "/coxswain/members/transfer-leader";
    match change(target, http::Method::POST, path, &body).await? {
        Changed::Done(answer) => {
            let leads = members.iter().find(|member| member["id"] == answer["leader"]);
            progress.say(&format!("{} leads", leads.map_or("?", name)));
            Ok(())
        }
        Changed::Refused(why) => bail!("leadership stays where it is: {why}"),
        Changed::Unknown(error) => Err(error.context("who leads now says `coxswain members`")),
    }
}

/// What became of a change that was asked for.
pub(super) enum Changed {
    Done(Value),
    /// Nothing was changed, for this reason.
    Refused(String),
    /// It may be made or not.
    Unknown(anyhow::Error),
}

/// Asks the first master that answers; which one leads is the masters' own business.
pub(super) async fn change(
    target: &Target,
    method: http::Method,
    path: &str,
    body: &Value,
) -> Result<Changed> {
    let mut connection = Connection::to_any(target).await?;
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let asked = tokio::time::timeout(CHANGE_TIMEOUT, connection.call(method, path, body)).await;
    let (code, answer) = match asked {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => return Ok(Changed::Unknown(error)),
        Err(_) => {
            let why = format!("no answer within {CHANGE_TIMEOUT:?}");
            return Ok(Changed::Unknown(anyhow::anyhow!(why)));
        }
    };
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let why = || answer["message"].as_str().unwrap_or("no reason was given").to_string();
    Ok(match code {
        200 => Changed::Done(answer),
        500.. => Changed::Unknown(anyhow::anyhow!("{code}: {}", why())),
        _ => Changed::Refused(why()),
    })
}

/// What the masters say of themselves and of each other. Each answers for itself (only it knows its
/// pid and what it has applied); of one that does not answer we know what the others say. Masters
/// that the kubeconfig does not name yet are asked where the others say they are.
pub(crate) async fn ask(target: &Target) -> Result<Vec<Value>> {
    let (mut lists, failures) = ask_all(target, &target.servers).await;
    let heard = combine(&lists);
    let unheard = heard.iter().filter(|member| member["reachable"] != true);
    let others: Vec<String> = unheard
        .filter_map(|member| Some(format!("https://{}", member["apiAddress"].as_str()?)))
        .filter(|url| !target.servers.contains(url))
        .collect();
    lists.extend(ask_all(target, &others).await.0);
    if lists.is_empty() {
        bail!("no master answered: {}", failures.join("; "));
    }
    Ok(combine(&lists))
}

/// What each of some masters says, asked at once; and what went wrong.
async fn ask_all(target: &Target, servers: &[String]) -> (Vec<Vec<Value>>, Vec<String>) {
    let answers = join_all(servers.iter().map(|server| async move {
        let (code, body) = target.get(server, "/coxswain/members", ANSWER_TIMEOUT).await?;
        if code != 200 {
            bail!("{server}: HTTP {code}: {body}");
        }
        Ok(serde_json::from_str::<Vec<Value>>(&body)?)
    }))
    .await;
    let (mut lists, mut failures) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(list) => lists.push(list),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    (lists, failures)
}

/// The members as the answers have them together: who is one says the master that knows most.
fn combine(lists: &[Vec<Value>]) -> Vec<Value> {
    let knows = |list: &&Vec<Value>| {
        let own = list.iter().find(|member| member["self"] == true);
        let number = |field: &str| own.and_then(|own| own[field].as_u64());
        (number("term"), own.map(|own| own["leader"] == true), number("appliedRevision"))
    };
    let Some(most) = lists.iter().max_by_key(knows) else { return Vec::new() };
    let mut members = BTreeMap::new();
    for list in lists {
        merge(&mut members, list.clone());
    }
    members.retain(|id, _| most.iter().any(|member| self::id(member) == *id));
    let mut settled = settle_leader(members);
    let heard = |id: u64| {
        let told = lists.iter().flatten().filter(|member| self::id(member) == id);
        told.into_iter().any(|member| member["self"] != true && member["reachable"] == true)
    };
    let furthest = settled.iter().filter_map(|member| member["appliedRevision"].as_u64()).max();
    for member in &mut settled {
        let behind = member["appliedRevision"].as_u64().zip(furthest);
        member["heardByOthers"] = json!(heard(id(member)));
        member["lag"] = json!(behind.map(|(applied, furthest)| furthest - applied));
    }
    settled
}

fn merge(members: &mut BTreeMap<u64, Value>, list: Vec<Value>) {
    for member in list {
        let own = member["self"] == true;
        let known = members.entry(id(&member)).or_insert(Value::Null);
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

    #[test]
    fn one_that_was_removed_is_not_listed_because_a_master_has_not_heard_of_it() {
        let own = |id: u64, applied: u64| json!({"id": id, "self": true, "term": 3, "leader": false, "appliedRevision": applied});
        let late = vec![own(1, 10), json!({"id": 2}), json!({"id": 3, "appliedRevision": 9})];
        let knowing = vec![own(2, 12), json!({"id": 1}), json!({"id": 4})];
        let members = combine(&[late, knowing]);
        let told: Vec<_> =
            members.iter().map(|member| (id(member), member["lag"].as_u64())).collect();
        assert_eq!(told, [(1, Some(2)), (2, Some(0)), (4, None)]);
    }

    #[test]
    fn what_is_left_says_how_many_may_be_away() {
        let voters = |count: usize| whats_left(&vec![json!({"voter": true}); count]);
        let spare: Vec<_> =
            [1, 2, 3, 5].map(voters).iter().map(|it| it.contains("most 0")).collect();
        assert_eq!(spare, [true, true, false, false]);
        assert!(voters(5).starts_with("5 vote") && voters(5).contains("most 2"));
    }
}

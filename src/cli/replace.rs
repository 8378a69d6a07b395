//! `coxswain replace`: a dead master gives way to a new one, in one command.

use super::{client::Target, members, output, token};
use crate::dev::progress::Progress;
use ::chaos::scenario::duration;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

/// Between two looks at the members.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// One that has just died may be heard of by the others for a moment longer.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Remove a dead master, print the command that starts its replacement, wait until that one votes
#[derive(clap::Args)]
pub(super) struct Args {
    /// Name or id of the master that is gone
    dead: String,

    /// Also if it answers
    #[arg(long)]
    force: bool,

    /// Print the command and do not wait for the new master
    #[arg(long)]
    no_wait: bool,

    /// How long the token of the command is good, and how long is waited
    #[arg(long, default_value = "2h", value_parser = duration)]
    ttl: Duration,

    /// Kubeconfig of the cluster (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let target = Target::from_kubeconfig(args.kubeconfig.as_deref())?;
    let progress = Progress::start();
    let before = members::ask(&target).await?;
    let dead = members::find(&before, &args.dead)?;
    let name = members::name(dead);
    if !args.force && !is_silent(&target, members::id(dead)).await? {
        bail!("{name} answers: it is not dead; `--force` replaces it all the same");
    }
    members::take_out(&target, &progress, dead).await?;
    let line = token::create(&target, args.ttl, &format!("replaces {name}")).await;
    let line = line.context("no command for the new master; `coxswain token create` makes one")?;
    progress.say("start the new master with:");
    output::say(&format!("\n{line}\n"));
    if args.no_wait {
        return Ok(());
    }
    progress.say("waiting until it votes (Ctrl-C ends only the waiting)");
    let old: BTreeSet<u64> = before.iter().map(members::id).collect();
    match tokio::time::timeout(args.ttl, wait(&target, &progress, &old)).await {
        Ok(()) => Ok(()),
        Err(_) => bail!("no new master votes after {:?}; the token has ended", args.ttl),
    }
}

/// It answers neither here nor to another master.
async fn is_silent(target: &Target, id: u64) -> Result<bool> {
    let until = tokio::time::Instant::now() + LAST_WORDS;
    loop {
        let members = members::ask(target).await?;
        let answers = members
            .iter()
            .find(|member| members::id(member) == id)
            .is_some_and(|it| it["reachable"] == true || it["heardByOthers"] == true);
        if !answers || tokio::time::Instant::now() >= until {
            return Ok(!answers);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Says each thing that changes about a member that was not there before, until one votes.
async fn wait(target: &Target, progress: &Progress, old: &BTreeSet<u64>) {
    let mut said = String::new();
    loop {
        // Nobody answers in a failover: asked again.
        let members = members::ask(target).await.unwrap_or_default();
        let new = members.iter().filter(|member| !old.contains(&members::id(member)));
        if let Some(new) = new.max_by_key(|member| members::id(member)) {
            let now = state(new);
            if now != said {
                progress.say(&now);
                said = now;
            }
            if new["voter"] == true && new["reachable"] == true {
                return;
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn state(member: &Value) -> String {
    let (name, id) = (members::name(member), members::id(member));
    match (member["voter"] == true, member["reachable"] == true, member["lag"].as_u64()) {
        (true, ..) => format!("{name} (id {id}) votes: the cluster is whole again"),
        (false, true, Some(lag)) => {
            format!("{name} (id {id}) is catching up, {lag} revisions to go")
        }
        _ => format!("{name} (id {id}) is let in and has not answered yet"),
    }
}

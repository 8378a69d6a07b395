//! `coxswain chaos`: breaks a cluster on purpose while clients use it, and checks that what is promised
//! holds. What is to happen and what must hold are values of the crate `chaos`; here it is done.

mod api;
mod certificates;
mod checking;
mod clocks;
mod disks;
mod election;
mod faults;
mod informing;
mod load;
mod metrics;
mod network;
mod nodes;
mod objects;
mod overload;
mod processes;
mod run;
mod undo;
mod watching;

use super::output;
use ::chaos::scenario::{SCENARIOS, parse};
use anyhow::Result;
use std::fmt;

/// Break a cluster on purpose, under load, and check what it promises
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// List the scenarios
    List,
    Run(run::Args),
}

/// The run could not be made, or did not show what it was to show: neither good nor bad news of the
/// cluster. Exit code 2.
#[derive(Debug)]
pub(crate) struct NotShown(String);

impl fmt::Display for NotShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotShown {}

pub(super) async fn run(args: Args) -> Result<()> {
    match args.what {
        What::List => list(),
        What::Run(args) => run::run(args).await,
    }
}

fn list() -> Result<()> {
    let mut rows = Vec::new();
    for (name, text) in SCENARIOS {
        let scenario = parse(text).map_err(anyhow::Error::msg)?;
        let kinds = scenario.workloads.iter().map(|it| it.kind.to_string());
        let faults = scenario.faults.iter().map(|it| format!("{} {}", it.kind, it.target));
        rows.push(vec![
            name.to_string(),
            faults.collect::<Vec<_>>().join(", "),
            kinds.collect::<Vec<_>>().join(", "),
            scenario.description,
        ]);
    }
    output::say(&output::table(&["NAME", "FAULTS", "WORKLOADS", "DESCRIPTION"], &rows));
    Ok(())
}

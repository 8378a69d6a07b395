//! The disks of masters that can be made to fail: those of a `coxswain dev --faulty-disks`, each a
//! process that takes orders at a socket beside the master's data.

use super::processes::Process;
use crate::{
    cli::members,
    dev::disk::{Given, Order, SOCKET, tell},
};
use ::chaos::disk::Trouble;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::PathBuf;

/// Every master must have such a disk; asked before anything is broken.
pub(super) fn check(members: &[Value]) -> Result<()> {
    for member in members {
        let name = members::name(member);
        let process = Process::of_member(member)?;
        socket(&process).and_then(|socket| tell(&socket, Order::Ping)).with_context(|| {
            format!(
                "the disk of master {name} cannot be made to fail: start the cluster with `coxswain \
                 dev --faulty-disks` (needs root and /dev/fuse)"
            )
        })?;
    }
    Ok(())
}

fn socket(process: &Process) -> Result<PathBuf> {
    let data = process.word("--data-dir").context("it was started without --data-dir")?;
    let data = PathBuf::from(data);
    Ok(data.parent().context("its data is at /")?.join(SOCKET))
}

/// Makes a master's disk fail until that is dropped; a power cut ends the master, and is over at once.
pub(super) fn begin(process: &Process, trouble: Trouble) -> Result<Option<Given>> {
    let socket = socket(process)?;
    let order = match trouble {
        Trouble::Slow { by } => Order::Slow(by),
        Trouble::Full => Order::Full,
        Trouble::NearlyFull => Order::NearlyFull,
        Trouble::FailingSync => Order::FailingSync,
        Trouble::PowerCut { seed } => {
            // It must write nothing between the loss and its end.
            process.stand_still()?;
            let lost = tell(&socket, Order::PowerCut(seed));
            process.kill()?;
            let (_, lost) = lost?;
            tracing::info!(lost, "power cut");
            return Ok(None);
        }
    };
    Ok(Some(tell(&socket, order)?.0))
}

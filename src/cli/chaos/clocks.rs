//! The clocks of masters that can be made to jump: those of a `coxswain dev --faulty-clocks`.

use super::{processes::Process, undo::Undo};
use crate::{cli::members, dev::clock};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

/// Every master must have such a clock; asked before anything is broken.
pub(super) fn check(members: &[Value]) -> Result<()> {
    for member in members {
        let name = members::name(member);
        let process = Process::of_member(member)?;
        file(&process).with_context(|| {
            format!(
                "the clock of master {name} cannot be set: start the cluster with `coxswain dev \
                 --faulty-clocks` (needs Debian's package libfaketime)"
            )
        })?;
    }
    Ok(())
}

fn file(process: &Process) -> Result<PathBuf> {
    let file = process.variable(clock::FILE)?;
    Ok(file.context("it reads this machine's clock")?.into())
}

/// A clock that is wrong until this is dropped.
pub(super) struct Wrong {
    #[expect(dead_code, reason = "sets it right")]
    undo: Undo,
}

pub(super) fn begin(process: &Process, seconds: i64, hold: Duration) -> Result<Wrong> {
    let file = file(process)?;
    // Of one write, so that it is read whole.
    let undo = Undo::new("echo +0 > \"$1\"", &[file.as_os_str()], hold)?;
    clock::set(&file, seconds)?;
    Ok(Wrong { undo })
}

//! A member that found its own state wrong never serves from it again: a file in its directory says
//! so, and why, also after a restart.

use crate::{config::OpenError, durable};
use std::{io, path::Path};

pub(crate) const FILE: &str = "quarantined";

/// Marks the directory for good.
pub(crate) fn set(data_dir: &Path, reason: &str) -> io::Result<()> {
    durable::write(data_dir, FILE, &format!("{reason}\n"))
}

/// Refuses a directory that was marked.
pub(crate) fn check(data_dir: &Path) -> Result<(), OpenError> {
    let path = || data_dir.into();
    match durable::read(data_dir, FILE) {
        Ok(Some(reason)) => Err(OpenError::Quarantined { path: path(), reason }),
        Ok(None) => Ok(()),
        Err(source) => Err(OpenError::Disk { path: path(), source }),
    }
}

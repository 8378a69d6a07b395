//! A member that found its own state wrong never serves from it again: a file in its directory says
//! so, and why, also after a restart.

use crate::{config::OpenError, durable};
use std::{fs, io, path::Path};

const FILE: &str = "quarantined";

/// Marks the directory for good.
pub(crate) fn set(data_dir: &Path, reason: &str) -> io::Result<()> {
    durable::write(data_dir, FILE, &format!("{reason}\n"))
}

/// Refuses a directory that was marked.
pub(crate) fn check(data_dir: &Path) -> Result<(), OpenError> {
    match fs::read_to_string(data_dir.join(FILE)) {
        Ok(reason) => {
            let reason = reason.trim().to_string();
            Err(OpenError::Quarantined { path: data_dir.into(), reason })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(OpenError::Disk { path: data_dir.into(), source }),
    }
}

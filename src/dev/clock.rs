//! The clocks of masters under `coxswain dev --faulty-clocks`: each reads the wall clock through
//! libfaketime, which adds what is in a file of that master's. Other clocks and other processes are not
//! touched.

use crate::pki::write_private;
use anyhow::Result;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Names the file to libfaketime.
pub(crate) const FILE: &str = "FAKETIME_TIMESTAMP_FILE";

/// For many threads; where Debian and others have it.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const DIRECTORIES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/lib",
];

/// What reads the file, if it is on this machine.
pub(super) fn library() -> Option<PathBuf> {
    DIRECTORIES.iter().map(|at| Path::new(at).join(LIBRARY)).find(|path| path.exists())
}

/// What this starts, and what that starts, has the clock of that file.
pub(super) fn apply(command: &mut Command, library: &Path, file: &Path) {
    command.env("LD_PRELOAD", library).env(FILE, file);
    // Timeouts and pauses are as long as they are.
    command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    // Times of files are the machine's.
    command.env("NO_FAKE_STAT", "1");
    // Seconds until a change of the file is noticed.
    command.env("FAKETIME_CACHE_DURATION", "1");
}

/// So many seconds are added from now on.
pub(crate) fn set(file: &Path, seconds: i64) -> Result<()> {
    write_private(file, &format!("{seconds:+}\n"))
}

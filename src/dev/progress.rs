//! Progress lines with the seconds since the start.

use crate::cli::output;
use std::time::Instant;

pub(super) struct Progress {
    started: Instant,
}

impl Progress {
    pub(super) fn start() -> Progress {
        Progress { started: Instant::now() }
    }

    pub(super) fn say(&self, what: &str) {
        output::say(&format!("{:7.2}s  {what}", self.started.elapsed().as_secs_f64()));
    }
}

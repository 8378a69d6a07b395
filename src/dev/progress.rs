//! Progress lines with the seconds since the start.

use crate::cli::output;
use std::time::Instant;

pub(crate) struct Progress {
    started: Instant,
}

impl Progress {
    pub(crate) fn start() -> Progress {
        Progress { started: Instant::now() }
    }

    pub(crate) fn say(&self, what: &str) {
        output::say(&format!("{:7.2}s  {what}", self.started.elapsed().as_secs_f64()));
    }
}

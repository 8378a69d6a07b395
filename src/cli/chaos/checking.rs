//! Judges a run while it goes on: all there is so far, again and again, on a thread of its own that gives
//! way to masters. Who carries the run out is never kept from ending a fault, or from seeing that one is over.

use super::api::Shared;
use ::chaos::{Violation, judge, record::Record};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Between two checks, at least; and so many times what the last one took, so that checking is no load.
const INTERVAL: Duration = Duration::from_secs(5);
const SHARE: u32 = 20;
/// The least that a thread can claim of a processor that others want.
const NICE: i32 = 19;

/// The next check, or the one that is made now.
pub(super) struct Checking<'a> {
    shared: &'a Shared,
    next: Instant,
    made: Option<Check>,
}

struct Check {
    since: Instant,
    horizon: u64,
    found: oneshot::Receiver<Vec<Violation>>,
}

impl Checking<'_> {
    pub(super) fn of(shared: &Shared) -> Checking<'_> {
        Checking { shared, next: Instant::now() + INTERVAL, made: None }
    }

    /// What a check has found that is over now; one begins if it is time.
    pub(super) fn step(&mut self) -> Result<Vec<Violation>> {
        let Some(check) = &mut self.made else {
            if Instant::now() >= self.next {
                self.made = Some(Check::of(self.shared.record().clone())?);
            }
            return Ok(Vec::new());
        };
        let found = match check.found.try_recv() {
            Ok(found) => found,
            Err(TryRecvError::Empty) => return Ok(Vec::new()),
            Err(TryRecvError::Closed) => bail!("a check of the run ended without a result"),
        };
        let metrics = &self.shared.metrics;
        metrics.violations.set(found.len() as i64);
        metrics.checked_revision.set(i64::try_from(check.horizon)?);
        self.next = Instant::now() + INTERVAL.max(check.since.elapsed() * SHARE);
        self.made = None;
        Ok(found)
    }
}

impl Check {
    fn of(record: Record) -> Result<Check> {
        let (horizon, (tell, found)) = (record.horizon(), oneshot::channel());
        let judge = move || {
            give_way();
            // Nobody waits any more once the run has ended.
            let _ = tell.send(judge::violations(&record, horizon));
        };
        let thread = std::thread::Builder::new().name("check".into());
        thread.spawn(judge).context("cannot start a thread for a check")?;
        Ok(Check { since: Instant::now(), horizon, found })
    }
}

/// Lets everything else on this machine go before this thread.
#[expect(unsafe_code, reason = "no crate here has it for a single thread")]
fn give_way() {
    // SAFETY: a system call with plain numbers; 0 is the thread that calls.
    let set = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    if set != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "checks do not give way");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_judged_is_what_was_there() {
        let (mut record, lost) = (Record::new(1), Violation::new("watches", "lost its place"));
        record.broken.push(lost.clone());
        let check = Check::of(record.clone()).unwrap();
        record.broken.clear();
        assert_eq!(check.found.blocking_recv().unwrap(), [lost]);
    }
}

//! Upstream's back-off: 10 s, doubled each time up to 5 min, forgotten after 10 quiet minutes.

use super::plan::Instant;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// The back-off of one container, for its exits or for its image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    delay: Duration,
    updated: Instant,
}

impl Backoff {
    /// Something failed at `now`: when it may be tried again.
    pub(crate) fn not_before(&self, now: Instant) -> Instant {
        if self.forgotten(now) { now } else { now + self.delay }
    }

    /// It is tried again after a failure at `failed`: the next wait is longer.
    pub(crate) fn tried(&mut self, failed: Instant) {
        self.delay = if self.forgotten(failed) { FIRST } else { (self.delay * 2).min(LONGEST) };
        self.updated = failed;
    }

    /// What the next failure will have to wait.
    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }

    fn forgotten(&self, now: Instant) -> bool {
        self.delay.is_zero() || now.saturating_sub(self.updated) > 2 * LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_five_minutes_and_is_forgotten_after_ten() {
        let (mut backoff, mut now, mut waits) = (Backoff::default(), Duration::ZERO, Vec::new());
        for _ in 0..8 {
            let next = backoff.not_before(now);
            waits.push((next - now).as_secs());
            backoff.tried(now);
            now = next + Duration::from_secs(1);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        now += Duration::from_secs(601);
        assert_eq!(backoff.not_before(now), now);
    }
}

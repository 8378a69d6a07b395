//! How old history is, and so which revision may be compacted to.
//!
//! Time counts while this member runs, from one start to the next: what is noted outlives a restart, and
//! how long the member was down does not count. So history is kept for as long as was promised or longer,
//! and no wall clock is read, which may jump.

use crate::{config::Retention, types::Revision};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, time::Duration};

/// How far the old revisions to compact to are apart.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// The revisions of the recent past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ages {
    /// After how much time of running which revision was the last; both rise.
    taken: VecDeque<(Duration, Revision)>,
    /// The newest that is older than history is kept.
    expired: Option<Revision>,
}

impl Ages {
    /// How long the member had run when the last revision was noted.
    pub(crate) fn until(&self) -> Duration {
        self.taken.back().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// It has run so long, and this revision is the last: whether that was noted.
    pub(crate) fn note(&mut self, now: Duration, revision: Revision, keep: &Retention) -> bool {
        while let Some((at, revision)) = self.taken.front().copied()
            && now.saturating_sub(at) >= keep.history
        {
            self.expired = Some(revision);
            self.taken.pop_front();
        }
        let last = self.taken.back();
        let due = last
            .is_none_or(|(last, _)| now.saturating_sub(*last) >= SAMPLE_EVERY.min(keep.history));
        if due {
            self.taken.push_back((now, revision));
        }
        due
    }

    /// The newest revision that may be compacted to, now that this one is the last.
    pub(crate) fn target(&self, revision: Revision, keep: &Retention) -> Option<Revision> {
        let too_many = revision.0.checked_sub(keep.history_changes).map(Revision);
        self.expired.max(too_many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: fn() -> Retention = || Retention {
        history: Duration::from_secs(60),
        history_changes: 1000,
        ..Retention::default()
    };

    fn after(ages: &mut Ages, seconds: u64, revision: u64) -> Option<Revision> {
        ages.note(Duration::from_secs(seconds), Revision(revision), &KEEP());
        ages.target(Revision(revision), &KEEP())
    }

    #[test]
    fn history_is_kept_for_a_time_but_not_over_a_number() {
        let mut ages = Ages::default();
        assert_eq!(after(&mut ages, 0, 10), None);
        assert_eq!(after(&mut ages, 59, 100), None);
        assert_eq!(after(&mut ages, 60, 110), Some(Revision(10)));
        assert_eq!(after(&mut ages, 61, 2000), Some(Revision(1000)));
        assert_eq!(after(&mut ages, 130, 2000), Some(Revision(1000)));
        assert_eq!(after(&mut ages, 190, 2000), Some(Revision(2000)));
    }

    #[test]
    fn history_grows_old_over_restarts_by_the_time_that_a_member_ran() {
        let mut ages = Ages::default();
        for start in 0..7 {
            let written = serde_json::to_vec(&ages).unwrap();
            ages = serde_json::from_slice(&written).unwrap();
            let before = ages.until().as_secs();
            assert_eq!(after(&mut ages, before + 9, 10 + start), None, "start {start}");
        }
        let before = ages.until().as_secs();
        assert_eq!(before, 63);
        assert_eq!(after(&mut ages, before + 6, 20), Some(Revision(10)));
    }
}

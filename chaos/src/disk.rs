//! What a fault of a disk does to it, worked out from the plan.

use crate::{scenario::Harm, schedule::Strike};
use std::{ops::Range, time::Duration};

/// Each write and each sync takes so many milliseconds more: from a bad day to a dying disk.
const SLOWER_BY_MS: Range<u64> = 10..150;

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// What was not synced is lost, or all but the beginnings of some files: the seed says.
    PowerCut {
        seed: u64,
    },
    Slow {
        by: Duration,
    },
    /// Nothing can grow.
    Full,
    /// Less is left than masters keep free; nothing fails.
    NearlyFull,
    /// Syncs fail and sync nothing.
    FailingSync,
}

/// What a fault does to the disk, and that for people; `None` if it is none of the disk.
pub fn trouble(strike: &Strike) -> Option<(Trouble, String)> {
    // Another part of it than says whom it hits.
    let draw = strike.draw >> 32;
    Some(match (strike.harm, draw % 2) {
        (Harm::PowerCut, _) => (Trouble::PowerCut { seed: draw }, String::new()),
        (Harm::SlowDisk, _) => {
            let ms = SLOWER_BY_MS.start + draw % (SLOWER_BY_MS.end - SLOWER_BY_MS.start);
            (Trouble::Slow { by: Duration::from_millis(ms) }, format!("by {ms} ms"))
        }
        (Harm::FullDisk, 0) => (Trouble::Full, "no room".to_owned()),
        (Harm::FullDisk, _) => (Trouble::NearlyFull, "little room".to_owned()),
        (Harm::FailingFsync, _) => (Trouble::FailingSync, String::new()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Target;

    #[test]
    fn each_kind_has_its_trouble() {
        let of = |harm, draw: u64| {
            let (at, hold) = (Duration::ZERO, Duration::from_secs(1));
            let (target, draw) = (Target::Any, draw << 32);
            trouble(&Strike { at, harm, target, hold, at_most: 1, turn: 0, draw })
        };
        let is = |harm, draw, wanted| assert_eq!(of(harm, draw).expect("of a disk").0, wanted);
        is(Harm::PowerCut, 7, Trouble::PowerCut { seed: 7 });
        is(Harm::FullDisk, 6, Trouble::Full);
        is(Harm::FullDisk, 7, Trouble::NearlyFull);
        is(Harm::FailingFsync, 7, Trouble::FailingSync);
        is(Harm::SlowDisk, 149, Trouble::Slow { by: Duration::from_millis(19) });
        for harm in [Harm::Kill, Harm::Pause, Harm::Partition, Harm::Loss] {
            assert_eq!(of(harm, 7), None);
        }
    }
}

//! How far the clock of a master jumps, worked out from the plan.

use crate::{scenario::Harm, schedule::Strike};

/// From what nobody notices to what is longer than any lease, token or leader's term.
const JUMPS_SECONDS: [i64; 6] = [2, 15, 60, 300, 900, 3600];

/// By how many seconds a clock is wrong, and that for people; `None` if a fault is none of the clock.
pub fn jump(strike: &Strike) -> Option<(i64, String)> {
    if strike.harm != Harm::Clock {
        return None;
    }
    // Another part of it than says whom it hits, or which way.
    let nth = (strike.draw >> 33) as usize % JUMPS_SECONDS.len();
    let seconds = JUMPS_SECONDS[nth];
    Some(match strike.coin() {
        true => (-seconds, format!("{seconds} s back")),
        false => (seconds, format!("{seconds} s ahead")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Target;
    use std::{collections::BTreeSet, time::Duration};

    #[test]
    fn clocks_jump_both_ways_by_each_length() {
        let of = |harm, draw: u64| {
            let (at, hold) = (Duration::ZERO, Duration::from_secs(1));
            let (target, draw) = (Target::Any, draw << 32);
            jump(&Strike { at, harm, target, hold, at_most: 1, turn: 0, draw })
        };
        assert_eq!(of(Harm::Pause, 0), None);
        assert_eq!(of(Harm::Clock, 0), Some((2, "2 s ahead".into())));
        assert_eq!(of(Harm::Clock, 11), Some((-3600, "3600 s back".into())));
        let all: BTreeSet<i64> =
            (0..12).filter_map(|it| of(Harm::Clock, it)).map(|it| it.0).collect();
        assert_eq!(all.len(), 12);
    }
}

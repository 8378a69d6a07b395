//! What can happen to a cluster, when, and to whom: a plan is drawn from a seed before a run begins,
//! so that it can be shown, replayed and shortened.

use rand::{Rng, rngs::StdRng};
use std::fmt;

/// One fault. Members go by number; lengths are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies; what it wrote is with the kernel.
    Kill {
        member: u64,
        down: u64,
    },
    /// The machine dies; what was not synced may be lost.
    PowerCut {
        member: u64,
        down: u64,
    },
    PowerCutOfAll {
        down: u64,
    },
    /// The machine of whoever leads.
    PowerCutOfLeader {
        down: u64,
    },
    /// It does nothing for a while and does not know.
    Pause {
        member: u64,
        length: u64,
    },
    PauseOfLeader {
        length: u64,
    },
    /// Nothing gets to it, nor from it.
    Isolate {
        member: u64,
        length: u64,
    },
    IsolateLeader {
        length: u64,
    },
    /// Nothing gets from one to the other; the way back is open.
    OneWay {
        from: u64,
        to: u64,
        length: u64,
    },
    /// Two do not reach each other, others reach both.
    Cut {
        between: u64,
        and: u64,
        length: u64,
    },
    /// These do not reach the others.
    Split {
        apart: Vec<u64>,
        length: u64,
    },
    /// Of a hundred messages so many are lost.
    Loss {
        percent: u32,
        length: u64,
    },
    /// Messages are late, and overtake each other.
    SlowNetwork {
        length: u64,
    },
    /// Of a hundred messages so many come twice.
    Repeat {
        percent: u32,
        length: u64,
    },
    SlowDisk {
        member: u64,
        length: u64,
    },
    /// Writes to the log, or to the state, fail.
    FailingDisk {
        member: u64,
        log: bool,
    },
    /// With its power it loses the end of its log, which had been on disk. At most one does.
    LoseTail {
        member: u64,
        entries: usize,
    },
    /// There is no room for so long.
    FullDisk {
        member: u64,
        length: u64,
    },
    /// It dies whenever it has answered something, once in so many answers, for a while.
    DieAfterAnswers {
        one_in: u32,
        length: u64,
    },
    /// Power for all is cut, and when it is back two do not reach each other: both want the others'
    /// votes. Who has given one may die over it, and is cut off from whom it went to.
    Contest {
        between: u64,
        and: u64,
        length: u64,
    },
    /// A member joins.
    Join,
    Remove {
        member: u64,
    },
    Transfer,
    /// It is cut off until the others have dropped the log that it needs.
    Lag {
        member: u64,
        length: u64,
    },
}

/// A fault and when it begins, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    pub at: u64,
    pub fault: Fault,
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6} ms  {:?}", self.at, self.fault)
    }
}

/// Faults for a run of `length` ms of a cluster of `members`, in order of time.
pub fn plan(random: &mut StdRng, members: u64, length: u64) -> Vec<Timed> {
    let mut plan = Vec::new();
    let (mut at, end) = (random.random_range(300..1_500), length);
    // Runs are of different tempers, or the common faults would hide the rare ones.
    let pace = random.random_range(200..1_800);
    while at < end {
        plan.push(Timed { at, fault: fault(random, members) });
        at += random.random_range(pace / 4..pace * 2);
    }
    plan
}

fn fault(random: &mut StdRng, members: u64) -> Fault {
    let member = random.random_range(1..=members);
    let other = (member + random.random_range(1..members.max(2)) - 1) % members + 1;
    let down = random.random_range(1..1_500);
    let length = random.random_range(100..3_000);
    match random.random_range(0..100) {
        0..8 => Fault::Kill { member, down },
        8..20 => Fault::PowerCut { member, down },
        20..25 => Fault::PowerCutOfAll { down },
        25..33 => Fault::PowerCutOfLeader { down },
        33..38 => Fault::Pause { member, length },
        38..42 => Fault::PauseOfLeader { length },
        42..46 => Fault::Isolate { member, length },
        46..52 => Fault::IsolateLeader { length },
        52..57 => Fault::OneWay { from: member, to: other, length },
        57..59 => Fault::Cut { between: member, and: other, length },
        59..61 => Fault::Contest { between: member, and: other, length },
        61..66 => {
            let apart = (1..=members).filter(|_| random.random_bool(0.5)).collect();
            Fault::Split { apart, length }
        }
        66..69 => Fault::Loss { percent: random.random_range(2..30), length },
        69..72 => Fault::SlowNetwork { length },
        72..75 => Fault::Repeat { percent: random.random_range(2..30), length },
        75..79 => Fault::SlowDisk { member, length },
        79..82 => Fault::FailingDisk { member, log: random.random_bool(0.6) },
        82 => Fault::FullDisk { member, length },
        // A tenth of it, so that most runs are of sound disks.
        83 if random.random_ratio(1, 10) => {
            Fault::LoseTail { member, entries: random.random_range(1..4) }
        }
        83..88 => Fault::DieAfterAnswers { one_in: random.random_range(10..200), length },
        88..91 => Fault::Join,
        91..93 => Fault::Remove { member: random.random_range(1..=members + 2) },
        93..96 => Fault::Transfer,
        _ => Fault::Lag { member, length: length * 2 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn a_seed_is_a_plan() {
        let plan = |seed| plan(&mut StdRng::seed_from_u64(seed), 3, 20_000);
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        assert!(plan(7).is_sorted_by_key(|timed| timed.at));
    }
}

//! Figures of a run: what was done in each slice of time and how long it took, and how long nothing
//! was acknowledged after each fault.

use crate::{
    objects::stalls,
    record::{Operation, Outcome, Record, Struck},
    scenario::Kind,
};
use std::{collections::BTreeMap, time::Duration};

/// A slice of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    /// Writes that were answered in it, by outcome.
    pub writes: [usize; 3],
    /// Reads that were answered in it.
    pub reads: usize,
    /// Of the acknowledged writes, in milliseconds.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// The value below which so many percent of a sorted list are; `None` of an empty one.
pub fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let index = (sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?);
    sorted.get(index).copied()
}

/// A run of `length` in slices of `width`; the last may be a part of one.
pub fn slices(operations: &[Operation], length: Duration, width: Duration) -> Vec<Slice> {
    let width = width.as_nanos().max(1) as u64;
    let count = (length.as_nanos() as u64).div_ceil(width) as usize;
    let mut slices = vec![Slice::default(); count];
    let mut took: Vec<Vec<u64>> = vec![Vec::new(); count];
    for operation in operations {
        let at = (operation.op.returned / width) as usize;
        let (Some(outcome), Some(slice)) = (operation.outcome, slices.get_mut(at)) else {
            continue;
        };
        match (operation.writes(), outcome) {
            (true, _) => slice.writes[outcome as usize] += 1,
            (false, Outcome::Acknowledged) => slice.reads += 1,
            (false, _) => {}
        }
        if operation.writes() && outcome == Outcome::Acknowledged {
            took[at].push(operation.took());
        }
    }
    for (slice, mut took) in slices.iter_mut().zip(took) {
        took.sort_unstable();
        slice.p50_ms = percentile(&took, 50).map(milliseconds);
        slice.p99_ms = percentile(&took, 99).map(milliseconds);
    }
    slices
}

fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// When writes were acknowledged, sorted.
pub fn acknowledgements(operations: &[Operation]) -> Vec<u64> {
    let writes = operations.iter().filter(|it| it.writes());
    let acknowledged = writes.filter(|it| it.outcome == Some(Outcome::Acknowledged));
    let mut times: Vec<u64> = acknowledged.map(|it| it.op.returned).collect();
    times.sort_unstable();
    times
}

/// The longest time without an acknowledged write that ended after `from` and began before `to`; what
/// of it was before `from` does not count. `None` if no write was acknowledged after `from`.
pub fn gap(acknowledged: &[u64], from: u64, to: u64) -> Option<Duration> {
    let after = acknowledged.partition_point(|at| *at <= from);
    let mut last = from;
    let mut longest = None;
    for at in &acknowledged[after..] {
        if last >= to {
            break;
        }
        longest = longest.max(Some(at - last));
        last = *at;
    }
    longest.map(Duration::from_nanos)
}

/// After each fault that hit the leader, how long no write was acknowledged; in order of time. A fault
/// counts until the next, or until the load stopped.
pub fn failovers(record: &Record) -> Vec<(usize, Duration)> {
    let mut acknowledged = acknowledgements(&record.operations);
    acknowledged.retain(|at| record.load_ended.is_none_or(|ended| *at <= ended));
    let until = |n: usize| record.strikes.get(n + 1).map_or(u64::MAX, |next| next.at);
    let led = record.strikes.iter().enumerate().filter(|(_, strike)| strike.led);
    led.filter_map(|(n, strike)| Some((n, gap(&acknowledged, strike.at, until(n))?))).collect()
}

/// After each fault that hit the leader, how long no pod got a node, or no change of a Deployment was
/// carried out, though somebody waited for one or had asked for one. A fault counts until the next.
pub fn stalled(record: &Record, kind: Kind) -> Vec<(usize, Duration)> {
    let stalls = stalls(record, kind);
    let led = record.strikes.iter().enumerate().filter(|(_, strike)| strike.led);
    led.filter_map(|(n, strike)| {
        let until = record.strikes.get(n + 1).map_or(u64::MAX, |next| next.at);
        let after = stalls.iter().filter(|(from, end)| *end > strike.at && *from < until);
        let longest = after.map(|(from, end)| end - (*from).max(strike.at)).max()?;
        Some((n, Duration::from_nanos(longest)))
    })
    .collect()
}

/// The longest time without an acknowledged write in the whole run, and when it began.
pub fn longest_gap(acknowledged: &[u64], end: u64) -> (u64, Duration) {
    let mut longest = (0, 0);
    let mut last = 0;
    for at in acknowledged.iter().copied().filter(|at| *at <= end).chain([end]) {
        if at.saturating_sub(last) > longest.1 {
            longest = (last, at - last);
        }
        last = at;
    }
    (longest.0, Duration::from_nanos(longest.1))
}

/// How long a fault took until the master answered again.
pub fn away(strike: &Struck) -> Option<Duration> {
    strike.over.map(|over| Duration::from_nanos(over.saturating_sub(strike.at)))
}

/// Operations of a workload: writes and reads, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub writes: [usize; 3],
    pub reads: [usize; 3],
}

pub fn totals(operations: &[Operation]) -> BTreeMap<Kind, Totals> {
    let mut totals: BTreeMap<Kind, Totals> = BTreeMap::new();
    for operation in operations {
        let of = totals.entry(operation.workload).or_default();
        // What has no answer when the run ends has none.
        let outcome = operation.outcome.unwrap_or(Outcome::Unknown) as usize;
        match operation.writes() {
            true => of.writes[outcome] += 1,
            false => of.reads[outcome] += 1,
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Guard, Told};

    const MS: u64 = 1_000_000;

    #[test]
    fn a_gap_is_counted_from_the_fault() {
        let at = [10, 20, 90, 100, 300];
        let gap = |from, to| gap(&at, from, to).map(|it| it.as_nanos());
        assert_eq!(gap(25, 95), Some(65), "from the fault, not from the answer before it");
        assert_eq!(gap(25, 1_000), Some(200));
        assert_eq!(gap(15, 18), Some(5), "the first answer after it ends it");
        assert_eq!(gap(300, 400), None, "nothing was acknowledged any more");
        assert_eq!(longest_gap(&at, 320), (100, Duration::from_nanos(200)));
        assert_eq!(longest_gap(&at, 900), (300, Duration::from_nanos(600)));
        assert_eq!(longest_gap(&[], 50), (0, Duration::from_nanos(50)));
    }

    #[test]
    fn what_is_answered_counts_in_its_slice() {
        let mut record = Record::new(0);
        for (called, returned, told) in [
            (0, 5, Told::Done(Some(1))),
            (1, 9, Told::Done(Some(2))),
            (8, 12, Told::Refused),
            (8, 13, Told::Unknown),
        ] {
            let write = ("k", Some(format!("{called}")), Guard::Nothing);
            let number = record.write(Kind::Register, 1, called * MS, write);
            record.told(number, returned * MS, told);
        }
        record.write(Kind::Register, 1, 20 * MS, ("k", Some("open".into()), Guard::Nothing));
        let slices =
            slices(&record.operations, Duration::from_millis(25), Duration::from_millis(10));
        assert_eq!(slices.len(), 3);
        assert_eq!((slices[0].writes, slices[0].p50_ms), ([2, 0, 0], Some(8.0)));
        assert_eq!((slices[1].writes, slices[1].p99_ms), ([0, 1, 1], None));
        assert_eq!(slices[2], Slice::default());
        assert_eq!(totals(&record.operations)[&Kind::Register].writes, [2, 1, 2]);
    }
}

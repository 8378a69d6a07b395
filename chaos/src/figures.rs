//! Figures of a run: what was done in each slice of time and how long it took, and how long nothing
//! was acknowledged after each fault.

use crate::{
    growing::Growing,
    objects::stalls,
    record::{Operation, Outcome, Record, Struck},
    scenario::{Kind, Workload},
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
pub fn slices(operations: &Growing<Operation>, length: Duration, width: Duration) -> Vec<Slice> {
    let width = width.as_nanos().max(1) as u64;
    let count = (length.as_nanos() as u64).div_ceil(width) as usize;
    let mut slices = vec![Slice::default(); count];
    let mut took: Vec<Vec<u64>> = vec![Vec::new(); count];
    for operation in operations.iter() {
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

/// When writes were acknowledged after `from`, sorted.
pub fn acknowledgements(operations: &Growing<Operation>, from: u64) -> Vec<u64> {
    let writes = operations.iter().filter(|it| it.writes() && it.op.returned > from);
    let acknowledged = writes.filter(|it| it.outcome == Some(Outcome::Acknowledged));
    let mut times: Vec<u64> = acknowledged.map(|it| it.op.returned).collect();
    times.sort_unstable();
    times
}

/// What can stand still after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// No write of any client is acknowledged.
    Writes,
    /// No pod gets a node, though somebody waits for one or has asked for one.
    Binding,
    /// No change of a Deployment is carried out, though somebody waits for one or has asked for one.
    Reconcile,
}

impl Work {
    /// Those that a run with these workloads shows.
    pub fn of(workloads: &[Workload]) -> Vec<Work> {
        let runs = |kind| workloads.iter().any(|it| it.kind == kind);
        let shown = [
            (Work::Writes, true),
            (Work::Binding, runs(Kind::Binding)),
            (Work::Reconcile, runs(Kind::RollingUpdate)),
        ];
        shown.into_iter().filter(|(_, shown)| *shown).map(|(work, _)| work).collect()
    }

    /// As the label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            Work::Writes => "write",
            Work::Binding => "binding",
            Work::Reconcile => "reconcile",
        }
    }

    /// That it stood still, for people.
    pub fn stood_still(self) -> &'static str {
        match self {
            Work::Writes => "no write was acknowledged",
            Work::Binding => "no pod was bound",
            Work::Reconcile => "no Deployment was reconciled",
        }
    }
}

/// The times in which the work stood still while the load ran and that ended after `from`, in order: each
/// from when something came about, or the first asked for it, until something did.
fn stills(record: &Record, work: Work, from: u64) -> Vec<(u64, u64)> {
    let of_kind = |kind| {
        let mut stalls = stalls(record, kind);
        stalls.retain(|(_, ended)| *ended > from);
        stalls
    };
    match work {
        Work::Writes => {
            let mut acknowledged = acknowledgements(&record.operations, from);
            acknowledged.retain(|at| record.load_ended.is_none_or(|ended| *at <= ended));
            let before = [from].into_iter().chain(acknowledged.clone());
            before.zip(acknowledged).collect()
        }
        Work::Binding => of_kind(Kind::Binding),
        Work::Reconcile => of_kind(Kind::RollingUpdate),
    }
}

/// The longest of these times that ended after `from` and began before `to`; what of it was before
/// `from` does not count. `None` if nothing came about after `from`.
fn longest_still(stills: &[(u64, u64)], from: u64, to: u64) -> Option<Duration> {
    let after = stills.partition_point(|(_, ended)| *ended <= from);
    let within = stills[after..].iter().take_while(|(begun, _)| *begun < to);
    within.map(|(begun, ended)| ended - (*begun).max(from)).max().map(Duration::from_nanos)
}

/// How long the work stood still at most between two moments, of which the first is a fault's. `None` if
/// nothing came about any more, or nobody asked for anything.
pub fn standstill(record: &Record, work: Work, from: u64, to: u64) -> Option<Duration> {
    longest_still(&stills(record, work, from), from, to)
}

/// The same for each fault, which counts until the next.
pub fn standstills(record: &Record, work: Work) -> Vec<Option<Duration>> {
    let stills = stills(record, work, 0);
    let ends = record.strikes.iter().skip(1).map(|next| next.at).chain([u64::MAX]);
    let spans = record.strikes.iter().map(|it| it.at).zip(ends);
    spans.map(|(from, to)| longest_still(&stills, from, to)).collect()
}

/// The standstills after faults that hit the leader, in order of time.
pub fn failovers(record: &Record, work: Work) -> Vec<Duration> {
    let all = record.strikes.iter().zip(standstills(record, work));
    all.filter(|(strike, _)| strike.led).filter_map(|(_, standstill)| standstill).collect()
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

pub fn totals(operations: &Growing<Operation>) -> BTreeMap<Kind, Totals> {
    let mut totals: BTreeMap<Kind, Totals> = BTreeMap::new();
    for operation in operations.iter() {
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
        let stills = [(0, 10), (10, 20), (20, 90), (90, 100), (100, 300)];
        let gap = |from, to| longest_still(&stills, from, to).map(|it| it.as_nanos());
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

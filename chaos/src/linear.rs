//! Linearizability, exactly-once and fences, by revisions: the revision an operation was answered
//! with is its place in the one order. What is left to check is that the order explains every
//! answer, and that nothing comes before what was over when it began. Takes O(n log n).

use crate::{
    Violation,
    history::{Guard, Op, Told, Truth, What},
};
use std::collections::{BTreeMap, BTreeSet};

/// Everything wrong with what clients were told.
pub fn check(ops: &[Op], truth: &Truth) -> Vec<Violation> {
    let mut found: Vec<Violation> = revisions(truth).into_iter().collect();
    found.extend(check_part(ops, truth));
    found
}

/// The same where `truth` is a part of what was committed: others write elsewhere meanwhile, so that
/// revisions have gaps.
pub fn check_part(ops: &[Op], truth: &Truth) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(once(ops, truth));
    found.extend(whole(ops, truth));
    found.extend(answers(ops, truth));
    found.extend(real_time(ops));
    found
}

/// Revisions grow by one from where they begin, and so do places within each, from 0.
fn revisions(truth: &Truth) -> Option<Violation> {
    let (mut revision, mut place) = (truth.begin(), 0);
    let odd = truth.events().iter().find(|event| {
        let follows = match event.place {
            0 => event.revision == revision + 1,
            n => event.revision == revision && n == place + 1,
        };
        (revision, place) = (event.revision, event.place);
        !follows
    })?;
    Some(Violation::new("revisions", format!("{odd:?} does not follow the one before it")))
}

/// Of a transaction there is everything or nothing.
fn whole(ops: &[Op], truth: &Truth) -> Vec<Violation> {
    let applied: BTreeSet<&str> =
        truth.events().iter().filter_map(|event| event.value.as_deref()).collect();
    let mut transactions: BTreeMap<(u64, u64), (usize, usize)> = BTreeMap::new();
    for op in ops {
        if let What::Write { value: Some(value), transaction, .. } = &op.what {
            let (there, all) = transactions.entry((op.client, *transaction)).or_default();
            (*there, *all) = (*there + usize::from(applied.contains(&**value)), *all + 1);
        }
    }
    let torn = transactions.into_iter().filter(|(_, (there, all))| *there > 0 && there < all);
    let torn = torn.map(|((client, n), (there, all))| {
        let what = format!("{there} of {all} writes of transaction {n} of client {client}");
        Violation::new("all or nothing", what)
    });
    torn.collect()
}

/// What was written is there once at most, not if it was refused, and only in its term.
fn once(ops: &[Op], truth: &Truth) -> Vec<Violation> {
    let mut written: BTreeMap<&str, (Option<u64>, &Told)> = BTreeMap::new();
    for op in ops {
        if let What::Write { value: Some(value), fence, told, .. } = &op.what {
            written.insert(value, (*fence, told));
        }
    }
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for event in truth.events() {
        let Some(value) = event.value.as_deref() else { continue };
        if !seen.insert(value) {
            found.push(Violation::new("exactly once", format!("{event:?} was applied before")));
        }
        let Some((fence, told)) = written.get(value) else {
            found.push(Violation::new("nothing from nowhere", format!("nobody wrote {event:?}")));
            continue;
        };
        if **told == Told::Refused {
            found.push(Violation::new("refusals hold", format!("{event:?} had been refused")));
        }
        if fence.is_some_and(|fence| fence != event.term) {
            let what = format!("{event:?} was to be applied in term {fence:?} only");
            found.push(Violation::new("fences", what));
        }
    }
    found
}

/// Every answer is what the order says.
fn answers(ops: &[Op], truth: &Truth) -> Vec<Violation> {
    // A key can be written and deleted at one revision.
    let mut events: BTreeMap<(u64, &str), Vec<_>> = BTreeMap::new();
    for event in truth.events() {
        events.entry((event.revision, &event.key)).or_default().push(&event.value);
    }
    let mut found = reads(ops, truth);
    for op in ops {
        match &op.what {
            What::Write { key, value, guard, told: Told::Done(Some(revision)), .. } => {
                let before = truth.before(key, *revision);
                let held = match guard {
                    Guard::Nothing => true,
                    Guard::Absent => before.is_none(),
                    Guard::At(at) => before == Some(*at),
                };
                if !held {
                    let what = format!("{op:?} was applied when the key was as of {before:?}");
                    found.push(Violation::new("guards", what));
                }
                let there = events.get(&(*revision, key));
                if there.is_none_or(|there| !there.contains(&value)) {
                    let what = format!("{op:?} was acknowledged; at {revision} there is {there:?}");
                    found.push(Violation::new("acknowledged writes stay", what));
                }
            }
            What::Write { .. } | What::Read { .. } => {}
        }
    }
    found
}

/// What was read is what was there, in order of revisions.
fn reads(ops: &[Op], truth: &Truth) -> Vec<Violation> {
    let of = |op: &'_ Op| match &op.what {
        What::Read { revision, .. } => Some(*revision),
        What::Write { .. } => None,
    };
    let mut reads: Vec<&Op> = ops.iter().filter(|op| of(op).is_some()).collect();
    reads.sort_by_key(|op| of(op));
    let (mut tour, mut found) = (truth.tour(), Vec::new());
    for op in reads {
        let What::Read { prefix, revision, found: read, .. } = &op.what else { continue };
        tour.go(*revision);
        if tour.under(prefix).eq(read.iter().map(|(key, value, since)| (&**key, &**value, *since)))
        {
            continue;
        }
        let right = truth.at(prefix, *revision);
        let odd = read.iter().find(|it| !right.contains(it));
        let missing = right.iter().find(|it| !read.contains(it));
        let what = format!(
            "{prefix} at {revision}: {odd:?} was read, {missing:?} was not (client {})",
            op.client
        );
        found.push(Violation::new("reads are true", what));
    }
    found
}

/// The place of an operation in the order, and whether it must be above all before it.
fn place(op: &Op) -> Option<(u64, bool)> {
    match &op.what {
        What::Write { told: Told::Done(Some(revision)), .. } => Some((*revision, true)),
        What::Write { .. } => None,
        What::Read { revision, linearizable, .. } => linearizable.then_some((*revision, false)),
    }
}

/// What was over before another began comes before it.
pub(crate) fn real_time(ops: &[Op]) -> Vec<Violation> {
    let placed = || ops.iter().filter_map(|op| Some((op, place(op)?)));
    let mut by_call: Vec<_> = placed().collect();
    by_call.sort_by_key(|(op, _)| op.called);
    let mut by_return: Vec<_> = placed().collect();
    by_return.sort_by_key(|(op, _)| op.returned);
    let mut over = by_return.into_iter().peekable();
    let (mut highest, mut found) = (None, Vec::new());
    for (op, (revision, writes)) in by_call {
        while let Some((earlier, (at, _))) = over.next_if(|(it, _)| it.returned < op.called) {
            highest = highest.max(Some((at, earlier.called)));
        }
        let Some((before, called)) = highest else { continue };
        if revision < before || (writes && revision == before) {
            let what =
                format!("{op:?} comes before revision {before}, seen by one called at {called}");
            found.push(Violation::new("real time", what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Event;

    fn event(revision: u64, key: &str, value: &str) -> Event {
        let value = (!value.is_empty()).then(|| value.to_owned());
        Event { revision, place: 0, key: key.into(), value, term: 1 }
    }

    fn write(at: (u64, u64), key: &str, value: &str, told: Told) -> Op {
        let (key, value) = (key.to_owned(), Some(value.to_owned()));
        let (guard, fence, transaction) = (Guard::Nothing, None, at.0);
        let what = What::Write { key, value, guard, fence, transaction, told };
        Op { client: 1, called: at.0, returned: at.1, what }
    }

    fn read(at: (u64, u64), revision: u64, found: &[(&str, &str, u64)]) -> Op {
        let found = found.iter().map(|(k, v, r)| ((*k).into(), (*v).into(), *r)).collect();
        let what = What::Read { prefix: "".into(), revision, found, linearizable: true };
        Op { client: 2, called: at.0, returned: at.1, what }
    }

    /// The checks that find something.
    fn found(ops: &[Op], events: &[Event]) -> Vec<&'static str> {
        let truth = Truth::new(events.to_vec());
        check(ops, &truth).into_iter().map(|violation| violation.check).collect()
    }

    #[test]
    fn what_is_right_is_not_found() {
        let ops = [
            write((0, 9), "a", "1", Told::Done(Some(1))),
            read((2, 4), 0, &[]),
            read((5, 7), 1, &[("a", "1", 1)]),
            write((8, 20), "a", "2", Told::Unknown),
            write((21, 22), "b", "3", Told::Refused),
            write((23, 24), "b", "4", Told::Done(Some(3))),
            read((25, 26), 3, &[("a", "2", 2), ("b", "4", 3)]),
        ];
        let events = [event(1, "a", "1"), event(2, "a", "2"), event(3, "b", "4")];
        assert_eq!(found(&ops, &events), Vec::<&str>::new());
    }

    #[test]
    fn what_was_restored_is_there_and_revisions_go_on_after_it() {
        let objects = vec![("a".to_owned(), "1".to_owned(), 3)];
        let truth = Truth::after(100, objects, vec![event(101, "b", "2")]);
        let written = write((2, 3), "b", "2", Told::Done(Some(101)));
        let ops = [read((0, 1), 100, &[("a", "1", 3)]), written.clone()];
        assert_eq!(check(&ops, &truth), []);
        let ops = [read((0, 1), 100, &[]), written.clone()];
        assert_eq!(check(&ops, &truth)[0].check, "reads are true");
        let early = Truth::after(100, Vec::new(), vec![event(4, "b", "2")]);
        assert_eq!(check(&[], &early)[0].check, "revisions");
    }

    #[test]
    fn each_wrong_answer_is_found_by_its_check() {
        let one = [event(1, "a", "1")];
        let written = write((0, 1), "a", "1", Told::Done(Some(1)));
        let with = |op: Op| vec![written.clone(), op];
        assert_eq!(found(&with(read((2, 3), 0, &[])), &one), ["real time"]);
        assert_eq!(found(&with(read((2, 3), 1, &[])), &one), ["reads are true"]);
        let lost = write((2, 3), "a", "2", Told::Done(Some(2)));
        assert_eq!(found(&with(lost), &one), ["acknowledged writes stay"]);
        let twice = [event(1, "a", "1"), event(2, "a", "1")];
        assert_eq!(found(std::slice::from_ref(&written), &twice), ["exactly once"]);
        let refused = [write((0, 1), "a", "1", Told::Refused)];
        assert_eq!(found(&refused, &one), ["refusals hold"]);
        assert_eq!(found(&[], &one), ["nothing from nowhere"]);
        let two = [event(1, "a", "1"), event(2, "b", "2")];
        let half = [
            write((0, 1), "a", "1", Told::Unknown),
            write((0, 1), "b", "2", Told::Unknown),
            write((0, 1), "c", "3", Told::Unknown),
        ];
        assert_eq!(found(&half, &two), ["all or nothing"]);
        let gap = [event(2, "a", "1")];
        let unknown = [write((0, 1), "a", "1", Told::Unknown)];
        assert_eq!(found(&unknown, &gap), ["revisions"]);
        let mut fenced = unknown[0].clone();
        if let What::Write { fence, .. } = &mut fenced.what {
            *fence = Some(7);
        }
        assert_eq!(found(&[fenced], &one), ["fences"]);
        let two = [event(1, "a", "1"), event(2, "a", "2")];
        let mut guarded = write((2, 3), "a", "2", Told::Done(Some(2)));
        if let What::Write { guard, .. } = &mut guarded.what {
            *guard = Guard::Absent;
        }
        assert_eq!(found(&with(guarded), &two), ["guards"]);
    }
}

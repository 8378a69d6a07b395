//! Leader election by a Lease, as client-go does it: whoever holds it renews it, and whoever wants it
//! waits until it was not renewed for its length, and then takes it, each only if nobody else wrote in
//! between. No two may hold it at once, by what they were told.
//!
//! A holder may believe in what it was acknowledged only for less than the length, counted from when it
//! *asked*: the others count the length from when they saw what came of it, which is later. Then it is
//! the store alone that keeps two from holding it: it takes a write only on top of the newest.

use crate::{
    Violation,
    history::{Guard, Op, Told, What},
    linear,
};
use std::{collections::BTreeMap, time::Duration};

/// Under which name it is kept.
pub const LEASE: &str = "lease";
/// So long nobody else takes a lease that is not renewed.
pub const LENGTH: Duration = Duration::from_secs(3);
/// So long whoever got an acknowledgement holds it, from when it asked.
pub const BELIEF: Duration = Duration::from_secs(2);

/// What is written: who holds it then, if anybody, and by whom, so that no value is written twice.
pub fn value(holder: Option<u64>, client: u64, turn: u64) -> String {
    let holder = holder.map_or("-".to_owned(), |holder| holder.to_string());
    format!("{holder} {client}-{turn}")
}

/// Who holds it by a value.
pub fn holder(value: &str) -> Option<u64> {
    value.split(' ').next()?.parse().ok()
}

/// A client held it, in nanoseconds of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    pub client: u64,
    pub from: u64,
    pub to: u64,
}

/// Who held it when, in order: from an acknowledgement on for so long as it may be believed in, or until
/// the client asked to give it back.
pub fn holds(ops: &[Op]) -> Vec<Hold> {
    let mut given_back: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut taken = Vec::new();
    for op in ops {
        let What::Write { value: Some(value), told, .. } = &op.what else { continue };
        match (holder(value), told) {
            (None, _) => given_back.entry(op.client).or_default().push(op.called),
            (Some(client), Told::Done(_)) => taken.push((client, op.called, op.returned)),
            _ => {}
        }
    }
    taken.sort_by_key(|(_, _, returned)| *returned);
    let mut holds: Vec<Hold> = Vec::new();
    for (client, called, from) in taken {
        let mine = given_back.get(&client).into_iter().flatten();
        let back = mine.copied().filter(|at| *at >= from).min().unwrap_or(u64::MAX);
        let to = back.min(called + BELIEF.as_nanos() as u64);
        let last = holds.iter_mut().rev().find(|hold| hold.client == client);
        match last {
            Some(last) if last.to >= from => last.to = last.to.max(to),
            _ if to > from => holds.push(Hold { client, from, to }),
            // The answer came too late to be believed in.
            _ => {}
        }
    }
    holds
}

/// Everything wrong with what was told of one lease.
pub fn check(ops: &[Op]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut add = |what: String| found.push(Violation::new("leases", what));
    let holds = holds(ops);
    for (n, hold) in holds.iter().enumerate() {
        let others = holds[n + 1..].iter().filter(|other| other.client != hold.client);
        for other in others.filter(|other| other.from < hold.to && hold.from < other.to) {
            add(format!("{hold:?} and {other:?} at the same time"));
        }
    }
    let mut replaced: BTreeMap<u64, &Op> = BTreeMap::new();
    for op in ops {
        let What::Write { guard: Guard::At(at), told: Told::Done(_), .. } = &op.what else {
            continue;
        };
        if let Some(before) = replaced.insert(*at, op) {
            add(format!("{before:?} and {op:?} both replaced revision {at}"));
        }
    }
    found.extend(linear::real_time(ops));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A write at so many milliseconds, answered 10 ms later.
    fn write(client: u64, at: u64, holder: Option<u64>, guard: u64, told: Told) -> Op {
        let (key, value) = (LEASE.to_owned(), Some(value(holder, client, at)));
        let (guard, fence) = (Guard::At(guard), None);
        let what = What::Write { key, value, guard, fence, transaction: at, told };
        Op { client, called: at * MS, returned: (at + 10) * MS, what }
    }

    fn take(client: u64, at: u64, guard: u64, revision: u64) -> Op {
        write(client, at, Some(client), guard, Told::Done(Some(revision)))
    }

    #[test]
    fn one_after_the_other_is_right() {
        let ops = [
            take(1, 0, 5, 6),
            take(1, 500, 6, 7),
            write(2, 600, Some(2), 6, Told::Refused),
            write(1, 1_000, None, 7, Told::Done(Some(8))),
            take(2, 1_020, 8, 9),
            // It does not renew; another takes it when its length is over.
            write(1, 2_000, Some(1), 8, Told::Unknown),
            take(3, 4_100, 9, 10),
        ];
        assert_eq!(check(&ops), []);
        let holds: Vec<_> = holds(&ops).iter().map(|it| (it.client, it.from, it.to)).collect();
        let ms = |(client, from, to): (u64, u64, u64)| (client, from * MS, to * MS);
        assert_eq!(holds, [(1, 10, 1_000), (2, 1_030, 3_020), (3, 4_110, 6_100)].map(ms));
    }

    #[test]
    fn two_at_once_are_found() {
        let both = [take(1, 0, 5, 6), take(2, 1_500, 6, 7)];
        assert!(check(&both)[0].what.contains("at the same time"), "{:?}", check(&both));
        // A renewal was acknowledged and then lost: the other wrote on top of the one before it.
        let lost = [take(1, 0, 5, 6), take(1, 2_500, 6, 7), take(2, 3_100, 6, 8)];
        let found = check(&lost);
        assert!(found.iter().any(|it| it.what.contains("at the same time")), "{found:?}");
        assert!(found.iter().any(|it| it.what.contains("both replaced revision 6")), "{found:?}");
        let unknown = [take(1, 0, 5, 6), write(2, 1_500, Some(2), 6, Told::Unknown)];
        assert_eq!(check(&unknown), [], "who was not told holds nothing");
    }

    #[test]
    fn what_is_seen_late_is_found() {
        let what =
            What::Read { prefix: LEASE.into(), revision: 5, found: Vec::new(), linearizable: true };
        let read = Op { client: 2, called: 20 * MS, returned: 30 * MS, what };
        let found = check(&[take(1, 0, 5, 6), read]);
        assert_eq!(found.iter().map(|it| it.check).collect::<Vec<_>>(), ["real time"]);
    }
}

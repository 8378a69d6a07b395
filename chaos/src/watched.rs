//! The contract of watches: every event after a revision, once, in order, on whichever member, and
//! none that is at or below what the watch said it had already shown.

use crate::{
    Violation,
    history::{Event, Truth},
};

/// What one watcher saw, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It begins, or begins again, with everything after this revision.
    From(u64),
    Event(Event),
    /// Everything up to here was shown.
    UpTo(u64),
}

impl Seen {
    pub(crate) fn revision(&self) -> u64 {
        match self {
            Seen::From(revision) | Seen::UpTo(revision) => *revision,
            Seen::Event(event) => event.revision,
        }
    }
}

/// Everything wrong with what a watcher of `prefix` saw.
pub fn check<'a>(
    prefix: &str,
    seen: impl IntoIterator<Item = &'a Seen>,
    truth: &Truth,
) -> Vec<Violation> {
    let (mut shown, mut next, mut found) = (0, 0, Vec::new());
    let mut add = |what: String| found.push(Violation::new("watches", what));
    let matching: Vec<&Event> =
        truth.events().iter().filter(|event| event.key.starts_with(prefix)).collect();
    for each in seen {
        match each {
            Seen::From(revision) => {
                shown = *revision;
                next = matching.partition_point(|event| event.revision <= *revision);
            }
            Seen::Event(event) => {
                if event.revision < shown {
                    add(format!("{event:?} came after everything up to {shown}"));
                }
                match matching.get(next) {
                    Some(expected) if *expected == event => next += 1,
                    expected => {
                        add(format!("{event:?} was shown where {expected:?} is next"));
                        next = matching.partition_point(|it| it.revision <= event.revision);
                    }
                }
                shown = shown.max(event.revision);
            }
            Seen::UpTo(revision) => {
                if let Some(missed) = matching.get(next).filter(|it| it.revision <= *revision) {
                    add(format!("{missed:?} was not shown, but everything up to {revision} was"));
                    next = matching.partition_point(|event| event.revision <= *revision);
                }
                shown = shown.max(*revision);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, key: &str) -> Event {
        let value = Some(revision.to_string());
        Event { revision, place: 0, key: key.into(), value, term: 1 }
    }

    fn found(seen: &[Seen]) -> usize {
        let events = (1..=4).map(|n| event(n, if n == 3 { "b" } else { "a" }));
        check("a", seen, &Truth::new(events.collect())).len()
    }

    #[test]
    fn gaps_repetitions_and_disorder_are_found() {
        let a = |revision| Seen::Event(event(revision, "a"));
        let right = [Seen::From(0), a(1), Seen::UpTo(1), a(2), Seen::UpTo(3), a(4), Seen::UpTo(9)];
        assert_eq!(found(&right), 0);
        assert_eq!(found(&[Seen::From(1), a(2), Seen::From(2), a(4)]), 0, "and on elsewhere");
        assert_eq!(found(&[Seen::From(0), a(1), a(4)]), 1, "one is missing");
        assert!(found(&[Seen::From(0), a(1), a(1)]) > 0, "one is repeated");
        assert!(found(&[Seen::From(0), a(2), a(1)]) > 0, "the order is another");
        assert_eq!(found(&[Seen::From(0), a(1), Seen::UpTo(2)]), 1, "said to be shown");
        assert_eq!(found(&[Seen::From(0), Seen::Event(event(3, "b"))]), 1, "not under the prefix");
    }
}

//! A number that clients add one to by compare-and-swap: each step is by one, and in the end it is
//! what was acknowledged, and at most what may have been done besides.

use crate::{
    Violation,
    history::{Op, Told, Truth, What},
};

/// A value of the counter: the number, and who wrote it, so that no value is written twice.
pub fn value(number: u64, client: u64, turn: u64) -> String {
    format!("{number} {client}-{turn}")
}

/// The number in a value of the counter.
pub fn number(value: &str) -> Option<u64> {
    value.split(' ').next()?.parse().ok()
}

/// Everything wrong with a counter that began at 0 under `key`.
pub fn check(key: &str, ops: &[Op], truth: &Truth) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut add = |what: String| found.push(Violation::new("counter", what));
    let mut last: Option<u64> = None;
    for event in truth.events().iter().filter(|event| event.key == key) {
        let now = event.value.as_deref().and_then(number);
        if now != Some(last.map_or(0, |last| last + 1)) {
            add(format!("{event:?} does not add one to {last:?}"));
        }
        last = now.or(last);
    }
    let (mut acknowledged, mut unknown) = (0, 0);
    for op in ops {
        match &op.what {
            What::Write { key: k, .. } if k != key => {}
            // The first of all is not added.
            What::Write { value: Some(v), .. } if number(v) == Some(0) => {}
            What::Write { told: Told::Done(_), .. } => acknowledged += 1,
            What::Write { told: Told::Unknown, .. } => unknown += 1,
            _ => {}
        }
    }
    let last = last.unwrap_or(0);
    if last < acknowledged || last > acknowledged + unknown {
        add(format!("it is {last}; {acknowledged} were acknowledged and {unknown} are unknown"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Event, Guard};

    fn add(number: u64, told: Told) -> Op {
        let (key, value) = ("counter".to_owned(), Some(value(number, 1, number)));
        let guard = Guard::Nothing;
        let what = What::Write { key, value, guard, fence: None, transaction: number, told };
        Op { client: 1, called: 0, returned: 1, what }
    }

    fn found(ops: &[Op], numbers: &[u64]) -> usize {
        let event = |(revision, n): (u64, &u64)| {
            let (key, value) = ("counter".to_owned(), Some(value(*n, 1, *n)));
            Event { revision, place: 0, key, value, term: 0 }
        };
        let truth = Truth::new((1..).zip(numbers).map(event).collect());
        check("counter", ops, &truth).len()
    }

    #[test]
    fn lost_and_repeated_additions_are_found() {
        let done = |n| add(n, Told::Done(Some(n)));
        let maybe = |n| add(n, Told::Unknown);
        assert_eq!(found(&[done(0), done(1), maybe(2)], &[0, 1]), 0);
        let mut other = done(1);
        if let What::Write { key, value, .. } = &mut other.what {
            (*key, *value) = ("another".to_owned(), None);
        }
        assert_eq!(found(&[done(0), done(1), other], &[0, 1]), 0, "it is of another key");
        assert_eq!(found(&[done(0), done(1), maybe(2)], &[0, 1, 2]), 0);
        assert_eq!(found(&[done(0), done(1), add(2, Told::Refused)], &[0, 1]), 0);
        assert_eq!(found(&[done(0), done(1), done(2)], &[0, 1]), 1, "acknowledged and lost");
        assert_eq!(found(&[done(0), done(1)], &[0, 1, 2]), 1, "more than anybody added");
        assert_eq!(found(&[done(0), done(1), done(2)], &[0, 1, 1]), 2, "one update is lost");
        assert_eq!(found(&[done(0), done(1), done(2), maybe(3)], &[0, 2, 3]), 1, "a leap");
    }
}

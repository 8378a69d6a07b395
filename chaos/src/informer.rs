//! The contract of list-and-watch, as client-go's informers use it: a list is what was there at its
//! revision, and with all that a watch shows from there on it stays what is there. It never goes back.

use crate::{
    Violation,
    growing::Growing,
    history::{Event, Tour, Truth},
    watched::{self, Seen},
};
use std::collections::BTreeMap;

/// What an informer was given, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything, as `(key, value, revision of the value)`, as of a revision.
    Listed {
        revision: u64,
        found: Vec<(String, String, u64)>,
    },
    Event(Event),
    /// Everything up to here was shown.
    UpTo(u64),
}

impl Step {
    fn revision(&self) -> u64 {
        match self {
            Step::Listed { revision, .. } | Step::UpTo(revision) => *revision,
            Step::Event(event) => event.revision,
        }
    }
}

/// As of which revision an informer is.
pub fn reached(steps: &Growing<Step>) -> u64 {
    steps.last().map_or(0, Step::revision)
}

/// Everything wrong with what one informer was given up to a revision, up to which `truth` is known.
pub fn check<'a>(
    steps: impl Iterator<Item = &'a Step> + Clone,
    truth: &Truth,
    horizon: u64,
) -> Vec<Violation> {
    let mut cache: BTreeMap<String, (String, u64)> = BTreeMap::new();
    let (mut tour, mut at, mut found) = (truth.tour(), None, Vec::new());
    let mut add = |what: String| found.push(Violation::new("informers", what));
    let steps = steps.take_while(|step| step.revision() <= horizon);
    for step in steps.clone() {
        if let Some(at) = at.filter(|at| step.revision() < *at) {
            add(format!("it was as of {at} and went back to {}", step.revision()));
        }
        match step {
            Step::Listed { revision, found } => {
                // What it had so far is forgotten now: was it right?
                if let Some(why) = at.and_then(|at| differs(&cache, &mut tour, at)) {
                    add(why);
                }
                let entry = |(key, value, revision): &(String, String, u64)| {
                    (key.clone(), (value.clone(), *revision))
                };
                cache = found.iter().map(entry).collect();
                if let Some(why) = differs(&cache, &mut tour, *revision) {
                    add(format!("listed: {why}"));
                }
            }
            Step::Event(Event { key, value: Some(value), revision, .. }) => {
                cache.insert(key.clone(), (value.clone(), *revision));
            }
            Step::Event(event) => {
                if cache.remove(&event.key).is_none() {
                    add(format!("{event:?} deletes what it had not"));
                }
            }
            Step::UpTo(_) => {}
        }
        at = at.max(Some(step.revision()));
    }
    if let Some(why) = at.and_then(|at| differs(&cache, &mut tour, at)) {
        add(why);
    }
    // What was missed and then overwritten is no difference in the end.
    let watched = watched::check("", &shown(steps), truth);
    found.extend(watched.into_iter().map(|it| Violation::new("informers", it.what)));
    found
}

/// As what a watcher sees that begins again at each list.
fn shown<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<Seen> {
    let seen = steps.map(|step| match step {
        Step::Listed { revision, .. } => Seen::From(*revision),
        Step::Event(event) => Seen::Event(event.clone()),
        Step::UpTo(revision) => Seen::UpTo(*revision),
    });
    seen.collect()
}

/// What is first found to be in one and not in the other.
fn differs(
    cache: &BTreeMap<String, (String, u64)>,
    tour: &mut Tour,
    revision: u64,
) -> Option<String> {
    tour.go(revision);
    let cached = cache.iter().map(|(key, (value, since))| (key.as_str(), value.as_str(), *since));
    if tour.under("").eq(cached) {
        return None;
    }
    let right: Vec<_> = tour
        .under("")
        .map(|(key, value, since)| (key.to_owned(), value.to_owned(), since))
        .collect();
    let has = |(key, value, since): &(String, String, u64)| {
        cache.get(key).is_some_and(|(v, r)| (v, r) == (value, since))
    };
    let missing = right.iter().find(|it| !has(it));
    let known: BTreeMap<&str, ()> = right.iter().map(|(key, ..)| (&**key, ())).collect();
    let odd = cache.iter().find(|(key, _)| !known.contains_key(key.as_str()));
    Some(format!("as of {revision} there is {missing:?}, which it has not, or it has {odd:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+a`, `+b`, `-a` …: an event per revision, from 1 on.
    fn events(signs: &[&str]) -> Vec<Event> {
        let event = |(revision, event): (u64, &&str)| {
            let (sign, key) = event.split_at(1);
            let value = (sign == "+").then(|| format!("{key}{revision}"));
            Event { revision, place: 0, key: key.to_owned(), value, term: 0 }
        };
        (1..).zip(signs).map(event).collect()
    }

    const SIGNS: [&str; 5] = ["+a", "+b", "-a", "+a", "+b"];

    fn found(steps: &[Step]) -> Vec<String> {
        let truth = Truth::new(events(&SIGNS));
        check(steps.iter(), &truth, 99).into_iter().map(|it| it.what).collect()
    }

    fn listed(revision: u64) -> Step {
        let found = Truth::new(events(&SIGNS)).at("", revision);
        Step::Listed { revision, found }
    }

    fn shown(revision: usize) -> Step {
        Step::Event(events(&SIGNS)[revision - 1].clone())
    }

    #[test]
    fn from_any_list_on_it_is_what_is_there() {
        let nothing: [String; 0] = [];
        for from in 0..=5 {
            let mut steps = vec![listed(from as u64)];
            steps.extend((from + 1..=5).map(shown));
            assert_eq!(found(&steps), nothing);
            steps.extend([Step::UpTo(7), listed(8)]);
            assert_eq!(found(&steps), nothing);
        }
    }

    #[test]
    fn each_mistake_is_found() {
        let has = |steps: &[Step], what: &str| {
            let found = found(steps);
            assert!(found.iter().any(|it| it.contains(what)), "{what}: {found:?}");
        };
        has(&[listed(2), shown(4), shown(5), Step::UpTo(5), listed(1)], "went back to 1");
        // The watch began one later than the list ended.
        has(&[listed(1), shown(3), shown(4)], "as of 4 there is Some((\"b\"");
        has(&[listed(2), shown(3), shown(5)], "as of 5 there is Some((\"a\"");
        has(&[listed(2), Step::UpTo(4), listed(5)], "as of 4 there is");
        has(&[listed(3), shown(3)], "deletes what it had not");
        has(&[listed(2), shown(3), shown(5)], "was shown where Some");
        let Step::Listed { found: old, .. } = listed(2) else { panic!("a list") };
        has(&[Step::Listed { revision: 3, found: old }], "listed: as of 3");
    }

    #[test]
    fn what_is_newer_than_what_is_known_is_not_judged() {
        let truth = Truth::new(events(&SIGNS[..2]));
        assert_eq!(check([listed(1), shown(2), shown(3), shown(4)].iter(), &truth, 2), []);
    }
}

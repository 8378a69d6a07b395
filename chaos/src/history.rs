//! What clients did and were told, and what was committed: the two that checks compare.

use std::{collections::BTreeMap, ops::Bound};

/// One committed change, in the order of revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: u64,
    /// Which one of its revision: 0, 1, …
    pub place: u32,
    pub key: String,
    /// `None`: deleted. Clients write no value twice.
    pub value: Option<String>,
    /// Of the leader that wrote it.
    pub term: u64,
}

/// What a client was told about a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Applied, at this revision; `None`: it changed nothing.
    Done(Option<u64>),
    /// Certainly not applied, now or later.
    Refused,
    /// It may be applied, or have been, once.
    Unknown,
}

/// What a write depended on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Nothing,
    /// The key was not to be there.
    Absent,
    /// The key was to be as of this revision.
    At(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Write {
        key: String,
        /// `None`: a deletion.
        value: Option<String>,
        guard: Guard,
        /// Only in this term.
        fence: Option<u64>,
        /// Writes with the same number are of one transaction: all are applied, or none.
        transaction: u64,
        told: Told,
    },
    /// Everything under a prefix, as `(key, value, revision of the value)`, at one revision.
    Read {
        prefix: String,
        revision: u64,
        found: Vec<(String, String, u64)>,
        /// It had to be at least as new as the cluster at the call.
        linearizable: bool,
    },
}

/// One operation of a client. Times are of one clock, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub client: u64,
    pub called: u64,
    pub returned: u64,
    pub what: What,
}

/// Everything that was committed, to be asked what was so when.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Revisions go on after it.
    begin: u64,
    events: Vec<Event>,
    /// By key: since which revision it has had which value.
    keys: BTreeMap<String, Vec<(u64, Option<String>)>>,
}

impl Truth {
    pub fn new(events: Vec<Event>) -> Truth {
        Truth::after(0, Vec::new(), events)
    }

    /// Of what began at a revision with these objects, as `(key, value, revision of the value)`.
    pub fn after(begin: u64, objects: Vec<(String, String, u64)>, events: Vec<Event>) -> Truth {
        let mut keys: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (key, value, revision) in objects {
            keys.entry(key).or_default().push((revision, Some(value)));
        }
        for event in &events {
            let versions = keys.entry(event.key.clone()).or_default();
            versions.push((event.revision, event.value.clone()));
        }
        Truth { begin, events, keys }
    }

    /// The revision before the first event.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What was so at one revision after the other.
    pub fn tour(&self) -> Tour<'_> {
        let versions = self.keys.iter().flat_map(|(key, versions)| {
            versions.iter().map(|(since, value)| (*since, key.as_str(), value.as_deref()))
        });
        let mut changes: Vec<_> = versions.collect();
        // Those of one key stay in order.
        changes.sort_by_key(|(since, ..)| *since);
        Tour { changes, next: 0, now: BTreeMap::new() }
    }

    /// The newest revision.
    pub fn end(&self) -> u64 {
        self.events.last().map_or(self.begin, |event| event.revision)
    }

    /// Which revision a key was as of, just before another; `None`: it was not there.
    pub fn before(&self, key: &str, revision: u64) -> Option<u64> {
        let versions = self.keys.get(key)?;
        let older = versions.partition_point(|(since, _)| *since < revision);
        let (since, value) = versions.get(older.checked_sub(1)?)?;
        value.is_some().then_some(*since)
    }

    /// Everything under a prefix as it was at a revision, in order of keys.
    pub fn at(&self, prefix: &str, revision: u64) -> Vec<(String, String, u64)> {
        let keys = self.keys.range(prefix.to_owned()..);
        let keys = keys.take_while(|(key, _)| key.starts_with(prefix));
        keys.filter_map(|(key, versions)| {
            let newer = versions.partition_point(|(since, _)| *since <= revision);
            let (since, value) = versions.get(newer.checked_sub(1)?)?;
            Some((key.clone(), value.clone()?, *since))
        })
        .collect()
    }
}

/// Everything as it was at a revision. To go on to the next costs what changed in between; to go back, as
/// much as from the beginning.
#[derive(Debug)]
pub struct Tour<'a> {
    /// In order of revisions: since when a key has had which value.
    changes: Vec<(u64, &'a str, Option<&'a str>)>,
    /// The first of them that is not applied.
    next: usize,
    now: BTreeMap<&'a str, (&'a str, u64)>,
}

impl<'a> Tour<'a> {
    /// On, or back, to a revision.
    pub fn go(&mut self, revision: u64) {
        let back = self.next.checked_sub(1).is_some_and(|last| self.changes[last].0 > revision);
        if back {
            (self.next, self.now) = (0, BTreeMap::new());
        }
        let later = self.changes[self.next..].iter().take_while(|(since, ..)| *since <= revision);
        for (since, key, value) in later {
            match value {
                Some(value) => self.now.insert(key, (value, *since)),
                None => self.now.remove(key),
            };
            self.next += 1;
        }
    }

    /// What is under a prefix now, in order of keys, as [`Truth::at`].
    pub fn under(&self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a str, u64)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let keys =
            self.now.range::<str, _>(from).take_while(move |(key, _)| key.starts_with(prefix));
        keys.map(|(key, (value, since))| (*key, *value, *since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Wherever a tour goes, it finds what is found by looking there.
        #[test]
        fn a_tour_sees_what_was_so(
            begun in prop::collection::btree_map("[ab]{1,2}", 1_u64..5, 0..4),
            changes in prop::collection::vec(("[ab]{1,2}", any::<bool>()), 0..12),
            stops in prop::collection::vec(0_u64..20, 1..8),
        ) {
            let objects = begun.into_iter().map(|(key, since)| (key, since.to_string(), since));
            let events = changes.into_iter().zip(6..).map(|((key, there), revision)| {
                let value = there.then(|| revision.to_string());
                Event { revision, place: 0, key, value, term: 1 }
            });
            let truth = Truth::after(5, objects.collect(), events.collect());
            let mut tour = truth.tour();
            for revision in stops {
                tour.go(revision);
                for prefix in ["", "a", "ab"] {
                    let right = truth.at(prefix, revision);
                    let right = right.iter().map(|(key, value, since)| (&**key, &**value, *since));
                    prop_assert!(tour.under(prefix).eq(right), "{prefix:?} at {revision}");
                }
            }
        }
    }
}

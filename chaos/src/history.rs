//! What clients did and were told, and what was committed: the two that checks compare.

use std::collections::BTreeMap;

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

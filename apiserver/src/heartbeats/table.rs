//! When each node was last heard of, as a value: no clock, no lock, no network.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use wire::heartbeats::{Beat, Digest, Since};

/// How many beats one digest holds.
// About 600 KB: some milliseconds on the wire, ten of them for 100,000 nodes.
const DIGEST_BEATS_MAX: usize = 10_000;

/// One per Lease. For every name, `heard` never goes back.
#[derive(Debug)]
pub(super) struct Table {
    /// Of this process; never zero, which asks for everything.
    life: u64,
    /// The number of the newest beat heard here.
    last: u64,
    nodes: BTreeMap<Arc<str>, Node>,
    /// Beats heard here by their number; `nodes[by_number[n]].number == n` for each.
    by_number: BTreeMap<u64, Arc<str>>,
}

#[derive(Debug)]
struct Node {
    /// Of the version of the Lease that was renewed: one written since tells its own time.
    revision: u64,
    renew_time: Box<str>,
    heard: Instant,
    /// 0: heard by another master.
    number: u64,
}

impl Table {
    pub(super) fn new(life: u64) -> Table {
        Table { life: life.max(1), last: 0, nodes: BTreeMap::new(), by_number: BTreeMap::new() }
    }

    /// A renewal that this master answered.
    pub(super) fn record(&mut self, name: &str, revision: u64, renew_time: &str, now: Instant) {
        self.last += 1;
        self.set(name, revision, renew_time, now, self.last);
    }

    fn set(&mut self, name: &str, revision: u64, renew_time: &str, heard: Instant, number: u64) {
        let node = Node { revision, renew_time: renew_time.into(), heard, number };
        let name: Arc<str> = match self.nodes.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        };
        if let Some(old) = self.nodes.insert(name.clone(), node) {
            self.by_number.remove(&old.number);
        }
        if number > 0 {
            self.by_number.insert(number, name);
        }
    }

    /// When any master last heard of a node, as far as this one knows.
    pub(super) fn heard(&self, name: &str) -> Option<Instant> {
        self.nodes.get(name).map(|node| node.heard)
    }

    /// The `renewTime` that this version of the Lease `name` would have, had it been written.
    pub(super) fn renew_time(&self, name: &str, revision: u64) -> Option<&str> {
        let node = self.nodes.get(name).filter(|node| node.revision == revision)?;
        Some(&node.renew_time)
    }

    /// What was heard here after `since`, oldest first. A master that knew another life gets it all.
    pub(super) fn digest(&self, since: &Since, now: Instant) -> Digest {
        let after = if since.life == self.life { since.number } else { 0 };
        let mut newer = self.by_number.range(after + 1..);
        let mut digest = Digest { life: self.life, number: after, ..Digest::default() };
        for (number, name) in newer.by_ref().take(DIGEST_BEATS_MAX) {
            let node = &self.nodes[name];
            let age = now.saturating_duration_since(node.heard);
            digest.number = *number;
            digest.beats.push(Beat {
                name: name.to_string(),
                revision: node.revision,
                renew_time: node.renew_time.to_string(),
                age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            });
        }
        digest.more = newer.next().is_some();
        digest
    }

    /// What another master heard. Where this one has heard the node since, its own stands.
    pub(super) fn merge(&mut self, beats: &[Beat], now: Instant) {
        for beat in beats {
            let Some(heard) = now.checked_sub(Duration::from_millis(beat.age_ms)) else { continue };
            if self.heard(&beat.name).is_none_or(|known| known < heard) {
                self.set(&beat.name, beat.revision, &beat.renew_time, heard, 0);
            }
        }
    }

    /// Forgets nodes whose Lease is gone.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.nodes.retain(|name, _| keep(name));
        self.by_number.retain(|_, name| self.nodes.contains_key(name));
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Since = Since { life: 0, number: 0 };

    fn names(digest: &Digest) -> Vec<&str> {
        digest.beats.iter().map(|beat| beat.name.as_str()).collect()
    }

    #[test]
    fn a_digest_has_what_is_new_once_and_in_its_newest_form() {
        let mut table = Table::new(7);
        let now = Instant::now();
        table.record("a", 3, "t1", now);
        table.record("b", 4, "t1", now);
        table.record("a", 3, "t2", now + Duration::from_millis(250));
        let first = table.digest(&ALL, now + Duration::from_secs(1));
        assert_eq!(names(&first), ["b", "a"]);
        assert_eq!((first.beats[1].renew_time.as_str(), first.beats[1].age_ms), ("t2", 750));
        assert!(!first.more);
        let since = Since { life: first.life, number: first.number };
        assert_eq!(names(&table.digest(&since, now)), [""; 0]);
        table.record("b", 4, "t2", now);
        assert_eq!(names(&table.digest(&since, now)), ["b"]);
        let of_another_life = Since { life: 6, number: 1_000 };
        assert_eq!(names(&table.digest(&of_another_life, now)), ["a", "b"]);
    }

    #[test]
    fn a_large_table_comes_in_several_digests() {
        let mut table = Table::new(1);
        let now = Instant::now();
        for number in 0..DIGEST_BEATS_MAX + 1 {
            table.record(&format!("n{number}"), 3, "t", now);
        }
        let first = table.digest(&ALL, now);
        assert!(first.more);
        let rest = table.digest(&Since { life: first.life, number: first.number }, now);
        assert_eq!((names(&rest), rest.more), (vec!["n10000"], false));
    }

    #[test]
    fn what_others_heard_is_believed_where_it_is_newer_and_is_not_passed_on() {
        let mut table = Table::new(1);
        let now = Instant::now() + Duration::from_secs(3600);
        table.record("a", 3, "own", now - Duration::from_secs(5));
        let beat = |age_ms, time: &str| Beat {
            name: "a".into(),
            revision: 3,
            renew_time: time.into(),
            age_ms,
        };
        table.merge(&[beat(6_000, "older")], now);
        assert_eq!(table.renew_time("a", 3), Some("own"));
        table.merge(&[beat(4_000, "newer")], now);
        assert_eq!(table.renew_time("a", 3), Some("newer"));
        assert_eq!(table.heard("a"), Some(now - Duration::from_secs(4)));
        assert_eq!(names(&table.digest(&ALL, now)), [""; 0], "only who heard it tells of it");
    }

    #[test]
    fn a_lease_written_since_tells_its_own_time() {
        let mut table = Table::new(1);
        table.record("a", 3, "t", Instant::now());
        assert_eq!(table.renew_time("a", 4), None);
        table.retain(|name| name != "a");
        assert_eq!((table.len(), table.by_number.len(), table.heard("a")), (0, 0, None));
    }
}

//! Members that applied the same log hold the same state; this notices when they do not (P7).
//!
//! Each member keeps a digest of its current objects and notes it at entries whose index all members
//! agree to note. They show each other their notes, and one that differs from most stops for good.

use crate::types::{LogIndex, Revision, Stored};
use std::collections::VecDeque;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// How often a note is made, in log entries.
// Often enough that a loaded group compares many times a second, rarely enough to cost nothing.
const NOTE_EVERY: u64 = 256;
/// How many notes are kept and shown.
// Members under load are some hundred entries apart, rarely thousands: 64 notes are 16,384 entries.
const NOTES_MAX: usize = 64;

/// A sum over all current objects, in no order: equal states have equal digests, states that differ
/// have them with a chance of one in 2⁶⁴. Not against an adversary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) u64);

impl Digest {
    pub(crate) fn add(&mut self, stored: &Stored) {
        self.0 = self.0.wrapping_add(fingerprint(stored));
    }

    pub(crate) fn remove(&mut self, stored: &Stored) {
        self.0 = self.0.wrapping_sub(fingerprint(stored));
    }
}

/// Of everything that makes a version what it is, but for how often its key was put: that was not always
/// counted, so that members may rightly disagree on it after an upgrade.
fn fingerprint(stored: &Stored) -> u64 {
    let mut hash = Xxh3::with_seed(xxh3_64(&stored.body));
    for number in [stored.revision.0, stored.created.0, u64::from(stored.place)] {
        hash.update(&number.to_be_bytes());
    }
    for text in [&stored.key.space, &stored.key.path] {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.digest()
}

/// The state after the entry at `index` was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) index: LogIndex,
    pub(crate) revision: Revision,
    pub(crate) digest: Digest,
}

/// Notes of one member, oldest first: at each multiple of [`NOTE_EVERY`] and of the newest entry.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    kept: VecDeque<Note>,
    newest: Option<Note>,
}

impl Notes {
    pub(crate) fn take(&mut self, note: Note) {
        self.newest = Some(note);
        if note.index.0.is_multiple_of(NOTE_EVERY) {
            self.kept.push_back(note);
            if self.kept.len() > NOTES_MAX {
                self.kept.pop_front();
            }
        }
    }

    /// A snapshot replaced everything.
    pub(crate) fn clear(&mut self) {
        *self = Notes::default();
    }

    pub(crate) fn all(&self) -> Vec<Note> {
        let newest = self.newest.filter(|newest| self.kept.back() != Some(newest));
        self.kept.iter().copied().chain(newest).collect()
    }
}

/// What a comparison of notes says of the member that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nobody showed anything else at an index both noted.
    Agrees,
    /// Somebody differs, but more than half of all members do not agree on anything else.
    Differs { at: LogIndex },
    /// More than half of all members agree on another state: this one is wrong.
    Odd { at: LogIndex },
}

/// Compares this member's notes with those of the others, in a group of `members`.
pub(crate) fn judge(own: &[Note], others: &[Vec<Note>], members: usize) -> Verdict {
    let mut verdict = Verdict::Agrees;
    for mine in own.iter().rev() {
        let theirs = |notes: &Vec<Note>| notes.iter().find(|n| n.index == mine.index).copied();
        let different: Vec<Note> =
            others.iter().filter_map(theirs).filter(|note| note != mine).collect();
        let together = |one: &Note| different.iter().filter(|other| *other == one).count();
        let most = different.iter().map(together).max().unwrap_or(0);
        if most * 2 > members {
            return Verdict::Odd { at: mine.index };
        }
        if most > 0 {
            verdict = Verdict::Differs { at: mine.index };
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Key;

    fn note(index: u64, digest: u64) -> Note {
        Note { index: LogIndex(index), revision: Revision(index), digest: Digest(digest) }
    }

    fn stored(path: &str, revision: u64, body: &'static [u8]) -> Stored {
        let revision = Revision(revision);
        Stored::new(Key::new("pods", path), revision, revision, body.into())
    }

    #[test]
    fn a_digest_is_of_what_is_there_however_it_came() {
        let (a, b, c) = (stored("a", 1, b"x"), stored("b", 2, b"y"), stored("a", 3, b"z"));
        let (mut one, mut other) = (Digest::default(), Digest::default());
        one.add(&a);
        one.add(&b);
        one.remove(&a);
        one.add(&c);
        other.add(&c);
        other.add(&b);
        assert_eq!(one, other);
        for unlike in [stored("a", 3, b"y"), stored("a", 4, b"z"), stored("c", 3, b"z")] {
            let mut third = Digest::default();
            third.add(&unlike);
            third.add(&b);
            assert_ne!(third, one, "{unlike:?}");
        }
        let (mut counted, mut uncounted) = (Digest::default(), Digest::default());
        counted.add(&stored("a", 3, b"z").numbered(7, 0));
        uncounted.add(&c);
        assert_eq!(counted, uncounted, "puts were not always counted");
    }

    #[test]
    fn notes_are_made_where_all_make_them_and_are_few() {
        let mut notes = Notes::default();
        for index in 1..=NOTE_EVERY * (NOTES_MAX as u64 + 2) + 3 {
            notes.take(note(index, index));
        }
        let all = notes.all();
        assert_eq!(all.len(), NOTES_MAX + 1);
        assert_eq!(all[0].index.0, 3 * NOTE_EVERY);
        assert_eq!(all[NOTES_MAX].index.0, NOTE_EVERY * (NOTES_MAX as u64 + 2) + 3);
    }

    #[test]
    fn only_who_is_alone_against_most_is_odd() {
        let own = [note(256, 1), note(512, 2)];
        let same = vec![note(256, 1), note(512, 2)];
        let ahead = vec![note(512, 2), note(768, 3)];
        let wrong = vec![note(512, 9)];
        let at = LogIndex(512);
        assert_eq!(judge(&own, &[same.clone(), ahead.clone()], 3), Verdict::Agrees);
        assert_eq!(judge(&own, &[same, wrong.clone()], 3), Verdict::Differs { at });
        assert_eq!(judge(&own, &[wrong.clone(), wrong.clone()], 3), Verdict::Odd { at });
        assert_eq!(judge(&own, std::slice::from_ref(&wrong), 2), Verdict::Differs { at });
        let otherwise = vec![note(512, 8)];
        assert_eq!(judge(&own, &[wrong, otherwise], 3), Verdict::Differs { at }, "no two agree");
        assert_eq!(judge(&own, &[vec![note(700, 4)], vec![]], 3), Verdict::Agrees);
    }
}

//! Sees every entry that any member applies: the first to apply one says what was committed, and
//! every other must say the same.

use super::scheduler;
use crate::{
    raft::Entry,
    shared::Shared,
    state::{Applied, Outcome},
};
use chaos::{Violation, history::Event};
use openraft::EntryPayload;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};
use xxhash_rust::xxh3::xxh3_64;

#[derive(Default)]
pub(super) struct Witness {
    /// By index: what was committed, and what it came to.
    entries: BTreeMap<u64, (u64, Option<Effect>)>,
    applied: BTreeSet<(u64, u64)>,
    events: Vec<Event>,
    floor: u64,
    violations: Vec<Violation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Effect {
    revision: u64,
    digest: u64,
    outcomes: Vec<(u64, u64, Outcome)>,
}

thread_local! {
    static WITNESS: RefCell<Option<Witness>> = const { RefCell::new(None) };
}

/// Of a group whose history up to `floor` is gone from the start.
pub(super) fn begin(floor: u64) {
    WITNESS.set(Some(Witness { floor, ..Witness::default() }));
}

/// What was committed, how far it is compacted, and what is wrong with it.
pub(super) fn end() -> (Vec<Event>, Vec<Violation>) {
    let witness = WITNESS.take().unwrap_or_default();
    (witness.events, witness.violations)
}

/// History up to here may be gone.
pub(super) fn floor() -> u64 {
    WITNESS.with_borrow(|witness| witness.as_ref().map_or(0, |it| it.floor))
}

pub(super) fn accuse(violation: Violation) {
    WITNESS.with_borrow_mut(|witness| {
        if let Some(witness) = witness {
            witness.violations.push(violation);
        }
    });
}

/// An entry takes effect on the member whose task this is.
pub(crate) fn entry_applied(entry: &Entry, applied: &Applied, shared: &Shared) {
    if !scheduler::active() {
        return;
    }
    let identity = xxh3_64(format!("{} {:?}", entry.log_id, entry.payload).as_bytes());
    let effect = matches!(entry.payload, EntryPayload::Normal(_)).then(|| {
        let core = shared.read();
        let outcome = |(session, serial, outcome): &(crate::state::Session, u64, Outcome)| {
            (session.0, *serial, outcome.clone())
        };
        Effect {
            revision: core.state.revision().0,
            digest: core.state.digest().0,
            outcomes: applied.outcomes.iter().map(outcome).collect(),
        }
    });
    scheduler::note(identity ^ scheduler::current());
    WITNESS.with_borrow_mut(|witness| {
        if let Some(witness) = witness {
            witness.see(entry, identity, effect, applied);
        }
    });
}

impl Witness {
    fn see(&mut self, entry: &Entry, identity: u64, effect: Option<Effect>, applied: &Applied) {
        let (index, node) = (entry.log_id.index, scheduler::current());
        if let Some((known, result)) = self.entries.get(&index) {
            if *known != identity {
                let what = format!("entry {index} is another on member {node}: {}", entry.log_id);
                self.violations.push(Violation::new("committed entries stay", what));
            } else if *result != effect {
                let what =
                    format!("entry {index} on member {node}: {effect:?}, elsewhere {result:?}");
                self.violations.push(Violation::new("members agree", what));
            }
            return;
        }
        for (session, serial, _) in effect.iter().flat_map(|effect| &effect.outcomes) {
            if !self.applied.insert((*session, *serial)) {
                let what = format!("request {serial} of session {session}, again at {index}");
                self.violations.push(Violation::new("exactly once", what));
            }
        }
        self.floor = applied.floor.map_or(self.floor, |floor| floor.0);
        let term = entry.log_id.leader_id.term;
        self.events.extend(applied.changes.iter().map(|change| event(change, term)));
        self.entries.insert(index, (identity, effect));
    }
}

pub(super) fn name(key: &crate::Key) -> String {
    format!("{}/{}", key.space, key.path)
}

pub(super) fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

pub(super) fn event(change: &crate::Change, term: u64) -> Event {
    Event {
        revision: change.revision.0,
        place: change.place,
        key: name(change.key()),
        value: change.new.as_ref().map(|new| text(&new.body)),
        term,
    }
}

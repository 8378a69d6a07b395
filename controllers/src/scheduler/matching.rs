//! How many pods of a kind are on each node: counted once, then kept by increments, because every
//! replica of a workload asks the same question.

use super::pod::{Pod, Term};
use super::selector::Selector;
use super::world::{Slot, speaks_to_others};
use std::collections::BTreeMap;

/// Which pods are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Matching {
    /// Not terminating, of this controller.
    Owned { namespace: String, uid: String },
    /// Not terminating, with these labels.
    Labelled { namespace: String, selector: Selector },
    /// Matching every pair of namespaces (`None`: all) and selector.
    Terms(Vec<(Option<Vec<String>>, Selector)>),
}

impl Matching {
    pub(crate) fn spread(namespace: String, selector: Selector) -> Matching {
        Matching::Labelled { namespace, selector }
    }

    pub(crate) fn matches(&self, pod: &Pod) -> bool {
        match self {
            Matching::Owned { namespace, uid } => {
                !pod.deleting
                    && pod.key.namespace == *namespace
                    && pod.controller.as_ref().is_some_and(|(_, owner)| owner == uid)
            }
            Matching::Labelled { namespace, selector } => {
                !pod.deleting && pod.key.namespace == *namespace && selector.matches(&pod.labels)
            }
            Matching::Terms(terms) => terms.iter().all(|(namespaces, selector)| {
                namespaces.as_ref().is_none_or(|names| names.contains(&pod.key.namespace))
                    && selector.matches(&pod.labels)
            }),
        }
    }
}

/// Counts are thrown away, least recently asked first, beyond this many: each costs one comparison
/// per pod that comes or goes.
const COUNTERS_MAX: usize = 128;

#[derive(Default)]
pub(crate) struct Counters {
    all: BTreeMap<Matching, Counter>,
    asked: u64,
}

struct Counter {
    per_slot: Vec<u32>,
    asked: u64,
}

impl Counters {
    pub(super) fn prepare<'a>(
        &mut self,
        matching: &Matching,
        pods: impl Iterator<Item = (&'a Pod, Slot)>,
    ) {
        self.asked += 1;
        let asked = self.asked;
        if let Some(counter) = self.all.get_mut(matching) {
            counter.asked = asked;
            return;
        }
        let mut per_slot = Vec::new();
        for (_, slot) in pods.filter(|(pod, _)| matching.matches(pod)) {
            shift(&mut per_slot, slot, 1);
        }
        self.all.insert(matching.clone(), Counter { per_slot, asked });
    }

    pub(super) fn change(&mut self, pod: &Pod, slot: Slot, by: i32) {
        for (matching, counter) in &mut self.all {
            if matching.matches(pod) {
                shift(&mut counter.per_slot, slot, by);
            }
        }
    }

    pub(super) fn get(&self, matching: &Matching) -> &[u32] {
        &self.all.get(matching).expect("prepared before it is asked for").per_slot
    }

    /// Forgets what was asked for least recently. Never in the middle of a placement: one pod may
    /// need any number of counts at once.
    pub(super) fn trim(&mut self) {
        while self.all.len() > COUNTERS_MAX {
            let oldest = self.all.iter().min_by_key(|(_, counter)| counter.asked);
            let Some(matching) = oldest.map(|(matching, _)| matching.clone()) else { return };
            self.all.remove(&matching);
        }
    }
}

/// The affinity terms of placed pods, each with how many pods on each node have it.
#[derive(Default)]
pub(crate) struct Terms {
    all: BTreeMap<Term, (u32, Vec<u32>)>,
}

impl Terms {
    pub(super) fn change(&mut self, pod: &Pod, slot: Slot, by: i32) {
        for term in pod.terms.iter().filter(|term| speaks_to_others(term)) {
            if !self.all.contains_key(term) {
                self.all.insert(term.clone(), (0, Vec::new()));
            }
            let (total, per_slot) = self.all.get_mut(term).expect("just made");
            shift(per_slot, slot, by);
            *total = total.checked_add_signed(by).expect("as many come as go");
            if *total == 0 {
                self.all.remove(term);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Each term with the number of pods on each slot that have it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Term, &[u32])> {
        self.all.iter().map(|(term, (_, per_slot))| (term, per_slot.as_slice()))
    }
}

fn shift(per_slot: &mut Vec<u32>, slot: Slot, by: i32) {
    if slot >= per_slot.len() {
        per_slot.resize(slot + 1, 0);
    }
    let count = &mut per_slot[slot];
    *count = count.checked_add_signed(by).expect("as many come as go");
}

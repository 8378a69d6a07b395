//! Everything the scheduler knows: nodes and the pods on them, kept by increments, never rebuilt.
//! It knows no clock and does no IO; the same changes in the same order give the same world.

use super::matching::{Counters, Matching, Terms};
use super::node::{Candidate, Facts, Used};
use super::pod::{Pod, PodKey, Pull, Term};
use super::selector::{Labels, Selector};
use super::topology::Topologies;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Index of a node; free ones are used again.
pub(crate) type Slot = usize;

/// How many changes are remembered for tables that are brought up to date later; an older table is
/// made anew. Eight thousand: a little more than the nodes of the largest cluster we promise.
const CHANGES_MAX: usize = 8192;

#[derive(Default)]
pub struct World {
    slots: Vec<Place>,
    by_name: HashMap<String, Slot>,
    free: Vec<Slot>,
    nodes: usize,
    /// Every pod that takes room on a node, bound or assumed.
    placed: BTreeMap<PodKey, Placed>,
    /// How many nodes have each image.
    images: BTreeMap<String, usize>,
    namespaces: BTreeMap<String, Labels>,
    services: BTreeMap<PodKey, Selector>,
    counters: Counters,
    pub(super) terms: Terms,
    topologies: Topologies,
    /// Slots whose candidate changed, oldest first; `changed` counts all that ever were.
    changes: VecDeque<Slot>,
    changed: u64,
    /// Grows when something changed that concerns every node.
    epoch: u64,
}

/// A name that a node or a pod spoke of: pods may arrive before their node and outlive it.
#[derive(Default)]
struct Place {
    name: String,
    facts: Option<Facts>,
    used: Used,
}

struct Placed {
    pod: Arc<Pod>,
    slot: Slot,
    /// Planned here; the binding has not come back through the watch yet.
    assumed: bool,
}

impl World {
    /// A node came or changed. True if anything changed that a pod could care about.
    pub fn set_node(&mut self, name: &str, facts: Facts) -> bool {
        let slot = self.slot(name);
        let before = self.slots[slot].facts.replace(facts);
        let after = self.slots[slot].facts.as_ref().expect("just put there");
        if before.as_ref() == Some(after) {
            return false;
        }
        let (labels, images) = (after.labels.clone(), after.images.clone());
        if before.as_ref().is_none_or(|before| before.images != images) {
            self.count_images(before.as_ref().map(|before| &*before.images), Some(&images));
            self.epoch += 1;
        }
        if before.is_none() {
            self.nodes += 1;
            self.epoch += 1;
        }
        self.topologies.set(slot, &labels);
        self.touch(slot);
        true
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        let Some(facts) = self.slots[slot].facts.take() else { return };
        self.count_images(Some(&facts.images), None);
        self.nodes -= 1;
        self.epoch += 1;
        self.topologies.clear(slot);
        self.touch(slot);
        self.release(slot);
    }

    /// A pod with a node came or changed; replaces what was known or assumed of it.
    pub fn set_pod(&mut self, pod: Arc<Pod>) {
        self.remove_pod(&pod.key);
        if let Some(node) = pod.node.clone().filter(|_| !pod.finished) {
            let slot = self.slot(&node);
            self.put(pod, slot, false);
        }
    }

    /// The slot it was on.
    pub fn remove_pod(&mut self, key: &PodKey) -> Option<Slot> {
        let Placed { pod, slot, .. } = self.placed.remove(key)?;
        self.slots[slot].used.remove(&pod);
        self.counters.change(&pod, slot, -1);
        self.terms.change(&pod, slot, -1);
        self.touch(slot);
        self.release(slot);
        Some(slot)
    }

    /// Takes the room for a pod before its binding is known to be written.
    pub(crate) fn assume(&mut self, pod: &Arc<Pod>, slot: Slot) {
        assert!(!self.placed.contains_key(&pod.key), "{} is placed once", pod.key);
        self.put(pod.clone(), slot, true);
    }

    /// Gives the room back if the pod is only assumed to be there.
    pub(crate) fn forget(&mut self, key: &PodKey) -> Option<Slot> {
        if self.is_assumed(key) { self.remove_pod(key) } else { None }
    }

    pub(crate) fn is_assumed(&self, key: &PodKey) -> bool {
        self.placed.get(key).is_some_and(|placed| placed.assumed)
    }

    pub(crate) fn assumed(&self) -> Vec<PodKey> {
        let assumed = self.placed.iter().filter(|(_, placed)| placed.assumed);
        assumed.map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn slot_of_pod(&self, key: &PodKey) -> Option<Slot> {
        self.placed.get(key).map(|placed| placed.slot)
    }

    /// The pod as it is known where it takes room.
    pub(crate) fn placed(&self, key: &PodKey) -> Option<&Arc<Pod>> {
        self.placed.get(key).map(|placed| &placed.pod)
    }

    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_string(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
    }

    /// `None`: the service is gone or selects nothing.
    pub(crate) fn set_service(&mut self, key: PodKey, selector: Option<Selector>) {
        match selector {
            Some(selector) => drop(self.services.insert(key, selector)),
            None => drop(self.services.remove(&key)),
        }
    }

    pub fn nodes(&self) -> usize {
        self.nodes
    }

    pub(crate) fn slot_of(&self, node: &str) -> Option<Slot> {
        self.by_name.get(node).copied()
    }

    pub(crate) fn slots(&self) -> std::ops::Range<Slot> {
        0..self.slots.len()
    }

    pub(crate) fn name(&self, slot: Slot) -> &str {
        &self.slots[slot].name
    }

    /// `None` where no node object exists.
    pub(crate) fn candidate(&self, slot: Slot) -> Option<Candidate<'_>> {
        let Place { name, facts, used } = self.slots.get(slot)?;
        let facts = facts.as_ref()?;
        Some(Candidate { name, facts, used, images: &self.images, nodes: self.nodes })
    }

    /// Every node, by slot.
    pub fn candidates(&self) -> impl Iterator<Item = (Slot, Candidate<'_>)> {
        self.slots().filter_map(|slot| Some((slot, self.candidate(slot)?)))
    }

    /// Number of changes so far, and the epoch: see [`World::changed_since`].
    pub(crate) fn version(&self) -> (u64, u64) {
        (self.changed, self.epoch)
    }

    /// The slots changed since `version`; `None` if that is too long ago, or concerns all of them.
    pub(crate) fn changed_since(
        &self,
        version: (u64, u64),
    ) -> Option<impl Iterator<Item = Slot> + '_> {
        let behind = usize::try_from(self.changed - version.0).ok()?;
        let known = behind <= self.changes.len() && version.1 == self.epoch;
        known.then(|| self.changes.range(self.changes.len() - behind..).copied())
    }

    /// Makes sure that `topology(key)` and `count(matching)` are kept from now on.
    pub(crate) fn prepare(&mut self, topology_key: &str, matching: &Matching) {
        let slots = self.slots.iter().map(|place| Some(&*place.facts.as_ref()?.labels));
        self.topologies.prepare(topology_key, slots);
        let pods = self.placed.values().map(|placed| (&*placed.pod, placed.slot));
        self.counters.prepare(matching, pods);
    }

    pub(crate) fn prepare_topology(&mut self, key: &str) {
        let slots = self.slots.iter().map(|place| Some(&*place.facts.as_ref()?.labels));
        self.topologies.prepare(key, slots);
    }

    /// Between placements: forgets counts that nobody asked for lately.
    pub(crate) fn trim(&mut self) {
        self.counters.trim();
    }

    pub(crate) fn topologies(&self) -> &Topologies {
        &self.topologies
    }

    /// How many pods match on each slot; slots past the end have none. Prepared before.
    pub(crate) fn count(&self, matching: &Matching) -> &[u32] {
        self.counters.get(matching)
    }

    /// Whether `term` of some pod speaks of `pod`.
    pub(crate) fn concerns(&self, term: &Term, pod: &Pod) -> bool {
        let namespace = &pod.key.namespace;
        let by_label = |selector: &Selector| match self.namespaces.get(namespace) {
            Some(labels) => selector.matches(labels),
            None => selector.is_everything(),
        };
        (term.namespaces.contains(namespace)
            || term.namespace_selector.as_ref().is_some_and(by_label))
            && term.selector.matches(&pod.labels)
    }

    /// The names a term's namespaces stand for now; `None`: all of them.
    pub(crate) fn namespaces_of(&self, term: &Term) -> Option<Vec<String>> {
        let mut names = term.namespaces.clone();
        if let Some(selector) = &term.namespace_selector {
            if selector.is_everything() {
                return None;
            }
            let chosen = self.namespaces.iter().filter(|(_, labels)| selector.matches(labels));
            names.extend(chosen.map(|(name, _)| name.clone()));
        }
        Some(names.into_iter().collect())
    }

    /// The pods that `pod` should be spread against if it says nothing itself: those of the same
    /// replica set or stateful set, else those of the services that select it.
    pub(crate) fn siblings(&self, pod: &Pod) -> Option<Matching> {
        let namespace = pod.key.namespace.clone();
        if let Some((kind, uid)) = &pod.controller
            && matches!(kind.as_str(), "ReplicaSet" | "StatefulSet" | "ReplicationController")
        {
            return Some(Matching::Owned { namespace, uid: uid.clone() });
        }
        let from = PodKey { namespace: namespace.clone(), name: String::new() };
        let here = self.services.range(from..).take_while(|(key, _)| key.namespace == namespace);
        let mut all: Vec<_> = here
            .filter(|(_, selector)| selector.matches(&pod.labels))
            .flat_map(|(_, selector)| selector.0.iter().cloned())
            .collect();
        all.sort();
        all.dedup();
        (!all.is_empty()).then(|| Matching::spread(namespace, Selector(all)))
    }

    /// Whether any placed pod forbids, wants or shuns other pods beside it.
    pub(crate) fn has_terms(&self) -> bool {
        !self.terms.is_empty()
    }

    fn put(&mut self, pod: Arc<Pod>, slot: Slot, assumed: bool) {
        self.slots[slot].used.add(&pod);
        self.counters.change(&pod, slot, 1);
        self.terms.change(&pod, slot, 1);
        self.touch(slot);
        self.placed.insert(pod.key.clone(), Placed { pod, slot, assumed });
    }

    fn slot(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let place = Place { name: name.to_string(), ..Place::default() };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = place;
                slot
            }
            None => {
                self.slots.push(place);
                self.slots.len() - 1
            }
        };
        self.by_name.insert(name.to_string(), slot);
        slot
    }

    /// Gives up the slot once neither a node nor a pod speaks of it.
    fn release(&mut self, slot: Slot) {
        let place = &self.slots[slot];
        if place.facts.is_none() && place.used.pods == 0 {
            assert!(place.used.requests.is_zero(), "{}: all room given back", place.name);
            self.by_name.remove(&place.name);
            self.free.push(slot);
        }
    }

    fn touch(&mut self, slot: Slot) {
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(slot);
        self.changed += 1;
    }

    fn count_images(
        &mut self,
        before: Option<&BTreeMap<String, i64>>,
        after: Option<&BTreeMap<String, i64>>,
    ) {
        for name in after.into_iter().flat_map(BTreeMap::keys) {
            *self.images.entry(name.clone()).or_default() += 1;
        }
        for name in before.into_iter().flat_map(BTreeMap::keys) {
            let count = self.images.get_mut(name).expect("counted when it came");
            *count -= 1;
            if *count == 0 {
                self.images.remove(name);
            }
        }
    }
}

/// Terms of placed pods that say something to newcomers.
pub(crate) fn speaks_to_others(term: &Term) -> bool {
    match term.pull {
        Pull::Require | Pull::Forbid => true,
        Pull::Prefer(weight) => weight != 0,
    }
}

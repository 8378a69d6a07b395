//! Which nodes share a domain (a zone, a rack, a hostname), by topology key.

use super::selector::Labels;
use super::world::Slot;
use std::collections::{BTreeMap, HashMap};

/// Number of a topology value; small and dense, so that counts per domain are a plain vector.
pub(crate) type Domain = usize;

/// For each key asked for so far, the domain of every node; kept by increments.
#[derive(Default)]
pub(crate) struct Topologies(BTreeMap<String, Topology>);

#[derive(Default)]
pub(crate) struct Topology {
    of_slot: Vec<Option<Domain>>,
    numbers: HashMap<String, Domain>,
}

impl Topologies {
    pub(super) fn prepare<'a>(
        &mut self,
        key: &str,
        slots: impl Iterator<Item = Option<&'a Labels>>,
    ) {
        let stale = |known: &Topology| known.numbers.len() > 2 * known.of_slot.len() + 64;
        if self.0.get(key).is_some_and(|known| !stale(known)) {
            return;
        }
        let mut topology = Topology::default();
        for (slot, labels) in slots.enumerate() {
            topology.set(slot, labels.and_then(|labels| labels.get(key)));
        }
        self.0.insert(key.to_string(), topology);
    }

    pub(super) fn set(&mut self, slot: Slot, labels: &Labels) {
        for (key, topology) in &mut self.0 {
            topology.set(slot, labels.get(key));
        }
    }

    pub(super) fn clear(&mut self, slot: Slot) {
        for topology in self.0.values_mut() {
            topology.set(slot, None);
        }
    }

    pub(crate) fn get(&self, key: &str) -> &Topology {
        self.0.get(key).expect("prepared before it is asked for")
    }
}

impl Topology {
    /// `None` for a node without the label.
    pub(crate) fn domain(&self, slot: Slot) -> Option<Domain> {
        self.of_slot.get(slot).copied().flatten()
    }

    /// Every domain's number is below this.
    pub(crate) fn domains_max(&self) -> usize {
        self.numbers.len()
    }

    fn set(&mut self, slot: Slot, value: Option<&String>) {
        if slot >= self.of_slot.len() {
            self.of_slot.resize(slot + 1, None);
        }
        self.of_slot[slot] = value.map(|value| {
            let next = self.numbers.len();
            *self.numbers.entry(value.clone()).or_insert(next)
        });
    }
}

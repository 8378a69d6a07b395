//! Pods that want, or cannot bear, certain other pods in their domain; what those say counts too.

use super::super::diagnosis::Rejected;
use super::super::matching::Matching;
use super::super::pod::{Pod, Pull, Term};
use super::super::world::{Slot, World};
use super::{Cause, Judge, Plugin, SCORE_MAX};
use std::collections::BTreeMap;

const NAME: &str = "InterPodAffinity";

pub(super) const PLUGIN: Plugin = Plugin {
    judge: Some(judge),
    ..Plugin::new(NAME, &[Cause::Node, Cause::PodLeft, Cause::PodPlaced])
};

const WEIGHT: i64 = 2;
/// What a placed pod's required affinity adds to the score of a newcomer it asks for; upstream's.
const REQUIRED_WEIGHT: i64 = 1;

fn judge(world: &mut World, pod: &Pod) -> Option<Box<dyn Judge>> {
    if pod.terms.is_empty() && !world.has_terms() {
        return None;
    }
    let keys: Vec<String> = world
        .terms
        .iter()
        .filter(|(term, _)| world.concerns(term, pod))
        .map(|(term, _)| term.topology_key.clone())
        .collect();
    if pod.terms.is_empty() && keys.is_empty() {
        return None;
    }
    keys.iter().for_each(|key| world.prepare_topology(key));
    let required: Vec<&Term> = of(pod, Pull::Require).collect();
    let together = Matching::Terms(required.iter().map(|term| place(world, term)).collect());
    for term in &pod.terms {
        let alone = Matching::Terms(vec![place(world, term)]);
        world.prepare(&term.topology_key, &alone);
        world.prepare(&term.topology_key, &together);
    }
    let world = &*world;
    Some(Box::new(Beside {
        wanted: wanted(world, pod, &required, &together),
        shunned: of(pod, Pull::Forbid).map(|term| matching_domains(world, term)).collect(),
        unwelcome: unwelcome(world, pod),
        liked: liked(world, pod),
    }))
}

fn of(pod: &Pod, pull: Pull) -> impl Iterator<Item = &Term> {
    pod.terms.iter().filter(move |term| term.pull == pull)
}

fn place(world: &World, term: &Term) -> (Option<Vec<String>>, super::super::selector::Selector) {
    (world.namespaces_of(term), term.selector.clone())
}

/// How many pods (or how much weight) each domain of one topology holds, seen from a slot.
struct Tally {
    of_slot: Vec<Option<usize>>,
    by_domain: Vec<i64>,
}

impl Tally {
    fn new(world: &World, key: &str) -> Tally {
        let topology = world.topologies().get(key);
        Tally {
            of_slot: world.slots().map(|slot| topology.domain(slot)).collect(),
            by_domain: vec![0; topology.domains_max()],
        }
    }

    fn add(&mut self, per_slot: &[u32], weight: i64) {
        for (slot, count) in per_slot.iter().enumerate().filter(|(_, count)| **count > 0) {
            if let Some(domain) = self.of_slot.get(slot).copied().flatten() {
                self.by_domain[domain] += weight * i64::from(*count);
            }
        }
    }

    /// `None` where the node lacks the label.
    fn at(&self, slot: Slot) -> Option<i64> {
        Some(self.by_domain[self.of_slot.get(slot).copied().flatten()?])
    }

    fn is_empty(&self) -> bool {
        self.by_domain.iter().all(|sum| *sum == 0)
    }
}

fn matching_domains(world: &World, term: &Term) -> Tally {
    let mut tally = Tally::new(world, &term.topology_key);
    tally.add(world.count(&Matching::Terms(vec![place(world, term)])), 1);
    tally
}

/// One tally per required term, of the pods that meet all of them; none if the pod is the first of
/// a group that asks for itself, which may then start anywhere the labels exist.
fn wanted(world: &World, pod: &Pod, required: &[&Term], together: &Matching) -> Wanted {
    let tally = |term: &&Term| {
        let mut tally = Tally::new(world, &term.topology_key);
        tally.add(world.count(together), 1);
        tally
    };
    let tallies: Vec<Tally> = required.iter().map(tally).collect();
    let none_anywhere = tallies.iter().all(Tally::is_empty);
    let asks_for_itself = required.iter().all(|term| world.concerns(term, pod));
    Wanted { tallies, first: none_anywhere && asks_for_itself }
}

/// Where placed pods forbid this one, by topology key.
fn unwelcome(world: &World, pod: &Pod) -> Vec<Tally> {
    let mut by_key: BTreeMap<&str, Tally> = BTreeMap::new();
    for (term, per_slot) in world.terms.iter() {
        if term.pull == Pull::Forbid && world.concerns(term, pod) {
            let key = term.topology_key.as_str();
            by_key.entry(key).or_insert_with(|| Tally::new(world, key)).add(per_slot, 1);
        }
    }
    by_key.into_values().collect()
}

/// What the pod prefers, and what placed pods prefer about it, by topology key.
fn liked(world: &World, pod: &Pod) -> Vec<Tally> {
    let mut by_key: BTreeMap<String, Tally> = BTreeMap::new();
    let mut add = |term: &Term, per_slot: &[u32], weight: i64| {
        let key = &term.topology_key;
        let tally = by_key.entry(key.clone()).or_insert_with(|| Tally::new(world, key));
        tally.add(per_slot, weight);
    };
    for term in &pod.terms {
        if let Pull::Prefer(weight) = term.pull {
            add(term, world.count(&Matching::Terms(vec![place(world, term)])), weight);
        }
    }
    for (term, per_slot) in world.terms.iter() {
        let weight = match term.pull {
            Pull::Require => REQUIRED_WEIGHT,
            Pull::Forbid => continue,
            Pull::Prefer(weight) => weight,
        };
        if world.concerns(term, pod) {
            add(term, per_slot, weight);
        }
    }
    by_key.into_values().filter(|tally| !tally.is_empty()).collect()
}

struct Wanted {
    tallies: Vec<Tally>,
    first: bool,
}

struct Beside {
    wanted: Wanted,
    shunned: Vec<Tally>,
    unwelcome: Vec<Tally>,
    liked: Vec<Tally>,
}

impl Judge for Beside {
    fn check(&self, slot: Slot) -> Result<(), Rejected> {
        let found = |tally: &Tally| match tally.at(slot) {
            None => false,
            Some(count) => count > 0 || self.wanted.first,
        };
        if !self.wanted.tallies.iter().all(found) {
            return Err(Rejected::new(NAME, "node(s) didn't match pod affinity rules"));
        }
        let present = |tally: &Tally| tally.at(slot).is_some_and(|count| count > 0);
        if self.shunned.iter().any(present) {
            return Err(Rejected::new(NAME, "node(s) didn't match pod anti-affinity rules"));
        }
        if self.unwelcome.iter().any(present) {
            let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Err(Rejected::new(NAME, reason));
        }
        Ok(())
    }

    fn scores(&self, fitting: &[Slot]) -> Option<(i64, Vec<i64>)> {
        if self.liked.is_empty() {
            return None;
        }
        let raw = |slot: &Slot| -> i64 {
            self.liked.iter().map(|tally| tally.at(*slot).unwrap_or_default()).sum()
        };
        let raws: Vec<i64> = fitting.iter().map(raw).collect();
        let most = raws.iter().max().copied().unwrap_or_default();
        let least = raws.iter().min().copied().unwrap_or_default();
        let score = |raw: &i64| match most - least {
            0 => 0,
            range => SCORE_MAX * (raw - least) / range,
        };
        Some((WEIGHT, raws.iter().map(score).collect()))
    }
}

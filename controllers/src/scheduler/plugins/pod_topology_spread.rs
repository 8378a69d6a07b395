//! Spreads pods of one kind over zones, hosts or any other domain: hard constraints refuse, soft
//! ones prefer. A pod without constraints is spread softly among its siblings, as upstream does.

use super::super::diagnosis::Rejected;
use super::super::matching::Matching;
use super::super::pod::{Pod, Spread};
use super::super::selector::Selector;
use super::super::topology::Topology;
use super::super::world::{Slot, World};
use super::{Cause, Judge, Plugin, SCORE_MAX, allowed, taint_toleration::untolerated};

const NAME: &str = "PodTopologySpread";

pub(super) const PLUGIN: Plugin = Plugin {
    judge: Some(judge),
    ..Plugin::new(NAME, &[Cause::Node, Cause::PodLeft, Cause::PodPlaced])
};

const WEIGHT: i64 = 2;
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Topology key and maximal skew of the constraints of pods that have none.
const DEFAULT: [(&str, i64); 2] = [(HOSTNAME, 3), ("topology.kubernetes.io/zone", 5)];

fn judge(world: &mut World, pod: &Pod) -> Option<Box<dyn Judge>> {
    let asked = asked(world, pod);
    if asked.is_empty() {
        return None;
    }
    for (spread, matching) in &asked {
        world.prepare(&spread.topology_key, matching);
    }
    let whole = |hard: bool| asked.iter().filter(move |(spread, _)| spread.hard == hard);
    let complete = |slot: Slot, hard: bool| {
        whole(hard)
            .all(|(spread, _)| world.topologies().get(&spread.topology_key).domain(slot).is_some())
    };
    // A node without all the labels is left out, except under the default constraints: there a node
    // without a zone still counts as a host.
    let strict = !pod.spread.is_empty();
    let eligible: Vec<Eligible> = world
        .candidates()
        .map(|(slot, candidate)| Eligible {
            slot,
            hard: complete(slot, true),
            soft: !strict || complete(slot, false),
            allowed: allowed(&pod.shape, candidate),
            untainted: !any_honors_taints(&asked) || !untolerated(&pod.shape, candidate),
        })
        .collect();
    let of =
        |spread: &Spread, matching: &Matching| Domains::of(world, pod, spread, matching, &eligible);
    let hard = whole(true).map(|(spread, matching)| of(spread, matching)).collect();
    let soft: Vec<_> = whole(false).map(|(spread, matching)| of(spread, matching)).collect();
    let mut ignored = vec![false; world.slots().end];
    eligible.iter().filter(|one| !one.soft).for_each(|one| ignored[one.slot] = true);
    Some(Box::new(Spreading { hard, soft, ignored }))
}

fn any_honors_taints(asked: &[(Spread, Matching)]) -> bool {
    asked.iter().any(|(spread, _)| spread.honor_taints)
}

/// The pod's constraints, or the default ones, each with the pods it counts.
fn asked(world: &World, pod: &Pod) -> Vec<(Spread, Matching)> {
    if !pod.spread.is_empty() {
        let own = pod.spread.iter().map(|spread| {
            let namespace = pod.key.namespace.clone();
            (spread.clone(), Matching::spread(namespace, spread.selector.clone()))
        });
        return own.collect();
    }
    let Some(siblings) = world.siblings(pod) else { return Vec::new() };
    let default = DEFAULT.iter().map(|(key, max_skew)| Spread {
        topology_key: key.to_string(),
        max_skew: *max_skew,
        hard: false,
        selector: Selector::default(),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    });
    default.map(|spread| (spread, siblings.clone())).collect()
}

/// A node, and which constraints take it into account.
struct Eligible {
    slot: Slot,
    hard: bool,
    soft: bool,
    allowed: bool,
    untainted: bool,
}

/// The state of one constraint.
struct Domains {
    max_skew: i64,
    per_host: bool,
    /// Domain by slot.
    of_slot: Vec<Option<usize>>,
    /// Matching pods by domain; `None` where no eligible node is.
    counts: Vec<Option<i64>>,
    /// Matching pods by slot.
    on_slot: Vec<u32>,
    fewest: i64,
    /// 1 if the pod itself would be counted.
    itself: i64,
}

impl Domains {
    fn of(
        world: &World,
        pod: &Pod,
        spread: &Spread,
        matching: &Matching,
        eligible: &[Eligible],
    ) -> Domains {
        let topology: &Topology = world.topologies().get(&spread.topology_key);
        let on_slot = world.count(matching);
        let mut counts = vec![None; topology.domains_max()];
        for node in eligible {
            let complete = if spread.hard { node.hard } else { node.soft };
            let included = (node.allowed || !spread.honor_affinity)
                && (node.untainted || !spread.honor_taints);
            let Some(domain) = topology.domain(node.slot).filter(|_| complete && included) else {
                continue;
            };
            let here = on_slot.get(node.slot).copied().unwrap_or_default();
            *counts[domain].get_or_insert(0) += i64::from(here);
        }
        let present = counts.iter().flatten().count();
        let fewest = counts.iter().flatten().min().copied().unwrap_or_default();
        Domains {
            max_skew: spread.max_skew,
            per_host: spread.topology_key == HOSTNAME,
            of_slot: world.slots().map(|slot| topology.domain(slot)).collect(),
            counts,
            on_slot: on_slot.to_vec(),
            fewest: if present < spread.min_domains { 0 } else { fewest },
            itself: matching.matches(pod).into(),
        }
    }

    fn domain(&self, slot: Slot) -> Option<usize> {
        self.of_slot.get(slot).copied().flatten()
    }

    fn check(&self, slot: Slot) -> Result<(), Rejected> {
        let Some(domain) = self.domain(slot) else {
            let reason =
                "node(s) didn't match pod topology spread constraints (missing required label)";
            return Err(Rejected::new(NAME, reason));
        };
        let here = self.counts[domain].unwrap_or_default();
        if here + self.itself - self.fewest > self.max_skew {
            let reason = "node(s) didn't match pod topology spread constraints";
            return Err(Rejected::new(NAME, reason));
        }
        Ok(())
    }

    /// The share of a node's score that this constraint adds, higher where more pods are. Domains
    /// that few nodes share weigh less, so that zones are not drowned by hosts.
    fn crowding(&self, slot: Slot, weight: f64) -> f64 {
        let Some(domain) = self.domain(slot) else { return 0.0 };
        let count = if self.per_host {
            self.on_slot.get(slot).copied().unwrap_or_default().into()
        } else {
            self.counts[domain].unwrap_or_default()
        };
        count as f64 * weight + (self.max_skew - 1) as f64
    }

    fn weight(&self, scored: &[Slot]) -> f64 {
        let size = if self.per_host {
            scored.len()
        } else {
            let mut seen = vec![false; self.counts.len() + 1];
            let unlabelled = self.counts.len();
            scored.iter().for_each(|slot| seen[self.domain(*slot).unwrap_or(unlabelled)] = true);
            seen.into_iter().filter(|seen| *seen).count()
        };
        ((size + 2) as f64).ln()
    }
}

struct Spreading {
    hard: Vec<Domains>,
    soft: Vec<Domains>,
    /// By slot: not scored, because it lacks a label that a soft constraint names.
    ignored: Vec<bool>,
}

impl Judge for Spreading {
    fn check(&self, slot: Slot) -> Result<(), Rejected> {
        self.hard.iter().try_for_each(|domains| domains.check(slot))
    }

    fn scores(&self, fitting: &[Slot]) -> Option<(i64, Vec<i64>)> {
        if self.soft.is_empty() {
            return None;
        }
        let scored: Vec<Slot> =
            fitting.iter().copied().filter(|slot| !self.ignored[*slot]).collect();
        let weighted: Vec<_> =
            self.soft.iter().map(|domains| (domains, domains.weight(&scored))).collect();
        let raw = |slot: Slot| {
            let sum: f64 =
                weighted.iter().map(|(domains, weight)| domains.crowding(slot, *weight)).sum();
            sum.round() as i64
        };
        let raws: Vec<Option<i64>> =
            fitting.iter().map(|slot| (!self.ignored[*slot]).then(|| raw(*slot))).collect();
        let most = raws.iter().flatten().max().copied().unwrap_or_default();
        let least = raws.iter().flatten().min().copied().unwrap_or_default();
        let score = |raw: &Option<i64>| match raw {
            None => 0,
            Some(_) if most == 0 => SCORE_MAX,
            Some(raw) => SCORE_MAX * (most + least - raw) / most,
        };
        Some((WEIGHT, raws.iter().map(score).collect()))
    }
}

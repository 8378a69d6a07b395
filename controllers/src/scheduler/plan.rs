//! Places pods: the world and a list of pods in, a binding or the reasons against it out.

use super::diagnosis::{Diagnosis, Rejected};
use super::plugins::{self, LOCAL_SCORES, Normal, PLUGINS};
use super::pod::{Pod, PodKey, Shape};
use super::world::{Slot, World};
use std::collections::HashMap;
use std::sync::Arc;

/// What became of one pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The world already counts it there.
    Bind {
        pod: PodKey,
        uid: String,
        node: String,
    },
    Unschedulable {
        pod: PodKey,
        diagnosis: Diagnosis,
    },
}

/// How many shapes' tables are kept. A table of 5,000 nodes takes a quarter of a megabyte.
const TABLES_MAX: usize = 32;

/// Remembers verdicts about single nodes from one pod to the next of the same shape, and brings
/// them up to date where the world changed. It changes how long a plan takes, never the plan.
#[derive(Default)]
pub struct Planner {
    tables: HashMap<Arc<Shape>, Table>,
    used: u64,
}

#[derive(Default)]
struct Table {
    version: (u64, u64),
    rows: Vec<Row>,
    used: u64,
}

/// What a shape's pods find on one slot.
#[derive(Clone)]
enum Row {
    /// No node here.
    Absent,
    Rejected(Rejected),
    Fits([i64; LOCAL_SCORES]),
}

/// Decides for each pod in turn, taking the room in `world` as it goes.
pub fn plan(planner: &mut Planner, world: &mut World, pods: &[Arc<Pod>]) -> Vec<Decision> {
    let decide = |pod: &Arc<Pod>| match planner.place(world, pod) {
        Ok(slot) => {
            world.assume(pod, slot);
            let node = world.name(slot).to_string();
            Decision::Bind { pod: pod.key.clone(), uid: pod.uid.clone(), node }
        }
        Err(diagnosis) => Decision::Unschedulable { pod: pod.key.clone(), diagnosis },
    };
    pods.iter().map(decide).collect()
}

impl Planner {
    /// The best node for `pod`, or why there is none.
    pub(crate) fn place(&mut self, world: &mut World, pod: &Pod) -> Result<Slot, Diagnosis> {
        world.trim();
        let judges = plugins::judges(world, pod);
        let table = self.table(world, pod);
        let mut diagnosis = Diagnosis::new(world.nodes());
        let mut fitting = Vec::new();
        for (slot, row) in table.rows.iter().enumerate() {
            match row {
                Row::Absent => (),
                Row::Rejected(rejected) => diagnosis.add(rejected),
                Row::Fits(raw) => match judges.iter().try_for_each(|judge| judge.check(slot)) {
                    Ok(()) => fitting.push((slot, raw)),
                    Err(rejected) => diagnosis.add(&rejected),
                },
            }
        }
        if fitting.is_empty() {
            return Err(diagnosis);
        }
        let scores = total(&fitting, &judges);
        let seed = hash(&[&pod.key.namespace, "/", &pod.key.name]);
        let best = fitting.iter().zip(scores).max_by_key(|((slot, _), score)| {
            // Ties fall to the same node on every member, and not to the same node for every pod.
            (*score, mix(seed, *slot as u64), *slot)
        });
        let ((slot, _), _) = best.expect("at least one fits");
        Ok(*slot)
    }

    /// The up-to-date table of the pod's shape.
    fn table(&mut self, world: &World, pod: &Pod) -> &Table {
        self.used += 1;
        if self.tables.len() >= TABLES_MAX && !self.tables.contains_key(&pod.shape) {
            self.drop_oldest();
        }
        let table = self.tables.entry(pod.shape.clone()).or_default();
        table.used = self.used;
        table.refresh(world, &pod.shape);
        table
    }

    fn drop_oldest(&mut self) {
        let oldest = self.tables.iter().min_by_key(|(_, table)| table.used);
        if let Some(shape) = oldest.map(|(shape, _)| shape.clone()) {
            self.tables.remove(&shape);
        }
    }
}

impl Table {
    fn refresh(&mut self, world: &World, shape: &Shape) {
        let slots = world.slots();
        let known = if self.rows.is_empty() { None } else { world.changed_since(self.version) };
        self.rows.resize(slots.len(), Row::Absent);
        match known {
            Some(changed) => changed.for_each(|slot| self.rows[slot] = judge(world, shape, slot)),
            None => slots.for_each(|slot| self.rows[slot] = judge(world, shape, slot)),
        }
        self.version = world.version();
    }
}

fn judge(world: &World, shape: &Shape, slot: Slot) -> Row {
    let Some(candidate) = world.candidate(slot) else { return Row::Absent };
    match plugins::check(shape, candidate) {
        Ok(()) => Row::Fits(plugins::raw_scores(shape, candidate)),
        Err(rejected) => Row::Rejected(rejected),
    }
}

/// Sums every plugin's score, normalised over the nodes that fit, by its weight.
fn total(fitting: &[(Slot, &[i64; LOCAL_SCORES])], judges: &[Box<dyn plugins::Judge>]) -> Vec<i64> {
    let mut totals = vec![0; fitting.len()];
    if fitting.len() == 1 {
        return totals;
    }
    let locals = PLUGINS.iter().filter_map(|plugin| plugin.score.as_ref());
    for (index, score) in locals.enumerate() {
        let most = fitting.iter().map(|(_, raw)| raw[index]).max().unwrap_or_default();
        for (total, (_, raw)) in totals.iter_mut().zip(fitting) {
            *total += score.weight * normalised(score.normal, raw[index], most);
        }
    }
    let slots: Vec<Slot> = fitting.iter().map(|(slot, _)| *slot).collect();
    for judge in judges {
        let Some((weight, scores)) = judge.scores(&slots) else { continue };
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    }
    totals
}

fn normalised(normal: Normal, raw: i64, most: i64) -> i64 {
    match normal {
        Normal::AsIs => raw,
        Normal::MoreIsBetter if most == 0 => raw,
        Normal::MoreIsBetter => plugins::SCORE_MAX * raw / most,
        Normal::LessIsBetter if most == 0 => plugins::SCORE_MAX,
        Normal::LessIsBetter => plugins::SCORE_MAX - plugins::SCORE_MAX * raw / most,
    }
}

/// FNV-1a: the same on every member and in every build, which `std`'s hasher does not promise.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// splitmix64's finisher.
fn mix(seed: u64, value: u64) -> u64 {
    let mut bits = seed ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

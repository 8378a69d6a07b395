//! The scheduler without its edges: changes and the time go in, decisions come out.

use super::diagnosis::Diagnosis;
use super::node::Facts;
use super::plan::{Decision, Planner, plan};
use super::plugins::{self, Cause};
use super::pod::{Pod, PodKey, Shape};
use super::queue::{Depth, Queue};
use super::selector::{Labels, Selector};
use super::world::{Slot, World};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Unused shapes are looked for beyond this many; clusters have hundreds of workloads, not more kinds
/// of pods than pods.
const SHAPES_MAX: usize = 4096;

/// One object's newest version, or that it is gone.
pub(crate) enum Change {
    Node(String, Option<Facts>),
    Pod(PodKey, Option<Box<Pod>>),
    Namespace(String, Option<Labels>),
    Service(PodKey, Option<Selector>),
}

/// What became of a binding that was sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Bound,
    /// The pod is gone; so is the wish.
    Gone,
    /// Not written, certainly.
    Failed,
}

/// Of a pod that was bound.
pub(crate) struct Done {
    pub(crate) pod: Arc<Pod>,
    pub(crate) attempts: u32,
    /// From the first sight of it to the binding.
    pub(crate) waited: Duration,
}

/// The schedulers' part of the world's state on this master. Warm on every master: only a leader
/// calls [`State::plan`].
pub(crate) struct State {
    profile: String,
    world: World,
    planner: Planner,
    queue: Queue,
    shapes: HashSet<Arc<Shape>>,
    /// What happened since the refused pods were last asked.
    causes: BTreeSet<(Cause, Slot)>,
}

impl State {
    pub(crate) fn new(profile: &str) -> State {
        State {
            profile: profile.to_string(),
            world: World::default(),
            planner: Planner::default(),
            queue: Queue::default(),
            shapes: HashSet::new(),
            causes: BTreeSet::new(),
        }
    }

    pub(crate) fn observe(&mut self, change: Change, now: Duration) {
        match change {
            Change::Node(name, Some(facts)) => {
                if self.world.set_node(&name, facts)
                    && let Some(slot) = self.world.slot_of(&name)
                {
                    self.causes.insert((Cause::Node, slot));
                }
            }
            Change::Node(name, None) => self.world.remove_node(&name),
            Change::Pod(key, None) => self.lose(&key),
            Change::Pod(_, Some(pod)) => self.see(*pod, now),
            Change::Namespace(name, labels) => self.world.set_namespace(&name, labels),
            Change::Service(key, selector) => self.world.set_service(key, selector),
        }
    }

    /// Decides about the next pods, at most `max`. Each bound pod takes its room at once.
    pub(crate) fn plan(&mut self, max: usize, now: Duration) -> Vec<Decision> {
        self.wake(now);
        let mut pods = self.queue.take(max, now);
        pods.retain(|pod| {
            let waits = self.world.placed(&pod.key).is_none();
            if !waits {
                self.queue.remove(&pod.key);
            }
            waits
        });
        let decisions = plan(&mut self.planner, &mut self.world, &pods);
        for decision in &decisions {
            match decision {
                Decision::Bind { node, .. } => {
                    let slot = self.world.slot_of(node).expect("it was chosen from the world");
                    self.causes.insert((Cause::PodPlaced, slot));
                }
                Decision::Unschedulable { pod, diagnosis } => {
                    self.queue.refused(pod, diagnosis.plugins.clone(), now);
                }
            }
        }
        decisions
    }

    /// The pod, if the user has not been told this of it yet.
    pub(crate) fn tell(&mut self, pod: &PodKey, diagnosis: &Diagnosis) -> Option<Arc<Pod>> {
        let message = diagnosis.message();
        let entry = self.queue.get_mut(pod)?;
        if entry.told.as_ref() == Some(&message) {
            return None;
        }
        entry.told = Some(message);
        Some(entry.pod.clone())
    }

    /// What became of a binding. Some: the pod was waiting for this answer and is bound.
    pub(crate) fn settle(&mut self, key: &PodKey, outcome: Outcome, now: Duration) -> Option<Done> {
        match outcome {
            Outcome::Bound => {
                let entry = self.queue.remove(key)?;
                let waited = now.saturating_sub(entry.since);
                Some(Done { pod: entry.pod, attempts: entry.attempts, waited })
            }
            Outcome::Gone | Outcome::Failed => {
                let left = self.world.forget(key);
                self.causes.extend(left.map(|slot| (Cause::PodLeft, slot)));
                // Where there was nothing to forget, the watch has shown it bound after all.
                if outcome == Outcome::Gone || self.world.placed(key).is_some() {
                    self.queue.remove(key);
                } else {
                    self.queue.failed(key, now);
                }
                None
            }
        }
    }

    /// Asks the refused pods whether what happened gives them hope. A rule about single nodes is
    /// asked about the nodes that changed; one that looks around is taken at its word.
    pub(crate) fn wake(&mut self, now: Duration) {
        let causes = std::mem::take(&mut self.causes);
        if causes.is_empty() || !self.queue.has_refused() {
            return;
        }
        let world = &self.world;
        let mut fits: BTreeMap<(usize, Slot), bool> = BTreeMap::new();
        self.queue.wake(now, |pod, refused_by| {
            causes.iter().any(|(cause, slot)| {
                let mut concerned = refused_by.iter().filter(|name| plugins::wakes(name, *cause));
                if concerned.clone().any(|name| plugins::looks_around(name)) {
                    return true;
                }
                let shape = Arc::as_ptr(&pod.shape) as usize;
                concerned.next().is_some()
                    && *fits.entry((shape, *slot)).or_insert_with(|| {
                        world
                            .candidate(*slot)
                            .is_some_and(|node| plugins::check(&pod.shape, node).is_ok())
                    })
            })
        });
    }

    /// Leadership ended: what was only assumed is not so. What was written comes back by the watch.
    pub(crate) fn retire(&mut self, now: Duration) {
        for key in self.world.assumed() {
            self.leave(&key);
        }
        self.queue.untake(now);
    }

    pub(crate) fn next_timer(&self) -> Option<Duration> {
        self.queue.next_timer()
    }

    /// Whether [`State::plan`] has something to do now. Ask after [`State::wake`].
    pub(crate) fn has_work(&self, now: Duration) -> bool {
        self.queue.has_active() || self.next_timer().is_some_and(|at| at <= now)
    }

    pub(crate) fn depth(&self) -> Depth {
        self.queue.depth()
    }

    fn see(&mut self, mut pod: Pod, now: Duration) {
        self.intern(&mut pod);
        let pod = Arc::new(pod);
        let key = pod.key.clone();
        if pod.node.is_some() {
            // A binding that our own answer has not told of yet still counts as ours: the entry
            // stays until then.
            if !self.world.is_assumed(&key) || pod.finished {
                self.queue.remove(&key);
            }
            return self.place(pod);
        }
        let known = self.world.placed(&key).map(|known| known.uid == pod.uid);
        match known {
            // An older version of a pod whose binding is on its way.
            Some(true) => return,
            Some(false) => self.leave(&key),
            None => (),
        }
        if pod.finished || pod.deleting || pod.scheduler != self.profile {
            self.queue.remove(&key);
        } else if pod.gated {
            self.queue.set_gated(&key);
        } else {
            self.queue.offer(pod, now);
        }
    }

    /// Lets equal shapes be one, so that what is known of one pod is known of its like.
    fn intern(&mut self, pod: &mut Pod) {
        match self.shapes.get(&pod.shape) {
            Some(known) => pod.shape = known.clone(),
            None => {
                if self.shapes.len() >= SHAPES_MAX {
                    self.shapes.retain(|shape| Arc::strong_count(shape) > 1);
                }
                self.shapes.insert(pod.shape.clone());
            }
        }
    }

    fn place(&mut self, pod: Arc<Pod>) {
        let before = self.world.placed(&pod.key).cloned();
        let from = before.as_ref().and_then(|old| self.world.slot_of_pod(&old.key));
        self.world.set_pod(pod.clone());
        let to = self.world.slot_of_pod(&pod.key);
        let relabelled = before.as_ref().is_some_and(|old| {
            old.labels != pod.labels || old.deleting != pod.deleting || old.terms != pod.terms
        });
        if from != to || relabelled {
            self.causes.extend(from.map(|slot| (Cause::PodLeft, slot)));
            self.causes.extend(to.map(|slot| (Cause::PodPlaced, slot)));
        }
    }

    fn lose(&mut self, key: &PodKey) {
        self.queue.remove(key);
        self.leave(key);
    }

    fn leave(&mut self, key: &PodKey) {
        if let Some(slot) = self.world.remove_pod(key) {
            self.causes.insert((Cause::PodLeft, slot));
        }
    }
}

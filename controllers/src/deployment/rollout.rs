//! The sizes: which set grows, which shrinks, by how much, at this step.

use super::sets;
use crate::pods;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reconcile::{Note, Pod, World, Write};
use std::collections::BTreeMap;

/// One step of one deployment, while it is being decided.
pub(super) struct Rollout<'a> {
    world: &'a World,
    pub(super) deployment: &'a Deployment,
    pub(super) spec: &'a DeploymentSpec,
    /// The set with the present template; `None`: it is still to be made.
    pub(super) new: Option<ReplicaSet>,
    /// The others, oldest first.
    pub(super) old: Vec<ReplicaSet>,
    /// As they are, to tell what changed.
    before: Vec<&'a ReplicaSet>,
    pub(super) max_surge: i32,
    pub(super) max_unavailable: i32,
    /// The set made in this step.
    pub(super) created: bool,
    /// Another object has the name the new set should have.
    pub(super) collision: bool,
    /// The deployment's annotations as they should be.
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) writes: Vec<Write>,
    pub(super) notes: Vec<Note>,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(
        world: &'a World,
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        mut owned: Vec<&'a ReplicaSet>,
    ) -> Rollout<'a> {
        owned.sort_by_key(|set| (sets::created(set), set.metadata.name.clone()));
        let new = sets::newest(spec, &owned);
        let uid = new.map(|set| set.metadata.uid.clone());
        let old = owned.iter().filter(|set| Some(&set.metadata.uid) != uid.as_ref());
        let old = old.map(|set| (*set).clone()).collect();
        let (max_surge, max_unavailable) = fence_posts(spec);
        Rollout {
            world,
            deployment,
            spec,
            new: new.cloned(),
            old,
            before: owned,
            max_surge,
            max_unavailable,
            created: false,
            collision: false,
            annotations: deployment.metadata.annotations.clone(),
            writes: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn decide(&mut self) {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return;
        }
        if self.paused() {
            self.renew_existing();
            self.scale();
            self.clean_history();
        } else if self.is_scaling() {
            self.renew_existing();
            self.scale();
        } else if is_recreate(self.spec) {
            self.recreate();
        } else {
            self.roll();
        }
        self.write_changes();
    }

    pub(super) fn paused(&self) -> bool {
        self.spec.paused == Some(true)
    }

    pub(super) fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn total(&self) -> i32 {
        self.new.iter().chain(&self.old).map(sets::replicas).sum()
    }

    /// Whether the deployment was resized since a set with pods was last sized.
    fn is_scaling(&self) -> bool {
        let mut active = self.new.iter().chain(&self.old).filter(|set| sets::replicas(set) > 0);
        active.any(|set| sets::desired_annotation(set).is_some_and(|was| was != self.wanted()))
    }

    fn recreate(&mut self) {
        self.renew_existing();
        let mut shrunk = false;
        for index in 0..self.old.len() {
            if sets::replicas(&self.old[index]) > 0 {
                self.resize_old(index, 0);
                shrunk = true;
            }
        }
        if shrunk || self.old_pods_run() {
            return;
        }
        if self.new.is_none() {
            self.create(self.wanted());
        } else if self.new.as_ref().map(sets::replicas) != Some(self.wanted()) {
            self.resize_new(self.wanted());
        }
        if self.is_complete() {
            self.clean_history();
        }
    }

    /// A pod of an old template that has not ended, deleted or not.
    fn old_pods_run(&self) -> bool {
        self.old.iter().any(|set| {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            self.world.controlled_by::<Pod>(uid).any(|pod| !pods::is_terminal(pod))
        })
    }

    fn roll(&mut self) {
        if self.new.is_none() {
            self.create(self.new_size(0));
            return;
        }
        self.renew_existing();
        if self.grow_new() || self.shrink_old() {
            return;
        }
        if self.is_complete() {
            self.clean_history();
        }
    }

    /// What the new set may have now, from `present`.
    fn new_size(&self, present: i32) -> i32 {
        if is_recreate(self.spec) {
            return self.wanted();
        }
        let room = self.wanted() + self.max_surge - self.total();
        if room <= 0 { present } else { present + room.min(self.wanted() - present) }
    }

    fn grow_new(&mut self) -> bool {
        let present = self.new.as_ref().map_or(0, sets::replicas);
        let size = match present.cmp(&self.wanted()) {
            std::cmp::Ordering::Equal => return false,
            std::cmp::Ordering::Greater => self.wanted(),
            std::cmp::Ordering::Less => self.new_size(present),
        };
        if size != present {
            self.resize_new(size);
        }
        size != present
    }

    /// Takes pods from the old sets: first those that do not work anyway, then as many as
    /// `maxUnavailable` allows.
    fn shrink_old(&mut self) -> bool {
        if self.old.iter().all(|set| sets::replicas(set) == 0) {
            return false;
        }
        let new = self.new.as_ref();
        let new_unavailable =
            new.map_or(0, |set| sets::replicas(set) - sets::available(set)).max(0);
        let least = self.wanted() - self.max_unavailable;
        let allowed = self.total() - least - new_unavailable;
        if allowed <= 0 {
            return false;
        }
        let mut taken = 0;
        for index in 0..self.old.len() {
            let set = &self.old[index];
            let size = sets::replicas(set);
            let broken = size - sets::available(set);
            let take = broken.min(allowed - taken);
            if size > 0 && take > 0 {
                self.resize_old(index, size - take);
                taken += take;
            }
        }
        let available: i32 = self.new.iter().chain(&self.old).map(sets::available).sum();
        let allowed = available - least;
        let mut working = 0;
        for index in 0..self.old.len() {
            let size = sets::replicas(&self.old[index]);
            let take = size.min(allowed - working);
            if take > 0 {
                self.resize_old(index, size - take);
                working += take;
            }
        }
        taken + working > 0
    }

    /// Resizes without rolling: to the deployment's new size, in proportion if several sets have
    /// pods.
    fn scale(&mut self) {
        if let Some(only) = self.active_or_latest() {
            self.resize(only, self.wanted());
            return;
        }
        if self.new.as_ref().is_some_and(|set| self.is_saturated(set)) {
            for index in 0..self.old.len() {
                if sets::replicas(&self.old[index]) > 0 {
                    self.resize_old(index, 0);
                }
            }
            return;
        }
        if !is_recreate(self.spec) {
            self.scale_in_proportion();
        }
    }

    /// The one set with pods, or the latest if none has; `None` if several have.
    fn active_or_latest(&self) -> Option<Which> {
        let slots = (0..self.old.len()).map(Which::Old);
        let all: Vec<Which> = slots.chain(self.new.iter().map(|_| Which::New)).collect();
        let active: Vec<Which> = all.iter().copied().filter(|one| self.size(*one) > 0).collect();
        match active.as_slice() {
            [] => all.last().copied(),
            [one] => Some(*one),
            _ => None,
        }
    }

    fn is_saturated(&self, set: &ReplicaSet) -> bool {
        let wanted = self.wanted();
        sets::replicas(set) == wanted
            && sets::desired_annotation(set) == Some(wanted)
            && sets::available(set) == wanted
    }

    fn scale_in_proportion(&mut self) {
        let slots = (0..self.old.len()).map(Which::Old);
        let all = slots.chain(self.new.iter().map(|_| Which::New));
        let mut active: Vec<Which> = all.filter(|one| self.size(*one) > 0).collect();
        let limit = if self.wanted() > 0 { self.wanted() + self.max_surge } else { 0 };
        let to_add = limit - active.iter().map(|one| self.size(*one)).sum::<i32>();
        // The biggest first; of equals, growth goes to the newer, shrinking to the older.
        active.sort_by_key(|one| {
            let age = sets::created(self.set(*one)).as_nanosecond();
            (-self.size(*one), if to_add > 0 { -age } else { age })
        });
        let mut added = 0;
        let mut sizes = Vec::new();
        for one in &active {
            let share = if to_add == 0 { 0 } else { self.share(*one, to_add, added) };
            added += share;
            sizes.push(self.size(*one) + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (one, size) in active.into_iter().zip(sizes) {
            self.resize(one, size);
        }
    }

    /// The part of `to_add` that falls to a set of its size.
    fn share(&self, one: Which, to_add: i32, added: i32) -> i32 {
        let set = self.set(one);
        let size = sets::replicas(set);
        let fraction = if self.wanted() == 0 {
            -size
        } else {
            let limit = f64::from(self.wanted() + self.max_surge);
            let was = sets::max_annotation(set).filter(|was| *was > 0);
            let was = was.unwrap_or_else(|| {
                self.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(size).max(1)
            });
            (f64::from(size) * limit / f64::from(was)).round() as i32 - size
        };
        let left = to_add - added;
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    /// Every pod is of the new template, available, and the status says so.
    fn is_complete(&self) -> bool {
        let status = super::progress::counts(self);
        super::progress::is_complete(self.deployment, &status)
    }

    /// Deletes the oldest empty sets beyond `revisionHistoryLimit`.
    fn clean_history(&mut self) {
        let Some(limit) = self.spec.revision_history_limit else { return };
        let mut old: Vec<&ReplicaSet> =
            self.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        let surplus = old.len().saturating_sub(limit.max(0) as usize);
        old.sort_by_key(|set| sets::revision_of(set));
        let idle = |set: &&&ReplicaSet| {
            let status = set.status.clone().unwrap_or_default();
            status.replicas == 0
                && sets::replicas(set) == 0
                && set.metadata.generation <= status.observed_generation
        };
        let doomed = old.iter().take(surplus).filter(idle);
        let doomed: Vec<Write> = doomed.map(|set| Write::delete(*set)).collect();
        self.writes.extend(doomed);
    }
}

/// One of the sets.
#[derive(Clone, Copy)]
enum Which {
    New,
    Old(usize),
}

/// Changes of the sets, noted here and written at the end.
impl Rollout<'_> {
    fn set(&self, which: Which) -> &ReplicaSet {
        match which {
            Which::New => self.new.as_ref().expect("named only if there is one"),
            Which::Old(index) => &self.old[index],
        }
    }

    fn size(&self, which: Which) -> i32 {
        sets::replicas(self.set(which))
    }

    fn resize(&mut self, which: Which, size: i32) {
        match which {
            Which::New => self.resize_new(size),
            Which::Old(index) => self.resize_old(index, size),
        }
    }

    fn resize_new(&mut self, size: i32) {
        if let Some(mut set) = self.new.take() {
            self.resize_set(&mut set, size);
            self.new = Some(set);
        }
    }

    fn resize_old(&mut self, index: usize, size: i32) {
        let mut set = self.old[index].clone();
        self.resize_set(&mut set, size);
        self.old[index] = set;
    }

    fn resize_set(&self, set: &mut ReplicaSet, size: i32) {
        sets::set_size_annotations(set, self.spec, self.max_surge);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(size);
        }
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(sets::revision_of).max().unwrap_or(0) + 1
    }

    /// The new set carries the highest revision and the deployment's annotations; the deployment
    /// shows its revision.
    fn renew_existing(&mut self) {
        let revision = self.next_revision();
        let Some(set) = &mut self.new else { return };
        sets::renew(set, self.deployment, revision);
        if let Some(spec) = &mut set.spec {
            spec.min_ready_seconds = self.spec.min_ready_seconds;
        }
        let shown = sets::revision_of(set);
        self.show_revision(shown);
    }

    fn show_revision(&mut self, revision: i64) {
        let annotations = self.annotations.get_or_insert_default();
        annotations.insert(sets::REVISION.to_string(), revision.to_string());
    }

    fn create(&mut self, replicas: i32) {
        let hash = sets::template_hash(self.deployment, self.spec);
        let revision = self.next_revision();
        let set =
            sets::make(self.deployment, self.spec, &hash, replicas, self.max_surge, revision);
        let name = set.metadata.name.clone().unwrap_or_default();
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        let key = reconcile::Key::new(namespace, name.as_str());
        if self.world.get::<ReplicaSet>(&key).is_some() {
            // It has another template or another owner: the next name is tried.
            self.collision = true;
            return;
        }
        let text = format!("Scaled up replica set {name} from 0 to {replicas}");
        let mut write = Write::create(&set).on_error(Note::warning(
            self.deployment,
            "ReplicaSetCreateError",
            format!("Failed to create new replica set {name:?}: {{error}}"),
        ));
        if replicas > 0 {
            write = write.on_ok(Note::normal(self.deployment, "ScalingReplicaSet", text));
        }
        self.writes.push(write);
        self.created = true;
        self.new = Some(set);
        self.show_revision(revision);
    }

    /// One patch for each set that is not as it was.
    fn write_changes(&mut self) {
        let mut writes = Vec::new();
        for before in &self.before {
            let mut all = self.new.iter().chain(&self.old);
            let now = all.find(|set| set.metadata.uid == before.metadata.uid);
            let Some(now) = now else { continue };
            let Some(mut write) = Write::patch(*before, now) else { continue };
            let (from, to) = (sets::replicas(before), sets::replicas(now));
            if from != to {
                let direction = if to > from { "up" } else { "down" };
                let name = now.metadata.name.as_deref().unwrap_or_default();
                let text = format!("Scaled {direction} replica set {name} from {from} to {to}");
                write = write.on_ok(Note::normal(self.deployment, "ScalingReplicaSet", text));
            }
            writes.push(write);
        }
        writes.append(&mut self.writes);
        self.writes = writes;
    }
}

pub(super) fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// `maxSurge` and `maxUnavailable` as numbers of pods, never both zero.
fn fence_posts(spec: &DeploymentSpec) -> (i32, i32) {
    if is_recreate(spec) {
        return (0, 0);
    }
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let replicas = spec.replicas.unwrap_or(1);
    let quarter = || IntOrString::String("25%".to_string());
    let surge = rolling.and_then(|rolling| rolling.max_surge.clone()).unwrap_or_else(quarter);
    let down = rolling.and_then(|rolling| rolling.max_unavailable.clone());
    let surge = share_of(&surge, replicas, true);
    let down = share_of(&down.unwrap_or_else(quarter), replicas, false);
    let down = if surge == 0 && down == 0 { 1 } else { down };
    (surge, down.min(replicas))
}

/// A number, or a percentage of `replicas` rounded up or down.
fn share_of(value: &IntOrString, replicas: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse::<i32>().ok());
            let hundredfold = percent.unwrap_or(0) * replicas;
            if up { (hundredfold + 99) / 100 } else { hundredfold / 100 }
        }
    }
}

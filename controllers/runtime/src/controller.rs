//! A controller is data plus one pure function.

use crate::{Change, Key, KindInfo, Plan, World, kinds};
use jiff::Timestamp;
use std::time::Duration;

/// Decides from the world alone what should happen next to one root. `plan` does no IO, reads no
/// clock and keeps no state, so the same world always gives the same plan: after a restart and on a
/// new leader too. What changed chooses which root is planned, never what is done.
#[derive(Clone, Copy)]
pub struct Controller {
    /// The `name` label of its metrics.
    pub name: &'static str,
    /// Who its events come from: `deployment-controller`.
    pub component: &'static str,
    pub root: Root,
    /// Which kinds it looks at, and which roots a change in them concerns.
    pub wakes: &'static [(KindInfo, Wake)],
    /// Which roots a change of any kind concerns. A controller that has it looks at every kind and
    /// waits until all are complete.
    pub wakes_any: Option<fn(&World, &Change) -> Vec<Key>>,
    /// Kinds it looks at whose changes concern no root.
    pub reads: &'static [KindInfo],
    /// Plans carried out at the same time, each for another root.
    pub workers: usize,
    pub plan: fn(&World, &Key, &Context) -> Plan,
}

impl Controller {
    /// Every kind it looks at; it plans only once all of them are complete in the cache.
    pub fn needs(&self) -> impl Iterator<Item = KindInfo> {
        let root = match self.root {
            Root::Each(kind) => Some(kind),
            Root::Whole | Root::Every => None,
        };
        let wakes = self.wakes.iter().map(|(kind, _)| *kind);
        root.into_iter().chain(wakes).chain(self.reads.iter().copied())
    }
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Each object of one kind.
    Each(KindInfo),
    /// One root for everything, for decisions that weigh objects against each other: a plan made
    /// per object would place three pods from one stale picture, all on the same empty node.
    Whole,
    /// Each object of every kind that has owners or is being deleted, by [`Key::of_uid`].
    Every,
}

/// Which roots a change of one kind concerns.
#[derive(Clone, Copy)]
pub enum Wake {
    /// The object itself.
    Itself,
    /// The object's controlling owner, if it is of the root's kind.
    Owner,
    /// The root of a [`Root::Whole`] controller.
    Whole,
    /// Every object of the root's kind.
    All,
    /// What the function says; it sees the world after the change.
    Map(fn(&World, &Change) -> Vec<Key>),
}

impl Key {
    /// The root for the object with `uid` in a [`Root::Every`] controller.
    pub fn of_uid(uid: &str) -> Key {
        Key::new("", uid)
    }
}

/// What a plan may know besides the world.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Wall clock, for the time stamps in objects; never compared with another machine's.
    pub now: Timestamp,
    /// Since the cache started, on this process' own monotonic clock: the scale of
    /// [`crate::Entry::seen`].
    pub uptime: Duration,
    /// `uptime` when this process began to lead.
    pub leading_since: Duration,
    /// Why the last plan for this root could not be carried out.
    pub failure: Option<Failure>,
}

/// The write that stopped a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason of the event that was to tell of it (`FailedCreate`), or of the status.
    pub reason: String,
    pub message: String,
    /// Plans that failed in a row.
    pub attempts: u32,
}

impl Controller {
    /// The roots that `change` concerns.
    pub(crate) fn woken_by(&self, world: &World, change: &Change) -> Vec<Key> {
        let mut keys = Vec::new();
        if let Some(map) = self.wakes_any {
            keys.extend(map(world, change));
        }
        for (kind, wake) in self.wakes {
            if (kind.group, kind.plural) == (change.kind.group, change.kind.plural) {
                self.collect(world, change, wake, &mut keys);
            }
        }
        keys
    }

    fn collect(&self, world: &World, change: &Change, wake: &Wake, keys: &mut Vec<Key>) {
        match wake {
            Wake::Itself => keys.push(change.key().clone()),
            Wake::Whole => keys.push(Key::whole()),
            Wake::Map(map) => keys.extend(map(world, change)),
            Wake::All => keys.extend(self.roots(world)),
            Wake::Owner => {
                let Root::Each(root) = self.root else { return };
                for entry in change.both() {
                    let owner = entry.meta.controller();
                    let owner = owner.filter(|owner| {
                        owner.kind == root.kind && group_of(&owner.api_version) == root.group
                    });
                    let namespace = if root.namespaced { &*entry.key.namespace } else { "" };
                    keys.extend(owner.map(|owner| Key::new(namespace, owner.name.as_str())));
                }
            }
        }
    }

    /// Every root there is.
    pub(crate) fn roots(&self, world: &World) -> Vec<Key> {
        match self.root {
            Root::Whole => vec![Key::whole()],
            Root::Each(kind) => world.entries(&kind).map(|entry| entry.key.clone()).collect(),
            Root::Every => {
                let all = world.everything().map(|(_, entry)| &entry.meta);
                let concerned = all.filter(|meta| meta.deleting || !meta.owners.is_empty());
                concerned.map(|meta| Key::of_uid(&meta.uid)).collect()
            }
        }
    }

    /// A controller to start a value from: every field but name, root and plan.
    pub const BASE: Controller = Controller {
        name: "",
        component: "",
        root: Root::Each(kinds::PODS),
        wakes: &[],
        wakes_any: None,
        reads: &[],
        workers: 4, // Enough to hide one commit's latency; a plan itself takes microseconds.
        plan: |_, _, _| Plan::default(),
    };
}

/// The group of an `apiVersion`; empty for the core group.
pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or("", |(group, _)| group)
}

//! A rolling update has never more pods than it may: the sizes of a Deployment's ReplicaSets together
//! are replicas and maxSurge at most, and no ReplicaSet ever has more pods than the largest size it had.
//! (A Deployment counts sizes: pods that a smaller ReplicaSet is yet to delete may be there besides.)

use crate::{
    Violation,
    objects::{Objects, Shown, State},
};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct Set<'a> {
    owner: Option<&'a str>,
    size: u64,
    largest: u64,
    pods: BTreeSet<&'a str>,
}

/// Everything wrong with what was shown up to a revision that all of the watches have reached.
pub fn check(objects: &Objects, horizon: u64) -> Vec<Violation> {
    let streams = [&objects.deployments, &objects.sets, &objects.pods];
    let all = streams.iter().flat_map(|stream| &stream.shown);
    let mut all: Vec<&Shown> = all.filter(|it| it.revision <= horizon).collect();
    all.sort_by_key(|it| it.revision);
    let mut most: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    let (mut sets, mut set_of): (BTreeMap<&str, Set>, BTreeMap<&str, &str>) = Default::default();
    let mut found = Vec::new();
    let mut add = |what: String| found.push(Violation::new("rolling updates", what));
    for shown in all {
        let (uid, owner, revision) = (shown.uid.as_str(), shown.owner.as_deref(), shown.revision);
        match &shown.state {
            Some(State::Deployment { most: may, .. }) => {
                most.insert(uid, (*may, &shown.name));
            }
            Some(State::Set { size }) => {
                let set = sets.entry(uid).or_default();
                let grows = *size > set.size;
                (set.owner, set.size, set.largest) = (owner, *size, set.largest.max(*size));
                let sum: u64 = sets.values().filter(|it| it.owner == owner).map(|it| it.size).sum();
                let may = owner.and_then(|owner| most.get(owner));
                if let Some((may, name)) = may.filter(|(may, _)| grows && sum > *may) {
                    add(format!(
                        "the ReplicaSets of {name} want {sum} pods at {revision}; {may} are allowed"
                    ));
                }
            }
            Some(State::Pod { active: true, .. }) => {
                let Some(set) = owner else { continue };
                set_of.insert(uid, set);
                let set = sets.entry(set).or_default();
                let (new, count) = (set.pods.insert(uid), set.pods.len() as u64);
                if new && count > set.largest {
                    add(format!(
                        "{} is pod {count} of its ReplicaSet at {revision}, which never wanted more \
                         than {}",
                        shown.name, set.largest
                    ));
                }
            }
            Some(State::Pod { active: false, .. }) | None => {
                if let Some(set) = set_of.remove(uid).and_then(|set| sets.get_mut(set)) {
                    set.pods.remove(uid);
                } else if let Some(set) = sets.get_mut(uid) {
                    set.size = 0;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: fn(u64) -> Option<State> = |size| Some(State::Set { size });

    /// Of a Deployment `d` that may have three pods: changes one revision after the other.
    fn objects(changes: &[(&str, &str, Option<State>)]) -> Objects {
        let mut objects = Objects::default();
        let shown = |revision, uid: &str, owner: &str, state| {
            let owner = Some(owner.to_owned()).filter(|it| !it.is_empty());
            Shown { at: revision, revision, uid: uid.into(), name: uid.into(), owner, state }
        };
        let deployment = State::Deployment { most: 3, generation: 1, done: false };
        objects.deployments.show(shown(1, "d", "", Some(deployment)));
        for (revision, (uid, owner, state)) in (2..).zip(changes) {
            let stream = if *owner == "d" { &mut objects.sets } else { &mut objects.pods };
            stream.show(shown(revision, uid, owner, state.clone()));
        }
        objects
    }

    fn pod(active: bool) -> Option<State> {
        Some(State::Pod { node: None, active })
    }

    #[test]
    fn a_rollout_has_as_many_pods_as_it_may() {
        let rolled = [
            ("old", "d", SET(2)),
            ("a", "old", pod(true)),
            ("b", "old", pod(true)),
            ("new", "d", SET(1)),
            ("c", "new", pod(true)),
            ("old", "d", SET(0)),
            // Pods of the old set that are still there do not count against it.
            ("new", "d", SET(2)),
            ("e", "new", pod(true)),
            ("a", "old", pod(false)),
            ("b", "old", None),
            ("old", "d", None),
            ("again", "d", SET(1)),
        ];
        assert_eq!(check(&objects(&rolled), 100), []);
        assert_eq!(check(&objects(&[("old", "d", SET(2)), ("new", "d", SET(2))]), 100).len(), 1);
        let what = |objects| check(&objects, 100).into_iter().map(|it| it.what).collect::<Vec<_>>();
        let surplus = [("old", "d", SET(1)), ("a", "old", pod(true)), ("b", "old", pod(true))];
        let said = "b is pod 2 of its ReplicaSet at 4, which never wanted more than 1";
        assert_eq!(what(objects(&surplus)), [said]);
        assert_eq!(check(&objects(&surplus), 3), [], "not looked at yet");
        let replaced = [
            ("old", "d", SET(1)),
            ("a", "old", pod(true)),
            ("a", "old", pod(false)),
            ("b", "old", pod(true)),
        ];
        assert_eq!(check(&objects(&replaced), 100), []);
    }
}

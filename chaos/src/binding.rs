//! A pod is bound at most once: it gets one node and keeps it for as long as it is there.

use crate::{
    Violation,
    objects::{Shown, State},
};
use std::collections::{BTreeMap, BTreeSet};

/// Everything wrong with what a watch of pods showed.
pub fn check(shown: &[Shown]) -> Vec<Violation> {
    let mut nodes: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut gone, mut last): (BTreeSet<&str>, u64) = Default::default();
    let mut found = Vec::new();
    let mut add = |what: String| found.push(Violation::new("binding", what));
    for each in shown {
        let (uid, name, revision) = (each.uid.as_str(), &each.name, each.revision);
        if revision < last {
            add(format!("the watch showed {name} at {revision}, after {last}"));
        }
        last = last.max(revision);
        let Some(State::Pod { node, .. }) = &each.state else {
            gone.insert(uid);
            continue;
        };
        if gone.contains(uid) {
            add(format!("{name} ({uid}) was gone and is there again at {revision}"));
        }
        match (nodes.get(uid), node) {
            (Some(was), Some(is)) if was != is => {
                add(format!("{name} ({uid}) was bound to {was}, and to {is} at {revision}"));
            }
            (Some(was), None) => {
                add(format!("{name} ({uid}) was bound to {was}, and to no node at {revision}"));
            }
            (None, Some(is)) => drop(nodes.insert(uid, is)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(revision: u64, uid: &str, node: Option<&str>) -> Shown {
        let state = Some(State::Pod { node: node.map(str::to_owned), active: true });
        let (uid, name) = (uid.to_owned(), "p".to_owned());
        Shown { at: revision, revision, uid, name, owner: None, state }
    }

    #[test]
    fn a_pod_has_one_node_for_good() {
        let gone = Shown { state: None, ..pod(4, "a", None) };
        let sound = [
            pod(1, "a", None),
            pod(2, "a", Some("n1")),
            pod(3, "a", Some("n1")),
            gone.clone(),
            // Another of the same name.
            pod(5, "b", Some("n2")),
        ];
        assert_eq!(check(&sound), []);
        let broken =
            |shown: &[Shown]| check(shown).into_iter().map(|it| it.what).collect::<Vec<_>>();
        let twice = [pod(2, "a", Some("n1")), pod(3, "a", Some("n2"))];
        assert_eq!(broken(&twice), ["p (a) was bound to n1, and to n2 at 3"]);
        let undone = [pod(2, "a", Some("n1")), pod(3, "a", None)];
        assert_eq!(broken(&undone), ["p (a) was bound to n1, and to no node at 3"]);
        assert_eq!(check(&[gone, pod(5, "a", None)]).len(), 1, "it came back");
        assert_eq!(check(&[pod(3, "a", None), pod(2, "b", None)]).len(), 1, "out of order");
    }
}

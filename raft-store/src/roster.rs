//! Every id that was ever given to a member, kept in the replicated state: none is given twice, and
//! a member that was removed can be told so. Follows the membership entries of the log, nothing else.

use crate::{
    raft::Membership,
    types::{LogIndex, MemberId},
};
use std::collections::BTreeMap;

/// The same on every member that has applied the same entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Roster {
    ids: BTreeMap<u64, Known>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Known {
    name: String,
    /// The entry that removed it; an id never comes back.
    removed: Option<LogIndex>,
}

impl Roster {
    /// After the membership entry at `index`.
    pub(crate) fn apply(&mut self, index: LogIndex, membership: &Membership) {
        for (id, peer) in membership.nodes() {
            let known = Known { name: peer.name.clone(), removed: None };
            self.ids.entry(*id).or_insert(known);
        }
        for (id, known) in &mut self.ids {
            if known.removed.is_none() && membership.get_node(id).is_none() {
                known.removed = Some(index);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Who has or had this id.
    pub(crate) fn name(&self, id: MemberId) -> Option<&str> {
        self.ids.get(&id.0).map(|known| known.name.as_str())
    }

    pub(crate) fn is_removed(&self, id: MemberId) -> bool {
        self.ids.get(&id.0).is_some_and(|known| known.removed.is_some())
    }

    /// Above every id ever given.
    pub(crate) fn next(&self) -> MemberId {
        MemberId(self.ids.last_key_value().map_or(0, |(id, _)| *id) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Peer;

    fn membership(ids: &[u64]) -> Membership {
        let peer = |id: &u64| (*id, Peer { name: format!("m{id}"), ..Peer::default() });
        Membership::from(ids.iter().map(peer).collect::<BTreeMap<u64, Peer>>())
    }

    #[test]
    fn an_id_is_remembered_for_ever() {
        let mut roster = Roster::default();
        roster.apply(LogIndex(1), &membership(&[1, 2, 3]));
        assert_eq!(roster.next(), MemberId(4));
        roster.apply(LogIndex(7), &membership(&[1, 2]));
        assert_eq!((roster.next(), roster.name(MemberId(3))), (MemberId(4), Some("m3")));
        assert!(roster.is_removed(MemberId(3)) && !roster.is_removed(MemberId(2)));
        // Not even an entry that has it again brings it back.
        roster.apply(LogIndex(9), &membership(&[1, 2, 3]));
        assert!(roster.is_removed(MemberId(3)) && !roster.is_removed(MemberId(9)));
    }
}

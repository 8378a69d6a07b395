//! ReadIndex (Raft, section 6.4 of the dissertation): how far the log must be applied where a read is to be
//! answered.
//!
//! openraft's own is not used: it takes a late answer to an old append for one to every append up to the same
//! entry, so that a leader that was cut off can believe that it still leads.

use super::{
    Raft, Vote,
    log::{Promised, Promises},
    network::{self, Links},
    term_of,
};
#[cfg(test)]
use crate::mutants::{self, Mutant};
use crate::{
    members::Leadership,
    shared::Shared,
    time::{Alarm, Instant},
    types::{LogIndex, MemberId, Term},
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use openraft::async_runtime::WatchReceiver as _;
use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};
use tokio::sync::watch;

/// A voter that has not vouched by then may be slow or gone: the others are asked too.
const HEDGE: Duration = Duration::from_millis(5);

/// What it takes to find one.
#[derive(Clone)]
pub(crate) struct ReadIndex {
    pub(crate) own: MemberId,
    pub(crate) raft: Raft,
    pub(crate) links: Links,
    pub(crate) shared: Arc<Shared>,
    pub(crate) promises: Promises,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// One that takes longer has no quorum.
    pub(crate) deadline: Duration,
}

impl ReadIndex {
    /// Where reads are waited for, with connections of its own there.
    pub(crate) fn elsewhere(self) -> ReadIndex {
        ReadIndex { links: self.links.elsewhere(), ..self }
    }

    /// For reads that begin now: the leader's answer, or `None` if there was none. `late` is for one call at a
    /// time.
    pub(crate) async fn find(&self, late: &Alarm) -> Option<u64> {
        let leader = self.leadership.borrow().leader?;
        if leader == self.own {
            return self.here(Vec::new(), late).await;
        }
        let vote = self.promises.given().vote?;
        let link = self.links.to_member(&self.raft, leader.0)?;
        network::read_index(&link, self.own, &vote, self.deadline).await
    }

    /// The same if this member leads; `votes` are of members who ask, looked at after their reads began. If they
    /// are not enough other voters are asked for theirs: first as many as it takes, and the rest if those do not
    /// answer soon, or not as hoped.
    pub(crate) async fn here(&self, mut votes: Vec<(MemberId, Vote)>, late: &Alarm) -> Option<u64> {
        let given = votes.iter().map(|(member, _)| member.0).chain([self.own.0]).collect();
        let (first, mut rest) = {
            let raft = self.raft.metrics();
            let membership = &raft.borrow_watched().membership_config;
            let voters = self.links.quickest_first(membership.voter_ids());
            as_many_as_it_takes(membership.membership().get_joint_config(), given, voters)
        };
        let ask = |id: u64| async move {
            let link = self.links.to_member(&self.raft, id)?;
            let vote = network::vouch(&link, self.deadline).await?;
            self.links.was_quick(id);
            Some((MemberId(id), vote))
        };
        let mut asked: FuturesUnordered<_> = first.into_iter().map(ask).collect();
        let standing = match self.seen() {
            Some(standing) => standing,
            None => Standing::asked(&self.raft).await?,
        };
        let mut late = pin!(late.until(Instant::now() + HEDGE));
        loop {
            if let Some(index) = standing.read_index(self.own, &votes) {
                return Some(index);
            }
            if asked.is_empty() {
                asked.extend(rest.drain(..).map(ask));
            }
            tokio::select! {
                biased;
                Some(answer) = asked.next() => votes.extend(answer),
                () = &mut late, if !rest.is_empty() => asked.extend(rest.drain(..).map(ask)),
                else => return None,
            }
        }
    }

    /// How Raft stands, without asking it, which would wake its thread; `None` if it leads in no term, or not
    /// for sure.
    fn seen(&self) -> Option<Standing> {
        let Promised { vote, membership: newest } = self.promises.given();
        let (vote, Term(term)) = (vote?, self.leadership.borrow().leading?);
        let raft = self.raft.metrics();
        let membership = &raft.borrow_watched().membership_config;
        let index = membership.log_id().as_ref().map(|id| id.index);
        // The vote on disk may be from before a restart; Raft has led in this term since. And it says which
        // membership it goes by a little later than it does.
        if vote.leader_id.term != term || newest.is_some() && newest != index {
            return None;
        }
        let LogIndex(applied) = self.shared.reached();
        let seen = applied.max(self.links.told());
        #[cfg(test)]
        let seen = match mutants::on(Mutant::ReadsAnnounced) {
            true => self.shared.position().index.0,
            false => seen,
        };
        Some(Standing {
            vote,
            voters: membership.membership().get_joint_config().clone(),
            // It leads only when an entry of its term is applied.
            committed: Some(seen),
        })
    }
}

/// How Raft stands here, at some moment after a read began.
struct Standing {
    /// Committed if a quorum gave it since this process began: who led before a restart does not lead by that.
    vote: Vote,
    /// By the newest membership in the log, committed or not.
    voters: Vec<BTreeSet<u64>>,
    /// Whatever anybody may have seen until then is committed up to here, if this member led then. `None`: before
    /// an entry of its term is committed, a leader does not know what was before it.
    committed: Option<u64>,
}

impl Standing {
    /// `None`: Raft has stopped.
    async fn asked(raft: &Raft) -> Option<Standing> {
        let standing = raft.with_raft_state(|state| {
            let vote = *state.vote_ref();
            let committed = state.local_committed().copied();
            let committed = committed.filter(|id| term_of(id) == vote.leader_id.term);
            Standing {
                vote,
                voters: state.membership_state.effective().get_joint_config().clone(),
                committed: committed.map(|id| id.index),
            }
        });
        standing.await.ok()
    }

    /// What these votes are enough for; each was looked at after the read began, and so was this.
    ///
    /// If this member led, and with it those whose votes are for it in its term are a quorum, then no later
    /// leader had been elected when the read began: whatever was acknowledged until then is committed here.
    fn read_index(&self, own: MemberId, votes: &[(MemberId, Vote)]) -> Option<u64> {
        let led = self.vote.committed && self.vote.leader_id.voted_for == own.0;
        let vouching = votes.iter().filter(|(_, other)| *other == self.vote);
        let vouching = vouching.map(|(member, _)| member.0).chain([own.0]).collect();
        self.committed.filter(|_| led && is_quorum(&self.voters, &vouching))
    }
}

/// Of `voters`, in this order, the first who make those whose votes are `given` a quorum, and the others.
fn as_many_as_it_takes(
    groups: &[BTreeSet<u64>],
    mut given: BTreeSet<u64>,
    voters: Vec<u64>,
) -> (Vec<u64>, Vec<u64>) {
    let mut missing = voters.into_iter().filter(|id| !given.contains(id)).collect::<Vec<_>>();
    let enough = missing.iter().position(|id| {
        let enough = is_quorum(groups, &given);
        given.insert(*id);
        enough
    });
    let rest = missing.split_off(enough.unwrap_or(missing.len()));
    (missing, rest)
}

/// Whether they are most of the voters, of both groups while one takes over from the other.
fn is_quorum(groups: &[BTreeSet<u64>], members: &BTreeSet<u64>) -> bool {
    !groups.is_empty()
        && groups.iter().all(|voters| members.intersection(voters).count() > voters.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_tests::{Cluster, put};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_follower_vouches_for_its_leader_in_this_term_only() {
        let cluster = Cluster::started(3).await;
        let leader = cluster.leader().await;
        let written = cluster.store(leader).txn(put("a", "1")).await.expect("written");
        let follower = leader % 3 + 1;
        cluster.store(follower).barrier().await.expect("it follows");
        let metrics = cluster.store(follower).inside().raft_metrics();
        let vote = metrics.vote;
        let ask = async |of, votes: Vec<(MemberId, Vote)>| {
            let reads = &cluster.store(of).inside().read_index;
            let (asked, seen) = (Standing::asked(&reads.raft).await, reads.seen());
            let asked = asked.expect("Raft runs").read_index(MemberId(of), &votes);
            let seen = seen.and_then(|it| it.read_index(MemberId(of), &votes));
            assert_eq!(seen.is_some(), asked.is_some(), "with and without asking Raft");
            seen.min(asked)
        };
        let index = ask(leader, vec![(MemberId(follower), vote)]).await;
        assert!(index >= Some(written.revision.0), "each revision is an entry here");
        let other_term = Vote::new_committed(vote.leader_id.term + 1, leader);
        assert_eq!(ask(leader, vec![(MemberId(follower), other_term)]).await, None);
        let candidate = Vote::new(vote.leader_id.term, leader);
        assert_eq!(ask(leader, vec![(MemberId(follower), candidate)]).await, None);
        let there = ask(follower, vec![(MemberId(leader), vote)]).await;
        assert_eq!(there, None, "only a leader knows");
        assert_eq!(ask(leader, vec![]).await, None, "alone");
        cluster.shutdown().await;
    }

    #[test]
    fn no_more_voters_are_asked_than_a_quorum_needs() {
        let voters = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let three = [voters(&[1, 2, 3])];
        assert_eq!(as_many_as_it_takes(&three, voters(&[1]), vec![3, 2]), (vec![3], vec![2]));
        assert_eq!(as_many_as_it_takes(&three, voters(&[1, 2]), vec![2, 3]), (vec![], vec![3]));
        let alone = [voters(&[1])];
        assert_eq!(as_many_as_it_takes(&alone, voters(&[1]), vec![1]), (vec![], vec![]));
        let joint = [voters(&[1, 2, 3]), voters(&[3, 4, 5])];
        let (first, rest) = as_many_as_it_takes(&joint, voters(&[1]), vec![2, 3, 4, 5]);
        assert_eq!((first, rest), (vec![2, 3, 4], vec![5]), "of both groups");
        let not_one = as_many_as_it_takes(&[voters(&[2, 3])], voters(&[1]), vec![2, 3]);
        assert_eq!(not_one, (vec![2, 3], vec![]), "a leader that is no voter");
    }

    #[test]
    fn two_members_are_most_of_three_voters_but_not_of_four() {
        let voters = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let two = &voters(&[1, 2]);
        assert!(is_quorum(&[voters(&[1, 2, 3])], two));
        assert!(is_quorum(&[voters(&[1, 2])], two));
        assert!(!is_quorum(&[voters(&[1, 2, 3, 4])], two));
        assert!(!is_quorum(&[voters(&[1, 3, 4])], two), "a learner's word counts for nothing");
        assert!(!is_quorum(&[voters(&[1, 2, 3])], &voters(&[1])), "alone");
        assert!(!is_quorum(&[voters(&[1, 2, 3]), voters(&[1, 2, 3, 4, 5])], two), "joint");
        assert!(!is_quorum(&[], two));
    }
}

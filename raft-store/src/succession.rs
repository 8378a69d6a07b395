//! Who leads after a leader that is evidently gone, without waiting for its lease to run out.
//!
//! A process that dies leaves a closed port behind: its peers see their connections end and are
//! refused when they dial again. A member that sees this says so in its status; once most voters
//! say it of the same term, one of them stands, with the vote request of a planned transfer, which
//! voters grant in spite of the lease. One that errs alone changes nothing. A leader that is cut off
//! or lost its power closes no port: then the lease decides, as in Raft's paper.

use crate::{
    config::Timers,
    members::Leadership,
    raft::{LogId, Raft, network},
    time::{Instant, sleep, sleep_until, timeout},
    types::{MemberId, Term},
};
use network::{Link, Links};
use openraft::{async_runtime::WatchReceiver as _, raft::TransferLeaderRequest};
use std::{
    cmp::Reverse,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};
use wire::peer::StatusResponse;

/// Set by whoever notices that a connection to the leader ended.
#[derive(Clone, Default)]
pub(crate) struct Signs {
    lost: Arc<Notify>,
    /// The newest term whose leader this member found gone; 0: none.
    gone: Arc<AtomicU64>,
}

impl Signs {
    /// A connection to (or from) the leader ended; perhaps with the leader.
    pub(crate) fn connection_lost(&self) {
        self.lost.notify_one();
    }

    pub(crate) fn gone(&self) -> u64 {
        self.gone.load(Ordering::Relaxed)
    }
}

/// What the task needs.
pub(crate) struct Succession {
    pub(crate) id: MemberId,
    pub(crate) raft: Raft,
    pub(crate) links: Links,
    pub(crate) timers: Timers,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) signs: Signs,
}

/// What was found where the leader was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Leading,
    /// Its process has ended, or another has taken its place.
    Gone,
    /// Nothing: cut off, paused, or without power.
    Silence,
}

impl Found {
    fn means(self) -> &'static str {
        match self {
            Found::Leading => "the leader is there",
            Found::Gone => "the leader's process is gone, another is elected",
            Found::Silence => {
                "the leader does not answer, another is elected when its lease is over"
            }
        }
    }
}

impl Succession {
    pub(crate) async fn run(self) {
        // The last leader that was missed, so that each is spoken of once however often it is missed.
        let mut missed = None;
        loop {
            self.signs.lost.notified().await;
            let led = led(self.leadership.clone(), self.id, self.timers.election_max);
            let Some((before, leader)) = led.await else { continue };
            let Some(link) = self.links.to_member(&self.raft, leader.0) else { continue };
            let noticed = Instant::now();
            let found = self.look(&link).await;
            tracing::debug!(?leader, term = %before.term, ?found, "a connection to the leader ended");
            if found == Found::Leading {
                continue;
            }
            if found == Found::Gone {
                self.signs.gone.store(before.term.0, Ordering::Relaxed);
            }
            if missed.replace((before.term, found)) != Some((before.term, found)) {
                tracing::info!(%leader, term = %before.term, "{}", found.means());
            }
            let mut leadership = self.leadership.clone();
            let moved =
                leadership.wait_for(|now| (now.term, now.leader) != (before.term, before.leader));
            tokio::select! {
                biased;
                _ = moved => {}
                () = self.succeed(before.term, leader, noticed, found) => {}
            }
        }
    }

    /// More than once: a process that is ending loses its connections before its port is closed.
    async fn look(&self, link: &Link) -> Found {
        let (deadline, until) = (self.timers.heartbeat, Instant::now() + self.timers.election_min);
        loop {
            if network::refuses(link, deadline).await {
                return Found::Gone;
            }
            match network::status(link, deadline).await {
                Some(status) if status.is_leader => return Found::Leading,
                Some(_) => return Found::Gone,
                None if Instant::now() >= until => return Found::Silence,
                None => sleep(self.timers.heartbeat / 16).await,
            }
        }
    }

    /// Ends when this member has done what it can; another may be faster.
    async fn succeed(&self, term: Term, leader: MemberId, noticed: Instant, found: Found) {
        if found == Found::Gone
            && let Some(turn) = self.turn(term, leader, noticed).await
        {
            // Time for one election: two round trips and a sync each.
            sleep(self.timers.heartbeat * 2 * turn as u32).await;
            tracing::debug!(%leader, %term, turn, "standing for election");
            self.stand_at_once(term).await;
        }
        self.stand_after_the_lease(leader, noticed).await;
    }

    /// This member's place in the line, once most voters have found the leader gone.
    async fn turn(&self, term: Term, leader: MemberId, noticed: Instant) -> Option<usize> {
        while noticed.elapsed() < self.timers.election_max {
            let membership = self.raft.metrics().borrow_watched().membership_config.clone();
            let voters: Vec<u64> = membership.voter_ids().collect();
            let others = voters.iter().copied().filter(|id| *id != self.id.0 && *id != leader.0);
            let answers = others.map(|id| async move {
                let link = self.links.to_member(&self.raft, id)?;
                network::status(&link, self.timers.heartbeat).await
            });
            let answers = futures::future::join_all(answers).await;
            let answers: Vec<StatusResponse> = answers.into_iter().flatten().collect();
            let last = self.raft.metrics().borrow_watched().last_log_index.unwrap_or(0);
            let own = Witness { member: self.id.0, gone: self.signs.gone(), last_log: last };
            let witnesses = answers.iter().map(Witness::from).chain([own]).collect();
            if let Some(turn) = place(self.id.0, term.0, voters.len(), witnesses) {
                return Some(turn);
            }
            sleep(self.timers.heartbeat / 8).await;
        }
        None
    }

    /// As if the leader had handed its leadership to this member.
    async fn stand_at_once(&self, term: Term) {
        let vote = self.raft.metrics().borrow_watched().vote;
        if vote.leader_id.term != term.0 || !vote.committed {
            return;
        }
        let nothing: Option<LogId> = None;
        let request = TransferLeaderRequest::new(vote, self.id.0, nothing);
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => {}
            Ok(Err(refused)) => tracing::debug!(%refused, "not standing"),
            Err(fatal) => tracing::debug!(%fatal, "Raft has stopped"),
        }
    }

    /// In turn, in the order of ids, and with a pre-vote: one that errs about the leader changes
    /// nothing.
    async fn stand_after_the_lease(&self, leader: MemberId, noticed: Instant) {
        let (heartbeat, lease) = (self.timers.heartbeat, self.timers.election_max);
        let membership = self.raft.metrics().borrow_watched().membership_config.clone();
        let earlier = membership.voter_ids().filter(|id| *id < self.id.0 && *id != leader.0);
        let turn = heartbeat * 2 * earlier.count() as u32;
        sleep_until(noticed + lease - heartbeat + turn).await;
        tracing::debug!(%leader, "standing for election");
        while noticed.elapsed() < lease * 2 {
            // Does nothing as long as the leader's lease lasts here.
            if self.raft.trigger().elect(true).await.is_err() {
                return;
            }
            sleep(heartbeat / 4).await;
        }
    }
}

/// Under whom a member is, unless it leads itself. A connection may end before it has heard who leads: it
/// does so with patience, or nobody leads.
async fn led(
    mut leadership: watch::Receiver<Leadership>,
    own: MemberId,
    patience: Duration,
) -> Option<(Leadership, MemberId)> {
    let known = leadership.wait_for(|now| now.leader.is_some());
    let known = *timeout(patience, known).await.ok()?.ok()?;
    let leader = known.leader.filter(|leader| *leader != own)?;
    Some((known, leader))
}

/// What one voter says.
#[derive(Clone, Copy, Debug)]
struct Witness {
    member: u64,
    gone: u64,
    last_log: u64,
}

impl From<&StatusResponse> for Witness {
    fn from(status: &StatusResponse) -> Witness {
        Witness { member: status.member, gone: status.gone_term, last_log: status.last_log_index }
    }
}

/// Where `me` stands in the line of those who found the leader of `term` gone, if they are most of
/// the voters: the longest log first, for it wins; then the lowest id.
fn place(me: u64, term: u64, voters: usize, witnesses: Vec<Witness>) -> Option<usize> {
    let mut agreeing: Vec<Witness> =
        witnesses.into_iter().filter(|witness| witness.gone == term).collect();
    if agreeing.len() <= voters / 2 {
        return None;
    }
    agreeing.sort_by_key(|witness| (Reverse(witness.last_log), witness.member));
    agreeing.iter().position(|witness| witness.member == me)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(member: u64, gone: u64, last_log: u64) -> Witness {
        Witness { member, gone, last_log }
    }

    fn under(term: u64, leader: Option<u64>) -> Leadership {
        Leadership { term: Term(term), leader: leader.map(MemberId), ..Leadership::default() }
    }

    #[tokio::test]
    async fn a_connection_that_ended_before_it_was_heard_who_leads_is_looked_at_all_the_same() {
        let patience = Duration::from_secs(600);
        let (sender, leadership) = watch::channel(under(6, None));
        let mut missing = std::pin::pin!(led(leadership, MemberId(2), patience));
        assert!(futures::poll!(&mut missing).is_pending(), "nobody is known to lead");
        sender.send_replace(under(7, Some(1)));
        let (now, leader) = missing.await.expect("it is under a leader");
        assert_eq!((now.term, leader), (Term(7), MemberId(1)));

        let nobody = led(watch::channel(under(8, None)).1, MemberId(2), patience);
        assert!(nobody.await.is_none());
        let (_sender, leadership) = watch::channel(under(8, None));
        let soon = Duration::from_millis(1);
        assert!(led(leadership, MemberId(2), soon).await.is_none(), "patience ends");
        let itself = led(watch::channel(under(8, Some(2))).1, MemberId(2), patience);
        assert!(itself.await.is_none());
    }

    #[test]
    fn one_that_errs_alone_changes_nothing() {
        assert_eq!(place(2, 7, 3, vec![witness(2, 7, 10), witness(3, 0, 10)]), None);
        assert_eq!(place(2, 7, 3, vec![witness(2, 7, 10), witness(3, 6, 10)]), None);
        assert_eq!(place(2, 7, 5, vec![witness(2, 7, 10), witness(3, 7, 10)]), None);
        assert_eq!(place(1, 7, 2, vec![witness(1, 7, 10)]), None);
    }

    #[test]
    fn the_longest_log_stands_first_and_then_the_lowest_id() {
        let all = || vec![witness(3, 7, 12), witness(1, 7, 10), witness(2, 7, 12)];
        let places: Vec<_> = [1, 2, 3].map(|me| place(me, 7, 4, all())).into();
        assert_eq!(places, [Some(2), Some(0), Some(1)]);
    }
}

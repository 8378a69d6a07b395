//! Carries out what `membership` decides: requests of operators, wherever they come in, and the
//! leader's own chores (promote who has caught up, follow who has moved, let go of who never came, hand
//! over when its own disk is full).

use crate::{
    config::{Peer, Timers},
    durable,
    members::Leadership,
    membership::{self, Decision, Refusal, Request, Seen, Step, View},
    peers::Statuses,
    raft::{
        self, LogId, Membership, Raft, Types,
        network::{self, Links},
    },
    room::Room,
    roster::Roster,
    shared::Shared,
    time::{Instant, Ticks, sleep, timeout},
    types::MemberId,
};
use futures::future::join_all;
use openraft::{
    ChangeMembers, EntryPayload,
    async_runtime::WatchReceiver as _,
    errors::{ClientWriteError, RaftError},
    raft::{ClientWriteResponse, Precondition},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;

/// In the data directory of a member that was removed: why it does not start.
pub(crate) const REMOVED: &str = "removed";
/// How long a caller is kept waiting for a change that is under way: one of the leader's own takes
/// a round trip.
const UNDER_WAY_PATIENCE: Duration = Duration::from_secs(1);

/// Why a change of the members was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MemberError {
    /// Not now, or never: it says why and what to do.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No leader or no quorum within the deadline. `unknown`: it may yet be made; look, ask again.
    #[error("no quorum within the deadline")]
    Unavailable { unknown: bool },
    /// This member is stopping: ask another.
    #[error("this member has stopped: {0}")]
    Stopped(String),
}

/// What a leader answers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Answer {
    /// Committed, for this member.
    Done(MemberId),
    /// Nothing was done: ask whoever leads now.
    NotLeader,
    Refused(Refusal),
    /// It was begun and may yet be committed.
    Unknown,
}

/// Clones share everything.
#[derive(Clone)]
pub(crate) struct Steward {
    pub(crate) id: MemberId,
    pub(crate) own: Peer,
    pub(crate) data_dir: PathBuf,
    pub(crate) raft: Raft,
    pub(crate) shared: Arc<Shared>,
    pub(crate) links: Links,
    pub(crate) timers: Timers,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) roster: watch::Receiver<Roster>,
    pub(crate) statuses: Statuses,
    /// Since when this member, as leader, waits for the first answer of each.
    pub(crate) awaited: Arc<Mutex<BTreeMap<u64, Instant>>>,
    pub(crate) room: Arc<Room>,
}

impl Steward {
    /// Chores, for as long as the member runs.
    pub(crate) async fn run(self) {
        let mut tick = Ticks::every(self.timers.heartbeat * 4);
        loop {
            tick.tick().await;
            if self.is_removed(self.id) {
                return self.bury("the log says so");
            }
            if self.leadership.borrow().leading.is_none() {
                self.awaited().clear();
                continue;
            }
            let chore =
                self.look(None, |view, _| membership::chore(view, self.timers.joiner_silence));
            if let Some(Some(request)) = chore {
                let answer = self.execute(&request).await;
                tracing::info!(?request, ?answer, "the members change");
            }
        }
    }

    fn awaited(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.awaited.lock().expect("only looked up and inserted")
    }

    /// As the applied log has it.
    pub(crate) fn is_removed(&self, id: MemberId) -> bool {
        self.roster.borrow().is_removed(id)
    }

    /// This member was removed: it stops, and will not start again.
    pub(crate) fn bury(&self, how: &str) {
        let id = self.id;
        let text = format!("member {id} ({}) was removed from the cluster: {how}", self.own.name);
        if let Err(error) = durable::write(&self.data_dir, REMOVED, &format!("{text}\n")) {
            tracing::error!(%error, "it is not written down that this member was removed");
        }
        self.shared.stop(&text);
    }

    /// Asks whoever leads, until there is an answer or the time is up.
    pub(crate) async fn ask(&self, request: &Request) -> Result<MemberId, MemberError> {
        let asked = Instant::now();
        let (deadline, mut unknown) = (asked + self.timers.request, false);
        // A transfer to anybody would be made again and again.
        let repeatable = *request != Request::Transfer { to: None };
        while Instant::now() < deadline {
            let answer = tokio::select! {
                biased;
                error = self.shared.until_stopped() => {
                    return Err(MemberError::Stopped(error.to_string()));
                }
                answer = self.ask_once(request) => answer,
            };
            match answer {
                Answer::Done(member) => return Ok(member),
                Answer::Refused(Refusal::UnderWay) if asked.elapsed() < UNDER_WAY_PATIENCE => {}
                Answer::Refused(why) => return Err(why.into()),
                Answer::NotLeader => {}
                Answer::Unknown if repeatable => unknown = true,
                Answer::Unknown => return Err(MemberError::Unavailable { unknown: true }),
            }
            sleep(self.timers.heartbeat).await;
        }
        Err(MemberError::Unavailable { unknown })
    }

    async fn ask_once(&self, request: &Request) -> Answer {
        let leader = self.leadership.borrow().leader;
        match leader {
            None => Answer::NotLeader,
            Some(leader) if leader == self.id => self.execute(request).await,
            Some(leader) => {
                let Some(link) = self.links.to_member(&self.raft, leader.0) else {
                    return Answer::NotLeader;
                };
                let answer = network::ask_members(&link, request, self.timers.request).await;
                answer.unwrap_or(Answer::Unknown)
            }
        }
    }

    /// Decides and acts, if this member leads.
    pub(crate) async fn execute(&self, request: &Request) -> Answer {
        if self.leadership.borrow().leading.is_none() {
            return Answer::NotLeader;
        }
        // Not what answered a while ago counts, but what answers now.
        let heard = self.hear_everybody().await;
        let decided = self.look(Some(&heard), |view, at| {
            // Only one that a quorum still follows may refuse: another may know better.
            view.is_confirmed().then(|| (membership::decide(view, request), at))
        });
        let (Decision { member, step }, at) = match decided.flatten() {
            None => return Answer::NotLeader,
            Some((Err(why), _)) => return Answer::Refused(why),
            Some((Ok(decision), at)) => (decision, at),
        };
        // To the membership that was looked at, and to no later one.
        let now = [Precondition::LastMembershipLogId { last_membership_log_id: at }];
        match step {
            Step::Nothing => Answer::Done(member),
            Step::Members { voters, members } => {
                let proposed = Membership::new(vec![voters], members);
                let proposed = proposed.expect("every voter is a member");
                let blank = EntryPayload::Blank;
                self.committed(member, self.raft.append_membership(proposed, blank, now)).await
            }
            Step::Readdress { id, peer } => {
                let moved = ChangeMembers::SetNodes(BTreeMap::from([(id, peer)]));
                self.committed(member, self.raft.change_membership_if(moved, true, now)).await
            }
            Step::Lead { to } => self.hand_over(to).await,
            Step::LeadFirst { to } => match self.hand_over(to).await {
                Answer::Done(_) => Answer::NotLeader,
                other => other,
            },
        }
    }

    async fn committed(
        &self,
        member: MemberId,
        written: impl Future<
            Output = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>,
        >,
    ) -> Answer {
        let error = match timeout(self.timers.request, written).await {
            Err(_) => return Answer::Unknown,
            Ok(Ok(_)) => return Answer::Done(member),
            Ok(Err(error)) => error,
        };
        tracing::info!(%error, "a change of the members was not made");
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Answer::NotLeader,
            RaftError::APIError(
                ClientWriteError::PreconditionFailed(_)
                | ClientWriteError::ChangeMembershipError(_),
            ) => Answer::Refused(Refusal::UnderWay),
            _ => Answer::Unknown,
        }
    }

    async fn hand_over(&self, to: MemberId) -> Answer {
        tracing::info!(%to, "handing leadership over");
        let mut leadership = self.leadership.clone();
        if self.raft.trigger().transfer_leader(to.0).await.is_err() {
            return Answer::NotLeader;
        }
        let me = self.id;
        let moved = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != me));
        // An election by timeout follows if the one that was chosen cannot.
        match timeout(self.timers.election_max * 4, moved).await {
            Ok(Ok(now)) if now.leader == Some(to) => Answer::Done(to),
            Ok(_) => Answer::NotLeader,
            Err(_) => Answer::Unknown,
        }
    }

    /// Who follows this leader at some moment from now on: asked, and not waited for for long. openraft's
    /// times of heartbeats do not tell: an answer that is late counts there for what was sent after it.
    async fn hear_everybody(&self) -> BTreeSet<u64> {
        let (vote, members) = {
            let raft = self.raft.metrics();
            let now = raft.borrow_watched();
            (now.vote, now.membership_config.nodes().map(|(id, _)| *id).collect::<Vec<_>>())
        };
        let asked = members.into_iter().filter(|id| *id != self.id.0).map(|id| async move {
            let link = self.links.to_member(&self.raft, id)?;
            let found = network::vouch(&link, self.timers.election_min).await?;
            (found == vote).then_some(id)
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// What this member knows as leader; `None` if it does not lead. Those answer that were `heard`, or
    /// without that those who did lately.
    fn look<T>(
        &self,
        heard: Option<&BTreeSet<u64>>,
        then: impl FnOnce(&View, Option<LogId>) -> T,
    ) -> Option<T> {
        self.leadership.borrow().leading?;
        let raft = self.raft.metrics().borrow_watched().clone();
        let membership = raft.membership_config.clone();
        let mut members = BTreeMap::new();
        for (id, peer) in membership.nodes() {
            members.insert(*id, self.seen(*id, peer, &raft, heard)?);
        }
        self.awaited().retain(|id, _| members.contains_key(id));
        let mut roster = self.roster.borrow().clone();
        // The entry may be committed and not yet applied.
        let at = membership.log_id().as_ref().map_or(0, |id| id.index);
        roster.apply(crate::LogIndex(at), membership.membership());
        let committed = raft.committed_membership_config.log_id() == membership.log_id();
        let one = membership.membership().get_joint_config().len() == 1;
        let view = View {
            leader: self.id,
            settled: committed && one,
            voters: membership.voter_ids().collect(),
            members,
            roster: &roster,
        };
        Some(then(&view, *membership.log_id()))
    }

    fn seen(
        &self,
        id: u64,
        peer: &Peer,
        raft: &raft::Metrics,
        heard: Option<&BTreeSet<u64>>,
    ) -> Option<Seen> {
        if id == self.id.0 {
            let found_at = Some(Peer { name: peer.name.clone(), ..self.own.clone() });
            let (peer, silent, has_room) = (peer.clone(), Duration::ZERO, !self.room.full());
            return Some(Seen { peer, answers: true, behind: Some(0), silent, found_at, has_room });
        }
        let (beats, logs) = (raft.heartbeat.as_ref()?, raft.replication.as_ref()?);
        let beat = beats.get(&id).copied().flatten();
        let awaited = *self.awaited().entry(id).or_insert_with(Instant::now);
        let silent = beat.map_or(awaited.elapsed(), |beat| raft::since(&beat));
        let answers = match heard {
            Some(heard) => heard.contains(&id),
            None => beat.is_some() && silent <= self.timers.election_max * 2,
        };
        let last = raft.last_log_index.unwrap_or(0);
        let matched = logs.get(&id).copied().flatten().map(|id| id.index);
        Some(Seen {
            peer: peer.clone(),
            answers,
            behind: matched.map(|matched| last.saturating_sub(matched)),
            silent,
            found_at: self.found_at(id, peer),
            has_room: self.statuses.of(id).is_some_and(|status| !status.disk_full),
        })
    }

    /// Where a member says it is, if that is where it answers.
    fn found_at(&self, id: u64, peer: &Peer) -> Option<Peer> {
        let status = self.statuses.of(id)?;
        let there = self.links.address(id)? == status.peer_address;
        let (name, peer_address) = (peer.name.clone(), status.peer_address);
        there.then_some(Peer { name, peer_address, api_address: status.api_address })
    }
}

/// Why the member with this directory was removed, if it was.
pub(crate) fn why_removed(data_dir: &Path) -> io::Result<Option<String>> {
    durable::read(data_dir, REMOVED)
}

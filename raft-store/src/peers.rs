//! How the other members are and where they answer: each is asked twice a second. One that moved is
//! found again by what it says of itself, or by where this member was told to look; that it is the
//! one is proved by its certificate.

use crate::{
    config::{Config, Peer},
    divergence::{self, Verdict},
    metrics::Metrics,
    quarantine,
    raft::{
        convert,
        network::{self, Link, NoAnswer},
        wire::BadPeer,
    },
    steward::Steward,
    time::Ticks,
    types::MemberId,
};
use openraft::async_runtime::WatchReceiver as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use wire::peer::{StatusRequest, StatusResponse};

/// How often members ask each other how they are.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// One that was asked so often in vain is said to be silent: a single answer may be late.
const MISSES_SAID: u32 = 2;

/// Where else members may be looked for. Clones share what they know.
#[derive(Clone, Default)]
pub(crate) struct Hints {
    /// From this member's own configuration.
    configured: Arc<BTreeMap<u64, Peer>>,
    /// Where members say they are; one address each.
    announced: Arc<Mutex<BTreeMap<u64, String>>>,
}

impl Hints {
    pub(crate) fn new(config: &Config) -> Hints {
        Hints::to(&config.initial_members, config.member)
    }

    fn to(configured: &[(MemberId, Peer)], own: MemberId) -> Hints {
        let others = configured.iter().filter(|(id, _)| *id != own);
        let configured = others.map(|(id, peer)| (id.0, peer.clone())).collect();
        Hints { configured: Arc::new(configured), announced: Arc::default() }
    }

    /// A member said that it is at `address`; nothing is believed before it answers there.
    pub(crate) fn announced(&self, member: u64, address: &str) {
        if member > 0 && !address.is_empty() {
            self.lock().insert(member, address.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.announced.lock().expect("only looked up and inserted")
    }

    /// Where to look for a member that does not answer at `dialled`.
    fn elsewhere(&self, id: u64, member: &Peer, dialled: &str) -> Vec<String> {
        let announced = self.lock().get(&id).cloned();
        let configured = self.configured.get(&id).map(|peer| peer.peer_address.clone());
        let all = [Some(member.peer_address.clone()), announced, configured];
        let mut all: Vec<String> = all.into_iter().flatten().filter(|it| it != dialled).collect();
        all.sort();
        all.dedup();
        all
    }
}

/// What the members last said of themselves. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Statuses {
    heard: Arc<Mutex<BTreeMap<u64, StatusResponse>>>,
}

impl Statuses {
    /// Of those that answered when last asked.
    pub(crate) fn all(&self) -> BTreeMap<u64, StatusResponse> {
        self.heard.lock().expect("only replaced").clone()
    }

    /// Of one, if it answered when last asked.
    pub(crate) fn of(&self, id: u64) -> Option<StatusResponse> {
        self.heard.lock().expect("only replaced").get(&id).cloned()
    }

    fn replace(&self, heard: BTreeMap<u64, StatusResponse>) {
        *self.heard.lock().expect("only replaced") = heard;
    }
}

/// Who does not answer: how often in a row. It is said once, and not twice a second.
#[derive(Default)]
struct Silent(BTreeMap<u64, u32>);

impl Silent {
    /// Who was removed is not missed.
    fn forget_but(&mut self, member: impl Fn(&u64) -> bool) {
        self.0.retain(|id, _| member(id));
    }

    /// What an operator should know of this answer.
    fn hear<E>(&mut self, id: u64, answer: Result<(), E>) -> Option<Result<(), E>> {
        match answer {
            Ok(()) => {
                let missed = self.0.remove(&id);
                missed.is_some_and(|missed| missed >= MISSES_SAID).then_some(Ok(()))
            }
            Err(why) => {
                let missed = self.0.entry(id).or_default();
                *missed = missed.saturating_add(1);
                (*missed == MISSES_SAID).then_some(Err(why))
            }
        }
    }
}

/// The task that asks.
pub(crate) struct Peers {
    hints: Hints,
    steward: Steward,
    metrics: Metrics,
    silent: Silent,
}

impl Peers {
    pub(crate) fn new(hints: Hints, steward: &Steward, metrics: &Metrics) -> Peers {
        let (steward, metrics) = (steward.clone(), metrics.clone());
        Peers { hints, steward, metrics, silent: Silent::default() }
    }

    pub(crate) async fn run(mut self) {
        let mut tick = Ticks::every(STATUS_EVERY);
        loop {
            tick.tick().await;
            let members = self.members();
            let this = &self;
            let asked = members.iter().map(|(id, peer)| this.ask(*id, peer));
            let answers = futures::future::join_all(asked).await;
            let mut heard = BTreeMap::new();
            for ((id, peer), answer) in members.iter().zip(answers) {
                self.say(*id, peer, answer.as_ref());
                heard.extend(answer.ok().map(|status| (*id, status)));
            }
            self.silent.forget_but(|id| members.contains_key(id));
            if let Some(by) = heard.values().find(|status| status.removed) {
                return self.steward.bury(&format!("{} says so", by.name));
            }
            self.compare_voters(&heard);
            self.steward.statuses.replace(heard);
        }
    }

    fn say(&mut self, id: u64, peer: &Peer, answer: Result<&StatusResponse, &NoAnswer>) {
        let name = &peer.name;
        match self.silent.hear(id, answer.map(|_| ())) {
            Some(Ok(())) => tracing::info!(member = id, name, "a member answers again"),
            Some(Err(error)) => {
                let address = self.steward.links.address(id);
                tracing::warn!(member = id, name, address, %error, "a member does not answer");
            }
            None => {}
        }
    }

    fn compare_voters(&self, heard: &BTreeMap<u64, StatusResponse>) {
        let membership = self.steward.raft.metrics().borrow_watched().membership_config.clone();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let statuses = heard.iter().filter(|(id, _)| voters.contains(id));
        self.compare(statuses.map(|(_, status)| status), voters.len());
    }

    /// Looks whether this member holds what the others, voters among `members`, say that they hold.
    fn compare<'a>(&self, others: impl Iterator<Item = &'a StatusResponse>, members: usize) {
        let others = others.map(|status| status.notes.iter().map(convert::from_note).collect());
        let others: Vec<Vec<_>> = others.collect();
        let own = self.steward.shared.read().notes.all();
        let verdict = divergence::judge(&own, &others, members);
        let told = self.metrics.divergent.get() != 0;
        self.metrics.divergent.set(i64::from(verdict != Verdict::Agrees));
        match verdict {
            Verdict::Agrees => {}
            // The metric says for how long; twice a second in the log would hide all else.
            Verdict::Differs { .. } if told => {}
            Verdict::Differs { at } => {
                tracing::error!(index = %at, "the states of members differ; which is right is not known");
            }
            Verdict::Odd { at } => {
                let reason = format!("its state after log entry {at} is not that of most members");
                tracing::error!(reason, "this member is wrong and stops");
                if let Err(error) = quarantine::set(&self.steward.data_dir, &reason) {
                    tracing::error!(%error, "it cannot be marked; it would find out again");
                }
                self.steward.shared.stop(&reason);
            }
        }
    }

    /// Whom to ask; before the first membership arrives, those this member was told of.
    fn members(&self) -> BTreeMap<u64, Peer> {
        let membership = self.steward.raft.metrics().borrow_watched().membership_config.clone();
        let nodes = membership.nodes().map(|(id, peer)| (*id, peer.clone()));
        let mut members: BTreeMap<u64, Peer> = nodes.collect();
        if membership.log_id().is_none() {
            members.clone_from(&self.hints.configured);
        }
        members.remove(&self.steward.id.0);
        for (id, peer) in &members {
            self.steward.links.know(*id, peer);
        }
        members
    }

    async fn ask(&self, id: u64, peer: &Peer) -> Result<StatusResponse, NoAnswer> {
        let dialled = self.steward.links.address(id).ok_or(BadPeer::Unknown(id))?;
        let error = match self.look(id, peer, &dialled, STATUS_EVERY).await {
            Ok(status) => {
                let says = &status.peer_address;
                if !says.is_empty() && *says != dialled {
                    self.try_address(id, peer, says).await;
                }
                return Ok(status);
            }
            Err(error) => error,
        };
        for address in self.hints.elsewhere(id, peer, &dialled) {
            if let Some(status) = self.try_address(id, peer, &address).await {
                return Ok(status);
            }
        }
        Err(error)
    }

    async fn try_address(&self, id: u64, peer: &Peer, address: &str) -> Option<StatusResponse> {
        let status = self.look(id, peer, address, self.steward.timers.election_max).await.ok()?;
        tracing::info!(member = id, name = peer.name, address, "a member answers at a new address");
        self.steward.links.found(id, address);
        Some(status)
    }

    /// What the member says, if it is the one that answers at `address`.
    async fn look(
        &self,
        id: u64,
        peer: &Peer,
        address: &str,
        deadline: Duration,
    ) -> Result<StatusResponse, NoAnswer> {
        let known = self.steward.links.address(id).as_deref() == Some(address);
        let held = known.then(|| self.steward.links.to_member(&self.steward.raft, id)).flatten();
        let link = match held {
            Some(link) => link,
            None => self.fresh(peer, address)?,
        };
        let (member, peer_address) = (self.steward.id.0, self.steward.own.peer_address.clone());
        let request = StatusRequest { member, peer_address };
        let status = network::ask_status(&link, request, deadline).await?;
        match status.member == id {
            true => Ok(status),
            false => Err(NoAnswer::Another(status.member)),
        }
    }

    fn fresh(&self, peer: &Peer, address: &str) -> Result<Link, BadPeer> {
        self.steward.links.link(Peer { peer_address: address.into(), ..peer.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_looked_for_wherever_somebody_says_it_is() {
        let peer = |address: &str| Peer { peer_address: address.into(), ..Peer::default() };
        let hints = Hints::to(&[(MemberId(1), peer("a")), (MemberId(2), peer("c"))], MemberId(1));
        assert_eq!(hints.elsewhere(2, &peer("b"), "b"), ["c"]);
        hints.announced(2, "d");
        hints.announced(0, "nobody");
        assert_eq!(hints.elsewhere(2, &peer("b"), "d"), ["b", "c"]);
        assert_eq!(hints.elsewhere(3, &peer("x"), "x"), Vec::<String>::new());
    }

    #[test]
    fn that_a_member_is_silent_is_said_once() {
        let mut silent = Silent::default();
        let mut hear = |answer| silent.hear(2, answer);
        assert_eq!(hear(Ok(())), None);
        assert_eq!(hear(Err("late")), None, "a single one");
        assert_eq!(hear(Ok(())), None);
        assert_eq!([hear(Err("late")), hear(Err("gone"))], [None, Some(Err("gone"))]);
        assert_eq!(hear(Err("gone")), None);
        assert_eq!([hear(Ok(())), hear(Ok(()))], [Some(Ok(())), None]);
        assert_eq!([hear(Err("late")), hear(Err("gone"))], [None, Some(Err("gone"))]);
        silent.forget_but(|id| *id != 2);
        assert_eq!(silent.hear(2, Ok::<(), &str>(())), None, "another one of its name");
    }
}

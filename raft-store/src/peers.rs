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
        network::{self, Link},
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

/// The task that asks.
pub(crate) struct Peers {
    hints: Hints,
    steward: Steward,
    metrics: Metrics,
}

impl Peers {
    pub(crate) fn new(hints: Hints, steward: &Steward, metrics: &Metrics) -> Peers {
        Peers { hints, steward: steward.clone(), metrics: metrics.clone() }
    }

    pub(crate) async fn run(self) {
        let mut tick = Ticks::every(STATUS_EVERY);
        loop {
            tick.tick().await;
            let members = self.members();
            let this = &self;
            let asked = members.iter().map(|(id, peer)| async move {
                let status = this.ask(*id, peer).await?;
                Some((*id, status))
            });
            let heard: BTreeMap<u64, StatusResponse> =
                futures::future::join_all(asked).await.into_iter().flatten().collect();
            if let Some(by) = heard.values().find(|status| status.removed) {
                return self.steward.bury(&format!("{} says so", by.name));
            }
            self.compare_voters(&heard);
            self.steward.statuses.replace(heard);
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

    async fn ask(&self, id: u64, peer: &Peer) -> Option<StatusResponse> {
        let dialled = self.steward.links.address(id)?;
        if let Some(status) = self.look(id, peer, &dialled, STATUS_EVERY).await {
            let says = &status.peer_address;
            if !says.is_empty() && *says != dialled {
                self.try_address(id, peer, says).await;
            }
            return Some(status);
        }
        for address in self.hints.elsewhere(id, peer, &dialled) {
            if let Some(status) = self.try_address(id, peer, &address).await {
                return Some(status);
            }
        }
        None
    }

    async fn try_address(&self, id: u64, peer: &Peer, address: &str) -> Option<StatusResponse> {
        let status = self.look(id, peer, address, self.steward.timers.election_max).await?;
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
    ) -> Option<StatusResponse> {
        let link = match self.steward.links.address(id).as_deref() == Some(address) {
            true => self
                .steward
                .links
                .to_member(&self.steward.raft, id)
                .or_else(|| self.fresh(peer, address))?,
            false => self.fresh(peer, address)?,
        };
        let (member, peer_address) = (self.steward.id.0, self.steward.own.peer_address.clone());
        let request = StatusRequest { member, peer_address };
        let status = network::ask_status(&link, request, deadline).await?;
        (status.member == id).then_some(status)
    }

    fn fresh(&self, peer: &Peer, address: &str) -> Option<Link> {
        let peer = Peer { peer_address: address.into(), ..peer.clone() };
        match self.steward.links.link(peer) {
            Ok(link) => Some(link),
            Err(error) => {
                tracing::debug!(%error, "not dialled");
                None
            }
        }
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
}

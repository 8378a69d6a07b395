//! What may become of the members: values in, a change or a refusal with its reason out. Nothing
//! here waits, and nothing is looked up.
//!
//! Voters change one at a time, so that any quorum before and any quorum after have a member in
//! common, and only while a quorum of those after answers: no change can stop the group by itself.

use crate::{config::Peer, roster::Roster, types::MemberId};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How many entries behind the leader a member may be that is to vote, or to lead.
// Eight times the entries that the inbox has in flight: one that keeps up is within this.
pub(crate) const LAG_MAX: u64 = 128;

/// What somebody asks of the members.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Request {
    /// A learner; without an id it gets the next one. One of the same name that is still a learner
    /// makes room: it is the same machine trying again.
    Add {
        id: Option<MemberId>,
        peer: Peer,
    },
    /// The learner becomes a voter. Asked by the leader itself.
    Promote {
        id: MemberId,
    },
    Remove {
        id: MemberId,
    },
    /// To this voter, or to the one that is furthest.
    Transfer {
        to: Option<MemberId>,
    },
    /// Reached under these addresses from now on.
    Move {
        id: MemberId,
        peer: Peer,
    },
}

/// What to do about a request; for which member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) member: MemberId,
    pub(crate) step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is so already.
    Nothing,
    /// From now on these vote, and these are there.
    Members { voters: BTreeSet<u64>, members: BTreeMap<u64, Peer> },
    /// The same members, one of them under other addresses.
    Readdress { id: u64, peer: Peer },
    /// Hand leadership over.
    Lead { to: MemberId },
    /// Hand leadership over; the new leader is to be asked again.
    LeadFirst { to: MemberId },
}

/// Why a change is not made. Its text says what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum Refusal {
    #[error("another change of the members is under way; ask again when it is done")]
    UnderWay,
    #[error("id {id} was given to {name}; an id is never given twice: leave it out to get {next}")]
    IdUsed { id: MemberId, name: String, next: MemberId },
    #[error("{name} is member {id}; if that one is gone for good, replace it")]
    NameTaken { name: String, id: MemberId },
    #[error("member {id} ({name}) is reached at {address}; two members cannot share an address")]
    AddressTaken { address: String, name: String, id: MemberId },
    #[error("there is no member {id}")]
    NotMember { id: MemberId },
    #[error(
        "{change} leaves {voters} voters, of whom {needed} must answer, but only {answering:?} do: \
         the cluster would stop; bring others back or add one first"
    )]
    LosesQuorum { change: String, voters: usize, needed: usize, answering: Vec<String> },
    #[error("{name} is the only voter: without it there is no cluster")]
    LastVoter { name: String },
    #[error("{name} does not vote (yet), so it cannot lead")]
    NotVoter { name: String },
    #[error("{name} does not answer the leader")]
    Unreachable { name: String },
    #[error("{name} is {behind} log entries behind the leader, {most} are allowed; wait for it")]
    Behind { name: String, behind: u64, most: u64 },
    #[error("no other voter answers that could lead")]
    NobodyElse,
}

/// One member, as the leader sees it at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) peer: Peer,
    /// It acknowledged something of the leader's lately.
    pub(crate) answers: bool,
    /// Log entries between its last and the leader's; `None` if the leader does not know yet.
    pub(crate) behind: Option<u64>,
    /// For how long the leader has had no answer.
    pub(crate) silent: Duration,
    /// Where it says it is now, if that is elsewhere and it answers there.
    pub(crate) found_at: Option<Peer>,
    /// Its disk has room for more. One that does not tell is not counted on.
    pub(crate) has_room: bool,
}

/// What the leader knows when it decides.
#[derive(Clone, Debug)]
pub(crate) struct View<'a> {
    pub(crate) leader: MemberId,
    /// The last change is committed.
    pub(crate) settled: bool,
    pub(crate) voters: BTreeSet<u64>,
    /// The leader among them.
    pub(crate) members: BTreeMap<u64, Seen>,
    pub(crate) roster: &'a Roster,
}

type Decided = Result<Decision, Refusal>;

fn decided(member: MemberId, step: Step) -> Decided {
    Ok(Decision { member, step })
}

/// Whether and how `request` is granted.
pub(crate) fn decide(view: &View, request: &Request) -> Decided {
    // Handing over changes nothing that could be under way.
    if !view.settled && !matches!(request, Request::Transfer { .. }) {
        return Err(Refusal::UnderWay);
    }
    match request {
        Request::Add { id, peer } => view.add(*id, peer),
        Request::Promote { id } => view.promote(*id),
        Request::Remove { id } => view.remove(*id),
        Request::Transfer { to } => view.transfer(*to),
        Request::Move { id, peer } => view.readdress(*id, peer),
    }
}

/// What a leader does by itself, one at a time: `joiner_silence` is how long a learner may be away.
pub(crate) fn chore(view: &View, joiner_silence: Duration) -> Option<Request> {
    if !view.settled {
        return None;
    }
    let moved = view.members.iter().find_map(|(id, seen)| {
        let peer = seen.found_at.clone()?;
        (peer != seen.peer).then_some(Request::Move { id: MemberId(*id), peer })
    });
    let learners = || view.members.iter().filter(|(id, _)| !view.voters.contains(id));
    let ready = learners().find(|(id, _)| view.promote(MemberId(**id)).is_ok());
    let promoted = ready.map(|(id, _)| Request::Promote { id: MemberId(*id) });
    let lost = learners().find(|(_, seen)| !seen.answers && seen.silent >= joiner_silence);
    let removed = lost.map(|(id, _)| Request::Remove { id: MemberId(*id) });
    let relieved = view.with_room().map(|to| Request::Transfer { to: Some(to) });
    let granted = |request: &Request| decide(view, request).is_ok();
    [relieved, moved, promoted, removed].into_iter().flatten().find(granted)
}

impl View<'_> {
    /// Most of those who vote now answer this leader: it leads, and knows what it says.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.voters().filter(|(_, seen)| seen.answers).count() > self.voters.len() / 2
    }

    fn seen(&self, id: MemberId) -> Result<&Seen, Refusal> {
        self.members.get(&id.0).ok_or(Refusal::NotMember { id })
    }

    fn peers(&self) -> BTreeMap<u64, Peer> {
        self.members.iter().map(|(id, seen)| (*id, seen.peer.clone())).collect()
    }

    fn add(&self, id: Option<MemberId>, peer: &Peer) -> Decided {
        let next = self.roster.next();
        if let Some(id) = id
            && let Some(name) = self.roster.name(id)
        {
            return Err(Refusal::IdUsed { id, name: name.into(), next });
        }
        let mut members = self.peers();
        let same = self.members.iter().find(|(_, seen)| seen.peer.name == peer.name);
        if let Some((id, seen)) = same {
            if self.voters.contains(id) {
                let (name, id) = (seen.peer.name.clone(), MemberId(*id));
                return Err(Refusal::NameTaken { name, id });
            }
            members.remove(id);
        }
        address_is_free(&members, peer)?;
        let id = id.unwrap_or(next);
        members.insert(id.0, peer.clone());
        decided(id, Step::Members { voters: self.voters.clone(), members })
    }

    fn promote(&self, id: MemberId) -> Decided {
        let seen = self.seen(id)?;
        if self.voters.contains(&id.0) {
            return decided(id, Step::Nothing);
        }
        keeps_up(seen)?;
        let voters: BTreeSet<u64> = self.voters.iter().copied().chain([id.0]).collect();
        self.keeps_quorum(&voters, || format!("a vote for {}", seen.peer.name))?;
        decided(id, Step::Members { voters, members: self.peers() })
    }

    fn remove(&self, id: MemberId) -> Decided {
        if self.roster.is_removed(id) {
            return decided(id, Step::Nothing);
        }
        let seen = self.seen(id)?;
        let mut voters = self.voters.clone();
        if voters.remove(&id.0) {
            if voters.is_empty() {
                return Err(Refusal::LastVoter { name: seen.peer.name.clone() });
            }
            self.keeps_quorum(&voters, || format!("removing {}", seen.peer.name))?;
        }
        if id == self.leader {
            return decided(id, Step::LeadFirst { to: self.successor()? });
        }
        let mut members = self.peers();
        members.remove(&id.0);
        decided(id, Step::Members { voters, members })
    }

    fn transfer(&self, to: Option<MemberId>) -> Decided {
        let Some(to) = to else {
            let to = self.successor()?;
            return decided(to, Step::Lead { to });
        };
        let seen = self.seen(to)?;
        if to == self.leader {
            return decided(to, Step::Nothing);
        }
        if !self.voters.contains(&to.0) {
            return Err(Refusal::NotVoter { name: seen.peer.name.clone() });
        }
        keeps_up(seen)?;
        decided(to, Step::Lead { to })
    }

    fn readdress(&self, id: MemberId, peer: &Peer) -> Decided {
        let seen = self.seen(id)?;
        if seen.peer == *peer {
            return decided(id, Step::Nothing);
        }
        if seen.peer.name != peer.name {
            let (name, id) = (seen.peer.name.clone(), id);
            return Err(Refusal::NameTaken { name, id });
        }
        let mut others = self.peers();
        others.remove(&id.0);
        address_is_free(&others, peer)?;
        decided(id, Step::Readdress { id: id.0, peer: peer.clone() })
    }

    fn voters(&self) -> impl Iterator<Item = (MemberId, &Seen)> {
        let voters = self.members.iter().filter(|(id, _)| self.voters.contains(id));
        voters.map(|(id, seen)| (MemberId(*id), seen))
    }

    /// The voter that is furthest, besides the leader.
    fn successor(&self) -> Result<MemberId, Refusal> {
        let others = self.voters().filter(|(id, _)| *id != self.leader);
        furthest(others).ok_or(Refusal::NobodyElse)
    }

    /// Who is to lead because the leader's disk is full: under another the group may grow again
    /// (`room::who_is_full`), if a quorum has room too.
    fn with_room(&self) -> Option<MemberId> {
        if self.members.get(&self.leader.0)?.has_room {
            return None;
        }
        let roomy = || self.voters().filter(|(_, seen)| seen.has_room && seen.answers);
        let quorum = roomy().count() > self.voters.len() / 2;
        quorum.then(|| furthest(roomy())).flatten()
    }

    /// Most of `voters` answer, so that they can commit the change that makes them the voters.
    fn keeps_quorum(
        &self,
        voters: &BTreeSet<u64>,
        change: impl Fn() -> String,
    ) -> Result<(), Refusal> {
        let there = self.members.iter().filter(|(id, seen)| voters.contains(id) && seen.answers);
        let answering: Vec<String> = there.map(|(_, seen)| seen.peer.name.clone()).collect();
        let needed = voters.len() / 2 + 1;
        match answering.len() >= needed {
            true => Ok(()),
            false => Err(Refusal::LosesQuorum {
                change: change(),
                voters: voters.len(),
                needed,
                answering,
            }),
        }
    }
}

/// Of those who keep up.
fn furthest<'a>(members: impl Iterator<Item = (MemberId, &'a Seen)>) -> Option<MemberId> {
    let able = members.filter(|(_, seen)| keeps_up(seen).is_ok());
    able.min_by_key(|(_, seen)| seen.behind).map(|(id, _)| id)
}

fn keeps_up(seen: &Seen) -> Result<(), Refusal> {
    let name = || seen.peer.name.clone();
    match seen.behind {
        _ if !seen.answers => Err(Refusal::Unreachable { name: name() }),
        None => Err(Refusal::Unreachable { name: name() }),
        Some(behind) if behind > LAG_MAX => {
            Err(Refusal::Behind { name: name(), behind, most: LAG_MAX })
        }
        Some(_) => Ok(()),
    }
}

fn address_is_free(members: &BTreeMap<u64, Peer>, peer: &Peer) -> Result<(), Refusal> {
    let taken = members.iter().find(|(_, other)| other.peer_address == peer.peer_address);
    taken.map_or(Ok(()), |(id, other)| {
        Err(Refusal::AddressTaken {
            address: peer.peer_address.clone(),
            name: other.name.clone(),
            id: MemberId(*id),
        })
    })
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;

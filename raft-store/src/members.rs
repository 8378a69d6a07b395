//! The members of the group and who leads them.

use crate::types::{MemberId, Revision, Term};

/// Who leads, as one member knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The newest term this member has heard of.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<MemberId>,
    /// `Some` when this member leads and has applied the first entry of its own term: its state
    /// then holds everything that was acknowledged before, and it may act as leader.
    pub leading: Option<Term>,
}

/// One member, as another (or itself) sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemberStatus {
    pub id: MemberId,
    pub name: String,
    /// Where the other members reach it, `host:port`.
    pub peer_address: String,
    /// Where its API is reached, as given in its configuration.
    pub api_address: String,
    pub leader: bool,
    pub voter: bool,
    pub term: Term,
    /// What it has applied; `None` if it was not heard from lately.
    pub applied: Option<Revision>,
    pub reachable: bool,
}

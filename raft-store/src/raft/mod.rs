//! The one place that knows openraft: types, settings, conversions to what goes over the wire.

pub(crate) mod accept;
mod bell;
pub(crate) mod connection;
pub(crate) mod convert;
mod corked;
pub(crate) mod log;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod read_index;
pub(crate) mod server;
pub mod unary;
pub(crate) mod wire;

use crate::config::{Config, OpenError, Peer};
use bytes::Bytes;
use openraft::SnapshotPolicy;
use std::{fmt, sync::Arc, time::Duration};

/// An encoded command (see `codec`). openraft never looks inside.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Payload(pub(crate) Bytes);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.peer_address)
    }
}

/// Nothing: proposers learn the outcome from the applied state of their own member.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("-")
    }
}

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Payload,
        R = Nothing,
        NodeId = u64,
        Node = Peer,
        // One leader per term, as in Raft's paper: a fence names a term and means one leader.
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Runtime,
);

/// What openraft's tasks run on. In tests it is the same, unless they are in a simulation.
#[cfg(not(test))]
pub(crate) type Runtime = openraft::TokioRuntime;
#[cfg(test)]
pub(crate) type Runtime = crate::sim::Runtime;

pub(crate) type Raft = openraft::Raft<Types, machine::Machine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, Peer>;
pub(crate) type RaftInstant = openraft::type_config::alias::InstantOf<Types>;
pub(crate) type Metrics = openraft::RaftMetrics<Types>;

/// How long ago it was.
pub(crate) fn since(moment: &RaftInstant) -> Duration {
    openraft::Instant::elapsed(moment)
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// 0 before the first entry.
pub(crate) fn index_of(id: &Option<LogId>) -> u64 {
    id.as_ref().map_or(0, |id| id.index)
}

pub(crate) fn term_of(id: &LogId) -> u64 {
    id.leader_id.term
}

/// openraft's settings; those that safety rests on are asserted after validation.
pub(crate) fn settings(config: &Config) -> Result<Arc<openraft::Config>, OpenError> {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let timers = &config.timers;
    let election_max = ms(timers.election_max);
    let settings = openraft::Config {
        cluster_name: "coxswain".into(),
        heartbeat_interval: ms(timers.heartbeat),
        election_timeout_min: ms(timers.election_min),
        election_timeout_max: election_max,
        install_snapshot_timeout: 10 * 60 * 1000,
        max_payload_entries: 1024,
        // Longer than the log is ever kept: only a purged log makes a member need a snapshot.
        replication_lag_threshold: u64::MAX / 2,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: config.retention.log_entries,
        purge_batch_size: 64,
        // At least the lease and an election; without it a leader that reaches nobody but one
        // bridge keeps that one from electing another.
        quorum_loss_probe_interval: Some(2 * election_max + 100),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        backoff: "20ms 50ms 100ms ...500ms".into(),
        ..openraft::Config::default()
    };
    #[cfg(test)]
    if crate::mutants::on(crate::mutants::Mutant::LeaderRestored) {
        let settings = openraft::Config { enable_leader_restore: Some(true), ..settings };
        return Ok(Arc::new(settings));
    }
    let settings = settings.validate().map_err(|error| OpenError::Config(error.to_string()))?;
    assert_safe(&settings);
    Ok(Arc::new(settings))
}

/// A leader restored in its old term gives log ids away twice after a power loss: acknowledged
/// writes are lost. openraft's default does that.
pub(crate) fn assert_safe(settings: &openraft::Config) {
    assert_eq!(settings.enable_leader_restore, Some(false), "a restarted leader must be elected");
    assert_eq!(settings.enable_pre_vote, Some(true), "a lagging member must not end a term");
    assert!(!settings.allow_log_reversion.unwrap_or(false), "a log never goes back");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a restarted leader must be elected")]
    fn openrafts_own_defaults_are_refused() {
        assert_safe(&openraft::Config::default());
    }
}

//! What a member must be told to start, and why it may refuse.

use crate::{room::Disk, seal::Seal, types::MemberId};
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

/// One member of the group, as the others reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Peer {
    /// Also the DNS name in its certificate: a dial that reaches another member fails.
    pub name: String,
    /// `host:port` of its peer listener.
    pub peer_address: String,
    /// Where its API is reached; only passed on to `Store::members`.
    pub api_address: String,
}

/// PEM material of connections on which both sides prove themselves.
#[derive(Clone)]
pub struct Tls {
    /// Who may connect shows a certificate of this one. Between members: the CA of the peers, and of nobody else.
    pub ca: Vec<u8>,
    /// This member's certificate. Between members: its DNS names contain `Peer::name`; for server and client use.
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

/// The newest of it: whoever connects after [`OwnTls::replace`] is shown what was given to it.
#[derive(Clone, Debug)]
pub struct OwnTls(Arc<RwLock<(u64, Arc<Tls>)>>);

impl From<Tls> for OwnTls {
    fn from(tls: Tls) -> OwnTls {
        OwnTls(Arc::new(RwLock::new((0, Arc::new(tls)))))
    }
}

impl OwnTls {
    /// Connections that are open keep what they began with.
    pub fn replace(&self, tls: Tls) {
        let mut newest = self.0.write().expect("only replaced");
        *newest = (newest.0 + 1, Arc::new(tls));
    }

    /// What whoever connects now is shown.
    pub fn current(&self) -> Arc<Tls> {
        self.0.read().expect("only replaced").1.clone()
    }

    /// How often it was replaced.
    pub(crate) fn version(&self) -> u64 {
        self.0.read().expect("only replaced").0
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// How fast the members notice and act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    pub heartbeat: Duration,
    /// A follower stands for election after a random time between these two without a leader.
    /// Failover takes about `election_max` (the old leader's lease) plus one such time.
    pub election_min: Duration,
    pub election_max: Duration,
    /// How long a request waits for a leader and a quorum.
    pub request: Duration,
    /// A learner that the leader has not heard from for this long is removed.
    pub joiner_silence: Duration,
}

impl Default for Timers {
    /// For members on one LAN with disks that sync in milliseconds; worst failover about 0.7 s.
    fn default() -> Timers {
        Timers {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(350),
            request: Duration::from_secs(10),
            // Long enough for a machine to be set up or repaired, short enough not to be forgotten.
            joiner_silence: Duration::from_secs(600),
        }
    }
}

/// How much is kept, and when it is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Watches and reads may go back this long…
    pub history: Duration,
    /// …but never over more than this many changes.
    pub history_changes: u64,
    /// The newest changes are also in memory: this many, and this many bytes of bodies.
    pub ring_changes: usize,
    pub ring_bytes: usize,
    /// The state is flushed and the log may be shortened this often.
    pub flush: Duration,
    /// Log entries kept behind the flushed state, so that a lagging member needs no snapshot.
    pub log_entries: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            // etcd's compaction by the apiserver keeps 5 to 10 minutes.
            history: Duration::from_secs(300),
            history_changes: 1_000_000,
            ring_changes: 65_536,
            ring_bytes: 64 << 20,
            flush: Duration::from_secs(30),
            log_entries: 100_000,
        }
    }
}

/// Everything `Store::open` needs.
#[derive(Clone, Debug)]
pub struct Config {
    pub member: MemberId,
    /// Created if absent; belongs to this member for ever.
    pub data_dir: PathBuf,
    /// The members with which the group starts, this one included: the same on each of them. Once
    /// the group exists they only say where this member is reached now, and where the others may be
    /// looked for.
    pub initial_members: Vec<(MemberId, Peer)>,
    /// The group exists and has added this member (`Store::add_learner`): it starts none.
    pub joins: bool,
    /// Where this member listens for its peers.
    pub listen: SocketAddr,
    pub tls: OwnTls,
    pub timers: Timers,
    pub retention: Retention,
    pub disk: Disk,
    /// What of the log and the disk is not to be read by others; the same on every member.
    pub seal: Arc<dyn Seal>,
    pub registry: prometheus::Registry,
    /// The newest version of commands that it reads: as an earlier program would.
    #[cfg(test)]
    pub(crate) knows: u32,
}

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Correct the configuration.
    #[error("{0}")]
    Config(String),
    /// The directory belongs to another member: point to the right one.
    #[error("{path} belongs to member {found}, not to {asked}")]
    OtherMember { path: PathBuf, found: MemberId, asked: MemberId },
    /// It was removed: its data must never be served again. Join anew under a new id.
    #[error("{why}; {path} is not served again: empty it, and join as a new member")]
    Removed { why: String, path: PathBuf },
    /// The disk no longer holds what was acknowledged. Never serve from it: remove the member, `discard`
    /// what is left and join anew under a new id.
    #[error("{file} is damaged at offset {offset}: {detail}")]
    Damaged { file: PathBuf, offset: u64, detail: String },
    /// Nothing is lost, but this program lacks what it takes: start the version that wrote it, or give it
    /// the keys.
    #[error("{path} cannot be read by this program: {why}")]
    Unreadable { path: PathBuf, why: String },
    /// This member once found its state to differ from that of most others. Never serve from it: keep
    /// the directory to find out why, remove the member and join anew under a new id.
    #[error(
        "{path} is quarantined: {reason}; remove this member and let it join under a new id, with an \
         empty directory"
    )]
    Quarantined { path: PathBuf, reason: String },
    #[error("{path}")]
    Disk { path: PathBuf, source: io::Error },
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("start of Raft: {0}")]
    Raft(String),
}

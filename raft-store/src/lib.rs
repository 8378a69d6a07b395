//! Replicated, revisioned byte store: openraft on RocksDB, guarded transactions, watch.
//!
//! Architecture invariant: it knows bytes only. It cannot name a Pod.

mod ages;
pub mod backup;
mod barrier;
pub mod bench;
mod codec;
mod config;
mod disk;
mod divergence;
pub mod durable;
mod founding;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod hub;
mod inbox;
mod levels;
mod member;
mod members;
mod membership;
mod metrics;
mod peers;
mod proposer;
mod quarantine;
mod questions;
mod raft;
mod room;
mod roster;
mod seal;
mod shared;
mod snapshot_stream;
mod state;
mod state_engine;
mod steward;
mod store;
mod succession;
mod threads;
mod time;
mod types;
mod watch;

pub use config::{Config, OpenError, OwnTls, Peer, Retention, Timers, Tls};
pub use member::discard;
pub use members::{Leadership, MemberStatus};
pub use membership::Refusal;
pub use questions::Answer;
pub use raft::{accept::connections, connection::Http2, unary};
pub use room::{Disk, FileSystem, FreeSpace};
pub use seal::{Plain, Seal, Unopened};
pub use steward::MemberError;
pub use store::{Store, TXN_BYTES_MAX, View};
pub use types::{
    Change, Cluster, Committed, Error, Guard, Key, LogIndex, MemberId, Op, Page, Revision,
    SpanCheck, Stored, Term, Txn, Write,
};
pub use watch::Watch;

#[cfg(test)]
mod chaos_tests;
#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
mod joining_tests;
#[cfg(test)]
mod levels_tests;
#[cfg(test)]
mod mutants;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tls_tests;

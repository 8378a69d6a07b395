//! Replicated, revisioned byte store: openraft on RocksDB, guarded transactions, watch.
//!
//! Architecture invariant: it knows bytes only. It cannot name a Pod.

mod hub;
mod members;
mod shared;
mod state;
mod store;
mod types;
mod watch;

pub use members::{Leadership, MemberStatus};
pub use store::{Store, TXN_BYTES_MAX};
pub use types::{
    Change, Committed, Error, Guard, Key, LogIndex, MemberId, Op, Page, Revision, Stored, Term,
    Txn, Write,
};
pub use watch::Watch;

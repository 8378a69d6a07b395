//! Replicated, revisioned byte store: openraft on RocksDB, guarded transactions, watch.
//!
//! Architecture invariant: it knows bytes only. It cannot name a Pod.

mod types;

pub use types::{
    Change, Committed, Error, Guard, Key, LogIndex, MemberId, Op, Page, Revision, Stored, Term, Txn,
    Write,
};

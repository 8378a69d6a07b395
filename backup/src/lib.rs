//! Where backups go and when: directories and S3, names, schedules, retention.
//!
//! What a backup is, `raft_store::backup` knows; nothing here looks into one beyond its header.

mod checked;
mod names;
mod schedule;
mod shelf;

pub use checked::checked;
pub use names::{Kind, Name, chain, expired};
pub use schedule::{Plan, Schedule, run};
pub use shelf::{Error, HEADER_BYTES_MAX, Item, Place, Shelf};

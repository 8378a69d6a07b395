//! The audit log (audit.k8s.io/v1): who asked for what, when, and what came of it, as much of it as
//! the policy says, one JSON line per stage. A line waits for its place in a bounded queue; only the
//! last line of a watch, written when its connection is gone, may be lost to a full one, and is
//! counted.

mod event;
mod log;
mod policy;

pub use log::LogFile;

pub(crate) use event::{Exchange, Received, Stage};
pub(crate) use policy::Level;

use policy::Policy;
use std::{io, sync::Arc};

/// Why there can be no audit log.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the audit policy cannot be read: {0}")]
    Policy(String),
    #[error("the audit log cannot be written")]
    Log(#[from] io::Error),
}

/// A policy and the log it fills.
pub struct Audit {
    policy: Policy,
    lines: log::Lines,
}

impl Audit {
    /// `policy` is the text of an `audit.k8s.io/v1 Policy`.
    pub fn open(
        policy: &[u8],
        file: LogFile,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Audit>, OpenError> {
        let policy = Policy::parse(policy).map_err(OpenError::Policy)?;
        Ok(Arc::new(Audit { policy, lines: log::Lines::open(file, registry)? }))
    }
}

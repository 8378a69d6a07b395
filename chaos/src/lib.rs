//! What is done to a cluster, and what must hold all the same: faults and checks as values. The
//! simulation of the store and live clusters share them; nothing here runs, waits or breaks anything.
//!
//! Architecture invariant: it knows no crate of ours, so that a check cannot repeat a mistake of the
//! code that it checks.

pub mod binding;
pub mod churn;
pub mod clock;
pub mod counter;
pub mod cut;
pub mod disk;
pub mod faults;
pub mod figures;
pub mod growing;
pub mod history;
pub mod informer;
pub mod judge;
pub mod lease;
pub mod linear;
pub mod objects;
pub mod record;
pub mod report;
pub mod rollout;
pub mod scenario;
pub mod schedule;
pub mod shrink;
pub mod watched;

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which check found it: short, the same for all it finds.
    pub check: &'static str,
    pub what: String,
}

impl Violation {
    pub fn new(check: &'static str, what: impl Into<String>) -> Violation {
        Violation { check, what: what.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.check, self.what)
    }
}

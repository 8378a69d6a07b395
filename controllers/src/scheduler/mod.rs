//! The scheduler: gives every pending pod a node. Filters and scores are values in one list, the plan
//! is a pure function of the world, and only `driver.rs` waits, sends or looks at a clock.

mod diagnosis;
mod driver;
mod hollow;
mod inbox;
mod matching;
mod metrics;
mod node;
mod plan;
mod plugins;
mod pod;
mod queue;
mod resources;
mod selector;
mod state;
mod topology;
mod world;

pub use diagnosis::{Diagnosis, Reason, Rejected};
pub(crate) use driver::run_in;
pub use driver::{PROFILE, run};
pub use hollow::{Ask, hollow_world, workload};
pub(crate) use inbox::Inbox;
pub use node::{Candidate, Facts, Taint, Used};
pub use plan::{Decision, Planner, plan};
pub use pod::{HostPort, NodeTerm, Pod, PodKey, Pull, Shape, Spread, Term, Toleration};
pub use resources::Resources;
pub use selector::{Labels, Requirement, Selector};
pub use world::World;

#[cfg(test)]
mod tests;

//! HTTP in front, one generic pipeline, the list of kinds. Does not know that controllers or nodes
//! exist.

pub mod admission;
pub mod authz;
pub mod identity;
pub mod kinds;
pub mod memo;
pub mod view;

pub use identity::Identity;

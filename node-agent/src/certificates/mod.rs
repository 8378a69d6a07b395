//! The certificates this node proves itself with, asked for through the API: the first with a bootstrap
//! token, every later one, and what the kubelet API is served with, as the node itself. Keys are made
//! here and never leave the machine; what is asked for is approved and signed by others.

mod files;
mod join;
mod metrics;
mod obtain;
mod renewal;
mod request;
#[cfg(test)]
mod tests;

pub use join::{JoinError, Standing, join, standing};
pub use obtain::Error;

pub(crate) use files::{Place, write_private};
pub(crate) use join::place;
pub(crate) use metrics::Metrics;
pub(crate) use renewal::{Keeper, Shown};
pub(crate) use request::Wanted;

use jiff::Timestamp;
use std::sync::Arc;

/// What time it is: certificates end by the wall's clock.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

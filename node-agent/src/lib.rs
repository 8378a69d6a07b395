//! One machine of the cluster: runs the pods bound to it and says how they are. Knows the API only
//! through [`k8s::Api`]; never another node, never the store.

#![expect(clippy::result_large_err, reason = "Status is what every API call answers with")]

mod agent;
mod authority;
pub mod certificates;
pub mod client;
pub mod credentials;
pub mod dns;
pub mod images;
mod joined;
mod kubelet;
mod metrics;
pub mod net;
mod node;
pub mod pods;
pub mod proxy;
pub mod runtime;

pub use agent::{Agent, Config, run, sweep};
pub use authority::{Authorities, is_signed_by};
pub use runtime::reexec;

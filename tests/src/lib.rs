//! What the flows share: the binary under test, clusters of real processes, `kubectl`. Each wait
//! says for what, is bounded, and prints the state when it gives up.

pub mod cluster;
pub mod ports;

pub use cluster::Cluster;

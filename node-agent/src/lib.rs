//! The agent of one machine: its client to the masters, network, service proxy and DNS.

pub mod client;
pub mod dns;
pub mod net;
pub mod proxy;

//! The agent of one machine: its client to the masters, network, service proxy and DNS.

pub mod client;

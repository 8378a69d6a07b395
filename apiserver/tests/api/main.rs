//! The server as its clients see it: over HTTPS on loopback, on a store in memory.

mod admission;
mod apply;
mod apply_resets;
mod apply_rules;
mod apply_versions;
mod bad_input;
mod codecs;
mod credentials;
mod custom;
mod differential;
mod documents;
mod harness;
mod masters;
mod objects;
mod operations;
mod policies;
mod proxying;
mod reading;
mod streaming;
mod watching;

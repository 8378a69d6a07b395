//! What must hold for every decoder and expression whatever bytes it gets: no panic, and what it accepted once it
//! accepts again and understands the same. One function per decoder (those of the store are in its crate); libFuzzer and the tests on
//! stable call the same ones.

mod expressions;
mod session;
mod targets;
mod token;

use targets::TARGETS;

/// Runs the target of that name, which has to exist.
pub fn run(name: &str, data: &[u8]) {
    let alone = [&expressions::TARGET, &session::TARGET, &token::TARGET];
    let mut targets = TARGETS.iter().chain(raft_store::hostile::TARGETS).chain(alone);
    let found = targets.find(|target| target.0 == name);
    let (_, target) = found.unwrap_or_else(|| panic!("no target {name}"));
    target(data);
}

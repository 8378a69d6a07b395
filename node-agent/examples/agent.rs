//! The smallest program an agent's shims can be started from: what the crate's tests re-execute.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    node_agent::reexec(&args).unwrap_or(ExitCode::FAILURE)
}

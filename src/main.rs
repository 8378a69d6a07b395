//! The one binary: masters, node agents, and the commands operators run. Wires crates; holds no
//! policy.

mod cli;
mod credentials;
mod dev;
mod kubeconfig;
mod pki;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread or allocator state exists: the shim and the runtime helper fork.
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    if let Some(code) = node_agent::reexec(&arguments) {
        return code;
    }
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line per cause: what happened, to what, because of what.
            cli::output::warn(&format!("error: {error:#}"));
            cli::exit_code(&error)
        }
    }
}

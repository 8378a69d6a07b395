//! Two pods cannot have the same port of the same address of one node.

use super::super::diagnosis::Rejected;
use super::super::node::Candidate;
use super::super::pod::{HostPort, Shape};
use super::{Cause, Plugin};

pub(super) const PLUGIN: Plugin =
    Plugin { filter: Some(filter), ..Plugin::new("NodePorts", &[Cause::Node, Cause::PodLeft]) };

const EVERY_ADDRESS: &str = "0.0.0.0";

fn filter(shape: &Shape, node: Candidate<'_>) -> Result<(), Rejected> {
    let taken = |wanted: &HostPort| node.used.ports.iter().any(|used| clash(wanted, used));
    if shape.ports.iter().any(taken) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return Err(Rejected::new("NodePorts", reason));
    }
    Ok(())
}

fn clash(one: &HostPort, other: &HostPort) -> bool {
    one.port == other.port
        && one.protocol == other.protocol
        && (one.address == other.address
            || one.address == EVERY_ADDRESS
            || other.address == EVERY_ADDRESS)
}

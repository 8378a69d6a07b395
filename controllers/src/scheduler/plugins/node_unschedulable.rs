//! A cordoned node takes only pods that tolerate the cordon.

use super::super::diagnosis::Rejected;
use super::super::node::{Candidate, Taint};
use super::super::pod::Shape;
use super::{Cause, Plugin, tolerated};

pub(super) const PLUGIN: Plugin =
    Plugin { filter: Some(filter), ..Plugin::new("NodeUnschedulable", &[Cause::Node]) };

fn filter(shape: &Shape, node: Candidate<'_>) -> Result<(), Rejected> {
    let cordon = || Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: String::new(),
        effect: "NoSchedule".into(),
    };
    if !node.facts.unschedulable || tolerated(&cordon(), &shape.tolerations) {
        return Ok(());
    }
    Err(Rejected::new("NodeUnschedulable", "node(s) were unschedulable"))
}

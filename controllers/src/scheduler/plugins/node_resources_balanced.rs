//! Prefers the node whose cpu and memory would be filled to the same degree.

use super::super::node::Candidate;
use super::super::pod::Shape;
use super::{Normal, Plugin, SCORE_MAX, Score};

pub(super) const PLUGIN: Plugin = Plugin {
    score: Some(Score { weight: 1, normal: Normal::AsIs, raw: balance }),
    ..Plugin::new("NodeResourcesBalancedAllocation", &[])
};

/// `100 * (1 - deviation)` of the two fractions. A pod that asks for neither has no say: it would
/// otherwise be drawn to the fullest balanced node.
fn balance(shape: &Shape, node: Candidate<'_>) -> i64 {
    let (wants, has, used) = (&shape.requests, &node.facts.allocatable, &node.used.requests);
    if wants.cpu_milli == 0 && wants.memory == 0 {
        return 0;
    }
    let deviation = if has.cpu_milli > 0 && has.memory > 0 {
        let fraction = |used: i64, wants: i64, has: i64| {
            (used.saturating_add(wants) as f64 / has as f64).min(1.0)
        };
        let cpu = fraction(used.cpu_milli, wants.cpu_milli, has.cpu_milli);
        let memory = fraction(used.memory, wants.memory, has.memory);
        (cpu - memory).abs() / 2.0
    } else {
        0.0
    };
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}

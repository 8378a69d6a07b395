//! The sum of requests on a node never exceeds what it has; among those with room, the emptiest.

use super::super::diagnosis::{Reason, Rejected};
use super::super::node::Candidate;
use super::super::pod::Shape;
use super::{Cause, Normal, Plugin, SCORE_MAX, Score};

pub(super) const PLUGIN: Plugin = Plugin {
    filter: Some(filter),
    score: Some(Score { weight: 1, normal: Normal::AsIs, raw: least_allocated }),
    ..Plugin::new("NodeResourcesFit", &[Cause::Node, Cause::PodLeft])
};

fn filter(shape: &Shape, node: Candidate<'_>) -> Result<(), Rejected> {
    let (wants, has, used) = (&shape.requests, &node.facts.allocatable, &node.used.requests);
    let lacks = |wants: i64, has: i64, used: i64| wants > 0 && wants > has.saturating_sub(used);
    let mut reasons: Vec<Reason> = Vec::new();
    if node.used.pods >= node.facts.pods_max {
        reasons.push("Too many pods".into());
    }
    if lacks(wants.cpu_milli, has.cpu_milli, used.cpu_milli) {
        reasons.push("Insufficient cpu".into());
    }
    if lacks(wants.memory, has.memory, used.memory) {
        reasons.push("Insufficient memory".into());
    }
    if lacks(wants.ephemeral_storage, has.ephemeral_storage, used.ephemeral_storage) {
        reasons.push("Insufficient ephemeral-storage".into());
    }
    for (name, wants) in &wants.others {
        let of = |all: &std::collections::BTreeMap<String, i64>| {
            all.get(name).copied().unwrap_or_default()
        };
        if lacks(*wants, of(&has.others), of(&used.others)) {
            reasons.push(format!("Insufficient {name}").into());
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(Rejected { plugin: "NodeResourcesFit", reasons }) }
}

/// The mean share of cpu and memory that stays free; a resource that the node does not have does
/// not count.
fn least_allocated(shape: &Shape, node: Candidate<'_>) -> i64 {
    let (wants, has) = (&shape.requests_assumed, &node.facts.allocatable);
    let used = &node.used.requests_assumed;
    let pairs = [
        (has.cpu_milli, used.cpu_milli.saturating_add(wants.cpu_milli)),
        (has.memory, used.memory.saturating_add(wants.memory)),
    ];
    let present = pairs.into_iter().filter(|(has, _)| *has > 0);
    let (sum, count) = present.fold((0, 0), |(sum, count), (has, used)| {
        let free = has.saturating_sub(used).max(0);
        (sum + share(free, has), count + 1)
    });
    if count == 0 { 0 } else { sum / count }
}

/// `SCORE_MAX * part / whole` without overflow; `0 <= part <= whole`.
fn share(part: i64, whole: i64) -> i64 {
    let share = i128::from(SCORE_MAX) * i128::from(part) / i128::from(whole);
    i64::try_from(share).unwrap_or(SCORE_MAX)
}

//! Taints refuse pods that do not tolerate them; soft taints only make a node less liked.

use super::super::diagnosis::Rejected;
use super::super::node::{Candidate, Taint};
use super::super::pod::{Shape, Toleration};
use super::{Cause, Normal, Plugin, Score};

pub(super) const PLUGIN: Plugin = Plugin {
    filter: Some(filter),
    score: Some(Score { weight: 3, normal: Normal::LessIsBetter, raw: intolerable }),
    ..Plugin::new("TaintToleration", &[Cause::Node])
};

fn filter(shape: &Shape, node: Candidate<'_>) -> Result<(), Rejected> {
    if untolerated(shape, node) {
        return Err(Rejected::new("TaintToleration", "node(s) had untolerated taint(s)"));
    }
    Ok(())
}

/// Whether a taint keeps the pod away.
pub(super) fn untolerated(shape: &Shape, node: Candidate<'_>) -> bool {
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    node.facts.taints.iter().filter(hard).any(|taint| !tolerated(taint, &shape.tolerations))
}

fn intolerable(shape: &Shape, node: Candidate<'_>) -> i64 {
    let soft = node.facts.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !tolerated(taint, &shape.tolerations)).count() as i64
}

/// Whether one of the tolerations covers `taint`.
pub(crate) fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        (toleration.effect.is_empty() || toleration.effect == taint.effect)
            && (toleration.key.is_empty() || toleration.key == taint.key)
            && (toleration.exists
                || (!toleration.key.is_empty() && toleration.value == taint.value))
    })
}

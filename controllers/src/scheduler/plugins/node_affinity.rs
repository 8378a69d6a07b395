//! `nodeSelector` and node affinity: required terms refuse, preferred ones add their weight.

use super::super::diagnosis::Rejected;
use super::super::node::Candidate;
use super::super::pod::{NodeTerm, Shape};
use super::{Cause, Normal, Plugin, Score};

pub(super) const PLUGIN: Plugin = Plugin {
    filter: Some(filter),
    score: Some(Score { weight: 2, normal: Normal::MoreIsBetter, raw: preferred }),
    ..Plugin::new("NodeAffinity", &[Cause::Node])
};

fn filter(shape: &Shape, node: Candidate<'_>) -> Result<(), Rejected> {
    if allowed(shape, node) {
        return Ok(());
    }
    Err(Rejected::new("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"))
}

/// Whether the pod's selector and required affinity allow the node.
pub(crate) fn allowed(shape: &Shape, node: Candidate<'_>) -> bool {
    shape.node_selector.matches(&node.facts.labels)
        && shape
            .node_required
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|term| matches_term(term, node)))
}

fn matches_term(term: &NodeTerm, node: Candidate<'_>) -> bool {
    if term.labels.is_empty() && term.fields.is_empty() {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then_some(node.name);
    term.labels.iter().all(|requirement| requirement.matches(&node.facts.labels))
        && term.fields.iter().all(|requirement| requirement.allows(field(requirement.key())))
}

fn preferred(shape: &Shape, node: Candidate<'_>) -> i64 {
    let matching = shape.node_preferred.iter().filter(|(_, term)| matches_term(term, node));
    matching.map(|(weight, _)| weight).sum()
}

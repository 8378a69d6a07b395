//! Why a pod fits nowhere, in upstream's words: clients and autoscalers read them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub type Reason = Cow<'static, str>;

/// One plugin's verdict against one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    pub plugin: &'static str,
    pub reasons: Vec<Reason>,
}

impl Rejected {
    pub(crate) fn new(plugin: &'static str, reason: &'static str) -> Rejected {
        Rejected { plugin, reasons: vec![Cow::Borrowed(reason)] }
    }
}

/// All verdicts against all nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnosis {
    pub nodes: usize,
    /// How many nodes gave each reason.
    pub reasons: BTreeMap<Reason, usize>,
    pub plugins: BTreeSet<&'static str>,
}

impl Diagnosis {
    pub(crate) fn new(nodes: usize) -> Diagnosis {
        Diagnosis { nodes, ..Diagnosis::default() }
    }

    pub(crate) fn add(&mut self, rejected: &Rejected) {
        self.plugins.insert(rejected.plugin);
        for reason in &rejected.reasons {
            match self.reasons.get_mut(reason) {
                Some(count) => *count += 1,
                None => drop(self.reasons.insert(reason.clone(), 1)),
            }
        }
    }

    /// The text of the `FailedScheduling` event and the `PodScheduled` condition. Upstream appends
    /// what preemption found; there is no preemption here yet, so nothing is said of it.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_string();
        }
        let mut counted: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        counted.sort();
        format!("0/{} nodes are available: {}.", self.nodes, counted.join(", "))
    }
}

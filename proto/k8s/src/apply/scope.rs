//! Which fields a request may change at all: a write of the main resource does not own what is reset
//! to the stored value (`status`), one of a subresource owns only its own (upstream's
//! `GetResetFields`), and nobody owns what the server alone sets.

use super::step::SELF;
use serde_json::{Map, Value};

/// Names of one or two levels: `spec`, `metadata.labels`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// Only these; empty for all.
    pub only: &'static [&'static str],
    pub without: &'static [&'static str],
}

/// In nobody's set (upstream's `stripMetaManager`).
const NEVER_OWNED: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// What of a field belongs to a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    None,
    /// Some of its fields, by [`Scope::below`].
    Some,
    All,
}

impl Scope {
    /// The object but its status.
    pub const MAIN: Scope = Scope { only: &[], without: &["status"] };
    pub const ALL: Scope = Scope { only: &[], without: &[] };
    /// The status and what metadata comes along with it.
    pub const STATUS: Scope = Scope {
        only: &[
            "metadata.annotations",
            "metadata.finalizers",
            "metadata.labels",
            "metadata.ownerReferences",
            "status",
        ],
        without: &[],
    };
    /// The same of a kind that does not change labels with its status.
    pub const STATUS_BUT_LABELS: Scope = Scope {
        only: &[
            "metadata.annotations",
            "metadata.finalizers",
            "metadata.ownerReferences",
            "status",
        ],
        without: &[],
    };
    /// The same of a kind that does not change owners with its status.
    pub const STATUS_BUT_OWNERS: Scope = Scope {
        only: &["metadata.annotations", "metadata.finalizers", "metadata.labels", "status"],
        without: &[],
    };
    /// The status and no metadata.
    pub const STATUS_ALONE: Scope = Scope { only: &["status"], without: &[] };

    pub(super) fn top(&self, name: &str) -> Part {
        let deeper = |paths: &[&str]| {
            paths.iter().any(|path| path.split_once('.').is_some_and(|(top, _)| top == name))
        };
        match name {
            "apiVersion" | "kind" => Part::None,
            _ if self.without.contains(&name) => Part::None,
            _ if !self.only.is_empty() && !self.only.contains(&name) => {
                if deeper(self.only) {
                    Part::Some
                } else {
                    Part::None
                }
            }
            "metadata" => Part::Some,
            _ if deeper(self.without) => Part::Some,
            _ => Part::All,
        }
    }

    /// True if `name` below `top`, of which [`Scope::top`] says `Some`, belongs to it.
    pub fn below(&self, top: &str, name: &str) -> bool {
        if top == "metadata" && NEVER_OWNED.contains(&name) {
            return false;
        }
        let named =
            |paths: &[&str]| paths.iter().any(|path| path.split_once('.') == Some((top, name)));
        let within = self.only.is_empty() || self.only.contains(&top) || named(self.only);
        within && !named(self.without)
    }

    /// Takes what does not belong here out of a set.
    pub(super) fn restrict(&self, set: &mut Map<String, Value>) {
        set.retain(|step, child| {
            let (Some(top), Value::Object(child)) = (step.strip_prefix("f:"), child) else {
                return true;
            };
            match self.top(top) {
                Part::None => false,
                Part::All => true,
                Part::Some => self.restrict_below(top, child),
            }
        });
    }

    /// False if nothing is left.
    fn restrict_below(&self, top: &str, child: &mut Map<String, Value>) -> bool {
        let owned = top != "metadata" && self.only.is_empty();
        if child.is_empty() || !owned {
            child.remove(SELF);
        }
        let leaf = child.is_empty();
        child.retain(|step, _| step.strip_prefix("f:").is_none_or(|name| self.below(top, name)));
        if child.len() == 1 && child.remove(SELF).is_some() {
            return true;
        }
        !child.is_empty() || (leaf && owned)
    }
}

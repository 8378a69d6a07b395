//! May this user do this? Decides on values; knows nothing of HTTP.

use crate::{
    identity::{Identity, SYSTEM_MASTERS},
    view::View,
};
use std::sync::Arc;

/// What is asked (`authorization.k8s.io/v1` attributes). For a non-resource URL only `user`, `verb`
/// and `path` are set.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a Identity,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`,
    /// `impersonate`, …; the lower-case HTTP method for a non-resource URL.
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    /// The plural.
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Empty for a resource request.
    pub path: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Refused, whatever others say.
    Deny {
        reason: String,
    },
    /// Refused unless somebody else allows it; the reason is shown.
    NoOpinion {
        reason: String,
    },
}

/// One who decides. Sync: decides on the applied state.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    /// What `user` may do in `namespace` as `authorization.k8s.io/v1 SubjectRulesReviewStatus`
    /// (`kubectl auth can-i --list`).
    fn rules(&self, user: &Identity, namespace: &str) -> serde_json::Value;
}

/// The authorizer of this server over its applied state.
pub fn authorizer(_view: Arc<dyn View>) -> Arc<dyn Authorizer> {
    Arc::new(Masters)
}

/// Objects every cluster starts with, as whole objects with `apiVersion` and `kind`; written at
/// bootstrap where absent.
pub fn bootstrap() -> Vec<k8s::Object> {
    Vec::new()
}

/// `system:masters` may do everything, nobody else anything.
struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(SYSTEM_MASTERS) {
            return Decision::Allow;
        }
        Decision::NoOpinion { reason: String::new() }
    }

    fn rules(&self, user: &Identity, _namespace: &str) -> serde_json::Value {
        let everything = user.in_group(SYSTEM_MASTERS);
        let rules = |rule: serde_json::Value| if everything { vec![rule] } else { vec![] };
        serde_json::json!({
            "resourceRules": rules(serde_json::json!({
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            })),
            "nonResourceRules": rules(serde_json::json!({
                "verbs": ["*"], "nonResourceURLs": ["*"],
            })),
            "incomplete": false,
        })
    }
}

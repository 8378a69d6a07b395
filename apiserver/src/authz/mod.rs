//! May this user do this? Decides on values; knows nothing of HTTP.

use crate::{identity::Identity, view::View};
use k8s::{Resource, Status};
use std::sync::Arc;

mod bootstrap;
pub(crate) mod escalation;
mod node;
mod node_graph;
mod rbac;
mod reviews;
mod webhook;

/// True if RBAC lets the user do it.
pub(crate) fn rbac_allows(view: &dyn View, asked: &Attributes<'_>) -> bool {
    rbac::authorize(view, asked) == Decision::Allow
}

pub use bootstrap::reconcile;
pub(crate) use node::node_name;
pub use reviews::answer;
pub(crate) use reviews::{status_of, user_info};
pub use webhook::AccessWebhook;

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
    /// What a list or watch selects by fields, as it was sent; empty for all.
    pub field_selector: &'a str,
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

/// Asks one after the other; the first that has an opinion decides (upstream's order: Node, RBAC).
struct Union(Vec<Box<dyn Authorizer>>);

impl Authorizer for Union {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes) {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion { reason: reasons.join(", ") }
    }

    fn rules(&self, user: &Identity, namespace: &str) -> serde_json::Value {
        let mut all = serde_json::json!({
            "resourceRules": [], "nonResourceRules": [], "incomplete": false,
        });
        for authorizer in &self.0 {
            let rules = authorizer.rules(user, namespace);
            for field in ["resourceRules", "nonResourceRules"] {
                if let (Some(all), Some(more)) =
                    (all[field].as_array_mut(), rules[field].as_array())
                {
                    all.extend(more.iter().cloned());
                }
            }
            if rules["incomplete"] == true {
                all["incomplete"] = true.into();
            }
        }
        all
    }
}

/// The authorizer of this server over its applied state.
pub fn authorizer(store: raft_store::Store) -> Arc<dyn Authorizer> {
    let view: Arc<dyn View> = Arc::new(store.clone());
    Arc::new(Union(vec![Box::new(node::Node::new(store)), Box::new(rbac::Rbac { view })]))
}

/// Objects every cluster starts with, as whole objects with `apiVersion` and `kind`; written at
/// bootstrap where absent, brought up to date by [`reconcile`] where present.
pub fn bootstrap() -> Vec<k8s::Object> {
    bootstrap::objects()
}

/// The `Status` of a request that nobody allowed; `reason` is the deciders', often empty.
pub fn forbidden(asked: &Attributes<'_>, reason: &str) -> Status {
    let user = &asked.user.user;
    let mut why = if asked.path.is_empty() {
        let resource = match asked.subresource {
            "" => asked.resource.to_string(),
            subresource => format!("{}/{subresource}", asked.resource),
        };
        let scope = match asked.namespace {
            "" => "at the cluster scope".to_string(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let (verb, group) = (asked.verb, asked.group);
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}")
    } else {
        format!("User {user:?} cannot {} path {:?}", asked.verb, asked.path)
    };
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    if !asked.path.is_empty() {
        return Status::new(403, "Forbidden", format!("forbidden: {why}"));
    }
    let resource = Resource {
        group: asked.group.to_string().into(),
        version: asked.version.to_string().into(),
        plural: asked.resource.to_string().into(),
    };
    Status::forbidden(&resource, asked.name, why)
}

/// RBAC without the others.
#[cfg(test)]
fn rbac_alone(view: Arc<dyn View>) -> Arc<dyn Authorizer> {
    Arc::new(rbac::Rbac { view })
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

//! Node: what a node may do follows from the pods that are on it (upstream's Node authorizer). It may
//! read what they refer to, their claims and volumes, and what is its own; nothing of another node's.

use super::{Attributes, Authorizer, Decision, bootstrap, node_graph::Graph, rbac::Rule};
use crate::{identity::Identity, view::View};
use k8s::selector::FieldSelector;
use raft_store::Store;
use serde_json::{Value, json};
use std::sync::Arc;

const USER_PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node that a user is; `None` if they are none.
pub(crate) fn node_name(user: &Identity) -> Option<&str> {
    user.user.strip_prefix(USER_PREFIX).filter(|name| !name.is_empty() && user.in_group(GROUP))
}

/// The authorizer.
pub(super) struct Node {
    view: Arc<dyn View>,
    graph: Graph,
    /// What any node may do, whatever is on it.
    rules: Vec<Rule>,
}

impl Node {
    pub(super) fn new(store: Store) -> Node {
        Node {
            view: Arc::new(store.clone()),
            graph: Graph::new(store),
            rules: bootstrap::rules_of("system:node"),
        }
    }

    fn decide(&self, node: &str, asked: &Attributes<'_>) -> Decision {
        if !asked.path.is_empty() {
            return no_opinion("");
        }
        let refused = match (asked.group, asked.resource) {
            ("", "secrets" | "configmaps") => self.referred(node, asked),
            ("", "persistentvolumeclaims") if asked.subresource == "status" => {
                let verbs = ["get", "update", "patch"];
                only(asked, &verbs, "status").or_else(|| self.claim(node, asked))
            }
            ("", "persistentvolumeclaims") => {
                only(asked, &["get"], "").or_else(|| self.claim(node, asked))
            }
            ("", "persistentvolumes") => {
                only(asked, &["get"], "").or_else(|| self.volume(node, asked))
            }
            ("", "serviceaccounts") if asked.subresource == "token" => {
                only(asked, &["create"], "token").or_else(|| self.account(node, asked))
            }
            ("", "pods") => self.pod(node, asked),
            ("", "nodes") => own_node(node, asked),
            ("resource.k8s.io", "resourceclaims") => {
                only(asked, &["get"], "").or_else(|| self.resource_claim(node, asked))
            }
            ("resource.k8s.io", "resourceslices") => self.slice(node, asked),
            ("storage.k8s.io", "volumeattachments") => {
                only(asked, &["get"], "").or_else(|| self.attachment(node, asked))
            }
            ("storage.k8s.io", "csinodes") => {
                let verbs = ["get", "create", "update", "patch", "delete"];
                only(asked, &verbs, "").or_else(|| own_name(node, asked, "CSINode"))
            }
            ("coordination.k8s.io", "leases") => own_lease(node, asked),
            _ => match self.rules.iter().any(|rule| rule.allows(asked)) {
                true => None,
                false => Some(String::new()),
            },
        };
        refused.map_or(Decision::Allow, |reason| no_opinion(&reason))
    }

    fn known(&self, node: &str, resource: &'static str, asked: &Attributes<'_>) -> bool {
        self.graph.refers(node, resource, asked.namespace, asked.name)
    }

    fn referred(&self, node: &str, asked: &Attributes<'_>) -> Option<String> {
        let resource = if asked.resource == "secrets" { "secrets" } else { "configmaps" };
        if let Some(why) = only(asked, &["get", "list", "watch"], "") {
            return Some(why);
        }
        if asked.name.is_empty() {
            return Some("No Object name found".to_string());
        }
        let by_volume = || {
            resource == "secrets"
                && self.graph.claims(node).iter().any(|claim| {
                    self.volume_of(claim).is_some_and(|volume| {
                        volume_secrets(&volume).any(|(namespace, name)| {
                            let namespace =
                                if namespace.is_empty() { claim.0.as_str() } else { namespace };
                            (namespace, name) == (asked.namespace, asked.name)
                        })
                    })
                })
        };
        let known = self.known(node, resource, asked) || by_volume();
        (!known).then(|| no_relation(node, asked))
    }

    fn claim(&self, node: &str, asked: &Attributes<'_>) -> Option<String> {
        let known = self.known(node, "persistentvolumeclaims", asked);
        (!known).then(|| no_relation(node, asked))
    }

    fn account(&self, node: &str, asked: &Attributes<'_>) -> Option<String> {
        let known = self.known(node, "serviceaccounts", asked);
        (!known).then(|| no_relation(node, asked))
    }

    fn resource_claim(&self, node: &str, asked: &Attributes<'_>) -> Option<String> {
        let known = self.known(node, "resourceclaims", asked);
        (!known).then(|| no_relation(node, asked))
    }

    fn volume(&self, node: &str, asked: &Attributes<'_>) -> Option<String> {
        let volume = self.view.object("persistentvolumes", asked.name);
        let claim = volume.map(|volume| {
            let text = |pointer: &str| volume.str_at(pointer).to_string();
            (text("/spec/claimRef/namespace"), text("/spec/claimRef/name"))
        });
        let known = claim.is_some_and(|(namespace, name)| {
            self.graph.refers(node, "persistentvolumeclaims", &namespace, &name)
        });
        (!known).then(|| no_relation(node, asked))
    }

    fn volume_of(&self, claim: &(String, String)) -> Option<Arc<k8s::Object>> {
        let path = format!("{}/{}", claim.0, claim.1);
        let claim = self.view.object("persistentvolumeclaims", &path)?;
        self.view.object("persistentvolumes", claim.str_at("/spec/volumeName"))
    }

    fn attachment(&self, node: &str, asked: &Attributes<'_>) -> Option<String> {
        let found = self.view.object("storage.k8s.io/volumeattachments", asked.name);
        let own = found.is_some_and(|found| found.str_at("/spec/nodeName") == node);
        (!own).then(|| no_relation(node, asked))
    }

    fn slice(&self, node: &str, asked: &Attributes<'_>) -> Option<String> {
        match asked.verb {
            // Whose slice it is, is looked at by admission.
            "create" => None,
            "get" | "update" | "patch" | "delete" => {
                let found = self.view.object("resource.k8s.io/resourceslices", asked.name);
                let own = found.is_some_and(|found| found.str_at("/spec/nodeName") == node);
                (!own).then(|| no_relation(node, asked))
            }
            "list" | "watch" | "deletecollection" => selects(asked, "spec.nodeName", node),
            _ => Some(String::new()),
        }
    }

    fn pod(&self, node: &str, asked: &Attributes<'_>) -> Option<String> {
        match (asked.subresource, asked.verb) {
            ("", "get") if self.graph.has_pod(node, asked.namespace, asked.name) => None,
            ("", "get") => Some(no_relation(node, asked)),
            ("", "list" | "watch") => selects(asked, "spec.nodeName", node),
            // Of its own pods only, which admission sees to.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                None
            }
            _ => Some(String::new()),
        }
    }
}

fn no_opinion(reason: &str) -> Decision {
    Decision::NoOpinion { reason: reason.to_string() }
}

fn no_relation(node: &str, asked: &Attributes<'_>) -> String {
    let what = asked.resource.trim_end_matches('s');
    format!("no relationship found between node '{node}' and this object ({what})")
}

/// Why not: another verb or another subresource.
fn only(asked: &Attributes<'_>, verbs: &[&str], subresource: &str) -> Option<String> {
    if asked.subresource != subresource {
        return Some("cannot access this subresource".to_string());
    }
    (!verbs.contains(&asked.verb))
        .then(|| format!("can only {} resources of this type", verbs.join(", ")))
}

/// Lists and watches must ask for one value of a field only.
fn selects(asked: &Attributes<'_>, field: &str, value: &str) -> Option<String> {
    let selector = FieldSelector::parse(asked.field_selector).ok();
    let exact = selector.is_some_and(|selector| selector.required_value(field) == Some(value));
    (!exact).then(|| format!("can only list/watch {} with {field} field selector", asked.resource))
}

fn own_node(node: &str, asked: &Attributes<'_>) -> Option<String> {
    match (asked.subresource, asked.verb) {
        ("", "create") => None,
        ("", "get" | "list" | "watch" | "update" | "patch") | ("status", "update" | "patch")
            if asked.name == node =>
        {
            None
        }
        ("", "get" | "list" | "watch") => {
            Some(format!("node '{node}' cannot read '{}', only its own Node object", asked.name))
        }
        // Another's is refused in words by admission, as upstream does.
        ("", "update" | "patch") | ("status", "update" | "patch") => None,
        _ => Some(String::new()),
    }
}

fn own_name(node: &str, asked: &Attributes<'_>, kind: &str) -> Option<String> {
    let own = asked.name == node || (asked.verb == "create" && asked.name.is_empty());
    (!own).then(|| format!("can only access {kind} with the same name as the requesting node"))
}

fn own_lease(node: &str, asked: &Attributes<'_>) -> Option<String> {
    let verbs = ["get", "create", "update", "patch", "delete"];
    if let Some(why) = only(asked, &verbs, "") {
        return Some(why);
    }
    if asked.namespace != LEASE_NAMESPACE {
        return Some(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    let own = asked.name == node || (asked.verb == "create" && asked.name.is_empty());
    (!own)
        .then(|| "can only access node lease with the same name as the requesting node".to_string())
}

/// Namespace (empty: the claim's) and name of the secrets a volume is mounted with.
fn volume_secrets(volume: &k8s::Object) -> impl Iterator<Item = (&str, &str)> {
    const PLACES: &[&str] = &[
        "/spec/azureFile",
        "/spec/cephfs/secretRef",
        "/spec/cinder/secretRef",
        "/spec/csi/controllerExpandSecretRef",
        "/spec/csi/controllerPublishSecretRef",
        "/spec/csi/nodeExpandSecretRef",
        "/spec/csi/nodePublishSecretRef",
        "/spec/csi/nodeStageSecretRef",
        "/spec/flexVolume/secretRef",
        "/spec/iscsi/secretRef",
        "/spec/rbd/secretRef",
        "/spec/scaleIO/secretRef",
        "/spec/storageos/secretRef",
    ];
    PLACES.iter().filter_map(|place| {
        let value = volume.at(place)?;
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        let (namespace, name) = match *place {
            "/spec/azureFile" => (text("secretNamespace"), text("secretName")),
            _ => (text("namespace"), text("name")),
        };
        Some((namespace.unwrap_or_default(), name?))
    })
}

impl Authorizer for Node {
    fn authorize(&self, asked: &Attributes<'_>) -> Decision {
        match node_name(asked.user) {
            Some(node) => self.decide(node, asked),
            None => no_opinion(""),
        }
    }

    /// What follows from pods cannot be listed.
    fn rules(&self, user: &Identity, _: &str) -> Value {
        let node = node_name(user).is_some();
        let rules = if node { &self.rules[..] } else { &[] };
        let rules: Vec<Value> = rules.iter().map(Rule::to_value).collect();
        json!({ "resourceRules": rules, "nonResourceRules": [], "incomplete": node })
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;

//! What is filled in or refused beyond a kind's own rules, in upstream's order; each step is one
//! file. The steps are plain functions over values; only webhooks wait for somebody, and only where
//! one is concerned.

use crate::{authz, backend::Ways, identity::Identity, kind::Kind, view::View};
use k8s::{Object, Options, Status};
use std::fmt::Display;

mod certificates;
mod chain;
mod config;
mod default_class;
mod default_toleration_seconds;
mod deny_service_external_ips;
mod extended_resource_toleration;
mod limit_ranger;
mod metrics;
mod namespace_lifecycle;
mod node_restriction;
mod notes;
mod owner_references;
mod pod_security;
mod pod_topology_labels;
pub(crate) mod policy;
mod priority;
pub(crate) mod resource_quota;
mod resources;
mod runtime_class;
mod service_account;
mod storage_protection;
mod taint_nodes_by_condition;
#[cfg(test)]
mod tests;
mod webhook;

pub(crate) use chain::{charge, mutate, validate};
pub use config::{Config, UnknownPlugin};
pub(crate) use metrics::Metrics;
pub(crate) use notes::Notes;
pub(crate) use resource_quota::Charge;
pub(crate) use service_account::await_account;
pub(crate) use webhook::{Clients, Server as WebhookServer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// pods/exec and the like.
    Connect,
}

impl Operation {
    /// As rules and reviews write it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// A request on its way to the store.
#[derive(Clone, Copy)]
pub(crate) struct Cx<'a> {
    pub(crate) operation: Operation,
    pub(crate) kind: &'a Kind,
    /// The version the request came by.
    pub(crate) version: &'a str,
    /// Empty for a cluster-scoped kind.
    pub(crate) namespace: &'a str,
    /// Empty on a create that leaves the name to the server.
    pub(crate) name: &'a str,
    /// Empty, or `status`, `scale`, `binding`, …
    pub(crate) subresource: &'a str,
    pub(crate) identity: &'a Identity,
    /// The version in the store; `None` on create.
    pub(crate) old: Option<&'a Object>,
    pub(crate) view: &'a dyn View,
    pub(crate) authorizer: &'a dyn authz::Authorizer,
    pub(crate) config: &'a Config,
    pub(crate) options: &'a Options,
    pub(crate) dry_run: bool,
    /// What is said besides yes and no.
    pub(crate) notes: &'a Notes,
    pub(crate) machine: &'a Machine,
    /// Makes an object of what came back from outside.
    pub(crate) reader: &'a dyn Reader,
}

/// What the steps share between requests.
pub(crate) struct Machine {
    pub(crate) metrics: Metrics,
    webhooks: webhook::Clients,
    turns: resource_quota::Turns,
}

impl Machine {
    pub(crate) fn new(registry: &prometheus::Registry, ways: Ways) -> Machine {
        Machine {
            metrics: Metrics::new(registry),
            webhooks: webhook::Clients::new(ways),
            turns: resource_quota::Turns::default(),
        }
    }
}

/// How a changed document becomes an object of the request's kind again: checked against its type,
/// defaulted, stripped.
pub(crate) trait Reader: Send + Sync {
    fn read(
        &self,
        kind: &Kind,
        version: &str,
        document: serde_json::Value,
    ) -> Result<Object, Status>;
}

impl Cx<'_> {
    /// True of what decides on admission itself. Neither policies nor webhooks are asked about it: who
    /// wrote one that answers badly could never take it back.
    fn configures_admission(&self) -> bool {
        const KINDS: &[&str] = &[
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
        ];
        self.kind.group == "admissionregistration.k8s.io" && KINDS.contains(&self.kind.plural)
    }

    fn is(&self, group: &str, plural: &str) -> bool {
        self.kind.group == group && self.kind.plural == plural && self.subresource.is_empty()
    }

    fn creates(&self, group: &str, plural: &str) -> bool {
        self.operation == Operation::Create && self.is(group, plural)
    }

    fn updates(&self, group: &str, plural: &str) -> bool {
        self.operation == Operation::Update && self.is(group, plural)
    }

    /// Refuses as a plugin of upstream's does: names the object, by its `generateName` if need be.
    fn forbidden(&self, object: &Object, why: impl Display) -> Status {
        let given = [self.name, object.name(), object.str_at("/metadata/generateName"), "Unknown"];
        let name = given.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        Status::forbidden(&self.kind.resource(), name, why)
    }
}

/// Nobody may give rights they do not have.
fn rbac_escalation(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    match cx.operation {
        Operation::Create | Operation::Update if cx.subresource.is_empty() => {
            authz::escalation::check(cx.view, cx.identity, &cx.kind.resource(), object, cx.old)
        }
        _ => Ok(()),
    }
}

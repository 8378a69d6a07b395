//! What is filled in or refused beyond a kind's own rules, in order; each step is one file.

use crate::{authz, identity::Identity, kinds::KindDef, view::View};
use k8s::{Object, Status};
use std::fmt::Display;

mod certificates;
mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;
#[cfg(test)]
mod tests;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// pods/exec and the like.
    Connect,
}

/// What the steps may be told by the operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Seconds a pod tolerates an unready or unreachable node (DefaultTolerationSeconds).
    pub default_toleration_seconds: i64,
}

impl Default for Config {
    fn default() -> Config {
        // 300 s: kube-apiserver's --default-not-ready-toleration-seconds.
        Config { default_toleration_seconds: 300 }
    }
}

/// A request on its way to the store.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    pub operation: Operation,
    pub kind: &'a KindDef,
    /// Empty for a cluster-scoped kind.
    pub namespace: &'a str,
    /// Empty on a create that leaves the name to the server.
    pub name: &'a str,
    /// Empty, or `status`, `scale`, `binding`, …
    pub subresource: &'a str,
    pub identity: &'a Identity,
    /// The version in the store; `None` on create.
    pub old: Option<&'a Object>,
    pub view: &'a dyn View,
    pub config: &'a Config,
    pub dry_run: bool,
}

/// One step: fills in or refuses.
type Mutate = fn(&Cx<'_>, &mut Object) -> Result<(), Status>;
/// One step: only refuses. The object is the new one; on delete and connect the old one.
type Validate = fn(&Cx<'_>, &Object) -> Result<(), Status>;

/// In the order they run (upstream's order of its plugins).
const MUTATE: &[Mutate] = &[
    namespace_lifecycle::admit,
    certificates::admit,
    service_account::admit,
    default_toleration_seconds::admit,
    priority::admit,
];
const VALIDATE: &[Validate] = &[
    certificates::validate,
    node_restriction::validate,
    namespace_lifecycle::validate,
    priority::validate,
    rbac_escalation,
];

pub(crate) use service_account::await_account;

/// Before defaults and validation.
pub fn mutate(cx: &Cx<'_>, object: &mut Object) -> Result<(), Status> {
    MUTATE.iter().try_for_each(|step| step(cx, object))
}

/// After validation.
pub fn validate(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    VALIDATE.iter().try_for_each(|step| step(cx, object))
}

impl Cx<'_> {
    fn is(&self, group: &str, plural: &str) -> bool {
        self.kind.group == group && self.kind.plural == plural && self.subresource.is_empty()
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

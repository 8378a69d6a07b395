//! What is filled in or refused beyond a kind's own rules, in order; each step is one file.

use crate::{identity::Identity, kinds::KindDef, view::View};
use k8s::{Object, Status};

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
const MUTATE: &[Mutate] = &[];
const VALIDATE: &[Validate] = &[];

/// Before defaults and validation.
pub fn mutate(cx: &Cx<'_>, object: &mut Object) -> Result<(), Status> {
    MUTATE.iter().try_for_each(|step| step(cx, object))
}

/// After validation.
pub fn validate(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    VALIDATE.iter().try_for_each(|step| step(cx, object))
}

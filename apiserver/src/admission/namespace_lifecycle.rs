//! NamespaceLifecycle: nothing without its namespace, nothing new in one that ends, and three
//! namespaces that stay.

use super::{Cx, Operation};
use k8s::{Cause, Object, Resource, Status};

const NAMESPACES: Resource = Resource::new("", "v1", "namespaces");
/// Upstream's three; `kube-node-lease` may be deleted (and comes back).
const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

pub(super) fn admit(cx: &Cx<'_>, object: &mut Object) -> Result<(), Status> {
    let writes = matches!(cx.operation, Operation::Create | Operation::Update);
    // A review of a namespace that is not there is an honest question.
    if !writes || cx.namespace.is_empty() || cx.kind.kind == "LocalSubjectAccessReview" {
        return Ok(());
    }
    let Some(namespace) = cx.view.object("namespaces", cx.namespace) else {
        return Err(Status::not_found(&NAMESPACES, cx.namespace));
    };
    let ending = namespace.deletion_timestamp().is_some()
        || namespace.str_at("/status/phase") == "Terminating";
    if cx.operation != Operation::Create || !ending {
        return Ok(());
    }
    let name = cx.namespace;
    let why =
        format!("unable to create new content in namespace {name} because it is being terminated");
    let mut status = cx.forbidden(object, why);
    status.causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".into(),
    });
    Err(status)
}

pub(super) fn validate(cx: &Cx<'_>, _: &Object) -> Result<(), Status> {
    let deletes = cx.operation == Operation::Delete && cx.is("", "namespaces");
    if deletes && IMMORTAL.contains(&cx.name) {
        let why = "this namespace may not be deleted";
        return Err(Status::forbidden(&NAMESPACES, cx.name, why));
    }
    Ok(())
}

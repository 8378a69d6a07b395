//! OwnerReferencesPermissionEnforcement (off unless asked for): who changes the owners of an object
//! must be allowed to delete it, and who blocks an owner's deletion to set its finalizers.

use super::{Cx, Operation};
use crate::{
    authz::{Attributes, Decision},
    catalog,
};
use k8s::{Object, OwnerReference, Status};

pub(super) fn validate(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    let writes = matches!(cx.operation, Operation::Create | Operation::Update);
    if !writes || !matches!(cx.subresource, "" | "status") {
        return Ok(());
    }
    let new = object.owner_references();
    let old = cx.old.map(Object::owner_references).unwrap_or_default();
    if new == old {
        return Ok(());
    }
    let may = |verb: &str, group: &str, resource: &str, subresource: &str, name: &str| {
        let asked = Attributes {
            user: cx.identity,
            verb,
            group,
            version: "*",
            resource,
            subresource,
            namespace: cx.namespace,
            name,
            field_selector: "",
            path: "",
        };
        match cx.authorizer.authorize(&asked) {
            Decision::Allow => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(reason),
        }
    };
    if cx.operation == Operation::Update {
        may("delete", cx.kind.group, cx.kind.plural, "", cx.name).map_err(|reason| {
            let why = "cannot set an ownerRef on a resource you can't delete";
            cx.forbidden(object, format!("{why}: {reason}, <nil>"))
        })?;
    }
    for owner in blocking(&new, &old) {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let Some(kind) = catalog::by_kind(&owner.api_version, &owner.kind) else {
            let why = "cannot set blockOwnerDeletion in this case because cannot find RESTMapping";
            let (version, kind) = (&owner.api_version, &owner.kind);
            return Err(cx.forbidden(object, format!("{why} for APIVersion {version} Kind {kind}")));
        };
        may("update", group, kind.plural, "finalizers", &owner.name).map_err(|reason| {
            let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you \
                       can't set finalizers on";
            cx.forbidden(object, format!("{why}: {reason}, <nil>"))
        })?;
    }
    Ok(())
}

/// The references that block their owner's deletion and did not before.
fn blocking<'a>(
    new: &'a [OwnerReference],
    old: &'a [OwnerReference],
) -> impl Iterator<Item = &'a OwnerReference> {
    let blocked = |owner: &OwnerReference| {
        old.iter().any(|had| had.uid == owner.uid && had.block_owner_deletion)
    };
    new.iter().filter(move |owner| owner.block_owner_deletion && !blocked(owner))
}

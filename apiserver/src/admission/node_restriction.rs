//! NodeRestriction: a node changes its own Node, its own pods and what goes with them, and nothing by
//! which it could draw other people's workloads to itself.

use super::{Cx, Operation};
use crate::authz;
use k8s::{Object, Resource, Status};
use serde_json::Value;
use std::collections::BTreeSet;

const MIRROR: &str = "kubernetes.io/config.mirror";
const RESTRICTED: &str = "node-restriction.kubernetes.io";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Labels in Kubernetes' own namespaces that a kubelet may set (upstream's `IsKubeletLabel`).
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];
const KUBELET_NAMESPACES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(super) fn validate(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    let Some(node) = authz::node_name(cx.identity) else { return Ok(()) };
    match (cx.kind.group, cx.kind.plural, cx.subresource) {
        ("", "pods", "") => pod(cx, node, object),
        ("", "pods", "status") => pod_status(cx, node, object),
        ("", "pods", "eviction") => pod_eviction(cx, node, object),
        ("", "pods", _) => {
            Err(cx.forbidden(object, format!("unexpected pod subresource {:?}", cx.subresource)))
        }
        ("", "nodes", _) => own_node(cx, node, object),
        ("", "persistentvolumeclaims", "status") => claim_status(cx, node, object),
        ("", "serviceaccounts", "token") => token(cx, node, object),
        ("coordination.k8s.io", "leases", _) => lease(cx, node, object),
        ("storage.k8s.io", "csinodes", _) => own_name(cx, node, object, "CSINode"),
        ("resource.k8s.io", "resourceslices", _) => slice(cx, node, object),
        _ => Ok(()),
    }
}

fn pod(cx: &Cx<'_>, node: &str, pod: &Object) -> Result<(), Status> {
    let refuse = |why: String| Err(cx.forbidden(pod, why));
    match cx.operation {
        Operation::Create => new_pod(cx, node, pod),
        Operation::Delete if pod.str_at("/spec/nodeName") != node => {
            refuse(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        Operation::Delete => Ok(()),
        operation => refuse(format!(
            "unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"
        )),
    }
}

/// Only one that shows what runs there already, and has nothing of the API's.
fn new_pod(cx: &Cx<'_>, node: &str, pod: &Object) -> Result<(), Status> {
    let refuse = |why: String| Err(cx.forbidden(pod, why));
    if pod.annotation(MIRROR).is_none() {
        let why = format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        );
        return refuse(why);
    }
    if pod.str_at("/spec/nodeName") != node {
        return refuse(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    let owners = pod.owner_references();
    if owners.len() > 1 {
        return refuse(format!(
            "node {node:?} can only create pods with a single owner reference set to itself"
        ));
    }
    if let Some(owner) = owners.first() {
        let own = (&*owner.api_version, &*owner.kind, &*owner.name) == ("v1", "Node", node);
        if !own {
            return refuse(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        let uid = cx.view.object("nodes", node).map(|node| node.uid().to_string());
        if uid.as_deref() != Some(&*owner.uid) {
            return refuse(format!(
                "node {node:?} UID mismatch: expected {:?} got {:?}",
                uid.unwrap_or_default(),
                owner.uid
            ));
        }
    }
    let may_not =
        |what: &str| refuse(format!("node {node:?} can not create pods that reference {what}"));
    if !pod.str_at("/spec/serviceAccountName").is_empty() {
        return may_not("a service account");
    }
    let volumes = pod.at("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    for volume in volumes {
        let found = ["secret", "configMap", "persistentVolumeClaim", "ephemeral"]
            .into_iter()
            .find(|field| volume.get(field).is_some());
        match found {
            Some("secret") => return may_not("secrets"),
            Some("configMap") => return may_not("configmaps"),
            Some(_) => return may_not("persistentvolumeclaims"),
            None => {}
        }
    }
    Ok(())
}

fn pod_status(cx: &Cx<'_>, node: &str, pod: &Object) -> Result<(), Status> {
    let refuse = |why: String| Err(cx.forbidden(pod, why));
    let old = cx.old.unwrap_or(pod);
    if old.str_at("/spec/nodeName") != node {
        return refuse(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let labels = |object: &Object| object.at("/metadata/labels").cloned();
    if labels(old) != labels(pod) {
        return refuse(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |object: &Object| object.at("/status/resourceClaimStatuses").cloned();
    if claims(old) != claims(pod) {
        return refuse(format!("node {node:?} cannot update resource claim statuses"));
    }
    Ok(())
}

fn pod_eviction(cx: &Cx<'_>, node: &str, eviction: &Object) -> Result<(), Status> {
    if cx.operation != Operation::Create {
        return Err(cx.forbidden(eviction, format!("unexpected operation {:?}", cx.operation)));
    }
    let Some(pod) = cx.view.object("pods", &format!("{}/{}", cx.namespace, cx.name)) else {
        return Err(Status::not_found(&Resource::new("", "v1", "pods"), cx.name));
    };
    if pod.str_at("/spec/nodeName") == node {
        return Ok(());
    }
    let why = format!("node {node:?} can only evict pods with spec.nodeName set to itself");
    Err(cx.forbidden(eviction, why))
}

fn own_node(cx: &Cx<'_>, node: &str, new: &Object) -> Result<(), Status> {
    let refuse = |why: String| Err(cx.forbidden(new, why));
    let name = if cx.name.is_empty() { new.name() } else { cx.name };
    if name != node {
        return refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let none = Object::default();
    let old = cx.old.unwrap_or(&none);
    let at = |object: &Object, pointer: &str| object.at(pointer).cloned();
    match cx.operation {
        Operation::Create => {
            let wrong = forbidden_labels(new, &none);
            if !wrong.is_empty() {
                return refuse(format!(
                    "node {node:?} is not allowed to set the following labels: {wrong}"
                ));
            }
        }
        Operation::Update => {
            if at(new, "/spec/taints") != at(old, "/spec/taints") {
                return refuse(format!("node {node:?} is not allowed to modify taints"));
            }
            let wrong = forbidden_labels(new, old);
            if !wrong.is_empty() {
                return refuse(format!("is not allowed to modify labels: {wrong}"));
            }
            if at(new, "/metadata/ownerReferences") != at(old, "/metadata/ownerReferences") {
                return refuse(format!("node {node:?} is not allowed to modify owner references"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Labels that differ and that no node may set, in order.
fn forbidden_labels(new: &Object, old: &Object) -> String {
    let keys: BTreeSet<&str> = new.labels().chain(old.labels()).map(|(key, _)| key).collect();
    let changed = keys.into_iter().filter(|key| new.label(key) != old.label(key));
    let forbidden = changed.filter(|key| {
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        let within = |domain: &str| {
            namespace == domain
                || namespace.strip_suffix(domain).is_some_and(|it| it.ends_with('.'))
        };
        let kubernetes = within("kubernetes.io") || within("k8s.io");
        let kubelet =
            KUBELET_LABELS.contains(key) || KUBELET_NAMESPACES.iter().any(|it| within(it));
        within(RESTRICTED) || (kubernetes && !kubelet)
    });
    forbidden.collect::<Vec<_>>().join(", ")
}

/// Only `status.capacity`, conditions and what goes with a resize.
fn claim_status(cx: &Cx<'_>, node: &str, new: &Object) -> Result<(), Status> {
    const FREE: &[&str] =
        &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"];
    let Some(old) = cx.old else { return Ok(()) };
    let rest = |object: &Object| {
        let mut rest = object.clone();
        for field in ["apiVersion", "kind"] {
            rest.0.remove(field);
        }
        for field in ["managedFields", "resourceVersion"] {
            rest.metadata_mut().remove(field);
        }
        let status = rest.map_mut("status");
        FREE.iter().for_each(|field| {
            status.remove(*field);
        });
        rest
    };
    if rest(old) == rest(new) {
        return Ok(());
    }
    let why = format!(
        "node {node:?} is not allowed to update fields other than status.capacity and \
         status.conditions"
    );
    Err(cx.forbidden(new, why))
}

/// Tokens for the accounts of its own pods, bound to them.
fn token(cx: &Cx<'_>, node: &str, request: &Object) -> Result<(), Status> {
    let refuse = |why: String| Err(cx.forbidden(request, why));
    if cx.operation != Operation::Create {
        return Ok(());
    }
    let text = |field: &str| request.str_at(&format!("/spec/boundObjectRef/{field}"));
    if (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
        return refuse("node requested token not bound to a pod".to_string());
    }
    if text("uid").is_empty() {
        let why = "node requested token with a pod binding without a uid";
        return refuse(why.to_string());
    }
    let name = text("name");
    let Some(pod) = cx.view.object("pods", &format!("{}/{name}", cx.namespace)) else {
        return Err(Status::not_found(&Resource::new("", "v1", "pods"), name));
    };
    if pod.uid() != text("uid") {
        return refuse(format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The \
             object might have been deleted and then recreated",
            text("uid")
        ));
    }
    if pod.str_at("/spec/nodeName") != node {
        let why = "node requested token bound to a pod scheduled on a different node";
        return refuse(why.to_string());
    }
    Ok(())
}

fn lease(cx: &Cx<'_>, node: &str, lease: &Object) -> Result<(), Status> {
    if cx.namespace != LEASE_NAMESPACE {
        let why = format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace");
        return Err(cx.forbidden(lease, why));
    }
    own_name(cx, node, lease, "node lease")
}

fn own_name(cx: &Cx<'_>, node: &str, object: &Object, what: &str) -> Result<(), Status> {
    let name = if cx.operation == Operation::Create { object.name() } else { cx.name };
    if name == node {
        return Ok(());
    }
    let why = format!("can only access {what} with the same name as the requesting node");
    Err(cx.forbidden(object, why))
}

fn slice(cx: &Cx<'_>, node: &str, slice: &Object) -> Result<(), Status> {
    if cx.operation != Operation::Create || slice.str_at("/spec/nodeName") == node {
        return Ok(());
    }
    let why = "can only create ResourceSlice with the same NodeName as the requesting node";
    Err(cx.forbidden(slice, why))
}

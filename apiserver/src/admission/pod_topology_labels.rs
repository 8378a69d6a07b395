//! PodTopologyLabels: a pod carries the zone and region of its node (KEP-4742). Runs on the binding,
//! and on a pod that is made on a node.

use super::{Cx, Operation};
use crate::kinds::common::made;
use k8s::{Object, Status};

const KEYS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub(super) fn admit(cx: &Cx<'_>, object: &mut Object) -> Result<(), Status> {
    let binding = (cx.operation, cx.kind.group, cx.kind.plural, cx.subresource)
        == (Operation::Create, "", "pods", "binding");
    let node = if binding || cx.creates("", "bindings") {
        object.str_at("/target/name")
    } else if cx.creates("", "pods") {
        object.str_at("/spec/nodeName")
    } else {
        return Ok(());
    };
    let Some(node) = Some(node).filter(|name| !name.is_empty()) else { return Ok(()) };
    let Some(node) = cx.view.object("nodes", node) else { return Ok(()) };
    for key in KEYS {
        if let Some(value) = node.label(key)
            && let Some(labels) = made(object.metadata_mut(), "labels")
        {
            labels.insert(key.into(), value.into());
        }
    }
    Ok(())
}

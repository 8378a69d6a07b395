//! PVC protection: a claim that is deleted stays until no pod uses it.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use reconcile::{Change, Context, Controller, Key, Plan, Pod, Root, Wake, World, Write, kinds};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "pvc_protection",
    component: "pvc-protection-controller",
    root: Root::Each(kinds::PERSISTENT_VOLUME_CLAIMS),
    wakes: &[
        (kinds::PERSISTENT_VOLUME_CLAIMS, Wake::Itself),
        (kinds::PODS, Wake::Map(claims_of_pod)),
    ],
    plan,
    ..Controller::BASE
};

const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// Claims that a pod may have let go.
fn claims_of_pod(_: &World, change: &Change) -> Vec<Key> {
    let Some(pod) = change.old_as::<Pod>() else { return Vec::new() };
    let namespace = &change.key().namespace;
    claims(pod).map(|name| Key::new(namespace.clone(), name)).collect()
}

/// The claims a pod mounts, its own ephemeral ones included.
fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    volumes.into_iter().flatten().filter_map(move |volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(claim.claim_name.clone());
        }
        volume.ephemeral.as_ref().map(|_| format!("{pod_name}-{}", volume.name))
    })
}

fn plan(world: &World, key: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(claim) = world.get::<PersistentVolumeClaim>(key) else { return plan };
    let held = claim.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    if !held || claim.metadata.deletion_timestamp.is_none() {
        return plan;
    }
    // A pod that is on no node yet will not be started with a claim that is being deleted.
    let placed = |pod: &&Pod| crate::pods::node_name(pod).is_some();
    let mut users = world.in_namespace::<Pod>(&key.namespace).filter(placed);
    if users.any(|pod| claims(pod).any(|name| name == *key.name)) {
        return plan;
    }
    let mut released = claim.clone();
    released.metadata.finalizers.iter_mut().for_each(|all| all.retain(|name| name != FINALIZER));
    plan.write(Write::patch(claim, &released));
    plan
}

#[cfg(test)]
mod tests {
    use super::CONTROLLER;
    use crate::testing::plan;

    const CLAIM: &str = "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: dev, deletionTimestamp: 2026-01-01T00:00:00Z, finalizers: [kubernetes.io/pvc-protection, x/y]}
";

    fn pod(node: &str) -> String {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: dev}}
spec:
  nodeName: '{node}'
  containers: []
  volumes: [{{name: v, persistentVolumeClaim: {{claimName: data}}}}]
"
        )
    }

    #[test]
    fn a_deleted_claim_stays_while_a_pod_on_a_node_uses_it() {
        let of = |yaml: String| plan(CONTROLLER, &yaml, "dev", "data");
        assert_eq!(of(CLAIM.to_string() + &pod("n1")), "nothing\n");
        insta::assert_snapshot!(of(CLAIM.to_string()));
        let unplaced = pod("").replace("  nodeName: ''\n", "");
        assert_eq!(of(CLAIM.to_string() + &unplaced), of(CLAIM.to_string()));
        let alive = CLAIM.replace(", deletionTimestamp: 2026-01-01T00:00:00Z", "");
        assert_eq!(of(alive), "nothing\n");
    }
}

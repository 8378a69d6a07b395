//! PV protection: a volume that is deleted stays while a claim is bound to it.

use k8s_openapi::api::core::v1::PersistentVolume;
use reconcile::{Context, Controller, Key, Plan, Root, Wake, World, Write, kinds};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "pv_protection",
    component: "pv-protection-controller",
    root: Root::Each(kinds::PERSISTENT_VOLUMES),
    wakes: &[(kinds::PERSISTENT_VOLUMES, Wake::Itself)],
    plan,
    ..Controller::BASE
};

const FINALIZER: &str = "kubernetes.io/pv-protection";

fn plan(world: &World, key: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(volume) = world.get::<PersistentVolume>(key) else { return plan };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    if volume.metadata.deletion_timestamp.is_none() || phase == Some("Bound") {
        return plan;
    }
    let mut released = volume.clone();
    released.metadata.finalizers.iter_mut().for_each(|all| all.retain(|name| name != FINALIZER));
    plan.write(Write::patch(volume, &released));
    plan
}

#[cfg(test)]
mod tests {
    use super::CONTROLLER;
    use crate::testing::plan;

    fn of(phase: &str) -> String {
        let yaml = format!(
            "apiVersion: v1
kind: PersistentVolume
metadata: {{name: disk, deletionTimestamp: 2026-01-01T00:00:00Z, finalizers: [kubernetes.io/pv-protection]}}
status: {{phase: {phase}}}
"
        );
        plan(CONTROLLER, &yaml, "", "disk")
    }

    #[test]
    fn a_deleted_volume_stays_while_it_is_bound() {
        assert_eq!(of("Bound"), "nothing\n");
        insta::assert_snapshot!(of("Released"));
    }
}

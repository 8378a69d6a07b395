//! StorageObjectInUseProtection and PersistentVolumeClaimResize: storage in use stays, and grows
//! only where its class lets it.

use super::{Cx, resources::list};
use k8s::{Object, Status};
use serde_json::{Value, json};

pub(super) fn protect(cx: &Cx<'_>, object: &mut Object) -> Result<(), Status> {
    let finalizer = if cx.creates("", "persistentvolumeclaims") {
        "kubernetes.io/pvc-protection"
    } else if cx.creates("", "persistentvolumes") {
        "kubernetes.io/pv-protection"
    } else {
        return Ok(());
    };
    if object.finalizers().any(|name| name == finalizer) {
        return Ok(());
    }
    let metadata = object.metadata_mut();
    crate::kinds::common::set_default(metadata, "finalizers", json!([]));
    if let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        list.push(finalizer.into());
    }
    Ok(())
}

pub(super) fn resize(cx: &Cx<'_>, claim: &Object) -> Result<(), Status> {
    let (true, Some(old)) = (cx.updates("", "persistentvolumeclaims"), cx.old) else {
        return Ok(());
    };
    let size = |claim: &Object| {
        list(claim.at("/spec/resources/requests")).get("storage").copied().unwrap_or_default()
    };
    if size(claim) <= size(old) {
        return Ok(());
    }
    if old.str_at("/status/phase") != "Bound" {
        return Err(cx.forbidden(claim, "Only bound persistent volume claims can be expanded"));
    }
    let class = |claim: &Object| match claim.annotation("volume.beta.kubernetes.io/storage-class") {
        Some(name) => name.to_string(),
        None => claim.str_at("/spec/storageClassName").to_string(),
    };
    let named = class(claim);
    let grows = !named.is_empty() && named == class(old) && {
        let class = cx.view.object("storage.k8s.io/storageclasses", &named);
        class.is_some_and(|class| class.0.get("allowVolumeExpansion") == Some(&Value::Bool(true)))
    };
    if grows {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that \
               provisions the pvc must support resize";
    Err(cx.forbidden(claim, why))
}

#[cfg(test)]
mod tests {
    use super::super::{
        Operation,
        tests::{Asked, active_namespace},
    };
    use serde_json::{Value, json};

    fn claim(size: &str, class: &str, phase: &str) -> Value {
        json!({
            "metadata": { "name": "data", "namespace": "default" },
            "spec": {
                "storageClassName": class, "resources": { "requests": { "storage": size } },
            },
            "status": { "phase": phase },
        })
    }

    #[test]
    fn a_claim_grows_only_where_its_class_lets_it() {
        let mut world = active_namespace("default");
        let class = |name: &str, grows: bool| json!({ "metadata": { "name": name }, "allowVolumeExpansion": grows });
        world.put("storage.k8s.io/storageclasses", class("elastic", true));
        world.put("storage.k8s.io/storageclasses", class("rigid", false));
        let update = |old: Value, new: Value| {
            let mut asked = Asked::new(&world, Operation::Update, ("", "persistentvolumeclaims"));
            asked.old = Some(old);
            asked.decide(new).0.map(|_| ()).map_err(|status| status.message)
        };
        let bound = |size: &str, class: &str| claim(size, class, "Bound");
        assert_eq!(update(bound("1Gi", "elastic"), bound("2Gi", "elastic")), Ok(()));
        assert_eq!(update(bound("1Gi", "rigid"), bound("1Gi", "rigid")), Ok(()));
        let refused = [
            update(bound("1Gi", "rigid"), bound("2Gi", "rigid")),
            update(claim("1Gi", "elastic", "Pending"), claim("2Gi", "elastic", "Pending")),
        ];
        insta::assert_debug_snapshot!(refused);
    }

    #[test]
    fn new_claims_and_volumes_are_protected_once() {
        let world = active_namespace("default");
        let create = |plural: &str, metadata: Value| {
            let asked = Asked::new(&world, Operation::Create, ("", plural));
            let object = asked.decide(json!({ "metadata": metadata })).0.expect("admitted");
            object.finalizers().map(str::to_string).collect::<Vec<_>>()
        };
        let claim = json!({ "name": "a", "namespace": "default", "finalizers": ["x/y"] });
        let made = create("persistentvolumeclaims", claim);
        assert_eq!(made, ["x/y", "kubernetes.io/pvc-protection"]);
        let volume = json!({ "name": "a", "finalizers": ["kubernetes.io/pv-protection"] });
        assert_eq!(create("persistentvolumes", volume), ["kubernetes.io/pv-protection"]);
    }
}

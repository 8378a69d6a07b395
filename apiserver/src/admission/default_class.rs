//! DefaultStorageClass and DefaultIngressClass: the class of a claim or an ingress that names none.

use super::Cx;
use k8s::{Object, Status};
use std::sync::Arc;

pub(super) fn storage(cx: &Cx<'_>, claim: &mut Object) -> Result<(), Status> {
    let named = claim.at("/spec/storageClassName").is_some_and(|name| !name.is_null())
        || claim.annotation("volume.beta.kubernetes.io/storage-class").is_some();
    if !cx.creates("", "persistentvolumeclaims") || named {
        return Ok(());
    }
    const MARKS: &[&str] = &[
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ];
    if let Some(class) = newest(cx, "storage.k8s.io/storageclasses", MARKS) {
        claim.map_mut("spec").insert("storageClassName".into(), class.name().into());
    }
    Ok(())
}

pub(super) fn ingress(cx: &Cx<'_>, ingress: &mut Object) -> Result<(), Status> {
    let named = ingress.at("/spec/ingressClassName").is_some_and(|name| !name.is_null())
        || ingress.annotation("kubernetes.io/ingress.class").is_some();
    if !cx.creates("networking.k8s.io", "ingresses") || named {
        return Ok(());
    }
    const MARKS: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];
    if let Some(class) = newest(cx, "networking.k8s.io/ingressclasses", MARKS) {
        ingress.map_mut("spec").insert("ingressClassName".into(), class.name().into());
    }
    Ok(())
}

/// Of several classes marked as default the newest, of several as new the first by name.
fn newest(cx: &Cx<'_>, space: &str, marks: &[&str]) -> Option<Arc<Object>> {
    let stored = cx.view.range(space, "");
    let classes = stored.iter().map(|stored| crate::memo::object(stored));
    let marked =
        classes.filter(|class| marks.iter().any(|mark| class.annotation(mark) == Some("true")));
    let made = |class: &Object| class.str_at("/metadata/creationTimestamp").to_string();
    // In path order, so that of equals the first by name wins.
    marked.reduce(|best, class| if made(&class) > made(&best) { class } else { best })
}

#[cfg(test)]
mod tests {
    use super::super::{
        Operation,
        tests::{Asked, active_namespace},
    };
    use serde_json::{Value, json};

    #[test]
    fn the_newest_default_class_is_taken_where_none_is_named() {
        let mut world = active_namespace("default");
        for (name, made, default) in [
            ("a", "2026-01-01T00:00:00Z", "true"),
            ("b", "2026-01-02T00:00:00Z", "true"),
            ("c", "2026-01-02T00:00:00Z", "true"),
            ("d", "2026-01-03T00:00:00Z", "false"),
        ] {
            let class = |mark: &str| {
                json!({ "metadata": {
                    "name": name, "creationTimestamp": made, "annotations": { mark: default },
                } })
            };
            let mark = "storageclass.kubernetes.io/is-default-class";
            world.put("storage.k8s.io/storageclasses", class(mark));
            let mark = "ingressclass.kubernetes.io/is-default-class";
            world.put("networking.k8s.io/ingressclasses", class(mark));
        }
        let class = |group: &str, plural: &str, field: &str, spec: Value| {
            let object =
                json!({ "metadata": { "name": "x", "namespace": "default" }, "spec": spec });
            let asked = Asked::new(&world, Operation::Create, (group, plural));
            let object = asked.decide(object).0.expect("admitted");
            object.str_at(&format!("/spec/{field}")).to_string()
        };
        let storage = |spec: Value| class("", "persistentvolumeclaims", "storageClassName", spec);
        assert_eq!(storage(json!({})), "b");
        assert_eq!(storage(json!({ "storageClassName": "" })), "");
        let ingress =
            |spec: Value| class("networking.k8s.io", "ingresses", "ingressClassName", spec);
        assert_eq!(ingress(json!({})), "b");
        assert_eq!(ingress(json!({ "ingressClassName": "mine" })), "mine");
    }
}

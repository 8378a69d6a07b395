//! What one endpoint resets it does not own: an object is applied to with spec and status, its status
//! with another spec and status, and nobody is in anybody's way (upstream's `TestApplyResetFields`).

use crate::{apply::apply, harness::Cluster};
use serde_json::{Value, json};

/// Where, an object, and the part of it (labels, spec) that the second writer has otherwise.
struct Case {
    path: &'static str,
    object: Value,
    other: Value,
    status: [Value; 2],
}

fn conditions() -> [Value; 2] {
    ["True", "False"].map(|status| json!({ "conditions": [{ "type": "Mine", "status": status }] }))
}

fn object(api_version: &str, kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": { "name": "one", "labels": { "a": "b" } }, "spec": spec,
    })
}

fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "a": "b" } },
        "spec": { "containers": [{ "name": "c", "image": image }] },
    })
}

fn workloads() -> Vec<Case> {
    let selector = json!({ "matchLabels": { "a": "b" } });
    let spec = |image: &str| json!({ "selector": selector, "template": template(image) });
    let set = |path: &'static str, kind: &str| Case {
        path,
        object: object("apps/v1", kind, spec("i:1")),
        other: json!({ "spec": spec("i:2") }),
        status: conditions(),
    };
    let mut deployment = set("/apis/apps/v1/namespaces/default/deployments", "Deployment");
    deployment.other["metadata"] = json!({ "labels": { "a": "c" } });
    vec![
        deployment,
        set("/apis/apps/v1/namespaces/default/daemonsets", "DaemonSet"),
        set("/apis/apps/v1/namespaces/default/replicasets", "ReplicaSet"),
        Case {
            path: "/api/v1/namespaces/default/pods",
            object: object("v1", "Pod", template("i:1")["spec"].clone()),
            other: json!({ "spec": template("i:2")["spec"] }),
            status: conditions(),
        },
        Case {
            path: "/apis/batch/v1/namespaces/default/cronjobs",
            object: object(
                "batch/v1",
                "CronJob",
                json!({ "schedule": "* * * * *", "jobTemplate": { "spec": { "template": {
                    "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] },
                } } } }),
            ),
            other: json!({ "spec": { "schedule": "1 * * * *" } }),
            status: ["2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"]
                .map(|time| json!({ "lastScheduleTime": time })),
        },
    ]
}

fn others() -> Vec<Case> {
    let scaler = |version: &str| {
        let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "one" });
        let spec = json!({ "scaleTargetRef": target, "maxReplicas": 3 });
        object(&format!("autoscaling/{version}"), "HorizontalPodAutoscaler", spec)
    };
    let replicas =
        || [5, 25].map(|current| json!({ "currentReplicas": current, "desiredReplicas": 1 }));
    let address = || {
        ["127.0.0.1", "127.0.0.2"]
            .map(|ip| json!({ "loadBalancer": { "ingress": [{ "ip": ip }] } }))
    };
    let backend = |name: &str| json!({ "defaultBackend": { "service": { "name": name, "port": { "number": 80 } } } });
    vec![
        Case {
            path: "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers",
            object: scaler("v1"),
            other: json!({ "spec": { "maxReplicas": 23 } }),
            status: replicas(),
        },
        Case {
            path: "/apis/autoscaling/v2/namespaces/other/horizontalpodautoscalers",
            object: scaler("v2"),
            other: json!({ "spec": { "maxReplicas": 23 } }),
            status: replicas(),
        },
        Case {
            path: "/api/v1/namespaces/default/resourcequotas",
            object: object("v1", "ResourceQuota", json!({ "hard": { "cpu": "1M" } })),
            other: json!({ "spec": { "hard": { "cpu": "25M" } } }),
            status: ["5M", "25M"].map(|cpu| json!({ "used": { "cpu": cpu } })),
        },
        Case {
            path: "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            object: object("networking.k8s.io/v1", "Ingress", backend("one")),
            other: json!({ "spec": backend("two") }),
            status: address(),
        },
        Case {
            path: "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            object: object(
                "policy/v1",
                "PodDisruptionBudget",
                json!({ "selector": { "matchLabels": { "a": "b" } } }),
            ),
            other: json!({ "spec": { "selector": { "matchLabels": { "a": "c" } } } }),
            status: [5, 25].map(|healthy| json!({ "currentHealthy": healthy })),
        },
    ]
}

fn cluster_wide() -> Vec<Case> {
    vec![
        Case {
            path: "/api/v1/nodes",
            object: object("v1", "Node", json!({ "unschedulable": true })),
            other: json!({ "spec": { "unschedulable": false } }),
            status: conditions(),
        },
        Case {
            path: "/apis/storage.k8s.io/v1/volumeattachments",
            object: object(
                "storage.k8s.io/v1",
                "VolumeAttachment",
                json!({ "attacher": "a", "nodeName": "n", "source": { "persistentVolumeName": "p" } }),
            ),
            other: json!({ "metadata": { "labels": { "a": "c" } }, "spec": { "nodeName": "m" } }),
            status: [true, false].map(|attached| json!({ "attached": attached })),
        },
        Case {
            path: "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            object: object(
                "flowcontrol.apiserver.k8s.io/v1",
                "FlowSchema",
                json!({ "priorityLevelConfiguration": { "name": "one" } }),
            ),
            other: json!({
                "metadata": { "labels": { "a": "c" } },
                "spec": { "priorityLevelConfiguration": { "name": "two" } },
            }),
            status: conditions(),
        },
    ]
}

#[tokio::test]
async fn what_an_endpoint_resets_it_does_not_own() {
    let mut cluster = Cluster::start().await;
    let mut namespace = object("v1", "Namespace", json!({}));
    namespace["metadata"]["name"] = json!("other");
    assert_eq!(cluster.post("/api/v1/namespaces", namespace).await.code, 201);
    let cases = workloads().into_iter().chain(others()).chain(cluster_wide());
    for Case { path, mut object, other, status } in cases {
        let path = format!("{path}/one");
        let [first, second] = status;
        object["status"] = first;
        let made = apply(&mut cluster, &path, "one", &object).await;
        assert_eq!(made.code, 201, "{path}: {}", made.body);
        let mut other = k8s::patch::merge(object, &other).expect("a merge");
        other["status"] = second;
        let shown = apply(&mut cluster, &format!("{path}/status"), "two", &other).await;
        assert_eq!(shown.code, 200, "{path}: {}", shown.body);
        let own = shown.body["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        for entry in own {
            let (wanted, never) = match entry["manager"].as_str() {
                Some("one") => ("f:spec", "f:status"),
                _ => ("f:status", "f:spec"),
            };
            let fields = &entry["fieldsV1"];
            assert!(fields.get(wanted).is_some(), "{path}: {entry}");
            assert!(fields.get(never).is_none(), "{path}: {entry}");
        }
        let refused = apply(&mut cluster, &path, "two", &other).await;
        assert_eq!(refused.code, 409, "{path}: {}", refused.body);
    }
    cluster.stop().await;
}

/// Upstream's status strategies keep what owners there were of pods, and of no other kind that
/// takes metadata with its status.
#[tokio::test]
async fn owners_come_along_with_a_status_but_not_with_a_pods() {
    let mut cluster = Cluster::start().await;
    let owner = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u" }]);
    let pod = object("v1", "Pod", template("i")["spec"].clone());
    let namespaced = "/api/v1/namespaces/default";
    let quota = object("v1", "ResourceQuota", json!({ "hard": { "cpu": "1" } }));
    for (path, object, owned) in [
        (format!("{namespaced}/pods"), pod, false),
        (format!("{namespaced}/resourcequotas"), quota, true),
    ] {
        let mut made = cluster.post(&path, object).await;
        assert_eq!(made.code, 201, "{path}: {}", made.body);
        made.body["metadata"]["ownerReferences"] = owner.clone();
        let path = format!("{path}/one/status");
        let put = cluster.put(&path, made.body).await;
        assert_eq!(put.code, 200, "{path}: {}", put.body);
        let owners = &put.body["metadata"]["ownerReferences"];
        assert_eq!(owners == &owner, owned, "{path}: {owners}");
    }
    cluster.stop().await;
}

//! What keeping track of managed fields costs a write: one JSON line per figure, the least of many
//! runs. `cargo run --release -p k8s --example apply-cost`.

use k8s::{
    Object,
    apply::{BuiltIn, Managers, Scope, Write},
    schema::Schema,
};
use serde_json::json;
use std::{hint::black_box, time::Instant};

fn pod() -> Object {
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example.com/{name}:1.2.3"),
            "imagePullPolicy": "IfNotPresent", "args": ["--verbose", "--port=8080"],
            "ports": [{"containerPort": 8080, "protocol": "TCP", "name": "http"}],
            "env": (0..6).map(|n| json!({"name": format!("KEY_{n}"), "value": "value"})).collect::<Vec<_>>(),
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        })
    };
    let condition = |ty: &str| {
        json!({
            "type": ty, "status": "True", "lastProbeTime": null,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let status = |name: &str| {
        json!({
            "name": name, "ready": true, "started": true, "restartCount": 0, "image": name,
            "imageID": "sha256:0123456789", "containerID": "containerd://0123456789",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "lastState": {},
        })
    };
    let pod = json!({
        "metadata": {"name": "web-0", "namespace": "default", "uid": "u",
            "labels": {"app": "web", "pod-template-hash": "0123456789"}},
        "spec": {
            "containers": [container("main"), container("proxy")],
            "volumes": [{"name": "data", "emptyDir": {}}], "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst", "nodeName": "n1", "serviceAccountName": "default",
            "securityContext": {}, "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": ["Ready", "Initialized", "ContainersReady", "PodScheduled"].map(condition),
            "containerStatuses": ["main", "proxy"].map(status), "qosClass": "Burstable",
        },
    });
    Object::from_value(pod).expect("an object literal")
}

fn figure(name: &str, mut work: impl FnMut()) {
    let mut least = f64::MAX;
    for _ in 0..400 {
        let began = Instant::now();
        for _ in 0..50 {
            work();
        }
        least = least.min(began.elapsed().as_secs_f64() / 50.0);
    }
    let line = json!({ "figure": name, "microseconds": (least * 1e8).round() / 100.0 });
    println!("{line}");
}

fn main() {
    let schema = Schema::built_in();
    let ty = schema.get("core.v1.Pod").expect("a built-in type");
    let writer = |manager, subresource, scope| Write {
        place: BuiltIn::new(schema, ty),
        api_version: "v1",
        kind: "Pod",
        subresource,
        manager,
        scope,
        now: "2026-01-01T00:00:00Z",
        known: &|version| version == "v1",
    };
    let maker = writer("kube-controller-manager", "", Scope::MAIN);
    let kubelet = writer("kubelet", "status", Scope::STATUS);
    let (nothing, running) = (Object::default(), pod());
    let mut starting = running.clone();
    starting.0.remove("status");
    let managers = maker.update(Managers::default(), None, &nothing, &starting);
    let managers = kubelet.update(managers, None, &starting, &running);
    let stored = managers.clone().into_value();
    let mut restarted = running.clone();
    if let Some(status) = restarted.0.get_mut("status") {
        status["conditions"][0]["status"] = "False".into();
        status["containerStatuses"][0]["restartCount"] = 1.into();
        status["containerStatuses"][0]["ready"] = false.into();
    }
    let bytes = serde_json::to_vec(&stored).map_or(0, |bytes| bytes.len());
    let body = serde_json::to_vec(&running).map_or(0, |bytes| bytes.len());
    println!("{}", json!({ "figure": "pod", "bytes": body, "managed_fields_bytes": bytes }));
    figure("clone of the managers", || drop(black_box(stored.clone())));
    figure("status update", || {
        let live = Managers::trusted(stored.clone());
        black_box(kubelet.update(live, None, &running, &restarted).into_value());
    });
    figure("update without a change", || {
        let live = Managers::trusted(stored.clone());
        black_box(kubelet.update(live, None, &running, &running).into_value());
    });
    figure("create", || {
        black_box(maker.update(Managers::default(), None, &nothing, &starting).into_value());
    });
    let config = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "labels": {"tier": "a"}},
        "spec": {"containers": [{"name": "main", "env": [{"name": "NEW", "value": "1"}]}]},
    });
    let config = Object::from_value(config).expect("an object literal");
    let applier = writer("applier", "", Scope::MAIN);
    figure("apply", || {
        let live = Managers::trusted(stored.clone());
        let applied = applier.apply(live, &running, &config, false);
        black_box(applied.map(|applied| applied.managers.into_value())).expect("no conflict");
    });
}

//! Server-side apply to kinds that users define and to kinds with several versions: whose fields are
//! whose, in which version.

use crate::{
    apply::{APPLY, apply, owners},
    custom::define,
    harness::Cluster,
};
use http::Method;
use serde_json::{Value, json};

const GADGETS: &str = "/apis/example.com/v1/gadgets";
const SCALERS: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const SCALERS_V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

fn version(name: &str, storage: bool, more: Value) -> Value {
    let mut spec = json!({
        "cronSpec": { "type": "string" },
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": {
                "type": "object",
                "required": ["port", "protocol"],
                "properties": {
                    "port": { "type": "integer" },
                    "protocol": { "type": "string" },
                    "name": { "type": "string" },
                },
            },
        },
    });
    let more = more.as_object().expect("properties").clone();
    spec.as_object_mut().expect("properties").extend(more);
    json!({
        "name": name, "served": true, "storage": storage,
        "schema": { "openAPIV3Schema": { "type": "object", "properties": {
            "spec": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": spec,
            },
            "status": { "type": "object", "properties": { "replicas": { "type": "integer" } } },
        } } },
        "subresources": { "status": {}, "scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
        } },
    })
}

fn gadgets(versions: Vec<Value>) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "gadgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": { "plural": "gadgets", "kind": "Gadget" },
            "versions": versions,
        },
    })
}

fn gadget(spec: Value) -> Value {
    json!({
        "apiVersion": "example.com/v1", "kind": "Gadget",
        "metadata": { "name": "mytest" }, "spec": spec,
    })
}

#[tokio::test]
async fn a_custom_object_is_applied_to_by_its_schema() {
    let mut cluster = Cluster::start().await;
    define(&mut cluster, gadgets(vec![version("v1", true, json!({}))])).await;
    let path = format!("{GADGETS}/mytest");
    let ports = json!([{ "name": "x", "port": 80, "protocol": "TCP" }]);
    let mut config = gadget(json!({ "cronSpec": "* * * * */5", "replicas": 1, "ports": ports }));
    config["metadata"]["finalizers"] = json!(["example.com/test"]);
    let made = apply(&mut cluster, &path, "one", &config).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let finalizers = json!({ "metadata": { "finalizers": ["example.com/test", "example.com/2"] } });
    let patched = cluster.merge(&format!("{path}?fieldManager=merger"), finalizers).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    let again = apply(&mut cluster, &path, "one", &config).await;
    assert_eq!(again.body["metadata"]["finalizers"].as_array().unwrap().len(), 2);
    let five = json!({ "spec": { "replicas": 5 } });
    cluster.merge(&format!("{path}?fieldManager=merger"), five).await;
    let conflict = apply(&mut cluster, &path, "one", &config).await;
    assert_eq!(
        conflict.body["message"],
        "Apply failed with 1 conflict: conflict with \"merger\" using example.com/v1: .spec.replicas"
    );
    let forced = format!("{path}?fieldManager=one&force=true");
    let forced = cluster.ask(Method::PATCH, &forced, APPLY, config.to_string()).await;
    assert_eq!(forced.body["spec"]["replicas"], 1, "{}", forced.body);

    let other =
        |port: u16| gadget(json!({ "ports": [{ "name": "y", "port": port, "protocol": "TCP" }] }));
    let conflict = apply(&mut cluster, &path, "two", &other(80)).await;
    assert_eq!(
        conflict.body["message"],
        "Apply failed with 1 conflict: conflict with \"one\": \
         .spec.ports[port=80,protocol=\"TCP\"].name"
    );
    let added = apply(&mut cluster, &path, "two", &other(8080)).await;
    assert_eq!(added.body["spec"]["ports"].as_array().unwrap().len(), 2, "{}", added.body);

    let mut status = gadget(json!({ "replicas": 9 }));
    status["metadata"]["labels"] = json!({ "a": "b" });
    status["status"] = json!({ "replicas": 3 });
    let status = apply(&mut cluster, &format!("{path}/status"), "controller", &status).await;
    assert_eq!(status.body["status"]["replicas"], 3, "{}", status.body);
    assert_eq!(status.body["metadata"].get("labels"), None);
    let scaled = json!({ "spec": { "replicas": 7 } });
    let scaled = cluster.merge(&format!("{path}/scale?fieldManager=scaler"), scaled).await;
    assert_eq!(scaled.body["spec"]["replicas"], 7, "{}", scaled.body);
    insta::assert_snapshot!("custom", owners(&cluster.get(&path).await.body));
    cluster.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_a_custom_schema_is_refused() {
    let mut cluster = Cluster::start().await;
    define(&mut cluster, gadgets(vec![version("v1", true, json!({}))])).await;
    let path = format!("{GADGETS}/mytest");
    let mut out = Vec::new();
    let long = json!({
        "cronSpec": 5,
        "ports": [
            { "port": 80, "protocol": "TCP" }, { "port": 80, "protocol": "TCP" }, { "name": "x" },
        ],
    });
    let mut unknown = gadget(json!({ "any": "thing" }));
    unknown["unknown"] = json!(1);
    for config in [gadget(long), gadget(json!({ "ports": [7] })), unknown] {
        let answer = apply(&mut cluster, &path, "one", &config).await;
        out.push(format!("{} {}", answer.code, answer.body["message"].as_str().unwrap_or("-")));
    }
    insta::assert_snapshot!("custom_refused", out.join("\n"));
    cluster.stop().await;
}

#[tokio::test]
async fn versions_of_a_custom_kind_have_managers_of_their_own() {
    let mut cluster = Cluster::start().await;
    let more = json!({ "words": { "type": "array", "items": { "type": "string" } } });
    let versions = vec![version("v1", true, json!({})), version("v2", false, more)];
    define(&mut cluster, gadgets(versions)).await;
    let old = format!("{GADGETS}/mytest");
    let new = "/apis/example.com/v2/gadgets/mytest";
    let config = gadget(json!({ "cronSpec": "a", "replicas": 1 }));
    assert_eq!(apply(&mut cluster, &old, "one", &config).await.code, 201);
    let patch = json!({ "spec": { "words": ["x"], "cronSpec": "b" } });
    let patched = cluster.merge(&format!("{new}?fieldManager=merger"), patch).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    let mut next = gadget(json!({ "words": ["y"], "replicas": 1 }));
    next["apiVersion"] = json!("example.com/v2");
    let conflict = apply(&mut cluster, new, "one", &next).await;
    assert_eq!(
        conflict.body["message"],
        "Apply failed with 1 conflict: conflict with \"merger\" using example.com/v2: .spec.words"
    );
    next["spec"]["words"] = json!(["x"]);
    let moved = apply(&mut cluster, new, "one", &next).await;
    assert_eq!(moved.code, 200, "{}", moved.body);
    insta::assert_snapshot!("custom_versions", owners(&moved.body));
    cluster.stop().await;
}

#[tokio::test]
async fn versions_that_look_unlike_are_compared_each_in_its_form() {
    let mut cluster = Cluster::start().await;
    let path = format!("{SCALERS}/web");
    let mut config = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": "web" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
            "maxReplicas": 5, "targetCPUUtilizationPercentage": 50,
        },
    });
    let made = apply(&mut cluster, &path, "one", &config).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["spec"]["targetCPUUtilizationPercentage"], 50);
    let again = apply(&mut cluster, &path, "one", &config).await;
    assert_eq!(again.body, made.body, "the same again is no write");
    let metrics = json!({ "spec": { "maxReplicas": 6, "metrics": [{
        "type": "Resource",
        "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 60 } },
    }] } });
    let newer = format!("{SCALERS_V2}/web?fieldManager=two");
    let patched = cluster.merge(&newer, metrics).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    insta::assert_snapshot!("unlike", owners(&patched.body));
    config["spec"]["maxReplicas"] = json!(6);
    let conflict = apply(&mut cluster, &path, "one", &config).await;
    assert_eq!(
        conflict.body["message"],
        "Apply failed with 1 conflict: conflict with \"two\" using autoscaling/v2: .spec.metrics"
    );
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": { "name": "e", "namespace": "default" },
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c",
        "reportingInstance": "c-1", "action": "Test", "reason": "Tested", "type": "Normal",
        "note": "said", "regarding": { "kind": "Pod", "name": "p", "namespace": "default" },
    });
    let events = "/apis/events.k8s.io/v1/namespaces/default/events?fieldManager=events";
    let made = cluster.post(events, event).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let core = "/api/v1/namespaces/default/events/e?fieldManager=core";
    let patched = cluster.merge(core, json!({ "count": 2, "series": null })).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    insta::assert_snapshot!("events", owners(&patched.body));
    cluster.stop().await;
}

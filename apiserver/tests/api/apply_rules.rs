//! What upstream's own tests of apply ask, case by case: odd bodies, managers edited by hand, lists
//! with duplicates, fields that were owned otherwise in an older release.

use crate::{
    apply::{APPLY, apply, owners},
    custom::define,
    harness::{Answer, CONFIG_MAPS, Cluster, config_map, config_map_path},
};
use http::Method;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const VOLUMES: &str = "/api/v1/persistentvolumes";

async fn send(cluster: &mut Cluster, path: &str, manager: &str, config: &str) -> Answer {
    let path = format!("{path}?fieldManager={manager}");
    let answer = cluster.ask(Method::PATCH, &path, APPLY, config.to_string()).await;
    assert!(answer.code < 300, "{}", answer.body);
    answer
}

fn managed(object: &Value) -> Vec<Value> {
    object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default()
}

/// As client-go's tests write them: indented with tabs, a comma too many.
#[tokio::test]
async fn a_body_that_is_nearly_json_is_yaml() {
    let mut cluster = Cluster::start().await;
    let config = "{\n\t\t\"apiVersion\": \"v1\",\n\t\t\"kind\": \"ConfigMap\",\n\t\t\"metadata\": \
                  {\n\t\t\t\"name\": \"a\",\n\t\t\t\"labels\": {\"applier\":\"true\"},\n\t\t},\n\t}";
    let made = send(&mut cluster, &config_map_path("a"), "apply_test", config).await;
    assert_eq!(made.body["metadata"]["labels"], json!({ "applier": "true" }));
    let mut last = made.body;
    for number in 0..20 {
        let label = format!("updater{number}");
        let patch = json!({ "metadata": { "labels": { label.as_str(): "new" } } });
        let path = format!("{}?fieldManager={label}", config_map_path("a"));
        last = cluster.merge(&path, patch).await.body;
    }
    let managed = managed(&last);
    assert_eq!(managed.len(), 11, "ten updates and one apply");
    assert_eq!(managed[0]["manager"], "apply_test");
    assert_eq!(managed[1]["manager"], "ancient-changes");
    let twice = "\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n  finalizers:\n  - x/y\ndata:\n  \
                 unknown: uk1\n  foo: foo1\n  foo: foo2\n";
    let strict = format!("{}?fieldManager=m&fieldValidation=Strict", config_map_path("b"));
    let answer = cluster.ask(Method::PATCH, &strict, APPLY, twice).await;
    let message = answer.body["message"].as_str().expect("a message");
    assert!(message.contains("line 11: key \"foo\" already set in map"), "{message}");
    cluster.stop().await;
}

#[tokio::test]
async fn managers_that_become_one_are_the_last_of_them() {
    let mut cluster = Cluster::start().await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "just-a-pod", "labels": { "a": "one" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    let path = format!("{PODS}/just-a-pod");
    assert_eq!(apply(&mut cluster, &path, "multi_manager_one", &pod).await.code, 201);
    let label = |name: &str| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "labels": { name: "two" } } });
    let mut both = apply(&mut cluster, &path, "multi_manager_two", &label("b")).await.body;
    assert_eq!(both["metadata"]["labels"], json!({ "a": "one", "b": "two" }));
    for entry in both["metadata"]["managedFields"].as_array_mut().expect("managers") {
        entry["manager"] = json!("multi_manager");
    }
    let renamed = cluster.put(&path, both).await.body;
    let left = managed(&renamed);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["fieldsV1"], json!({ "f:metadata": { "f:labels": { "f:b": {} } } }));

    let status = format!("{path}/status");
    let answer = apply(&mut cluster, &status, "multi_manager", &label("c")).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    let mut pod = answer.body;
    let by = |entry: &Value| entry["subresource"].as_str().unwrap_or("-").to_string();
    assert_eq!(managed(&pod).iter().map(by).collect::<Vec<_>>(), ["-", "status"]);
    for entry in pod["metadata"]["managedFields"].as_array_mut().expect("managers") {
        entry.as_object_mut().expect("an entry").remove("subresource");
    }
    let dropped = cluster.put(&path, pod).await.body;
    let left = managed(&dropped);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["fieldsV1"], json!({ "f:metadata": { "f:labels": { "f:c": {} } } }));

    let forged = json!({
        "metadata": { "managedFields": [{
            "manager": "testing", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": {} },
        }] },
        "status": { "conditions": [{ "type": "MyStatus", "status": "True" }] },
    });
    let forged = cluster.merge(&format!("{status}?fieldManager=editor"), forged).await.body;
    let by = |entry: &Value| entry["manager"].as_str().unwrap_or("-").to_string();
    assert_eq!(managed(&forged).iter().map(by).collect::<Vec<_>>(), ["multi_manager", "editor"]);
    cluster.stop().await;
}

#[tokio::test]
async fn odd_managers_fail_nothing_and_none_means_none() {
    let mut cluster = Cluster::start().await;
    let mut odd = config_map("a");
    odd["metadata"]["managedFields"] = json!([{
        "manager": "apply_test", "operation": "Apply", "apiVersion": "v1",
        "time": "2019-07-08T09:31:18Z", "fieldsType": "", "fieldsV1": {},
    }]);
    let made = cluster.post(&format!("{CONFIG_MAPS}?fieldManager=m"), odd.clone()).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let path = config_map_path("a");
    assert_eq!(cluster.put(&path, odd.clone()).await.code, 200);
    let value = &odd["metadata"]["managedFields"];
    let patch =
        json!([{ "op": "replace", "path": "/metadata/managedFields", "value": value }]).to_string();
    let media = "application/json-patch+json";
    let patched = cluster.ask(Method::PATCH, &path, media, patch).await;
    assert_eq!((patched.code, managed(&patched.body).len()), (200, 1), "{}", patched.body);
    for (media, forget) in [
        ("application/merge-patch+json", r#"{"metadata":{"managedFields":[{}]}}"#),
        ("application/strategic-merge-patch+json", r#"{"metadata":{"managedFields":[{}]}}"#),
        (media, r#"[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]"#),
    ] {
        apply(&mut cluster, &path, "m", &config_map("a")).await;
        let forgotten = cluster.ask(Method::PATCH, &path, media, forget).await;
        assert_eq!((forgotten.code, managed(&forgotten.body).len()), (200, 0), "{media}");
        let labelled = json!({ "metadata": { "labels": { "test": "v1" } } });
        let labelled = cluster.merge(&path, labelled).await;
        assert_eq!(managed(&labelled.body).len(), 0, "nobody keeps track until the next apply");
        let unlabelled = json!({ "metadata": { "labels": null } });
        cluster.merge(&path, unlabelled).await;
    }
    cluster.stop().await;
}

fn daemon_set(ports: Value, env: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "name": "example", "labels": { "app": "example" } },
        "spec": {
            "selector": { "matchLabels": { "app": "example" } },
            "template": { "spec": { "containers": [
                { "name": "nginx", "image": "nginx", "ports": ports, "env": env },
            ] } },
        },
    })
}

/// A whole one, as an update sends it.
fn labelled(mut set: Value) -> Value {
    set["spec"]["template"]["metadata"] = json!({ "labels": { "app": "example" } });
    set
}

#[tokio::test]
async fn duplicates_in_a_keyed_list_are_owned_as_a_whole() {
    let mut cluster = Cluster::start().await;
    let path = format!("{DAEMON_SETS}/example");
    let port = |name: &str, port: u16| json!({ "name": name, "containerPort": port });
    let variable = |name: &str, value: &str| json!({ "name": name, "value": value });
    let ports = json!([port("port0", 1), port("port1", 80), port("port2", 80)]);
    let (zero, bin) = (variable("ENV0", "/env0value"), variable("PATH", "/bin"));
    let env = json!([zero, bin, variable("PATH", "$PATH:/usr/bin")]);
    let create = labelled(daemon_set(ports, env));
    let made = cluster.post(&format!("{DAEMON_SETS}?fieldManager=create"), create).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let home = variable("HOME", "/usr/home");
    let more = daemon_set(json!([port("port3", 443)]), json!([home]));
    let applied = apply(&mut cluster, &path, "apply", &more).await;
    assert_eq!(applied.code, 200, "{}", applied.body);
    let ports = json!([port("port0", 1), port("port3", 443), port("port4", 80), port("port5", 80)]);
    let env = json!([zero, bin, variable("PATH", "$PATH:/usr/bin:/usr/local/bin"), home]);
    let update = labelled(daemon_set(ports, env));
    let updated = cluster.put(&format!("{path}?fieldManager=update"), update).await;
    assert_eq!(updated.code, 200, "{}", updated.body);
    let path = format!("{path}?fieldManager=apply&force=true");
    let one = json!([variable("PATH", "/bin:/usr/bin:/usr/local/bin")]);
    let less = daemon_set(json!([port("port80", 80)]), one).to_string();
    let replaced = cluster.ask(Method::PATCH, &path, APPLY, less).await;
    assert_eq!(replaced.code, 200, "{}", replaced.body);
    let container = &replaced.body["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["env"].as_array().map(Vec::len), Some(2), "{container}");
    assert_eq!(container["ports"].as_array().map(Vec::len), Some(2), "{container}");
    let steps = [&made.body, &applied.body, &updated.body, &replaced.body].map(owners);
    insta::assert_snapshot!("duplicates", steps.join("\n\n"));
    cluster.stop().await;
}

/// `claimRef` was owned as a whole in 1.22 to 1.24.
#[tokio::test]
async fn what_was_owned_as_a_whole_once_does_not_conflict() {
    let mut cluster = Cluster::start().await;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "pvc", "namespace": "default",
        "resourceVersion": "15499", "uid": "2018e302-7b12-406c-9fa2-e52535d29e48",
    });
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": "pv", "labels": { "type": "local" } },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "16Mi" },
            "claimRef": claim, "hostPath": { "path": "/tmp/mydata", "type": "" },
        },
    });
    let made = cluster.post(&format!("{VOLUMES}?fieldManager=apply_test"), volume).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let entry = |manager: &str, operation: &str, fields: Value| {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "v1",
            "time": "2022-06-08T23:46:32Z", "fieldsType": "FieldsV1", "fieldsV1": fields,
        })
    };
    let own = json!({
        "f:metadata": { "f:labels": { "f:type": {} } },
        "f:spec": {
            "f:accessModes": {}, "f:capacity": { "f:storage": {} }, "f:hostPath": { "f:path": {} },
            "f:storageClassName": {},
        },
    });
    let controller = json!({ "f:spec": { "f:claimRef": {} } });
    let managed = json!([
        entry("apply_test", "Apply", own),
        entry("kube-controller-manager", "Update", controller),
    ]);
    let patch = json!({ "metadata": { "managedFields": managed } }).to_string();
    let path = format!("{VOLUMES}/pv");
    let media = "application/strategic-merge-patch+json";
    let patched = cluster.ask(Method::PATCH, &path, media, patch).await;
    assert_eq!(patched.body["metadata"]["managedFields"], managed, "{}", patched.body);
    let config = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": "pv", "labels": { "type": "local" } },
        "spec": {
            "storageClassName": "", "capacity": { "storage": "16Mi" },
            "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/tmp/mydata" },
            "claimRef": { "name": "pvc", "namespace": "default" },
        },
    });
    let applied = apply(&mut cluster, &path, "apply_test", &config).await;
    assert_eq!(applied.code, 200, "{}", applied.body);
    assert_eq!(applied.body["spec"]["claimRef"], made.body["spec"]["claimRef"]);
    insta::assert_snapshot!("formerly_atomic", owners(&applied.body));
    cluster.stop().await;
}

#[tokio::test]
async fn an_owner_named_twice_is_one_and_warned_of() {
    let mut cluster = Cluster::start().await;
    let owner = |uid: &str| json!({ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": uid });
    let mut owned = config_map("a");
    owned["metadata"]["ownerReferences"] = json!([owner("u"), owner("v"), owner("u")]);
    let warning = |when: &str| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner \
             references in 1.20+, and may reject such requests as early as 1.24; please fix your \
             requests; duplicate UID(s) observed: u"
        )
    };
    let made = cluster.post(CONFIG_MAPS, owned.clone()).await;
    assert_eq!(made.body["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(2));
    assert!(made.warnings[0].contains(&warning("")), "{:?}", made.warnings);
    let put = cluster.put(&config_map_path("a"), owned.clone()).await;
    assert!(put.warnings[0].contains(&warning("")), "{:?}", put.warnings);
    let references = &owned["metadata"]["ownerReferences"];
    let patch = json!({ "metadata": { "ownerReferences": references } });
    let patched = cluster.merge(&config_map_path("a"), patch).await;
    assert_eq!(patched.body["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(2));
    let after = warning(" after mutating admission happens");
    assert!(patched.warnings[0].contains(&after), "{:?}", patched.warnings);
    cluster.stop().await;
}

/// Nothing that is only written otherwise is a new version.
#[tokio::test]
async fn the_same_said_otherwise_is_no_write() {
    let mut cluster = Cluster::start().await;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": { "name": "nginx", "labels": { "app": "nginx" } },
        "spec": {
            "serviceName": "nginx", "selector": { "matchLabels": { "app": "nginx" } },
            "template": {
                "metadata": { "labels": { "app": "nginx" } },
                "spec": { "containers": [{
                    "name": "nginx", "image": "nginx",
                    "resources": { "limits": { "memory": "2048Mi" } },
                }] },
            },
            "volumeClaimTemplates": [{
                "metadata": { "name": "nginx" },
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": { "requests": { "storage": "1Gi" } },
                },
            }],
        },
    });
    let path = "/apis/apps/v1/namespaces/default/statefulsets/nginx";
    let made = apply(&mut cluster, path, "apply_test", &set).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let again = apply(&mut cluster, path, "apply_test", &set).await;
    assert_eq!(again.body, made.body);
    let put = cluster.put(&format!("{path}?fieldManager=other"), set).await;
    assert_eq!(put.body, made.body);
    cluster.stop().await;
}

#[tokio::test]
async fn metadata_of_embedded_objects_is_known() {
    let mut cluster = Cluster::start().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "noxus.example.com" },
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": { "plural": "noxus", "kind": "Noxu" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "template": {
                            "type": "object", "x-kubernetes-embedded-resource": true,
                            "properties": {
                                "metadata": {
                                    "type": "object",
                                    "properties": { "name": { "type": "string" } },
                                },
                                "spec": { "type": "object" },
                            },
                        },
                    },
                } } } },
            }],
        },
    });
    define(&mut cluster, definition).await;
    let path = "/apis/example.com/v1/noxus/mytest";
    let config = json!({
        "apiVersion": "example.com/v1", "kind": "Noxu",
        "metadata": { "name": "mytest", "unknownMeta": "x", "finalizers": ["test-finalizer"] },
        "spec": {
            "unknown": "kept",
            "template": {
                "apiversion": "foo/v1", "kind": "Sub",
                "metadata": { "unknownSubMeta": "x", "name": "sub", "namespace": "default" },
            },
        },
    });
    let refused = apply(&mut cluster, path, "m", &config).await;
    insta::assert_snapshot!("embedded", refused.body["message"].as_str().unwrap_or("-"));
    let mut config = config;
    config["metadata"].as_object_mut().expect("metadata").remove("unknownMeta");
    config["spec"].as_object_mut().expect("a spec").remove("template");
    let made = apply(&mut cluster, path, "m", &config).await;
    assert_eq!((made.code, &made.body["spec"]["unknown"]), (201, &json!("kept")), "{}", made.body);
    cluster.stop().await;
}

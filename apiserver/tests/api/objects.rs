//! The life of an object: create, update, patch, scale, delete.

use crate::harness::{CONFIG_MAPS, Cluster, config_map, config_map_path};
use http::Method;
use k8s::{Object, Request, Resource};
use serde_json::{Value, json};

#[tokio::test]
async fn an_object_is_made_read_changed_and_deleted() {
    let mut cluster = Cluster::start().await;
    let made = cluster.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(made.body["metadata"][field].is_string(), "{field}: {}", made.body);
    }
    let read = cluster.get(&config_map_path("a")).await;
    assert_eq!(read.body, made.body);
    let same = cluster.put(&config_map_path("a"), made.body.clone()).await;
    assert_eq!(same.body, made.body, "an update without a change writes nothing");
    let patch = json!({ "data": { "color": null, "size": "9" } });
    let changed = cluster.merge(&config_map_path("a"), patch).await;
    assert_eq!(changed.body["data"], json!({ "size": "9" }));
    let gone = cluster.delete(&config_map_path("a")).await;
    assert_eq!(gone.body["status"], "Success");
    assert_eq!(gone.body["details"]["kind"], "configmaps");
    assert_eq!(cluster.get(&config_map_path("a")).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let mut cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}?dryRun=All");
    let made = cluster.post(&path, config_map("a")).await;
    assert_eq!((made.code, &made.body["data"]["color"]), (201, &json!("blue")));
    assert_eq!(cluster.get(&config_map_path("a")).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn a_finalizer_keeps_an_object_until_it_is_removed() {
    let mut cluster = Cluster::start().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/x"]);
    assert_eq!(cluster.post(CONFIG_MAPS, object).await.code, 201);
    let dying = cluster.delete(&config_map_path("a")).await;
    assert!(dying.body["metadata"]["deletionTimestamp"].is_string(), "{}", dying.body);
    let again = cluster.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(again.body["message"], "object is being deleted: configmaps \"a\" already exists");
    let more = json!({ "metadata": { "finalizers": ["example.com/x", "example.com/y"] } });
    assert_eq!(cluster.merge(&config_map_path("a"), more).await.code, 422);
    let none = json!({ "metadata": { "finalizers": null } });
    assert_eq!(cluster.merge(&config_map_path("a"), none).await.code, 200);
    assert_eq!(cluster.get(&config_map_path("a")).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn generated_names_differ_and_a_json_patch_applies() {
    let mut cluster = Cluster::start().await;
    let object = json!({ "metadata": { "generateName": "web-" } });
    let one = cluster.post(CONFIG_MAPS, object.clone()).await.body;
    let two = cluster.post(CONFIG_MAPS, object).await.body;
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
    let name = one["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    let patch = r#"[{"op":"add","path":"/data","value":{"a":"b"}}]"#;
    let media = "application/json-patch+json";
    let patched = cluster.ask(Method::PATCH, &config_map_path(name), media, patch).await;
    assert_eq!(patched.body["data"]["a"], "b", "{}", patched.body);
    cluster.stop().await;
}

#[tokio::test]
async fn a_deployment_is_scaled_and_counts_its_generations() {
    let mut cluster = Cluster::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let made = cluster
        .post(
            deployments,
            json!({
                "metadata": { "name": "web" },
                "spec": {
                    "selector": { "matchLabels": { "app": "web" } },
                    "template": {
                        "metadata": { "labels": { "app": "web" } },
                        "spec": { "containers": [{ "name": "web", "image": "busybox" }] },
                    },
                },
            }),
        )
        .await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["metadata"]["generation"], 1);
    let scale = format!("{deployments}/web/scale");
    let scaled = cluster.merge(&scale, json!({ "spec": { "replicas": 3 } })).await;
    assert_eq!(scaled.body["spec"]["replicas"], 3, "{}", scaled.body);
    assert_eq!(cluster.get(&scale).await.body["kind"], "Scale");
    let status = json!({ "status": { "replicas": 2 }, "spec": { "replicas": 9 } });
    let status = cluster.merge(&format!("{deployments}/web/status"), status).await;
    assert_eq!(status.code, 200, "{}", status.body);
    let now = cluster.get(&format!("{deployments}/web")).await.body;
    assert_eq!(now["spec"]["replicas"], 3);
    assert_eq!(now["status"]["replicas"], 2);
    assert_eq!(now["metadata"]["generation"], 2);
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let mut cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({
        "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "image": "busybox" }] },
    });
    let made = cluster.post(pods, pod).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let bind = |node: &str| json!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": node } });
    let bound = cluster.post(&format!("{pods}/p/binding"), bind("n1")).await;
    assert_eq!(bound.code, 201, "{}", bound.body);
    let again = cluster.post(&format!("{pods}/p/binding"), bind("n2")).await;
    assert_eq!(
        again.body["message"],
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""
    );
    let dying = cluster.delete(&format!("{pods}/p")).await;
    assert_eq!(dying.body["metadata"]["deletionGracePeriodSeconds"], 30, "{}", dying.body);
    let now = json!({ "gracePeriodSeconds": 0 }).to_string();
    let gone = cluster.ask(Method::DELETE, &format!("{pods}/p"), "application/json", now).await;
    assert_eq!(gone.code, 200);
    assert_eq!(cluster.get(&format!("{pods}/p")).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn services_never_share_an_address() {
    let mut cluster = Cluster::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, ip: Option<&str>| {
        let mut spec = json!({ "ports": [{ "port": 80 }], "type": "NodePort" });
        if let Some(ip) = ip {
            spec["clusterIP"] = ip.into();
        }
        json!({ "metadata": { "name": name }, "spec": spec })
    };
    let first = cluster.post(services, service("a", None)).await;
    assert_eq!(first.code, 201, "{}", first.body);
    let ip = first.body["spec"]["clusterIP"].as_str().expect("an address").to_string();
    assert!(first.body["spec"]["ports"][0]["nodePort"].as_u64() >= Some(30000), "{}", first.body);
    let taken = cluster.post(services, service("b", Some(&ip))).await;
    assert_eq!(taken.code, 422, "{}", taken.body);
    assert_eq!(cluster.delete(&format!("{services}/a")).await.code, 200);
    let now_free = cluster.post(services, service("b", Some(&ip))).await;
    assert_eq!(now_free.code, 201, "{}", now_free.body);
    cluster.stop().await;
}

#[tokio::test]
async fn a_deposed_leader_writes_nothing() {
    let cluster = Cluster::start().await;
    let client =
        cluster.server.client(apiserver::Identity::authenticated("c", &["system:masters"]));
    let resource = Resource::new("", "v1", "configmaps");
    let object = Object::from_value(json!({ "metadata": { "name": "a", "namespace": "default" } }));
    let mut request = Request::create(resource.clone(), object.expect("an object"));
    request.fence = Some(999);
    let refused = client.call(request.clone()).await.expect_err("another term");
    assert_eq!(refused.reason, "Fenced");
    let term = cluster.store.leadership().borrow().leading.expect("leads alone");
    request.fence = Some(term.0);
    let made = client.call(request).await.expect("own term");
    assert_eq!((made.kind(), made.name()), ("ConfigMap", "a"));
    let read = client.call(Request::get(resource, "default", "a")).await.expect("made");
    assert_eq!(Value::Object(read.0), Value::Object(made.0));
    cluster.stop().await;
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let mut cluster = Cluster::start().await;
    let mut other = config_map("c");
    other["metadata"]["labels"]["app"] = "other".into();
    for object in [config_map("a"), config_map("b"), other] {
        assert_eq!(cluster.post(CONFIG_MAPS, object).await.code, 201);
    }
    let gone = cluster.delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Dweb")).await;
    assert_eq!(gone.body["items"].as_array().map(Vec::len), Some(2), "{}", gone.body);
    assert_eq!(cluster.get(&config_map_path("a")).await.code, 404);
    assert_eq!(cluster.get(&config_map_path("c")).await.code, 200);
    cluster.stop().await;
}

/// The harness does not share heartbeats: `Cluster::share_heartbeats` does.
#[tokio::test]
async fn a_renewal_of_a_nodes_lease_is_told_but_not_written() {
    let mut cluster = Cluster::start().await;
    cluster.share_heartbeats().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let path = format!("{leases}/n1");
    let time = |second: u32| format!("2026-01-01T00:00:{second:02}.000000Z");
    let lease = json!({
        "metadata": {"name": "n1"},
        "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": time(0)},
    });
    let made = cluster.post(leases, lease).await.body;
    let revision = cluster.store.revision();
    let mut renewed = made.clone();
    renewed["spec"]["renewTime"] = time(10).into();
    let answer = cluster.put(&path, renewed).await;
    assert_eq!((answer.code, &answer.body["spec"]["renewTime"]), (200, &json!(time(10))));
    let patch = json!({"spec": {"renewTime": time(20)}});
    let answer = cluster.merge(&path, patch).await.body;
    assert_eq!(answer["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(cluster.store.revision(), revision, "the log had nothing to do with it");
    assert_eq!(cluster.get(&path).await.body["spec"]["renewTime"], time(20));
    assert_eq!(cluster.get(leases).await.body["items"][0]["spec"]["renewTime"], time(20));
    let label = json!({"metadata": {"labels": {"zone": "a"}}});
    let answer = cluster.merge(&path, label).await.body;
    assert_ne!(answer["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(answer["spec"]["renewTime"], time(20), "what was known is written with the rest");
    assert_eq!(cluster.get(&path).await.body["spec"]["renewTime"], time(20));
    cluster.stop().await;
}

#[tokio::test]
async fn a_lease_may_be_made_by_put() {
    let mut cluster = Cluster::start().await;
    let lease = json!({ "metadata": { "name": "n1" }, "spec": { "holderIdentity": "n1" } });
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    assert_eq!(cluster.put(path, lease.clone()).await.code, 201);
    assert_eq!(cluster.put(path, lease.clone()).await.code, 422, "not without a version");
    let absent = json!({ "metadata": { "name": "absent" } });
    assert_eq!(cluster.put(&config_map_path("absent"), absent).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn a_deletion_may_name_what_it_means() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("a")).await.code, 201);
    let other = json!({ "preconditions": { "uid": "another" } }).to_string();
    let path = config_map_path("a");
    let refused = cluster.ask(Method::DELETE, &path, "application/json", other).await;
    let message = refused.body["message"].as_str().unwrap_or_default();
    let begin = "Operation cannot be fulfilled on configmaps \"a\": Precondition failed: UID in \
                 precondition: another, UID in object meta: ";
    assert!(message.starts_with(begin), "{message}");
    let never = cluster.delete(&format!("{path}?propagationPolicy=Sometimes")).await;
    assert_eq!(never.code, 422, "{}", never.body);
    cluster.stop().await;
}

#[tokio::test]
async fn every_writer_of_a_race_is_kept() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("a")).await.code, 201);
    let client =
        cluster.server.client(apiserver::Identity::authenticated("c", &["system:masters"]));
    let patches = (0..40).map(|index| {
        let patch = json!({ "data": { format!("k{index}"): "v" } });
        let resource = Resource::new("", "v1", "configmaps");
        client.call(Request::patch(resource, "default", "a", k8s::PatchType::Merge, patch))
    });
    for result in futures::future::join_all(patches).await {
        result.expect("no patch loses");
    }
    let data = cluster.get(&config_map_path("a")).await.body["data"].clone();
    assert_eq!(data.as_object().map(serde_json::Map::len), Some(41));
    cluster.stop().await;
}

#[tokio::test]
async fn bootstraps_do_not_mind_each_other() {
    let server = apiserver::Server::new(apiserver::Config::new(raft_store::Store::in_memory()));
    let (one, two) = futures::join!(server.bootstrap(), server.bootstrap());
    one.expect("the first");
    two.expect("the second");
}

//! Lists: selectors, pages at one revision, tables, discovery.

use crate::harness::{CONFIG_MAPS, Cluster, config_map, config_map_path, read, request};
use http::{Method, header};
use serde_json::{Value, json};

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

async fn with(count: usize) -> Cluster {
    let mut cluster = Cluster::start().await;
    for index in 0..count {
        let mut object = config_map(&format!("m{index}"));
        object["metadata"]["labels"]["odd"] = (index % 2 == 1).to_string().into();
        assert_eq!(cluster.post(CONFIG_MAPS, object).await.code, 201);
    }
    cluster
}

#[tokio::test]
async fn selectors_choose() {
    let mut cluster = with(4).await;
    let odd = cluster.get(&format!("{CONFIG_MAPS}?labelSelector=odd%3Dtrue")).await.body;
    assert_eq!(names(&odd), ["m1", "m3"]);
    assert_eq!(odd["kind"], "ConfigMapList");
    let one = cluster.get("/api/v1/configmaps?fieldSelector=metadata.name%3Dm2").await.body;
    assert_eq!(names(&one), ["m2"]);
    let set = cluster
        .get(&format!("{CONFIG_MAPS}?labelSelector=app%20in%20(web),!missing&limit=500"))
        .await;
    assert_eq!(names(&set.body).len(), 4, "{}", set.body);
    cluster.stop().await;
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let mut cluster = with(5).await;
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=2")).await.body;
    assert_eq!(names(&first), ["m0", "m1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    assert_eq!(cluster.delete(&config_map_path("m3")).await.code, 200);
    let token = first["metadata"]["continue"].as_str().expect("more").to_string();
    let second = cluster.get(&format!("{CONFIG_MAPS}?limit=5&continue={token}")).await.body;
    assert_eq!(names(&second), ["m2", "m3", "m4"], "as it was at the first page");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"]["continue"], Value::Null);
    let now = cluster.store.revision();
    cluster.store.compact(now).await.expect("compacted");
    let late = cluster.get(&format!("{CONFIG_MAPS}?limit=5&continue={token}")).await;
    assert_eq!((late.code, &late.body["reason"]), (410, &json!("Expired")));
    let token = late.body["metadata"]["continue"].as_str().expect("a way to go on").to_string();
    let rest = cluster.get(&format!("{CONFIG_MAPS}?limit=5&continue={token}")).await.body;
    assert_eq!(names(&rest), ["m2", "m4"], "as it is now");
    cluster.stop().await;
}

#[tokio::test]
async fn an_exact_revision_is_served_from_history() {
    let mut cluster = with(2).await;
    let before = cluster.get(CONFIG_MAPS).await.body;
    let revision = before["metadata"]["resourceVersion"].as_str().expect("a revision");
    assert_eq!(cluster.delete(&config_map_path("m0")).await.code, 200);
    let path = format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    assert_eq!(cluster.get(&path).await.body, before);
    cluster.stop().await;
}

#[tokio::test]
async fn kubectl_gets_a_table() {
    let mut cluster = with(1).await;
    let mut asked = request(Method::GET, CONFIG_MAPS, "", "");
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    asked.headers_mut().insert(header::ACCEPT, accept.parse().expect("a header"));
    let response = cluster.send(cluster.admin(), asked).await;
    let table = read(response).await.body;
    assert_eq!(table["kind"], "Table");
    let columns: Vec<&Value> = table["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    assert_eq!(table["rows"][0]["cells"][0], "m0");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    cluster.stop().await;
}

#[tokio::test]
async fn discovery_lists_what_is_served() {
    let mut cluster = Cluster::start().await;
    let core = cluster.get("/api/v1").await.body;
    let resources = core["resources"].as_array().expect("resources");
    let named = |name: &str| resources.iter().find(|entry| entry["name"] == name).cloned();
    assert_eq!(named("configmaps").expect("served")["shortNames"], json!(["cm"]));
    assert!(named("pods/exec").is_some());
    let mut asked = request(Method::GET, "/apis", "", "");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    asked.headers_mut().insert(header::ACCEPT, accept.parse().expect("a header"));
    let response = cluster.send(cluster.admin(), asked).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], accept);
    let groups = read(response).await.body;
    let has = |name: &str| {
        groups["items"].as_array().into_iter().flatten().any(|one| one["metadata"]["name"] == name)
    };
    assert!(has("apps") && has("rbac.authorization.k8s.io"), "{groups}");
    let openapi = cluster.get("/openapi/v3/apis/apps/v1").await.body;
    let patch =
        &openapi["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["parameters"].to_string().contains("fieldValidation"), "{patch}");
    let schemas = &openapi["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name", "{containers}");
    assert_eq!(cluster.get("/version").await.body["minor"], "36");
    cluster.stop().await;
}

#[tokio::test]
async fn bare_metadata_is_all_some_clients_want() {
    let mut cluster = with(2).await;
    let mut asked = request(Method::GET, CONFIG_MAPS, "", "");
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    asked.headers_mut().insert(header::ACCEPT, accept.parse().expect("a header"));
    let response = cluster.send(cluster.admin(), asked).await;
    let list = read(response).await.body;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(names(&list), ["m0", "m1"]);
    assert_eq!(list["items"][0]["data"], Value::Null);
    cluster.stop().await;
}

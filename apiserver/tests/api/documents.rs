//! What the server says of itself: OpenAPI, discovery, version, health; and how clients keep it.

use crate::harness::{Cluster, request};
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

struct Page {
    code: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Page {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

async fn get(cluster: &mut Cluster, path: &str, headers: &[(header::HeaderName, &str)]) -> Page {
    let mut asked = request(Method::GET, path, "", "");
    for (name, value) in headers {
        asked.headers_mut().insert(name, value.parse().expect("a header"));
    }
    let response = cluster.send(cluster.admin(), asked).await;
    let (code, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    Page { code, headers, body }
}

#[tokio::test]
async fn openapi_v3_is_found_by_hash_and_kept() {
    let mut cluster = Cluster::start().await;
    let index = get(&mut cluster, "/openapi/v3", &[]).await.json();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL");
    let document = get(&mut cluster, url, &[]).await;
    assert_eq!((document.code, document.header(header::CACHE_CONTROL)), (200, "public, immutable"));
    let value = document.json();
    let deployment = &value["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert!(deployment["description"].as_str().is_some_and(|text| text.starts_with("Deployment")));
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{ "group": "apps", "version": "v1", "kind": "Deployment" }])
    );
    let spec = &value["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"];
    assert_eq!(spec["required"], json!(["selector", "template"]));
    let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
    let patch = &value["paths"][path]["patch"];
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let etag = document.header(header::ETAG).to_string();
    let again = get(&mut cluster, url, &[(header::IF_NONE_MATCH, &etag)]).await;
    assert_eq!((again.code, again.body.len()), (304, 0));
    let stale = get(&mut cluster, "/openapi/v3/apis/apps/v1?hash=OLD", &[]).await;
    assert_eq!((stale.code, stale.header(header::LOCATION)), (301, url));
    let accept = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let binary = get(&mut cluster, url, &[(header::ACCEPT, accept)]).await;
    let media = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
    assert_eq!(binary.header(header::CONTENT_TYPE), media);
    assert!(binary.body.starts_with(b"\x0a\x053.0.0"));
    assert_eq!(get(&mut cluster, url, &[(header::ACCEPT, "text/html")]).await.code, 406);
    assert_eq!(get(&mut cluster, "/openapi/v3/apis/none/v1", &[]).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn openapi_v2_is_one_document() {
    let mut cluster = Cluster::start().await;
    let document = get(&mut cluster, "/openapi/v2", &[]).await;
    let value = document.json();
    assert_eq!(value["swagger"], "2.0");
    let port = &value["definitions"]["io.k8s.api.core.v1.ServicePort"]["properties"]["targetPort"];
    assert_eq!(port["$ref"], "#/definitions/io.k8s.apimachinery.pkg.util.intstr.IntOrString");
    let int_or_string = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
    assert_eq!(value["definitions"][int_or_string]["type"], "string");
    let create = &value["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert_eq!(create["consumes"], json!(["*/*"]));
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let headers = [(header::ACCEPT, accept), (header::ACCEPT_ENCODING, "gzip")];
    let binary = get(&mut cluster, "/openapi/v2", &headers).await;
    assert_eq!(binary.header(header::CONTENT_ENCODING), "gzip");
    let media = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!(binary.header(header::CONTENT_TYPE), media);
    cluster.stop().await;
}

#[tokio::test]
async fn discovery_is_kept_by_its_tag() {
    let mut cluster = Cluster::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;\
                  profile=nopeer,application/json";
    let first = get(&mut cluster, "/apis", &[(header::ACCEPT, accept)]).await;
    assert_eq!(first.json()["kind"], "APIGroupDiscoveryList");
    let etag = first.header(header::ETAG).to_string();
    let headers = [(header::ACCEPT, accept), (header::IF_NONE_MATCH, &etag)];
    assert_eq!(get(&mut cluster, "/apis", &headers).await.code, 304);
    let protobuf = [(header::ACCEPT, "application/vnd.kubernetes.protobuf")];
    let list = get(&mut cluster, "/apis/apps/v1", &protobuf).await;
    let schema = k8s::schema::Schema::built_in();
    let ty = schema.get("meta.v1.APIResourceList").expect("a type");
    let list = k8s::protobuf::read(schema, ty, &list.body).expect("a body");
    assert_eq!(
        (&list["kind"], &list["groupVersion"]),
        (&json!("APIResourceList"), &json!("apps/v1"))
    );
    let paths = get(&mut cluster, "/", &[]).await.json();
    assert!(paths["paths"].as_array().is_some_and(|paths| paths.contains(&json!("/apis/apps/v1"))));
    let version = get(&mut cluster, "/version", &[]).await.json();
    assert!(version["gitVersion"].as_str().is_some_and(|text| text.starts_with("v1.36.")));
    cluster.stop().await;
}

#[tokio::test]
async fn health_is_told_as_upstream_tells_it() {
    let mut cluster = Cluster::start().await;
    // Nobody has registered the groups yet: alive, but not begun.
    let begun = get(&mut cluster, "/livez?verbose", &[]).await;
    assert_eq!(begun.code, 500);
    let text = begun.text();
    assert!(text.contains("[+]poststarthook/rbac/bootstrap-roles ok\n"), "{text}");
    assert!(text.contains("[-]autoregister-completion failed: reason withheld\n"), "{text}");
    cluster.tend().await;
    let verbose = get(&mut cluster, "/livez?verbose", &[]).await;
    insta::assert_snapshot!("livez", verbose.text());
    let excluded = get(&mut cluster, "/readyz?verbose&exclude=ping&exclude=none", &[]).await;
    insta::assert_snapshot!("readyz", excluded.text());
    assert_eq!(get(&mut cluster, "/readyz/quorum", &[]).await.text(), "ok");
    assert_eq!(get(&mut cluster, "/readyz/none", &[]).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn kinds_whose_days_are_counted_are_warned_of() {
    let mut cluster = Cluster::start().await;
    let listed = cluster.get("/api/v1/endpoints").await;
    let warning =
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!(listed.warnings, [warning]);
    cluster.stop().await;
}

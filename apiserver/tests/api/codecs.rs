//! Bodies and answers in JSON, YAML and protobuf, whole or in pieces, compressed or not: all of them
//! stand for the same objects.

use crate::harness::{CONFIG_MAPS, Cluster, config_map, config_map_path, request};
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use http_body_util::BodyExt;
use k8s::{protobuf, schema::Schema};
use serde_json::{Value, json};
use std::io::Read;

struct Raw {
    code: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Raw {
    fn media(&self) -> &str {
        self.headers[header::CONTENT_TYPE].to_str().expect("text")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn protobuf(&self, ty: &str) -> Value {
        assert_eq!(self.media(), protobuf::MEDIA_TYPE);
        let schema = Schema::built_in();
        protobuf::read(schema, schema.get(ty).expect("a type"), &self.body).expect("a body")
    }
}

async fn ask(
    cluster: &mut Cluster,
    method: Method,
    path: &str,
    headers: &[(header::HeaderName, &str)],
    body: Vec<u8>,
) -> Raw {
    let mut asked = request(method, path, "", body);
    for (name, value) in headers {
        asked.headers_mut().insert(name, value.parse().expect("a header"));
    }
    let response = cluster.send(cluster.admin(), asked).await;
    let (code, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    Raw { code, headers, body }
}

async fn get(cluster: &mut Cluster, path: &str, accept: &str) -> Raw {
    ask(cluster, Method::GET, path, &[(header::ACCEPT, accept)], Vec::new()).await
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn message(ty: &str, api_version: &str, object: &Value) -> Vec<u8> {
    let schema = Schema::built_in();
    let map = object.as_object().expect("an object");
    let message = protobuf::write(schema, schema.get(ty).expect("a type"), map).expect("fits");
    protobuf::enveloped(api_version, ty.rsplit('.').next().unwrap_or_default(), &message)
}

/// A cluster whose config maps are larger than one piece together.
async fn with_large_maps() -> Cluster {
    let mut cluster = Cluster::start().await;
    for index in 0..6 {
        let mut object = config_map(&format!("m{index}"));
        object["data"]["large"] = "x".repeat(50_000).into();
        object["data"]["script"] = "#!/bin/sh\necho 'ü'\n".into();
        assert_eq!(cluster.post(CONFIG_MAPS, object).await.code, 201);
    }
    cluster
}

#[tokio::test]
async fn objects_come_and_go_in_protobuf() {
    let mut cluster = Cluster::start().await;
    let headers = [(header::CONTENT_TYPE, PROTOBUF), (header::ACCEPT, PROTOBUF)];
    let body = message("core.v1.ConfigMap", "v1", &config_map("a"));
    let made = ask(&mut cluster, Method::POST, CONFIG_MAPS, &headers, body.clone()).await;
    assert_eq!(made.code, 201);
    let object = made.protobuf("core.v1.ConfigMap");
    assert_eq!((&object["kind"], &object["data"]["color"]), (&json!("ConfigMap"), &json!("blue")));
    let json = cluster.get(&config_map_path("a")).await.body;
    assert_eq!(object, json);
    let read = get(&mut cluster, &config_map_path("a"), PROTOBUF).await;
    assert_eq!(read.protobuf("core.v1.ConfigMap"), json);
    let again = ask(&mut cluster, Method::POST, CONFIG_MAPS, &headers, body).await;
    let refused = again.protobuf("meta.v1.Status");
    assert_eq!((again.code, &refused["reason"]), (409, &json!("AlreadyExists")));
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let bare = get(&mut cluster, &config_map_path("a"), &partial).await;
    let bare = bare.protobuf("meta.v1.PartialObjectMetadata");
    assert_eq!(
        (&bare["apiVersion"], &bare["metadata"]),
        (&json!("meta.k8s.io/v1"), &json["metadata"])
    );
    let options = json!({ "preconditions": { "uid": "another" } });
    let options = message("meta.v1.DeleteOptions", "v1", &options);
    let refused = ask(&mut cluster, Method::DELETE, &config_map_path("a"), &headers, options).await;
    assert_eq!(refused.code, 409);
    cluster.stop().await;
}

#[tokio::test]
async fn lists_are_the_same_in_every_coding() {
    let mut cluster = with_large_maps().await;
    let plain = get(&mut cluster, CONFIG_MAPS, "application/json").await;
    let list = plain.json();
    assert!(
        plain.body.len() > 256 * 1024 && list["items"].as_array().is_some_and(|l| l.len() >= 6)
    );
    assert_eq!(
        get(&mut cluster, CONFIG_MAPS, PROTOBUF).await.protobuf("core.v1.ConfigMapList"),
        list
    );
    let yaml = get(&mut cluster, CONFIG_MAPS, "application/yaml").await;
    assert_eq!(yaml.media(), "application/yaml");
    assert_eq!(k8s::decode::yaml_to_value(&yaml.body), Ok(list.clone()));
    let pretty = get(&mut cluster, &format!("{CONFIG_MAPS}?pretty=1"), "application/json").await;
    assert!(pretty.body.starts_with(b"{\n  \"kind\": \"ConfigMapList\""));
    assert_eq!(pretty.json(), list);
    let accept = [(header::ACCEPT_ENCODING, "gzip")];
    let zipped = ask(&mut cluster, Method::GET, CONFIG_MAPS, &accept, Vec::new()).await;
    assert_eq!(zipped.headers[header::CONTENT_ENCODING], "gzip");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_end(&mut text).expect("gzip");
    assert_eq!(text, plain.body);
    let none = "/api/v1/namespaces/none/configmaps";
    let empty = get(&mut cluster, none, "application/yaml").await;
    assert_eq!(k8s::decode::yaml_to_value(&empty.body).expect("YAML")["items"], json!([]));
    let empty = get(&mut cluster, none, PROTOBUF).await.protobuf("core.v1.ConfigMapList");
    assert_eq!(empty["items"], Value::Null);
    let partial = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let bare = get(&mut cluster, CONFIG_MAPS, &partial).await;
    let bare = bare.protobuf("meta.v1.PartialObjectMetadataList");
    assert_eq!(bare["items"][3]["metadata"], list["items"][3]["metadata"]);
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let table = get(&mut cluster, CONFIG_MAPS, table).await.json();
    assert_eq!(table["rows"].as_array().map(Vec::len), list["items"].as_array().map(Vec::len));
    cluster.stop().await;
}

/// The next frame of a watch: the event's type and the object's body.
fn frame(buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let length = u32::from_be_bytes(buffer.get(..4)?.try_into().ok()?) as usize;
    let event: Vec<u8> = buffer.get(4..4 + length)?.to_vec();
    buffer.drain(..4 + length);
    let schema = Schema::built_in();
    // A WatchEvent's object is raw bytes here, not JSON: cut out what lies behind the magic.
    let at = event.windows(4).position(|window| window == protobuf::MAGIC)?;
    let name = String::from_utf8_lossy(&event[2..2 + usize::from(event[1])]).into_owned();
    assert!(schema.get("meta.v1.WatchEvent").is_some());
    Some((name, event[at..].to_vec()))
}

#[tokio::test]
async fn a_watch_comes_in_frames() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("a")).await.code, 201);
    let path = format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Da");
    let mut asked = request(Method::GET, &path, "", "");
    asked.headers_mut().insert(header::ACCEPT, PROTOBUF.parse().expect("a header"));
    let response = cluster.send(cluster.admin(), asked).await;
    let media = &response.headers()[header::CONTENT_TYPE];
    assert_eq!(media, "application/vnd.kubernetes.protobuf;stream=watch");
    let listed = cluster.get(&config_map_path("a")).await.body;
    assert_eq!(cluster.delete(&config_map_path("a")).await.code, 200);
    let (mut body, mut buffer, mut told) = (response.into_body(), Vec::new(), Vec::new());
    let schema = Schema::built_in();
    let ty = schema.get("core.v1.ConfigMap").expect("a type");
    while told.len() < 2 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame());
        let next =
            next.await.expect("an event within ten seconds").expect("more").expect("a frame");
        buffer.extend_from_slice(&next.into_data().unwrap_or_default());
        while let Some((name, object)) = frame(&mut buffer) {
            told.push((name, protobuf::read(schema, ty, &object).expect("an object")));
        }
    }
    assert_eq!(told[0], ("ADDED".into(), listed.clone()));
    assert_eq!(told[1].0, "DELETED");
    let revision = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_ne!(revision(&told[1].1), revision(&listed));
    cluster.stop().await;
}

#[tokio::test]
async fn what_no_side_understands_is_refused() {
    let mut cluster = Cluster::start().await;
    let told =
        |raw: &Raw| (raw.code, raw.json()["message"].as_str().unwrap_or_default().to_string());
    let answer = get(&mut cluster, CONFIG_MAPS, "text/csv").await;
    let types = "only the following media types are accepted: application/json, application/yaml, \
                 application/vnd.kubernetes.protobuf";
    assert_eq!(told(&answer), (406, types.into()));
    let answer = get(&mut cluster, &format!("{CONFIG_MAPS}?watch=1"), "application/yaml").await;
    assert_eq!(answer.code, 406);
    let headers = [(header::CONTENT_TYPE, "text/csv")];
    let answer = ask(&mut cluster, Method::POST, CONFIG_MAPS, &headers, b"a".to_vec()).await;
    let types = "the body of the request was in an unknown format - accepted media types include: \
                 application/json, application/yaml, application/vnd.kubernetes.protobuf";
    assert_eq!(told(&answer), (415, types.into()));
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io"),
    ];
    let body = json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
    let body = body.to_string().into_bytes();
    assert_eq!(ask(&mut cluster, Method::POST, reviews, &headers, body).await.code, 406);
    for method in [Method::HEAD, Method::OPTIONS, Method::TRACE] {
        let answer = ask(&mut cluster, method.clone(), CONFIG_MAPS, &[], Vec::new()).await;
        assert_eq!(answer.code, 405, "{method}");
    }
    let list = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let (code, message) = told(&get(&mut cluster, CONFIG_MAPS, list).await);
    assert_eq!(code, 406);
    assert!(
        message.ends_with("but the requested object is a list (*core.ConfigMapList)"),
        "{message}"
    );
    cluster.stop().await;
}

//! Every kind of bad input gets upstream's `Status`: code, reason, message, causes.

use crate::harness::{Answer, CONFIG_MAPS, Cluster, config_map, config_map_path, read, request};
use http::Method;
use insta::assert_snapshot;
use serde_json::{Value, json};

/// What a client sees of a refusal.
fn told(answer: &Answer) -> String {
    let body = &answer.body;
    let mut text = format!("{} {}\n{}", answer.code, body["reason"], body["message"]);
    for cause in body["details"]["causes"].as_array().into_iter().flatten() {
        text.push_str(&format!("\n- {} {}: {}", cause["reason"], cause["field"], cause["message"]));
    }
    text
}

#[tokio::test]
async fn bodies_that_are_no_object() {
    let mut cluster = Cluster::start().await;
    let json = "application/json";
    let answer = cluster.ask(Method::POST, CONFIG_MAPS, json, "{\"metadata\":").await;
    assert_snapshot!("truncated_json", told(&answer));
    let answer = cluster.ask(Method::POST, CONFIG_MAPS, "application/yaml", "a: [b").await;
    assert_snapshot!("malformed_yaml", told(&answer));
    let answer =
        cluster.ask(Method::POST, CONFIG_MAPS, "application/yaml", "metadata: {name: web}").await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    let answer =
        cluster.ask(Method::POST, CONFIG_MAPS, "application/vnd.kubernetes.protobuf", "k8s").await;
    assert_snapshot!("not_protobuf", told(&answer));
    let large = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(3 << 20));
    let answer = cluster.ask(Method::POST, CONFIG_MAPS, json, large).await;
    assert_snapshot!("too_large", told(&answer));
    cluster.stop().await;
}

#[tokio::test]
async fn fields_that_are_not_known_or_of_another_type() {
    let mut cluster = Cluster::start().await;
    let mut unknown = config_map("a");
    unknown["dataa"] = json!({});
    let answer =
        cluster.post(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), unknown.clone()).await;
    assert_snapshot!("unknown_strict", told(&answer));
    let answer = cluster.post(CONFIG_MAPS, unknown.clone()).await;
    assert_eq!((answer.code, &answer.body["dataa"]), (201, &Value::Null));
    assert_snapshot!("unknown_warn", answer.warnings.join("\n"));
    unknown["metadata"]["name"] = "b".into();
    let answer = cluster.post(&format!("{CONFIG_MAPS}?fieldValidation=Ignore"), unknown).await;
    assert_eq!((answer.code, answer.warnings.len()), (201, 0));
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let twice = r#"{"metadata":{"name":"c"},"data":{"a":"1","a":"2"}}"#;
    let answer = cluster.ask(Method::POST, &strict, "application/json", twice).await;
    assert_snapshot!("duplicate_strict", told(&answer));
    let answer =
        cluster.post(CONFIG_MAPS, json!({ "metadata": { "name": "d" }, "data": { "a": 1 } })).await;
    assert_snapshot!("wrong_type", told(&answer));
    let answer = cluster
        .post(
            CONFIG_MAPS,
            json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": "e" } }),
        )
        .await;
    assert_snapshot!("other_kind", told(&answer));
    let answer = cluster
        .post(
            CONFIG_MAPS,
            json!({ "kind": "ConfigMap", "apiVersion": "v2", "metadata": { "name": "e" } }),
        )
        .await;
    assert_snapshot!("other_version", told(&answer));
    cluster.stop().await;
}

#[tokio::test]
async fn metadata_that_is_not_valid() {
    let mut cluster = Cluster::start().await;
    let answer = cluster.post(CONFIG_MAPS, config_map(&"x".repeat(254))).await;
    assert_snapshot!("long_name", told(&answer));
    let answer = cluster.post(CONFIG_MAPS, config_map("Upper")).await;
    assert_snapshot!("bad_name", told(&answer));
    let answer = cluster.post(CONFIG_MAPS, json!({ "metadata": {} })).await;
    assert_snapshot!("no_name", told(&answer));
    let mut other = config_map("a");
    other["metadata"]["namespace"] = "other".into();
    let answer = cluster.post(CONFIG_MAPS, other).await;
    assert_snapshot!("other_namespace", told(&answer));
    let mut owned = config_map("a");
    owned["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "" }]);
    owned["metadata"]["finalizers"] = json!(["mine"]);
    owned["metadata"]["labels"] = json!({ "a b": "c" });
    let answer = cluster.post(CONFIG_MAPS, owned).await;
    assert_snapshot!("several", told(&answer));
    let mut torn = config_map("a");
    torn["metadata"]["finalizers"] = json!(["orphan", "foregroundDeletion"]);
    let answer = cluster.post(CONFIG_MAPS, torn).await;
    assert_snapshot!("both_finalizers", told(&answer));
    let both = r#"{"orphanDependents": true, "propagationPolicy": "Orphan"}"#;
    let path = config_map_path("a");
    let answer = cluster.ask(Method::DELETE, &path, "application/json", both).await;
    assert_snapshot!("both_policies", told(&answer));
    cluster.stop().await;
}

#[tokio::test]
async fn requests_that_ask_for_the_impossible() {
    let mut cluster = Cluster::start().await;
    let list = |query: &str| format!("{CONFIG_MAPS}?{query}");
    for (name, query) in [
        ("bad_label_selector", "labelSelector=a%20in%20("),
        ("bad_field_selector", "fieldSelector=spec.color%3Dblue"),
        ("bad_revision", "resourceVersion=abc"),
        ("match_alone", "resourceVersionMatch=Exact"),
        ("bad_continue", "continue=abc"),
        ("bad_limit", "limit=many"),
    ] {
        let answer = cluster.get(&list(query)).await;
        assert_snapshot!(name, told(&answer));
    }
    let answer = cluster.post(&list("dryRun=Some"), config_map("a")).await;
    assert_snapshot!("bad_dry_run", told(&answer));
    let answer = cluster.get(&config_map_path("missing")).await;
    assert_snapshot!("not_found", told(&answer));
    let answer = cluster.get("/apis/example.com/v1/things").await;
    assert_snapshot!("unknown_resource", told(&answer));
    let answer = cluster.ask(Method::PUT, CONFIG_MAPS, "application/json", "{}").await;
    assert_snapshot!("put_on_collection", told(&answer));
    let patch = config_map_path("missing");
    let answer = cluster.ask(Method::PATCH, &patch, "application/apply-patch+yaml", "{}").await;
    assert_snapshot!("apply", told(&answer));
    cluster.stop().await;
}

#[tokio::test]
async fn writes_that_come_too_late() {
    let mut cluster = Cluster::start().await;
    let made = cluster.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let answer = cluster.post(CONFIG_MAPS, config_map("a")).await;
    assert_snapshot!("already_exists", told(&answer));
    let moved = cluster.merge(&config_map_path("a"), json!({ "data": { "color": "red" } })).await;
    assert_eq!(moved.code, 200, "{}", moved.body);
    let answer = cluster.put(&config_map_path("a"), made.body.clone()).await;
    assert_snapshot!("stale_update", told(&answer));
    let mut other = made.body.clone();
    other["metadata"]["resourceVersion"] = "".into();
    other["metadata"]["uid"] = "another".into();
    let answer = cluster.put(&config_map_path("a"), other).await;
    assert_eq!(answer.code, 409);
    assert_eq!(cluster.delete(&config_map_path("a")).await.code, 200);
    let answer = cluster.put(&config_map_path("a"), made.body).await;
    assert_snapshot!("updated_after_deletion", told(&answer));
    cluster.stop().await;
}

#[tokio::test]
async fn patches_that_do_not_apply() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("a")).await.code, 201);
    let path = config_map_path("a");
    let test = r#"[{"op":"test","path":"/data/color","value":"red"}]"#;
    let answer = cluster.ask(Method::PATCH, &path, "application/json-patch+json", test).await;
    assert_eq!((answer.code, answer.body["reason"].as_str()), (422, Some("Invalid")));
    let answer = cluster.ask(Method::PATCH, &path, "application/merge-patch+json", "[1]").await;
    assert_eq!(answer.code, 400, "{}", answer.body);
    let answer = cluster.ask(Method::PATCH, &path, "text/plain", "x").await;
    assert_eq!(answer.code, 415);
    for (patch, why) in [
        (
            json!({ "data": { "a": 1 } }),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (json!({ "dta": {} }), "strict decoding error: unknown field \"dta\""),
    ] {
        let answer = cluster.merge(&format!("{path}?fieldValidation=Strict"), patch).await;
        assert_eq!((answer.code, answer.body["reason"].as_str()), (422, Some("Invalid")));
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: "), "{message}");
        assert!(message.ends_with(why), "{message}");
    }
    let answer = cluster.merge(&path, json!({ "dta": {} })).await;
    assert_eq!((answer.code, answer.warnings.len()), (200, 1), "{}", answer.body);
    let answer = cluster.merge(&path, json!({ "metadata": { "name": "b" } })).await;
    assert_snapshot!("renamed", told(&answer));
    cluster.stop().await;
}

#[tokio::test]
async fn who_shows_no_certificate_sees_health_and_version_only() {
    let mut cluster = Cluster::start().await;
    cluster.tend().await;
    let nobody = cluster.nobody();
    for path in ["/healthz", "/livez", "/readyz?verbose", "/version"] {
        let request = request(Method::GET, path, "", "");
        let response = cluster.send(nobody.clone(), request).await;
        assert_eq!(response.status(), 200, "{path}");
    }
    let asked = request(Method::GET, CONFIG_MAPS, "", "");
    let answer = read(cluster.send(nobody, asked).await).await;
    assert_snapshot!("anonymous", told(&answer));
    cluster.stop().await;
}

#[tokio::test]
async fn acting_as_another_needs_a_name_and_the_right_to() {
    let mut cluster = Cluster::start().await;
    let mut asked = request(Method::GET, CONFIG_MAPS, "", "");
    asked.headers_mut().insert("impersonate-group", "system:masters".parse().expect("a value"));
    let answer = read(cluster.send(cluster.admin(), asked).await).await;
    assert_eq!(answer.code, 400, "{}", answer.body);
    let mut asked = request(Method::GET, CONFIG_MAPS, "", "");
    asked.headers_mut().insert("impersonate-user", "bob".parse().expect("a value"));
    let answer = read(cluster.send(cluster.admin(), asked).await).await;
    assert_snapshot!("as_bob", told(&answer));
    let mut asked = request(Method::GET, CONFIG_MAPS, "", "");
    asked.headers_mut().insert("impersonate-user", "admin".parse().expect("a value"));
    let answer = read(cluster.send(cluster.nobody(), asked).await).await;
    assert_snapshot!("anonymous_as_admin", told(&answer));
    cluster.stop().await;
}

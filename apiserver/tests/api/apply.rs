//! Server-side apply and managed fields through HTTP: who owns what after which request.

use crate::harness::{Answer, CONFIG_MAPS, Cluster, config_map, config_map_path, read, request};
use http::{Method, header};
use serde_json::{Value, json};

pub(crate) const APPLY: &str = "application/apply-patch+yaml";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// `manager operation apiVersion subresource: fieldsV1` of each, sorted.
pub(crate) fn owners(object: &Value) -> String {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let lines = entries.iter().map(|entry| {
        let text = |field: &str| entry[field].as_str().unwrap_or("-").to_string();
        assert_eq!(entry["fieldsType"], "FieldsV1");
        format!(
            "{} {} {} {}: {}",
            text("manager"),
            text("operation"),
            text("apiVersion"),
            text("subresource"),
            entry["fieldsV1"]
        )
    });
    // The order of one second's entries is told elsewhere; here seconds may or may not pass.
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.join("\n")
}

pub(crate) async fn apply(
    cluster: &mut Cluster,
    path: &str,
    manager: &str,
    config: &Value,
) -> Answer {
    let path = format!("{path}?fieldManager={manager}");
    cluster.ask(Method::PATCH, &path, APPLY, config.to_string()).await
}

fn deployment(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "nginx", "image": image, "ports": [{"containerPort": 80}]}]},
            },
        },
    })
}

#[tokio::test]
async fn every_write_has_an_owner() {
    let mut cluster = Cluster::start().await;
    let mut create =
        request(Method::POST, DEPLOYMENTS, "application/json", deployment("a:1").to_string());
    create
        .headers_mut()
        .insert(header::USER_AGENT, "kubectl/v1.36.4 (linux/amd64)".parse().unwrap());
    let created = read(cluster.send(cluster.admin(), create).await).await;
    assert_eq!(created.code, 201, "{}", created.body);
    insta::assert_snapshot!("created", owners(&created.body));

    let path = format!("{DEPLOYMENTS}/web");
    let status = json!({"status": {"replicas": 1, "observedGeneration": 1}});
    let patched = cluster.merge(&format!("{path}/status?fieldManager=controller"), status).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    let scaled = json!({"spec": {"replicas": 3}});
    let scaled = cluster.merge(&format!("{path}/scale?fieldManager=scaler"), scaled).await;
    assert_eq!(scaled.code, 200, "{}", scaled.body);
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "nginx", "image": "a:2"}]}}}});
    let media = "application/strategic-merge-patch+json";
    let patched = cluster
        .ask(Method::PATCH, &format!("{path}?fieldManager=setter"), media, image.to_string())
        .await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    insta::assert_snapshot!("patched", owners(&patched.body));

    let before = cluster.get(&path).await.body;
    let same = cluster.put(&format!("{path}?fieldManager=nobody"), before.clone()).await;
    assert_eq!(same.body, before, "nothing changed, so nothing is written");
    let mut bare = before.clone();
    bare["metadata"].as_object_mut().unwrap().remove("managedFields");
    let same = cluster.put(&path, bare).await;
    assert_eq!(same.body, before, "leaving managed fields out does not lose them");
    let mut forgotten = before.clone();
    forgotten["metadata"]["managedFields"] = json!([{}]);
    let forgotten = cluster.put(&path, forgotten).await;
    assert_eq!(forgotten.body["metadata"].get("managedFields"), None);
    cluster.stop().await;
}

#[tokio::test]
async fn an_applied_configuration_creates_merges_and_prunes() {
    let mut cluster = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let made = apply(&mut cluster, &path, "one", &deployment("a:1")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    insta::assert_snapshot!("applied", owners(&made.body));
    let again = apply(&mut cluster, &path, "one", &deployment("a:1")).await;
    assert_eq!((again.code, &again.body), (200, &made.body), "the same again is no write");

    let conflict = apply(&mut cluster, &path, "two", &deployment("a:2")).await;
    let image = ".spec.template.spec.containers[name=\"nginx\"].image";
    assert_eq!((conflict.code, &conflict.body["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        conflict.body["message"],
        format!("Apply failed with 1 conflict: conflict with \"one\": {image}")
    );
    assert_eq!(
        conflict.body["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": image}])
    );
    let path_forced = format!("{path}?force=true&fieldManager=two");
    let forced =
        cluster.ask(Method::PATCH, &path_forced, APPLY, deployment("a:2").to_string()).await;
    assert_eq!(forced.code, 200, "{}", forced.body);
    insta::assert_snapshot!("forced", owners(&forced.body));

    let mut less = deployment("a:2");
    less["spec"].as_object_mut().unwrap().remove("replicas");
    less["metadata"].as_object_mut().unwrap().remove("labels");
    let kept = apply(&mut cluster, &path, "two", &less).await;
    assert_eq!(kept.body["metadata"]["labels"], json!({"app": "web"}), "one applies them still");
    let mut less = deployment("a:3");
    less["metadata"].as_object_mut().unwrap().remove("labels");
    let pruned = apply(&mut cluster, &path, "one", &less).await;
    assert_eq!(pruned.code, 409, "{}", pruned.body);
    less["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("image");
    let pruned = apply(&mut cluster, &path, "one", &less).await;
    assert_eq!(pruned.code, 200, "{}", pruned.body);
    assert_eq!(pruned.body["metadata"].get("labels"), None);
    cluster.stop().await;
}

#[tokio::test]
async fn status_and_scale_are_applied_to_by_themselves() {
    let mut cluster = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    apply(&mut cluster, &path, "one", &deployment("a:1")).await;
    let status = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 7},
        "status": {"conditions": [{"type": "Odd", "status": "True", "reason": "x", "message": "y"}]},
    });
    let missing = apply(&mut cluster, &format!("{DEPLOYMENTS}/none/status"), "c", &status).await;
    assert_eq!(missing.code, 404, "{}", missing.body);
    let applied = apply(&mut cluster, &format!("{path}/status"), "c", &status).await;
    assert_eq!(applied.code, 200, "{}", applied.body);
    assert_eq!(applied.body["spec"]["replicas"], 1);
    assert_eq!(applied.body["status"]["conditions"][0]["type"], "Odd");
    let scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"},
        "spec": {"replicas": 4},
    });
    let conflict = apply(&mut cluster, &format!("{path}/scale"), "hpa", &scale).await;
    assert_eq!(
        conflict.body["message"],
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
    );
    let forced = format!("{path}/scale?force=true&fieldManager=hpa");
    let scaled = cluster.ask(Method::PATCH, &forced, APPLY, scale.to_string()).await;
    assert_eq!(scaled.code, 200, "{}", scaled.body);
    let object = cluster.get(&path).await.body;
    assert_eq!(object["spec"]["replicas"], 4);
    insta::assert_snapshot!("scaled", owners(&object));
    cluster.stop().await;
}

#[tokio::test]
async fn bad_applies_are_refused_as_upstream_refuses_them() {
    let mut cluster = Cluster::start().await;
    let path = config_map_path("a");
    let good = config_map("a");
    let mut out = Vec::new();
    let mut note = |what: &str, answer: Answer| {
        let reason = answer.body["reason"].as_str().unwrap_or("-").to_string();
        let message = answer.body["message"].as_str().unwrap_or("-").to_string();
        out.push(format!("{what}: {} {reason} {message}", answer.code));
    };
    let text = good.to_string();
    note("no manager", cluster.ask(Method::PATCH, &path, APPLY, text.clone()).await);
    let odd = format!("{path}?fieldManager=a%00b");
    note("odd manager", cluster.ask(Method::PATCH, &odd, APPLY, text.clone()).await);
    let long = format!("{path}?fieldManager={}", "x".repeat(129));
    note("long manager", cluster.ask(Method::PATCH, &long, APPLY, text.clone()).await);
    let forced = format!("{path}?force=true");
    let merge = "application/merge-patch+json";
    note("force of a patch", cluster.ask(Method::PATCH, &forced, merge, "{}").await);
    let named = format!("{path}?fieldManager=m");
    note("no yaml", cluster.ask(Method::PATCH, &named, APPLY, "{").await);
    note("no object", cluster.ask(Method::PATCH, &named, APPLY, "[]").await);
    note("no type", apply(&mut cluster, &path, "m", &json!({"metadata": {"name": "a"}})).await);
    let mut config = good.clone();
    config["metadata"]["managedFields"] = json!([]);
    note("managers", apply(&mut cluster, &path, "m", &config).await);
    let mut config = good.clone();
    config["bogus"] = json!(1);
    note("unknown field", apply(&mut cluster, &path, "m", &config).await);
    let mut config = good.clone();
    config["metadata"]["uid"] = json!("u");
    note("uid of nothing", apply(&mut cluster, &path, "m", &config).await);
    let mut config = good.clone();
    config["metadata"]["name"] = json!("b");
    note("other name", apply(&mut cluster, &path, "m", &config).await);
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  a: x\n  a: z\n";
    let strict = format!("{named}&fieldValidation=Strict");
    note("twice", cluster.ask(Method::PATCH, &strict, APPLY, twice).await);
    let created = cluster.ask(Method::PATCH, &named, APPLY, twice).await;
    assert_eq!((created.code, created.warnings.len()), (201, 1), "{}", created.body);
    let mut config = good.clone();
    config["metadata"]["resourceVersion"] = json!("1");
    note("old version", apply(&mut cluster, &path, "m", &config).await);
    let dry = format!("{named}&dryRun=All");
    let answer = cluster.ask(Method::PATCH, &dry, APPLY, good.to_string()).await;
    assert_eq!((answer.code, &answer.body["data"]["color"]), (200, &json!("blue")));
    assert_eq!(cluster.get(&path).await.body["data"].get("color"), None);
    insta::assert_snapshot!(out.join("\n"));
    cluster.stop().await;
}

#[tokio::test]
async fn managed_fields_come_with_every_form_of_an_object() {
    let mut cluster = Cluster::start().await;
    let created = cluster.post(&format!("{CONFIG_MAPS}?fieldManager=m"), config_map("a")).await;
    let managed = created.body["metadata"]["managedFields"].clone();
    assert_eq!(managed[0]["manager"], "m", "{}", created.body);
    let path = config_map_path("a");
    assert_eq!(cluster.get(&path).await.body["metadata"]["managedFields"], managed);
    let list = cluster.get(CONFIG_MAPS).await.body;
    let listed = list["items"].as_array().unwrap().iter().find(|o| o["metadata"]["name"] == "a");
    assert_eq!(listed.unwrap()["metadata"]["managedFields"], managed);
    let mut partial = request(Method::GET, &path, "", "");
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    partial.headers_mut().insert(header::ACCEPT, accept.parse().unwrap());
    let partial = read(cluster.send(cluster.admin(), partial).await).await;
    assert_eq!(partial.body["metadata"]["managedFields"], managed);
    let finalized = json!({"metadata": {"finalizers": ["example.com/x"]}});
    cluster.merge(&format!("{path}?fieldManager=m"), finalized).await;
    let deleted = cluster.delete(&path).await;
    assert_eq!(deleted.code, 200);
    let kept = cluster.get(&path).await.body;
    assert!(kept["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(kept["metadata"]["managedFields"][0]["manager"], "m");
    cluster.stop().await;
}

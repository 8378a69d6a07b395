//! Who may come in: service-account tokens, front proxies, impersonation, certificates by request.

use crate::harness::{Answer, Cluster, read, request};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, Method};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

async fn account(cluster: &mut Cluster, name: &str) {
    let body = json!({ "metadata": { "name": name } });
    assert_eq!(cluster.post(ACCOUNTS, body).await.code, 201);
}

async fn token(cluster: &mut Cluster, account: &str, spec: Value) -> (u16, Value) {
    let body = json!({ "spec": spec });
    let answer = cluster.post(&format!("{ACCOUNTS}/{account}/token"), body).await;
    (answer.code, answer.body)
}

#[tokio::test]
async fn a_token_is_worth_what_it_is_bound_to() {
    let mut cluster = Cluster::start().await;
    account(&mut cluster, "builder").await;
    let pod = json!({
        "metadata": { "name": "web" },
        "spec": { "serviceAccountName": "builder",
                  "containers": [{ "name": "app", "image": "app" }] },
    });
    let pods = "/api/v1/namespaces/default/pods";
    let pod = cluster.post(pods, pod).await;
    assert_eq!(pod.code, 201, "{}", pod.body);
    let volume = pod.body["spec"]["volumes"][0].clone();
    assert!(volume["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-")));
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    let mount = &pod.body["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");

    let reference = json!({ "apiVersion": "v1", "kind": "Pod", "name": "web" });
    let (code, answer) =
        token(&mut cluster, "builder", json!({ "boundObjectRef": reference })).await;
    assert_eq!((code, &answer["kind"]), (201, &json!("TokenRequest")), "{answer}");
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    let bearer = answer["status"]["token"].as_str().expect("a token").to_string();
    let refused = cluster.bear(&bearer, "/api/v1/namespaces/default/secrets").await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    let message = refused.body["message"].as_str().unwrap_or_default();
    assert!(message.contains("\"system:serviceaccount:default:builder\""), "{message}");

    let review = json!({ "spec": { "token": bearer } });
    let reviewed = cluster.post(REVIEWS, review.clone()).await.body;
    assert_eq!(reviewed["status"]["authenticated"], true, "{reviewed}");
    let extra = &reviewed["status"]["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["web"]));
    let others = json!({ "spec": { "token": bearer, "audiences": ["vault"] } });
    let reviewed = cluster.post(REVIEWS, others).await.body;
    assert_eq!(reviewed["status"]["authenticated"], Value::Null);

    cluster.delete(&format!("{pods}/web?gracePeriodSeconds=0")).await;
    assert_eq!(cluster.bear(&bearer, "/api").await.code, 401);
    assert_eq!(cluster.bear("rubbish", "/healthz").await.code, 401);
    cluster.stop().await;
}

#[tokio::test]
async fn token_requests_that_cannot_be_are_refused_as_upstream_does() {
    let mut cluster = Cluster::start().await;
    account(&mut cluster, "builder").await;
    let pod = |uid: &str| json!({ "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid });
    let mut lines = Vec::new();
    for (account, spec) in [
        ("builder", json!({ "expirationSeconds": 599 })),
        ("builder", json!({ "expirationSeconds": 5_000_000_000i64 })),
        ("ghost", json!({})),
        ("builder", json!({ "boundObjectRef": pod("") })),
        (
            "builder",
            json!({ "boundObjectRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "x" } }),
        ),
    ] {
        let (code, body) = token(&mut cluster, account, spec).await;
        lines.push(format!("{code} {}", body["message"].as_str().unwrap_or_default()));
    }
    insta::assert_snapshot!(lines.join("\n"));
    let missing = cluster.post(REVIEWS, json!({ "spec": {} })).await;
    assert_eq!(missing.code, 400);
    let pod = json!({
        "metadata": { "name": "x" },
        "spec": { "serviceAccountName": "ghost",
                  "containers": [{ "name": "app", "image": "app" }] },
    });
    let refused = cluster.post("/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(refused.code, 403);
    cluster.stop().await;
}

#[tokio::test]
async fn others_can_verify_our_tokens() {
    let mut cluster = Cluster::start().await;
    let document = cluster.get("/.well-known/openid-configuration").await;
    assert_eq!(document.body["issuer"], "https://kubernetes.default.svc.cluster.local");
    let keys = cluster.get("/openid/v1/jwks").await;
    assert_eq!(keys.body["keys"][0]["alg"], "ES256");
    let (_, answer) = token(&mut cluster, "default", json!({})).await;
    let bearer = answer["status"]["token"].as_str().expect("a token").to_string();
    assert_eq!(cluster.bear(&bearer, "/openid/v1/jwks").await.code, 200, "any account may");
    cluster.stop().await;
}

#[tokio::test]
async fn a_secret_for_an_account_is_filled_and_goes_with_it() {
    let mut cluster = Cluster::start().await;
    account(&mut cluster, "builder").await;
    let secret = json!({
        "metadata": { "name": "key",
                      "annotations": { "kubernetes.io/service-account.name": "builder" } },
        "type": "kubernetes.io/service-account-token",
    });
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(cluster.post(secrets, secret).await.code, 201);
    let path = format!("{secrets}/key");
    let filled = cluster.until(&path, |answer| !answer["data"]["token"].is_null()).await;
    let bearer = STANDARD.decode(filled["data"]["token"].as_str().expect("text")).expect("base64");
    let bearer = String::from_utf8(bearer).expect("text");
    assert_eq!(cluster.bear(&bearer, "/api").await.code, 200);
    cluster.delete(&format!("{ACCOUNTS}/builder")).await;
    assert_eq!(cluster.bear(&bearer, "/api").await.code, 401);
    cluster.stop().await;
}

#[tokio::test]
async fn a_proxy_speaks_for_others_and_nobody_else_does() {
    let mut cluster = Cluster::start().await;
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let headers = [
        ("x-remote-user", "jane"),
        ("x-remote-group", "dev"),
        ("x-remote-extra-example.com%2fscope", "view"),
    ];
    let mut users = Vec::new();
    for tls in [cluster.proxy(), cluster.admin(), cluster.nobody()] {
        let mut ask = request(Method::POST, whoami, "application/json", "{}");
        for (name, value) in headers {
            ask.headers_mut().insert(HeaderName::from_static(name), value.parse().expect("text"));
        }
        let response = cluster.send(tls, ask).await;
        let answer = read(response).await;
        users.push(answer.body["status"]["userInfo"]["username"].clone());
        if users.len() == 1 {
            let info = &answer.body["status"]["userInfo"];
            assert_eq!(info["groups"], json!(["dev", "system:authenticated"]));
            assert_eq!(info["extra"]["example.com/scope"], json!(["view"]));
        }
    }
    assert_eq!(users, [json!("jane"), json!("admin"), Value::Null]);
    let known = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let published = cluster.get(known).await.body;
    assert_eq!(published["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    cluster.stop().await;
}

fn csr(user: &str, group: &str, signer: &str, usages: &[&str]) -> Value {
    csr_for(&[], user, group, signer, usages)
}

/// One with alternative names.
fn csr_for(names: &[&str], user: &str, group: &str, signer: &str, usages: &[&str]) -> Value {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params.distinguished_name.push(DnType::OrganizationName, group);
    let key = KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    json!({
        "metadata": { "generateName": "csr-" },
        "spec": { "request": STANDARD.encode(pem), "signerName": signer, "usages": usages,
                  "username": "somebody else" },
    })
}

#[tokio::test]
async fn an_approved_request_is_signed() {
    let mut cluster = Cluster::start().await;
    let usages = ["digital signature", "client auth"];
    let client = "kubernetes.io/kube-apiserver-client";
    let made = cluster.post(CSRS, csr("jane", "dev", client, &usages)).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["spec"]["username"], "admin", "the server knows who asked");
    let path = format!("{CSRS}/{}", made.body["metadata"]["name"].as_str().expect("a name"));
    let approved = json!({ "status": { "conditions": [
        { "type": "Approved", "status": "True", "reason": "Test" }] } });
    let through_status = cluster.merge(&format!("{path}/status"), approved.clone()).await;
    assert_eq!(through_status.code, 422, "{}", through_status.body);
    let answer = cluster.merge(&format!("{path}/approval"), approved).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    let signed = cluster.until(&path, |csr| !csr["status"]["certificate"].is_null()).await;
    let pem = STANDARD.decode(signed["status"]["certificate"].as_str().expect("text"));
    assert!(pem.expect("base64").starts_with(b"-----BEGIN CERTIFICATE-----"));
    let denied = json!({ "status": { "conditions": [
        { "type": "Denied", "status": "True", "reason": "Test" }] } });
    let late = cluster.merge(&format!("{path}/approval"), denied).await;
    assert_eq!(late.code, 422, "{}", late.body);
    cluster.stop().await;
}

#[tokio::test]
async fn requests_nobody_may_make_are_refused() {
    let mut cluster = Cluster::start().await;
    let client = "kubernetes.io/kube-apiserver-client";
    let usages = ["client auth"];
    let mut wrong = csr("jane", "dev", "nowhere", &["client auth", "client auth", "magic"]);
    wrong["spec"]["request"] = STANDARD.encode("rubbish").into();
    wrong["spec"]["expirationSeconds"] = 5.into();
    let mut lines = Vec::new();
    for body in [csr("jane", "system:masters", client, &usages), wrong] {
        let answer = cluster.post(CSRS, body).await;
        let mut text = answer.body["message"].as_str().unwrap_or_default().to_string();
        if let Some((_, rest)) = text.split_once("\" is ") {
            text = rest.to_string();
        }
        lines.push(format!("{} {text}", answer.code));
    }
    insta::assert_snapshot!(lines.join("\n"));
    cluster.stop().await;
}

/// A request of node `n1`, brought by a proxy.
async fn as_node(cluster: &mut Cluster, method: Method, path: &str, body: Value) -> String {
    let node = ("system:node:n1", "system:nodes");
    let answer = by(cluster, node, method.clone(), path, body).await;
    format!("{method} {path}: {} {}", answer.code, answer.body["message"].as_str().unwrap_or("-"))
}

/// A request of some user and group, brought by a proxy.
async fn by(
    cluster: &mut Cluster,
    (user, group): (&str, &str),
    method: Method,
    path: &str,
    body: Value,
) -> Answer {
    let patch = method == Method::PATCH;
    let media = if patch { "application/merge-patch+json" } else { "application/json" };
    let mut ask = request(method, path, media, body.to_string());
    for (name, value) in [("x-remote-user", user), ("x-remote-group", group)] {
        ask.headers_mut().insert(HeaderName::from_static(name), value.parse().expect("text"));
    }
    let response = cluster.send(cluster.proxy(), ask).await;
    read(response).await
}

/// A node comes with a token, is itself from then on, and gets what it serves with once the masters
/// know where it is.
#[tokio::test]
async fn a_node_gets_its_certificates_unasked_and_no_others() {
    let mut cluster =
        Cluster::start_with(|config| config.api_names = vec!["10.0.0.1".into()]).await;
    let bootstrapper = ("system:bootstrap:abcdef", "system:bootstrappers:coxswain:nodes");
    let node = ("system:node:n1", "system:nodes");
    let client = "kubernetes.io/kube-apiserver-client-kubelet";
    let serving = "kubernetes.io/kubelet-serving";
    let (for_client, for_server) =
        (["digital signature", "client auth"], ["digital signature", "server auth"]);
    let issued = |csr: &Value| !csr["status"]["certificate"].is_null();
    let path = |answer: &Answer| {
        assert_eq!(answer.code, 201, "{}", answer.body);
        format!("{CSRS}/{}", answer.body["metadata"]["name"].as_str().expect("a name"))
    };
    for (who, whose) in [(bootstrapper, node.0), (node, node.0)] {
        let body = csr(whose, "system:nodes", client, &for_client);
        let made = by(&mut cluster, who, Method::POST, CSRS, body).await;
        cluster.until(&path(&made), issued).await;
    }
    // Of another node: the one after it is answered, this one never was.
    let body = csr("system:node:n2", "system:nodes", client, &for_client);
    let others = path(&by(&mut cluster, node, Method::POST, CSRS, body).await);

    let names = ["n1", "10.0.0.11"];
    let body = csr_for(&names, node.0, "system:nodes", serving, &for_server);
    let made = by(&mut cluster, node, Method::POST, CSRS, body.clone()).await;
    let waits = |csr: &Value| !csr["status"]["conditions"].is_null();
    let early = cluster.until(&path(&made), waits).await;
    let message = early["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("the node that asks is not there yet"), "{message}");
    assert_eq!(early["status"]["conditions"][0]["status"], "False");

    let addresses =
        ["10.0.0.11", "10.0.0.1"].map(|at| json!({"type": "InternalIP", "address": at}));
    let hostname = json!({"type": "Hostname", "address": "n1"});
    let status = json!({ "addresses": [hostname, addresses[0], addresses[1]] });
    let object = json!({ "metadata": { "name": "n1" }, "status": status });
    let answer = by(&mut cluster, node, Method::POST, "/api/v1/nodes", object).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    let made = by(&mut cluster, node, Method::POST, CSRS, body).await;
    cluster.until(&path(&made), issued).await;
    // A node that says that it is where a master is.
    let body = csr_for(&["n1", "10.0.0.1"], node.0, "system:nodes", serving, &for_server);
    let made = by(&mut cluster, node, Method::POST, CSRS, body).await;
    let refused = cluster.until(&path(&made), waits).await;
    let message = refused["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("10.0.0.1 leads to masters"), "{message}");
    let others = cluster.get(&others).await.body;
    assert_eq!(others["status"].get("conditions"), None, "{others}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_changes_what_is_its_own() {
    let mut cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    for (name, node) in [("own", "n1"), ("other", "n2")] {
        let pod = json!({
            "metadata": { "name": name },
            "spec": { "nodeName": node, "containers": [{ "name": "app", "image": "app" }] },
        });
        let made = cluster.post(pods, pod).await;
        assert_eq!(made.code, 201, "{}", made.body);
    }
    let uid = |body: Value| body["metadata"]["uid"].clone();
    let (own, other) = (
        uid(cluster.get(&format!("{pods}/own")).await.body),
        uid(cluster.get(&format!("{pods}/other")).await.body),
    );
    let node =
        |name: &str, label: &str| json!({ "metadata": { "name": name, "labels": { label: "x" } } });
    let bound = |name: &str, uid: &Value| {
        json!({ "spec": { "boundObjectRef":
            { "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid } } })
    };
    let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let nodes = "/api/v1/nodes";
    let asked = [
        (Method::POST, nodes, node("n1", "node-restriction.kubernetes.io/trusted")),
        (Method::POST, nodes, node("n1", "kubernetes.io/role")),
        (Method::POST, nodes, node("n2", "example.com/a")),
        (Method::POST, nodes, node("n1", "kubernetes.io/os")),
        (
            Method::PATCH,
            "/api/v1/nodes/n1",
            json!({ "spec": { "taints": [{ "key": "a", "effect": "NoSchedule" }] } }),
        ),
        (Method::POST, token, json!({})),
        (Method::POST, token, bound("own", &own)),
        (Method::POST, token, bound("other", &other)),
        (
            Method::PATCH,
            "/api/v1/namespaces/default/pods/own/status",
            json!({ "status": { "phase": "Running" } }),
        ),
        (
            Method::PATCH,
            "/api/v1/namespaces/default/pods/other/status",
            json!({ "status": { "phase": "Running" } }),
        ),
        (
            Method::POST,
            pods,
            json!({ "metadata": { "name": "new" }, "spec": { "nodeName": "n1", "containers": [{ "name": "a", "image": "a" }] } }),
        ),
        (Method::GET, "/api/v1/namespaces/default/pods/other", json!({})),
        (Method::DELETE, "/api/v1/namespaces/default/pods/other", json!({})),
    ];
    let mut lines = Vec::new();
    for (method, path, body) in asked {
        lines.push(as_node(&mut cluster, method, path, body).await);
    }
    insta::assert_snapshot!(lines.join("\n"));
    cluster.stop().await;
}

//! Proxies to pods and services and aggregated groups, through a node that stands in for an agent;
//! flow control's and the audit log's view of requests.

use crate::harness::{Answer, Cluster, read, request};
use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

const POD: &str = "/api/v1/namespaces/default/pods/p";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const GROUP: &str = "/apis/wardle.example.com/v1alpha1";

/// A webhook's answer: no to whatever has to do with something secret.
async fn review(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("a review");
    let asked = &review["request"];
    let text = |field: &str| asked[field].as_str().unwrap_or_default().to_string();
    let what = format!("{} {} {}", text("operation"), text("name"), asked["object"]);
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {
            "uid": asked["uid"], "allowed": !what.contains("secret"),
            "warnings": [text("operation")], "status": { "message": what },
        },
    });
    Response::new(answer.to_string().into())
}

/// What is behind an address in the pod network: a page, a redirect, an extension server, an echo.
async fn pod(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/review" {
        return Ok(review(request).await);
    }
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_string()
    };
    let mut response = Response::new(Full::default());
    let text = match request.uri().path() {
        "/page/" => {
            let html = header::HeaderValue::from_static("text/html");
            response.headers_mut().insert(header::CONTENT_TYPE, html);
            r#"<a href="/rewriteme">test</a>"#.to_string()
        }
        "/moved" => {
            *response.status_mut() = StatusCode::FOUND;
            let there = header::HeaderValue::from_static("/there/");
            response.headers_mut().insert(header::LOCATION, there);
            String::new()
        }
        GROUP => json!({ "kind": "APIResourceList", "groupVersion": "wardle.example.com/v1alpha1",
            "resources": [{ "name": "flunders", "singularName": "flunder", "namespaced": true,
                            "kind": "Flunder", "verbs": ["get", "list"] }] })
        .to_string(),
        path => {
            let query = request.uri().query().unwrap_or_default();
            json!({
                "method": request.method().as_str(), "path": path, "query": query,
                "user": header("x-remote-user"), "group": header("x-remote-group"),
                "host": header("host"), "authorization": header("authorization"),
            })
            .to_string()
        }
    };
    *response.body_mut() = Full::new(text.into());
    Ok(response)
}

/// The agent: connects to pods, 443 with TLS; answers everything else with the path.
async fn agent(
    request: Request<Incoming>,
    tls: TlsAcceptor,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_string();
    let Some(address) = path.strip_prefix("/coxswain/dial/") else {
        return Ok(Response::new(path.into()));
    };
    if address.starts_with("10.9.9.9/") {
        let mut gone = Response::new(Full::from("no pod of this node has the address 10.9.9.9"));
        *gone.status_mut() = StatusCode::GONE;
        return Ok(gone);
    }
    let secure = address.ends_with("/443");
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.expect("upgraded");
        let io = TokioIo::new(upgraded);
        // Both end with an error where the master leaves first.
        if secure {
            let stream = tls.accept(io).await.expect("TLS");
            let served =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(pod));
            let _ = served.await;
        } else {
            let served = http1::Builder::new().serve_connection(TokioIo::new(io), service_fn(pod));
            let _ = served.await;
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let value = header::HeaderValue::from_static;
    response.headers_mut().insert(header::CONNECTION, value("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, value("coxswain-tcp"));
    Ok(response)
}

async fn start_agent(cluster: &Cluster, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let acceptor = TlsAcceptor::from(cluster.node_tls.clone());
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let tls = acceptor.clone();
                let stream = acceptor.accept(tcp).await.expect("TLS");
                let service = service_fn(move |request| agent(request, tls.clone()));
                let serving = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                // Ends with an error where the master leaves first.
                let _ = serving.await;
            });
        }
    });
    address
}

fn made(answer: &Answer) {
    assert!(matches!(answer.code, 200 | 201), "{}", answer.body);
}

/// A pod on a node, a service in front of it.
async fn cluster(tasks: &mut JoinSet<()>) -> Cluster {
    let mut cluster = Cluster::start().await;
    let address = start_agent(&cluster, tasks).await;
    made(&cluster.post("/api/v1/nodes", json!({ "metadata": { "name": "n1" } })).await);
    let status = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": address.ip() }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": address.port() } },
    }});
    made(&cluster.merge("/api/v1/nodes/n1/status", status).await);
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "n1",
        "containers": [{ "name": "c", "image": "i" }] } });
    made(&cluster.post("/api/v1/namespaces/default/pods", pod).await);
    let status = json!({ "status": { "phase": "Running", "podIP": "10.1.2.3",
                                     "podIPs": [{ "ip": "10.1.2.3" }] } });
    made(&cluster.merge(&format!("{POD}/status"), status).await);
    let service = json!({ "metadata": { "name": "web" }, "spec": { "ports": [
        { "name": "http", "port": 80, "targetPort": 8080 },
        { "name": "https", "port": 443, "targetPort": 443 },
    ]}});
    made(&cluster.post(SERVICES, service).await);
    let slice = json!({
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }, { "name": "https", "port": 443 }],
        "endpoints": [{ "addresses": ["10.1.2.3"], "nodeName": "n1" }],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    made(&cluster.post(slices, slice).await);
    cluster
}

#[tokio::test]
async fn pods_and_services_are_reached_through_their_node() {
    let mut tasks = JoinSet::new();
    let mut cluster = cluster(&mut tasks).await;
    let echoed = cluster.get(&format!("{POD}:8080/proxy/a%20b/?x=1")).await;
    assert_eq!(
        (echoed.body["path"].as_str(), echoed.body["query"].as_str()),
        (Some("/a%20b/"), Some("x=1"))
    );
    for method in [Method::DELETE, Method::OPTIONS, Method::PATCH, Method::POST, Method::PUT] {
        for path in [format!("{POD}/proxy/some/path"), format!("{SERVICES}/web:http/proxy?q")] {
            let answer = cluster.ask(method.clone(), &path, "text/plain", "body").await;
            assert_eq!(answer.body["method"], method.as_str(), "{path}: {}", answer.body);
        }
    }
    let page = cluster.get(&format!("{SERVICES}/http:web:80/proxy/page/")).await;
    let link = format!(r#"<a href="{SERVICES}/http:web:80/proxy/rewriteme">test</a>"#);
    assert_eq!(page.body, link.as_str());
    let secure = cluster.get(&format!("{SERVICES}/https:web:443/proxy/x")).await;
    assert_eq!(secure.body["path"], "/x");
    let missing = cluster.get(&format!("{SERVICES}/web:81/proxy/")).await;
    assert_eq!(
        (missing.code, missing.body["message"].as_str()),
        (503, Some("no service port 81 found for service \"web\""))
    );
    let named = cluster.get(&format!("{POD}:8080:x:y/proxy/")).await;
    assert_eq!(named.code, 400);
    cluster.stop().await;
}

#[tokio::test]
async fn redirects_lead_back_and_refusals_are_told() {
    let mut tasks = JoinSet::new();
    let mut cluster = cluster(&mut tasks).await;
    for (path, location) in [
        (format!("{POD}/proxy?a=b"), format!("{POD}/proxy/?a=b")),
        (format!("{POD}/proxy/moved"), format!("{POD}/proxy/there/")),
    ] {
        let response = cluster.send(cluster.admin(), request(Method::GET, &path, "", "")).await;
        assert!(response.status().is_redirection());
        assert_eq!(response.headers()[header::LOCATION], location.as_str());
    }
    let elsewhere = json!({ "status": { "podIP": "10.9.9.9" } });
    made(&cluster.merge(&format!("{POD}/status"), elsewhere).await);
    let refused = cluster.get(&format!("{POD}/proxy/")).await;
    let why = "error trying to reach service: no pod of this node has the address 10.9.9.9";
    assert_eq!((refused.code, refused.body["message"].as_str()), (503, Some(why)));
    let itself = json!({ "status": { "podIP": "127.0.0.1" } });
    made(&cluster.merge(&format!("{POD}/status"), itself).await);
    let refused = cluster.get(&format!("{POD}/proxy/")).await;
    assert_eq!(
        (refused.code, refused.body["message"].as_str()),
        (400, Some("address not allowed"))
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_webhook_in_a_pod_is_asked_of_writes_and_of_connections() {
    let mut tasks = JoinSet::new();
    let mut cluster = cluster(&mut tasks).await;
    let ca = base64::engine::general_purpose::STANDARD.encode(&cluster.ca);
    let service = json!({ "namespace": "default", "name": "web", "path": "/review" });
    let configuration = json!({ "metadata": { "name": "h" }, "webhooks": [{
        "name": "h.example.com", "clientConfig": { "service": service, "caBundle": ca },
        "rules": [
            { "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
              "resources": ["configmaps"] },
            { "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"],
              "resources": ["pods/attach", "pods/proxy", "services/proxy"] },
        ],
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
    }] });
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    made(&cluster.post(path, configuration).await);
    let maps = "/api/v1/namespaces/default/configmaps";
    let made = cluster.post(maps, json!({ "metadata": { "name": "a" } })).await;
    assert_eq!((made.code, made.warnings), (201, vec![r#"299 - "CREATE""#.to_string()]));
    let mut refusals = Vec::new();
    refusals.push(cluster.post(maps, json!({ "metadata": { "name": "secret" } })).await);
    let attach = format!("{POD}/attach?container=secret&stdin=true");
    refusals.push(cluster.ask(Method::POST, &attach, "", "").await);
    refusals.push(cluster.get(&format!("{POD}:8080/proxy/a/secret/?x=1")).await);
    refusals.push(cluster.get(&format!("{SERVICES}/web:http/proxy/secret")).await);
    refusals.push(cluster.get(&format!("{POD}:8080/proxy/a?dryRun=All")).await);
    let told: Vec<String> = refusals
        .iter()
        .map(|answer| {
            let message = answer.body["message"].as_str().unwrap_or_default();
            let object = message.find('{').filter(|_| message.contains("\"uid\""));
            format!("{} {}", answer.code, &message[..object.unwrap_or(message.len())])
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
    let seen = cluster.get(&format!("{POD}:8080/proxy/a/")).await;
    assert_eq!((seen.code, &seen.body["path"]), (200, &json!("/a/")));
    assert_eq!(seen.warnings, [r#"299 - "CONNECT""#]);
    cluster.stop().await;
}

fn is_available(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|one| one["type"] == "Available" && one["status"] == "True")
}

#[tokio::test]
async fn a_group_of_another_server_joins_this_ones() {
    let mut tasks = JoinSet::new();
    let mut cluster = cluster(&mut tasks).await;
    let server = cluster.server.clone();
    tasks.spawn(async move { server.tend().await });
    let service = json!({
        "metadata": { "name": "v1alpha1.wardle.example.com" },
        "spec": {
            "group": "wardle.example.com", "version": "v1alpha1",
            "service": { "name": "web", "namespace": "default", "port": 443 },
            "insecureSkipTLSVerify": true,
            "groupPriorityMinimum": 2000, "versionPriority": 200,
        },
    });
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    made(&cluster.post(services, service).await);
    let own = format!("{services}/v1alpha1.wardle.example.com");
    cluster.until(&own, is_available).await;
    let local = cluster.until(&format!("{services}/v1.apps"), is_available).await;
    assert_eq!(local["status"]["conditions"][0]["reason"], "Local");
    assert_eq!(local["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    let flunders = cluster.get(&format!("{GROUP}/namespaces/default/flunders?limit=500")).await;
    assert_eq!(flunders.body["user"], "admin");
    assert_eq!(flunders.body["group"], "system:masters");
    assert_eq!(flunders.body["host"], "web.default.svc");
    let list = cluster.get(GROUP).await;
    assert_eq!(list.body["resources"][0]["kind"], "Flunder");
    let groups = cluster.get("/apis").await;
    let named = |name: &str| {
        let groups = groups.body["groups"].as_array().expect("groups");
        groups.iter().filter(|group| group["name"] == name).count()
    };
    assert_eq!((named("wardle.example.com"), named("metrics.k8s.io"), named("apps")), (1, 1, 1));
    let gone = json!({ "spec": { "service": { "port": 444 } } });
    made(&cluster.merge(&own, gone).await);
    let object = cluster.until(&own, |object| !is_available(object)).await;
    let condition = &object["status"]["conditions"][0];
    assert_eq!(condition["reason"], "ServicePortError", "{condition}");
    tasks.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn requests_say_how_they_were_classified() {
    let mut tasks = JoinSet::new();
    let mut cluster = Cluster::start().await;
    let server = cluster.server.clone();
    tasks.spawn(async move { server.tend().await });
    // Asked without HTTP: the first request that is classified finds the objects as they are then.
    let client =
        cluster.server.client(apiserver::Identity::authenticated("c", &["system:masters"]));
    let get = async |plural: &'static str| {
        let resource = k8s::Resource::new("flowcontrol.apiserver.k8s.io", "v1", plural);
        client.call(k8s::Request::get(resource, "", "exempt")).await.map(k8s::Object::into_value)
    };
    let exempt = loop {
        let seen = cluster.store.revision();
        match get("flowschemas").await {
            Ok(schema) if schema["status"]["conditions"][0]["status"] == "False" => break schema,
            other => {
                let next = raft_store::Revision(seen.0 + 1);
                let waited = cluster.store.wait_for(next, Duration::from_secs(20)).await;
                waited.unwrap_or_else(|_| panic!("not marked: {other:?}"));
            }
        }
    };
    let level = get("prioritylevelconfigurations").await.expect("a level");
    let asked = request(Method::GET, "/api/v1/namespaces", "", "");
    let response = cluster.send(cluster.admin(), asked).await;
    let uid = |name: &str| json!(response.headers()[name].to_str().expect("a uid"));
    let uids = (uid("x-kubernetes-pf-flowschema-uid"), uid("x-kubernetes-pf-prioritylevel-uid"));
    assert_eq!(uids, (exempt["metadata"]["uid"].clone(), level["metadata"]["uid"].clone()));
    tasks.shutdown().await;
    cluster.stop().await;
}

#[tokio::test]
async fn ephemeral_containers_are_added_and_stay() {
    let mut tasks = JoinSet::new();
    let mut cluster = cluster(&mut tasks).await;
    let path = format!("{POD}/ephemeralcontainers");
    let patch = json!({ "spec": { "ephemeralContainers": [
        { "name": "debug", "image": "busybox", "stdin": true, "targetContainerName": "c" },
    ]}});
    let media = "application/strategic-merge-patch+json";
    let pod = cluster.ask(Method::PATCH, &path, media, patch.to_string()).await;
    assert_eq!(pod.code, 200, "{}", pod.body);
    let added = &pod.body["spec"]["ephemeralContainers"][0];
    assert_eq!(added["terminationMessagePath"], "/dev/termination-log", "defaults are there");
    assert_eq!(pod.body["metadata"]["generation"], 2);
    let removed = json!({ "spec": { "ephemeralContainers": null } });
    let refused = cluster.merge(&path, removed).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    let by_the_pod = json!({ "spec": { "ephemeralContainers": null } });
    let ignored = cluster.merge(POD, by_the_pod).await;
    assert_eq!(ignored.body["spec"]["ephemeralContainers"][0]["name"], "debug");
    cluster.stop().await;
}

const POLICY: &str = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], \
    rules: [{level: Metadata, resources: [{group: '', resources: [secrets]}]}, \
    {level: RequestResponse, resources: [{group: '', resources: [configmaps]}]}]}";

#[tokio::test]
async fn the_audit_log_has_what_its_policy_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.log");
    let registry = prometheus::Registry::new();
    let file = apiserver::audit::LogFile {
        path: path.clone(),
        bytes_max: 1 << 20,
        backups_max: 0,
        backup_age_max: Duration::ZERO,
    };
    let audit = apiserver::audit::Audit::open(POLICY.as_bytes(), file, &registry).expect("opened");
    let mut cluster = Cluster::start_with(|config| config.audit = Some(audit)).await;
    for (kind, name) in [("secrets", "s"), ("configmaps", "c")] {
        let object = json!({ "metadata": { "name": name }, "data": {} });
        made(&cluster.post(&format!("/api/v1/namespaces/default/{kind}"), object).await);
    }
    let mut asked = request(Method::GET, "/api/v1/namespaces/default/secrets/none", "", "");
    asked.headers_mut().insert("audit-id", header::HeaderValue::from_static("mine"));
    let response = cluster.send(cluster.admin(), asked).await;
    assert_eq!(response.headers()["audit-id"], "mine");
    assert_eq!(read(response).await.code, 404);
    cluster.stop().await;
    // The last server is gone, and with it the queue: the writer ends when it has written all.
    let text = loop {
        let text = std::fs::read_to_string(&path).expect("the log");
        if text.lines().count() >= 3 {
            break text;
        }
        tokio::task::yield_now().await;
    };
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    let line = |index: usize, pointer: &str| lines[index].pointer(pointer).cloned();
    assert_eq!(line(0, "/objectRef/name"), Some(json!("s")));
    assert_eq!((line(0, "/requestObject"), line(0, "/level")), (None, Some(json!("Metadata"))));
    assert_eq!(line(1, "/requestObject/metadata/name"), Some(json!("c")));
    assert_eq!(line(1, "/responseObject/kind"), Some(json!("ConfigMap")));
    assert_eq!(line(1, "/responseStatus/code"), Some(json!(201)));
    assert_eq!(line(2, "/auditID"), Some(json!("mine")));
    assert_eq!(line(2, "/responseStatus/reason"), Some(json!("NotFound")));
    assert_eq!(line(2, "/user/username"), Some(json!("admin")));
    assert_eq!(line(2, "/stage"), Some(json!("ResponseComplete")));
}

//! Admission from outside: webhooks on loopback, quotas under many hands, budgets in eviction.

use crate::custom;
use crate::harness::{CONFIG_MAPS, Cluster, config_map, config_map_path};
use apiserver::Identity;
use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s::{Object, Resource, Status};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

/// A webhook server: answers each path with what its function makes of the review's request.
pub(crate) struct Hooks {
    pub(crate) address: SocketAddr,
    /// PEM.
    pub(crate) ca: String,
    /// Path and request of every review, in order.
    pub(crate) seen: Arc<Mutex<Vec<(String, Value)>>>,
    _tasks: JoinSet<()>,
}

pub(crate) type Answer = fn(&str, &Value) -> Option<Value>;

impl Hooks {
    pub(crate) async fn start(answer: Answer) -> Hooks {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_string()]).expect("valid");
        let certificate = params.self_signed(&key).expect("self-signed");
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let noted = seen.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, noted) = (acceptor.clone(), noted.clone());
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let noted = noted.clone();
                        async move { Ok::<_, Infallible>(reply(request, answer, &noted).await) }
                    });
                    let serving =
                        http1::Builder::new().serve_connection(TokioIo::new(tls), service);
                    // Ends with an error where the client closes first.
                    let _ = serving.await;
                });
            }
        });
        Hooks { address, ca: certificate.pem(), seen, _tasks: tasks }
    }

    fn hook(&self, name: &str, path: &str, operations: &[&str], more: Value) -> Value {
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca);
        let mut hook = json!({
            "name": format!("{name}.example.com"),
            "clientConfig": { "url": format!("https://{}{path}", self.address), "caBundle": ca },
            "rules": [{
                "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["configmaps"],
                "operations": operations,
            }],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        });
        if let (Some(hook), Value::Object(more)) = (hook.as_object_mut(), more) {
            hook.extend(more);
        }
        hook
    }

    fn paths(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").iter().map(|(path, _)| path.clone()).collect()
    }
}

async fn reply(
    request: Request<Incoming>,
    answer: Answer,
    noted: &Mutex<Vec<(String, Value)>>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_string();
    let bytes = request.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&bytes).expect("a review");
    noted.lock().expect("no panic").push((path.clone(), review["request"].clone()));
    let Some(mut response) = answer(&path, &review["request"]) else {
        // Never answers: whoever asked gives up first.
        return std::future::pending().await;
    };
    response["uid"] = review["request"]["uid"].clone();
    let body = json!({
        "apiVersion": review["apiVersion"], "kind": review["kind"], "response": response,
    });
    Response::new(Full::new(Bytes::from(body.to_string())))
}

fn patch(operations: Value) -> Value {
    let text = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    json!({ "allowed": true, "patchType": "JSONPatch", "patch": text })
}

fn configuration(part: &str, name: &str, hooks: Value) -> (String, Value) {
    let plural = format!("{}webhookconfigurations", part.to_lowercase());
    let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": format!("{part}WebhookConfiguration"),
        "metadata": { "name": name },
        "webhooks": hooks,
    });
    (path, configuration)
}

async fn configure(cluster: &mut Cluster, part: &str, name: &str, hooks: Value) {
    let (path, configuration) = configuration(part, name, hooks);
    let answer = cluster.post(&path, configuration).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
}

#[tokio::test]
async fn webhooks_change_and_refuse() {
    let hooks = Hooks::start(|path, request| {
        Some(match path {
            "/add" => patch(json!([{ "op": "add", "path": "/data/added", "value": "yes" }])),
            _ if request["object"]["data"]["color"] == "red" => json!({
                "allowed": false, "status": { "message": "no red", "code": 403, "reason": "Forbidden" },
            }),
            _ => json!({ "allowed": true, "warnings": ["blue fades"] }),
        })
    })
    .await;
    let mut cluster = Cluster::start().await;
    let writes = ["CREATE", "UPDATE"];
    configure(
        &mut cluster,
        "Mutating",
        "m",
        json!([hooks.hook("add", "/add", &writes, json!({}))]),
    )
    .await;
    let check = hooks.hook("check", "/check", &writes, json!({}));
    configure(&mut cluster, "Validating", "v", json!([check])).await;

    let made = cluster.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!((made.code, &made.body["data"]["added"]), (201, &json!("yes")), "{}", made.body);
    assert_eq!(made.warnings, ["299 - \"blue fades\""]);
    let read = cluster.get(&config_map_path("a")).await;
    assert_eq!(read.body["data"]["added"], "yes");

    let refused = cluster.merge(&config_map_path("a"), json!({ "data": { "color": "red" } })).await;
    insta::assert_snapshot!(refused.body["message"].as_str().unwrap_or_default(), @r#"admission webhook "check.example.com" denied the request: no red"#);
    assert_eq!((refused.code, &refused.body["reason"]), (403, &json!("Forbidden")));

    // Add and check on the create, add and check on the update: a refusal is not asked for twice.
    assert_eq!(hooks.paths(), ["/add", "/check", "/add", "/check"]);
    let seen = hooks.seen.lock().expect("no panic").clone();
    let (first, last) = (&seen[1].1, &seen[3].1);
    assert_eq!(first["operation"], "CREATE");
    assert_eq!(first["object"]["data"]["added"], "yes");
    assert_eq!(first["object"]["kind"], "ConfigMap");
    assert_eq!(first["userInfo"]["username"], "admin");
    assert_eq!(last["oldObject"]["data"]["color"], "blue");
    assert_eq!(last["oldObject"]["metadata"], made.body["metadata"], "managed fields and all");
    cluster.stop().await;
}

#[tokio::test]
async fn who_was_asked_too_early_is_asked_again() {
    let hooks = Hooks::start(|path, request| {
        let key = path.trim_start_matches('/');
        let fresh = request["object"]["data"][key].is_null();
        let add = json!([{ "op": "add", "path": format!("/data/{key}"), "value": "1" }]);
        Some(if fresh { patch(add) } else { json!({ "allowed": true }) })
    })
    .await;
    let mut cluster = Cluster::start().await;
    let again = json!({ "reinvocationPolicy": "IfNeeded" });
    let list = json!([
        hooks.hook("a", "/a", &["CREATE"], again),
        hooks.hook("b", "/b", &["CREATE"], json!({})),
    ]);
    configure(&mut cluster, "Mutating", "m", list).await;
    let made = cluster.post(CONFIG_MAPS, config_map("x")).await;
    assert_eq!(made.body["data"], json!({ "a": "1", "b": "1", "color": "blue" }));
    assert_eq!(hooks.paths(), ["/a", "/b", "/a"]);
    cluster.stop().await;
}

#[tokio::test]
async fn who_manages_what_is_not_made_unreadable_from_outside() {
    let hooks = Hooks::start(|_, _| {
        let nonsense = json!([{ "manager": "m", "operation": "Guess" }]);
        let path = "/metadata/managedFields";
        Some(patch(json!([{ "op": "add", "path": path, "value": nonsense }])))
    })
    .await;
    let mut cluster = Cluster::start().await;
    let hook = hooks.hook("h", "/", &["CREATE"], json!({}));
    configure(&mut cluster, "Mutating", "m", json!([hook])).await;
    let made = cluster.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(made.body["metadata"]["managedFields"][0]["operation"], "Update", "{}", made.body);
    let warned = ".metadata.managedFields was in an invalid state after admission";
    assert!(made.warnings.iter().any(|text| text.contains(warned)), "{:?}", made.warnings);
    cluster.stop().await;
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_holds_up_only_what_it_guards() {
    let hooks = Hooks::start(|_, _| None).await;
    let mut cluster = Cluster::start().await;
    let slow = |more: Value| hooks.hook("slow", "/slow", &["CREATE"], more);
    let open = slow(json!({ "timeoutSeconds": 1, "failurePolicy": "Ignore" }));
    configure(&mut cluster, "Validating", "open", json!([open])).await;
    let made = cluster.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let closed = slow(json!({ "timeoutSeconds": 1 }));
    configure(&mut cluster, "Mutating", "closed", json!([closed])).await;
    let refused = cluster.post(CONFIG_MAPS, config_map("b")).await;
    assert_eq!(refused.code, 500);
    let why = refused.body["message"].as_str().unwrap_or_default();
    let why = why.replace(&hooks.address.port().to_string(), "PORT");
    insta::assert_snapshot!(why, @r#"Internal error occurred: failed calling webhook "slow.example.com": failed to call webhook: Post "https://127.0.0.1:PORT/slow?timeout=1s": context deadline exceeded"#);
    let secret = json!({ "metadata": { "name": "s" } });
    let other = cluster.post("/api/v1/namespaces/default/secrets", secret).await;
    assert_eq!(other.code, 201);
    cluster.stop().await;
}

#[tokio::test]
async fn no_webhook_keeps_its_own_configuration_or_a_dry_run_it_does_not_know() {
    let hooks = Hooks::start(|_, _| Some(json!({ "allowed": false }))).await;
    let mut cluster = Cluster::start().await;
    let everything = json!({
        "rules": [{
            "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"],
        }],
    });
    let deny = hooks.hook("deny", "/deny", &[], everything);
    configure(&mut cluster, "Validating", "v", json!([deny])).await;
    let refused = cluster.post(CONFIG_MAPS, config_map("a")).await;
    insta::assert_snapshot!(refused.body["message"].as_str().unwrap_or_default(), @r#"admission webhook "deny.example.com" denied the request without explanation"#);
    let (path, _) = configuration("Validating", "v", json!([]));
    let gone = cluster.delete(&format!("{path}/v")).await;
    assert_eq!(gone.code, 200, "{}", gone.body);
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("a")).await.code, 201);
    cluster.stop().await;
}

/// A kind whose first version knows `start` and `first` only, and whose second keeps everything.
fn stepping() -> Value {
    let text = json!({ "type": "string" });
    let strict = json!({ "type": "object", "properties": {
        "data": { "type": "object", "properties": { "start": text, "first": text, "keep": text } },
    } });
    let loose = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let version = |name: &str, storage: bool, schema: Value| {
        json!({ "name": name, "served": true, "storage": storage,
                "schema": { "openAPIV3Schema": schema } })
    };
    custom::definition(vec![version("v1", true, strict), version("v2", false, loose)])
}

#[tokio::test]
async fn objects_of_users_kinds_are_changed_pruned_and_kept_by_webhooks() {
    let hooks = Hooks::start(|path, request| {
        let has = |field: &str| !request["object"]["data"][field].is_null();
        let add = |field: &str| {
            let path = format!("/data/{field}");
            Some(patch(json!([{ "op": "add", "path": path, "value": "yes" }])))
        };
        match path {
            "/first" if has("start") && !has("first") => add("first"),
            "/second" if has("first") && !has("second") => add("second"),
            "/keep" if request["oldObject"]["data"]["keep"] == "yes" => Some(json!({
                "allowed": false, "status": { "message": "it is to be kept" },
            })),
            _ => Some(json!({ "allowed": true })),
        }
    })
    .await;
    let mut cluster = Cluster::start().await;
    custom::define(&mut cluster, stepping()).await;
    let of_kind = |versions: &[&str], operations: &[&str]| {
        json!({ "rules": [{ "apiGroups": ["example.com"], "apiVersions": versions,
                            "resources": ["widgets"], "operations": operations }] })
    };
    let writes = ["CREATE", "UPDATE"];
    // The second sees the second version only, whichever was sent (`matchPolicy: Equivalent`).
    let list = json!([
        hooks.hook("first", "/first", &[], of_kind(&["v1", "v2"], &writes)),
        hooks.hook("second", "/second", &[], of_kind(&["v2"], &writes)),
    ]);
    configure(&mut cluster, "Mutating", "m", list).await;
    let keep = hooks.hook("keep", "/keep", &[], of_kind(&["*"], &["DELETE"]));
    configure(&mut cluster, "Validating", "v", json!([keep])).await;
    let widget = json!({ "metadata": { "name": "w" }, "data": { "start": "yes", "keep": "yes" } });
    let widget = |version: &str| {
        let mut widget = widget.clone();
        widget["apiVersion"] = format!("example.com/{version}").into();
        widget["kind"] = "Widget".into();
        widget
    };
    let made = cluster.post(custom::WIDGETS, widget("v1")).await;
    let pruned = json!({ "start": "yes", "first": "yes", "keep": "yes" });
    assert_eq!((made.code, &made.body["data"]), (201, &pruned), "{}", made.body);
    let asked = hooks.seen.lock().expect("no panic")[1].1.clone();
    assert_eq!(asked["object"]["apiVersion"], "example.com/v2");
    assert_eq!(
        (&asked["resource"]["version"], &asked["requestResource"]["version"]),
        (&json!("v2"), &json!("v1"))
    );
    let second = custom::WIDGETS.replace("/v1/", "/v2/");
    let add = r#"[{ "op": "add", "path": "/dummy", "value": "test" }]"#;
    let media = "application/json-patch+json";
    let patched = cluster.ask(Method::PATCH, &format!("{second}/w"), media, add).await;
    assert_eq!((patched.code, &patched.body["dummy"]), (200, &json!("test")), "{}", patched.body);
    assert_eq!(patched.body["data"]["second"], "yes", "v2 prunes nothing");
    let kept = cluster.delete(&format!("{}/w", custom::WIDGETS)).await;
    insta::assert_snapshot!(kept.body["message"].as_str().unwrap_or_default(), @r#"admission webhook "keep.example.com" denied the request: it is to be kept"#);
    let free = json!({ "data": { "keep": null } });
    assert_eq!(cluster.merge(&format!("{}/w", custom::WIDGETS), free).await.code, 200);
    assert_eq!(cluster.delete(&format!("{}/w", custom::WIDGETS)).await.code, 200);
    cluster.stop().await;
}

const CONFIG_MAP: Resource = Resource::new("", "v1", "configmaps");

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

/// As many requests at once as `names` has, as admin.
async fn all_at_once(
    cluster: &Cluster,
    requests: impl Iterator<Item = k8s::Request>,
) -> Vec<Result<Object, Status>> {
    let client = cluster.server.client(Identity::authenticated("admin", &["system:masters"]));
    let calls: Vec<_> = requests.map(|request| client.call(request)).collect();
    futures::future::join_all(calls).await
}

#[tokio::test]
async fn a_quota_is_exact_under_many_creators() {
    let mut cluster = Cluster::start().await;
    let quota = json!({
        "metadata": { "name": "q" }, "spec": { "hard": { "configmaps": "10", "pods": "3" } },
    });
    let path = "/api/v1/namespaces/default/resourcequotas";
    assert_eq!(cluster.post(path, quota).await.code, 201);
    // A quota that limits something and has not counted it yet lets nothing pass.
    let hard = json!({ "configmaps": "10", "pods": "3" });
    let uncounted = json!({ "status": { "hard": hard } });
    assert_eq!(cluster.merge(&format!("{path}/q/status"), uncounted).await.code, 200);
    let unknown = cluster.post(CONFIG_MAPS, config_map("early")).await;
    insta::assert_snapshot!(unknown.body["message"].as_str().unwrap_or_default(), @r#"configmaps "early" is forbidden: status unknown for quota: q, resources: configmaps"#);
    // Nobody counts in this test: what is used now is said here.
    let status = json!({ "status": { "used": { "configmaps": "2", "pods": "0" } } });
    assert_eq!(cluster.merge(&format!("{path}/q/status"), status).await.code, 200);
    let named = |n: usize| {
        let mut map = config_map(&format!("c{n}"));
        map["metadata"]["namespace"] = "default".into();
        k8s::Request::create(CONFIG_MAP, object(map))
    };
    let results = all_at_once(&cluster, (0..32).map(named)).await;
    let made = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(made, 8, "ten less the two there are");
    let refused = results.into_iter().find_map(Result::err).expect("some are refused");
    assert_eq!(refused.code, 403);
    let why = refused.message.split_once("is forbidden: ").map(|(_, why)| why);
    insta::assert_snapshot!(why.unwrap_or_default(), @"exceeded quota: q, requested: configmaps=1, used: configmaps=10, limited: configmaps=10");
    let read = cluster.get(&format!("{path}/q")).await;
    assert_eq!(read.body["status"]["used"]["configmaps"], "10");
    cluster.stop().await;
}

#[tokio::test]
async fn quotas_are_counted_when_made_and_given_back() {
    let mut cluster = Cluster::start().await;
    let counting = tokio::spawn(cluster.server.clone().count_quotas());
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("a")).await.code, 201);
    let quota = json!({
        "metadata": { "name": "q" }, "spec": { "hard": { "count/configmaps": "2" } },
    });
    let path = "/api/v1/namespaces/default/resourcequotas";
    assert_eq!(cluster.post(path, quota).await.code, 201);
    wait_for_used(&cluster, "1").await;
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("b")).await.code, 201);
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("c")).await.code, 403);
    assert_eq!(cluster.delete(&config_map_path("a")).await.code, 200);
    wait_for_used(&cluster, "1").await;
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("c")).await.code, 201);
    counting.abort();
    cluster.stop().await;
}

/// Until the quota says that so many are used; fails with its last version.
async fn wait_for_used(cluster: &Cluster, used: &str) {
    let key = raft_store::Key::new("resourcequotas", "default/q");
    let now = || {
        let stored = cluster.store.get(&key).expect("the quota");
        (serde_json::from_slice::<Value>(&stored.body).expect("JSON"), stored.revision)
    };
    let waiting = async {
        loop {
            let (quota, revision) = now();
            if quota["status"]["used"]["count/configmaps"] == used {
                return;
            }
            let mut watch = cluster.store.watch("resourcequotas", "", revision).expect("a watch");
            watch.next().await.expect("a change");
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(waited.is_ok(), "not {used} but {}", now().0);
}

#[tokio::test]
async fn evictions_share_a_budget_and_take_no_more_than_it_has() {
    let mut cluster = Cluster::start().await;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "web" },
        "spec": { "minAvailable": 5, "selector": { "matchLabels": { "app": "web" } } },
    });
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    assert_eq!(cluster.post(path, budget).await.code, 201);
    for n in 0..8 {
        let pod = json!({
            "metadata": { "name": format!("web-{n}"), "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": "i" }] },
        });
        let pods = "/api/v1/namespaces/default/pods";
        assert_eq!(cluster.post(pods, pod).await.code, 201);
        let ready = json!({ "status": {
            "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }],
        } });
        assert_eq!(cluster.merge(&format!("{pods}/web-{n}/status"), ready).await.code, 200);
    }
    let status = json!({ "status": {
        "observedGeneration": 1, "currentHealthy": 8, "desiredHealthy": 5, "expectedPods": 8,
        "disruptionsAllowed": 3,
    } });
    assert_eq!(cluster.merge(&format!("{path}/web/status"), status).await.code, 200);
    let evict = |n: usize| {
        let name = format!("web-{n}");
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": name, "namespace": "default" },
        });
        let pods = Resource::new("", "v1", "pods");
        let request = k8s::Request::new(k8s::Verb::Create, pods, "default", &name);
        request.subresource("eviction").with_body(eviction)
    };
    let results = all_at_once(&cluster, (0..8).map(evict)).await;
    let evicted = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(evicted, 3);
    let refused = results.into_iter().find_map(Result::err).expect("some are refused");
    insta::assert_json_snapshot!(refused.to_value());
    let read = cluster.get(&format!("{path}/web")).await;
    let pods = read.body["status"]["disruptedPods"].as_object().map(serde_json::Map::len);
    assert_eq!((&read.body["status"]["disruptionsAllowed"], pods), (&json!(0), Some(3)));
    cluster.stop().await;
}

//! Kinds that users define: made, used like any other, changed and removed.

use crate::{
    admission::Hooks,
    harness::{Answer, Cluster, request},
    watching::Lines,
};
use base64::Engine as _;
use http::{Method, header};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

pub(crate) fn version(name: &str, storage: bool) -> Value {
    json!({
        "name": name, "served": true, "storage": storage,
        "schema": { "openAPIV3Schema": { "type": "object", "properties": {
            "spec": {
                "type": "object", "required": ["size"],
                "properties": {
                    "size": { "type": "integer", "minimum": 1 },
                    "color": { "type": "string", "default": "blue", "enum": ["blue", "red"] },
                    "replicas": { "type": "integer" },
                },
            },
            "status": { "type": "object", "properties": {
                "replicas": { "type": "integer" }, "selector": { "type": "string" },
            } },
        } } },
        "subresources": { "status": {}, "scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        } },
        "additionalPrinterColumns": [
            { "name": "Size", "type": "integer", "jsonPath": ".spec.size" },
            { "name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1 },
        ],
        "selectableFields": [{ "jsonPath": ".spec.color" }],
    })
}

pub(crate) fn definition(versions: Vec<Value>) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {
                "plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"],
            },
            "versions": versions,
        },
    })
}

pub(crate) fn widget(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": { "name": name }, "spec": spec,
    })
}

fn path(name: &str) -> String {
    format!("{WIDGETS}/{name}")
}

/// Makes a definition and waits until its kind is served.
pub(crate) async fn define(cluster: &mut Cluster, definition: Value) -> Value {
    let name = definition["metadata"]["name"].as_str().expect("a name").to_string();
    let made = cluster.post(DEFINITIONS, definition).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let watched = format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}");
    let mut watch = Lines::open(cluster, &watched).await;
    loop {
        let event = watch.next().await.expect("an event");
        let conditions = event["object"]["status"]["conditions"].as_array().cloned();
        let mut conditions = conditions.into_iter().flatten();
        if conditions.any(|it| it["type"] == "Established" && it["status"] == "True") {
            return event["object"].clone();
        }
    }
}

fn message(answer: &Answer) -> &str {
    answer.body["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_custom_object_lives_as_any_other() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.get(WIDGETS).await.code, 404);
    let crd = define(&mut cluster, definition(vec![version("v1", true)])).await;
    assert_eq!(crd["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(crd["status"]["acceptedNames"]["shortNames"], json!(["wd"]));
    let made = cluster.post(WIDGETS, widget("a", json!({ "size": 3 }))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["spec"]["color"], "blue", "defaults are set");
    assert_eq!(made.body["metadata"]["generation"], 1);
    let read = cluster.get(&path("a")).await;
    assert_eq!(read.body, made.body);
    let same = cluster.put(&path("a"), made.body.clone()).await;
    assert_eq!(same.body, made.body, "an update without a change writes nothing");
    let changed = cluster.merge(&path("a"), json!({ "spec": { "size": 4 } })).await;
    assert_eq!((changed.code, &changed.body["metadata"]["generation"]), (200, &json!(2)));
    let patch = r#"[{"op":"replace","path":"/spec/color","value":"red"}]"#;
    let patched =
        cluster.ask(Method::PATCH, &path("a"), "application/json-patch+json", patch).await;
    assert_eq!(patched.body["spec"]["color"], "red", "{}", patched.body);
    let strategic = "application/strategic-merge-patch+json";
    assert_eq!(cluster.ask(Method::PATCH, &path("a"), strategic, "{}").await.code, 415);
    let list = cluster.get(WIDGETS).await.body;
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("WidgetList"), &json!("example.com/v1"))
    );
    assert_eq!(list["items"][0]["kind"], "Widget");
    let gone = cluster.delete(&path("a")).await;
    assert_eq!((gone.code, &gone.body["status"]), (200, &json!("Success")));
    assert_eq!(cluster.get(&path("a")).await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_the_schema_is_refused() {
    let mut cluster = Cluster::start().await;
    define(&mut cluster, definition(vec![version("v1", true)])).await;
    let wrong = cluster.post(WIDGETS, widget("a", json!({ "size": 0, "color": "green" }))).await;
    assert_eq!(wrong.code, 422, "{}", wrong.body);
    insta::assert_snapshot!(message(&wrong), @r#"Widget.example.com "a" is invalid: [spec.color: Unsupported value: "green": supported values: "blue", "red", spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1]"#);
    let none = cluster.post(WIDGETS, widget("a", json!({}))).await;
    insta::assert_snapshot!(message(&none), @r#"Widget.example.com "a" is invalid: spec.size: Required value"#);
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    let extra = json!({ "size": 1, "sise": 2 });
    let unknown = cluster.post(&strict, widget("a", extra.clone())).await;
    insta::assert_snapshot!(message(&unknown), @r#"Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.sise""#);
    let warned = cluster.post(WIDGETS, widget("a", extra)).await;
    assert_eq!(warned.code, 201, "{}", warned.body);
    assert_eq!(warned.body["spec"], json!({ "size": 1, "color": "blue" }), "pruned");
    assert_eq!(warned.warnings, [r#"299 - "unknown field \"spec.sise\"""#]);
    let mut other = widget("b", json!({ "size": 1 }));
    other["kind"] = "Gadget".into();
    assert_eq!(cluster.post(WIDGETS, other).await.code, 422);
    let unversioned = json!({ "metadata": { "name": "a" }, "spec": { "size": 1 } });
    assert_eq!(cluster.put(&path("a"), unversioned).await.code, 400, "kind is missing");
    let unconditional = cluster.put(&path("a"), widget("a", json!({ "size": 1 }))).await;
    assert_eq!(unconditional.code, 422, "{}", unconditional.body);
    cluster.stop().await;
}

/// A version whose sizes have rules.
fn ruled() -> Value {
    let mut version = version("v1", true);
    let schema = &mut version["schema"]["openAPIV3Schema"];
    schema["x-kubernetes-validations"] = json!([
        { "rule": "self.metadata.name != 'root'" },
        { "rule": "!has(self.status) || self.status.replicas <= self.spec.replicas",
          "messageExpression": "'more than ' + (self.spec.replicas == 2 ? 'two' : 'wanted')",
          "fieldPath": ".status.replicas" },
    ]);
    schema["properties"]["spec"]["properties"]["size"]["x-kubernetes-validations"] = json!([
        { "rule": "self >= oldSelf", "message": "may not shrink", "reason": "FieldValueForbidden" },
    ]);
    version
}

#[tokio::test]
async fn rules_are_kept_by_every_write() {
    let mut cluster = Cluster::start().await;
    let mut wrong = definition(vec![ruled()]);
    let schema = &mut wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["x-kubernetes-validations"][0]["rule"] = "self.spec.absent".into();
    let refused = cluster.post(DEFINITIONS, wrong).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    let cause = &refused.body["details"]["causes"][0];
    assert_eq!(
        cause["field"],
        "spec.versions[0].schema.openAPIV3Schema.x-kubernetes-validations[0].rule"
    );
    let mut crd = define(&mut cluster, definition(vec![ruled()])).await;
    let root = cluster.post(WIDGETS, widget("root", json!({ "size": 1 }))).await;
    let blocked = cluster.post(WIDGETS, widget("root", json!({ "size": "x" }))).await;
    let made = cluster.post(WIDGETS, widget("a", json!({ "size": 3, "replicas": 2 }))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let shrunk = cluster.merge(&path("a"), json!({ "spec": { "size": 2 } })).await;
    let status = format!("{}/status", path("a"));
    let many = cluster.merge(&status, json!({ "status": { "replicas": 3 } })).await;
    insta::assert_snapshot!([&root, &blocked, &shrunk, &many].map(message).join("\n"));
    // What is there when a rule comes may stay as it is.
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"]["replicas"]["x-kubernetes-validations"] =
        json!([{ "rule": "self > 5" }]);
    let ruled = cluster.put(&format!("{DEFINITIONS}/widgets.example.com"), crd).await;
    assert_eq!(ruled.code, 200, "{}", ruled.body);
    let grown = cluster.merge(&path("a"), json!({ "spec": { "size": 4 } })).await;
    assert_eq!(grown.code, 200, "{}", grown.body);
    let warning = "299 - \"spec.replicas: Invalid value: 2: failed rule: self > 5\"";
    assert_eq!(grown.warnings, [warning]);
    cluster.stop().await;
}

#[tokio::test]
async fn status_and_scale_are_apart_from_the_rest() {
    let mut cluster = Cluster::start().await;
    define(&mut cluster, definition(vec![version("v1", true)])).await;
    let mut object = widget("a", json!({ "size": 1, "replicas": 2 }));
    object["status"] = json!({ "replicas": 7 });
    let made = cluster.post(WIDGETS, object).await;
    assert_eq!(made.body["status"], Value::Null, "a create cannot set it: {}", made.body);
    let status = format!("{}/status", path("a"));
    let patch = json!({ "status": { "replicas": 2, "selector": "app=a" }, "spec": { "size": 9 } });
    let written = cluster.merge(&status, patch).await;
    assert_eq!(written.code, 200, "{}", written.body);
    assert_eq!(
        (&written.body["spec"]["size"], &written.body["metadata"]["generation"]),
        (&json!(1), &json!(1))
    );
    let wrong = cluster.merge(&status, json!({ "status": { "replicas": "many" } })).await;
    insta::assert_snapshot!(message(&wrong), @r#"Widget.example.com "a" is invalid: [status.replicas: Invalid value: "string": replicas in body must be of type integer: "string", .status.replicas: Invalid value: "many": .status.replicas accessor error: "many" is not of the type int64]"#);
    let scale = format!("{}/scale", path("a"));
    let shown = cluster.get(&scale).await.body;
    assert_eq!(shown["status"], json!({ "replicas": 2, "selector": "app=a" }), "{shown}");
    let scaled = cluster.merge(&scale, json!({ "spec": { "replicas": 5 } })).await;
    assert_eq!(scaled.body["spec"]["replicas"], 5, "{}", scaled.body);
    let now = cluster.get(&path("a")).await.body;
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(5), &json!(2)));
    cluster.stop().await;
}

#[tokio::test]
async fn tables_selectors_and_watches_know_the_kind() {
    let mut cluster = Cluster::start().await;
    define(&mut cluster, definition(vec![version("v1", true)])).await;
    for (name, color) in [("a", "blue"), ("b", "red")] {
        let object = widget(name, json!({ "size": 1, "color": color }));
        assert_eq!(cluster.post(WIDGETS, object).await.code, 201);
    }
    let mut asked = request(Method::GET, WIDGETS, "", "");
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    asked.headers_mut().insert(header::ACCEPT, table.parse().expect("a header"));
    let response = cluster.send(cluster.admin(), asked).await;
    let table = crate::harness::read(response).await.body;
    let names: Vec<&Value> = table["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["Name", "Size", "Color"]);
    assert_eq!(table["rows"][1]["cells"], json!(["b", 1, "red"]));
    let red = cluster.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dred")).await.body;
    assert_eq!(red["items"].as_array().map(Vec::len), Some(1), "{red}");
    let unknown = cluster.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D1")).await;
    assert_eq!(message(&unknown), "field label not supported: spec.size");
    let watched = format!("{WIDGETS}?watch=1&fieldSelector=spec.color%3Dred");
    let mut watch = Lines::open(&mut cluster, &watched).await;
    assert_eq!(watch.told().await, "ADDED b");
    cluster.merge(&path("a"), json!({ "spec": { "color": "red" } })).await;
    cluster.merge(&path("b"), json!({ "spec": { "color": "blue" } })).await;
    assert_eq!(watch.told().await, "ADDED a");
    let left = watch.next().await.expect("an event");
    assert_eq!((&left["type"], &left["object"]["kind"]), (&json!("DELETED"), &json!("Widget")));
    cluster.stop().await;
}

#[tokio::test]
async fn discovery_follows_the_definition() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.get("/apis/example.com").await.code, 404);
    let versions = vec![version("v1beta1", false), version("v1", true)];
    define(&mut cluster, definition(versions)).await;
    let group = cluster.get("/apis/example.com").await.body;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"].as_array().map(Vec::len), Some(2));
    let list = cluster.get("/apis/example.com/v1").await.body;
    let names: Vec<&Value> =
        list["resources"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    let entry = &list["resources"][0];
    assert_eq!((&entry["singularName"], &entry["shortNames"]), (&json!("widget"), &json!(["wd"])));
    assert_eq!(list["resources"][2]["kind"], "Scale");
    let versioned = json!({ "spec": { "versions": [version("v1", true)] } });
    let fewer = cluster.merge(&format!("{DEFINITIONS}/widgets.example.com"), versioned).await;
    assert_eq!(fewer.code, 200, "{}", fewer.body);
    assert_eq!(cluster.get("/apis/example.com/v1beta1").await.code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn versions_show_the_same_object() {
    let mut cluster = Cluster::start().await;
    let mut old = version("v1beta1", true);
    let fields = &mut old["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    fields["legacy"] = json!({ "type": "string", "default": "yes" });
    old["deprecated"] = true.into();
    define(&mut cluster, definition(vec![version("v1", false), old.clone()])).await;
    let made = cluster.post(WIDGETS, widget("a", json!({ "size": 1 }))).await;
    assert_eq!(made.body["spec"], json!({ "size": 1, "color": "blue" }), "{}", made.body);
    let beta = cluster.get("/apis/example.com/v1beta1/namespaces/default/widgets/a").await;
    assert_eq!(beta.body["apiVersion"], "example.com/v1beta1");
    assert_eq!(beta.body["spec"]["legacy"], "yes", "defaults of the stored version");
    let deprecated =
        "299 - \"example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget\"";
    assert_eq!(beta.warnings, [deprecated]);
    assert_eq!(beta.body["metadata"]["resourceVersion"], made.body["metadata"]["resourceVersion"]);
    old["storage"] = false.into();
    let moved = json!({ "spec": { "versions": [version("v1", true), old] } });
    let crd = cluster.merge(&format!("{DEFINITIONS}/widgets.example.com"), moved).await;
    assert_eq!(crd.body["status"]["storedVersions"], json!(["v1beta1", "v1"]), "{}", crd.body);
    let read = cluster.get(&path("a")).await;
    assert_eq!(read.body, made.body, "the storage version is nobody's business");
    let rewritten = cluster.put(&path("a"), read.body.clone()).await;
    assert_ne!(
        rewritten.body["metadata"]["resourceVersion"], read.body["metadata"]["resourceVersion"],
        "a write without a change brings it into the new storage version"
    );
    let dropped = json!({ "spec": { "versions": [version("v1", true)] } });
    let refused = cluster.merge(&format!("{DEFINITIONS}/widgets.example.com"), dropped).await;
    assert_eq!(refused.code, 422, "v1beta1 is among the stored versions: {}", refused.body);
    cluster.stop().await;
}

#[tokio::test]
async fn instances_go_with_their_definition() {
    let mut cluster = Cluster::start().await;
    define(&mut cluster, definition(vec![version("v1", true)])).await;
    let mut kept = widget("kept", json!({ "size": 1 }));
    kept["metadata"]["finalizers"] = json!(["example.com/x"]);
    for object in [widget("a", json!({ "size": 1 })), kept] {
        assert_eq!(cluster.post(WIDGETS, object).await.code, 201);
    }
    let mut widgets = Lines::open(&mut cluster, &format!("{WIDGETS}?watch=1")).await;
    assert_eq!(widgets.told().await, "ADDED a");
    assert_eq!(widgets.told().await, "ADDED kept");
    let revision = cluster.store.revision();
    let watched = format!("{DEFINITIONS}?watch=1&resourceVersion={revision}");
    let mut definitions = Lines::open(&mut cluster, &watched).await;
    let dying = cluster.delete(&format!("{DEFINITIONS}/widgets.example.com")).await;
    assert!(dying.body["metadata"]["deletionTimestamp"].is_string(), "{}", dying.body);
    assert_eq!(widgets.told().await, "DELETED a");
    assert_eq!(widgets.told().await, "MODIFIED kept");
    let refused = cluster.post(WIDGETS, widget("new", json!({ "size": 1 }))).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    cluster.merge(&path("kept"), json!({ "metadata": { "finalizers": null } })).await;
    assert_eq!(widgets.told().await, "DELETED kept");
    loop {
        let event = definitions.next().await.expect("an event");
        if event["type"] == "DELETED" {
            break;
        }
    }
    assert!(widgets.next().await.is_none(), "a watch ends with its kind");
    assert_eq!(cluster.get(WIDGETS).await.code, 404);
    let again = define(&mut cluster, definition(vec![version("v1", true)])).await;
    assert_eq!(again["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(cluster.get(WIDGETS).await.body["items"], json!([]));
    // The connection of a watch ends when somebody has read it, or nobody will.
    drop((widgets, definitions));
    cluster.stop().await;
}

#[tokio::test]
async fn a_definition_that_says_nonsense_is_refused() {
    let mut cluster = Cluster::start().await;
    let mut wrong = definition(vec![version("v1", true), version("v1", true)]);
    wrong["metadata"]["name"] = "gadgets.example.com".into();
    wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({});
    wrong["spec"]["versions"][1]["additionalPrinterColumns"][0]["jsonPath"] = "size".into();
    wrong["spec"]["versions"][1]["selectableFields"] = json!([{ "jsonPath": ".spec.absent" }]);
    let refused = cluster.post(DEFINITIONS, wrong).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    let causes = refused.body["details"]["causes"].as_array().expect("causes").iter();
    let causes = causes.map(|cause| {
        let text = |field: &str| cause[field].as_str().unwrap_or_default().to_string();
        let message = text("message");
        format!("{}: {}", text("field"), message.split(": [{").next().unwrap_or_default())
    });
    insta::assert_snapshot!(causes.collect::<Vec<_>>().join("\n"));
    cluster.stop().await;
}

/// What was a size in v1 is an extent in v2.
fn convert(path: &str, request: &Value) -> Option<Value> {
    if path == "/refuse" {
        return Some(json!({ "result": { "status": "Failed", "message": "not today" } }));
    }
    let to = request["desiredAPIVersion"].as_str()?;
    let (old, new) = if to.ends_with("v2") { ("size", "extent") } else { ("extent", "size") };
    let convert = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = to.into();
        let spec = object["spec"].as_object_mut()?;
        let value = spec.remove(old)?;
        spec.insert(new.into(), value);
        object["metadata"]["labels"] = json!({ "converted": "yes" });
        object["metadata"]["finalizers"] = json!(["example.com/ignored"]);
        Some(object)
    };
    let objects: Option<Vec<Value>> = request["objects"].as_array()?.iter().map(convert).collect();
    Some(json!({ "result": { "status": "Success" }, "convertedObjects": objects? }))
}

#[tokio::test]
async fn a_webhook_converts_between_versions() {
    let mut cluster = Cluster::start().await;
    let hooks = Hooks::start(convert).await;
    let mut second = version("v2", false);
    let spec = &mut second["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["required"] = json!(["extent"]);
    spec["properties"]["extent"] = spec["properties"]["size"].take();
    spec["properties"].as_object_mut().expect("a map").remove("size");
    second["selectableFields"] = json!([{ "jsonPath": ".spec.extent" }]);
    let mut crd = definition(vec![version("v1", true), second]);
    let ca = base64::engine::general_purpose::STANDARD.encode(&hooks.ca);
    let conversion = |path: &str| {
        let url = format!("https://{}{path}", hooks.address);
        json!({ "strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v1", "v1beta1"],
            "clientConfig": { "url": url, "caBundle": ca },
        } })
    };
    crd["spec"]["conversion"] = conversion("/convert");
    define(&mut cluster, crd).await;
    for name in ["a", "b"] {
        let made = cluster.post(WIDGETS, widget(name, json!({ "size": 3 }))).await;
        assert_eq!(made.code, 201, "{}", made.body);
    }
    let seconds = "/apis/example.com/v2/namespaces/default/widgets";
    let list = cluster.get(seconds).await.body;
    assert_eq!(list["items"][1]["spec"], json!({ "extent": 3, "color": "blue" }), "{list}");
    let metadata = &list["items"][1]["metadata"];
    assert_eq!(metadata["labels"], json!({ "converted": "yes" }));
    assert_eq!(metadata["finalizers"], Value::Null, "only labels and annotations may change");
    let asked = hooks.seen.lock().expect("no panic").len();
    assert_eq!(asked, 1, "once for the whole list");
    let changed = cluster.merge(&format!("{seconds}/a"), json!({ "spec": { "extent": 5 } })).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    assert_eq!(changed.body["spec"]["extent"], 5);
    let first = cluster.get(&path("a")).await.body;
    assert_eq!(first["spec"]["size"], 5, "{first}");
    let large = format!("{seconds}?fieldSelector=spec.extent%3D5");
    let list = cluster.get(&large).await.body;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    let mut watch = Lines::open(&mut cluster, &format!("{large}&watch=1")).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["object"]["spec"]["extent"], 5, "{event}");
    cluster.merge(&path("b"), json!({ "spec": { "size": 5 } })).await;
    assert_eq!(watch.told().await, "ADDED b");
    cluster.merge(&path("b"), json!({ "spec": { "size": 6 } })).await;
    let event = watch.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("DELETED"), &json!("Widget")));
    drop(watch);
    let refusing = json!({ "spec": { "conversion": conversion("/refuse") } });
    let refusing = cluster.merge(&format!("{DEFINITIONS}/widgets.example.com"), refusing).await;
    assert_eq!(refusing.code, 200, "{}", refusing.body);
    let failed = cluster.get(&format!("{seconds}/b")).await;
    let why = "Internal error occurred: conversion webhook for example.com/v1, Kind=Widget failed: \
               not today";
    assert_eq!((failed.code, message(&failed)), (500, why));
    assert_eq!(cluster.get(&path("b")).await.code, 200, "nothing is to be converted");
    cluster.stop().await;
}

#[tokio::test]
async fn open_api_describes_the_kind() {
    let mut cluster = Cluster::start().await;
    let mut described = version("v1", true);
    let schema = &mut described["schema"]["openAPIV3Schema"];
    schema["description"] = "A widget.".into();
    let fields = &mut schema["properties"]["spec"]["properties"];
    fields["port"] = json!({ "x-kubernetes-int-or-string": true });
    fields["free"] = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                             "properties": { "a": { "type": "string" } } });
    fields["maybe"] = json!({ "type": "string", "nullable": true });
    fields["within"] = json!({ "type": "object", "x-kubernetes-embedded-resource": true,
                               "properties": { "spec": { "type": "object" } } });
    let before = cluster.get("/openapi/v3").await.body;
    define(&mut cluster, definition(vec![described])).await;
    let after = cluster.get("/openapi/v3").await.body;
    assert_eq!(after["paths"]["apis/apps/v1"], before["paths"]["apis/apps/v1"]);
    let url = after["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().expect("a URL");
    let document = cluster.get(url).await.body;
    let schemas = &document["components"]["schemas"];
    let paths = document["paths"].as_object().expect("paths");
    let one = "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}";
    assert!(paths.contains_key(one) && paths.contains_key(&format!("{one}/scale")));
    let patches = paths[one]["patch"]["requestBody"]["content"].as_object().expect("a map");
    assert!(!patches.keys().any(|media| media.contains("strategic")), "{patches:?}");
    let spoken: std::collections::BTreeSet<&String> = paths
        .values()
        .flat_map(|path| path.as_object().into_iter().flatten())
        .flat_map(|(_, operation)| {
            let all = operation["responses"].as_object().into_iter().flatten();
            let answers = all.map(|(_, answer)| &answer["content"]);
            answers.chain([&operation["requestBody"]["content"]])
        })
        .flat_map(|content| content.as_object().into_iter().flatten())
        .map(|(media, _)| media)
        .filter(|media| !media.contains("patch"))
        .collect();
    assert_eq!(Vec::from_iter(spoken), ["application/json", "application/yaml"]);
    assert!(!paths.keys().any(|path| path.contains("/watch/")), "{:?}", paths.keys());
    let answer = &paths[one]["get"]["responses"]["200"]["content"]["application/json"];
    let named = "#/components/schemas/com.example.v1.Widget";
    assert_eq!(answer["schema"], json!({ "$ref": named }));
    let old = cluster.get("/openapi/v2").await.body;
    let shown = json!({
        "v3": { "Widget": schemas["com.example.v1.Widget"],
                "WidgetList": schemas["com.example.v1.WidgetList"] },
        "v2": { "Widget": old["definitions"]["com.example.v1.Widget"] },
    });
    insta::assert_snapshot!(serde_json::to_string_pretty(&shown).expect("JSON"));
    let media = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let mut asked = request(Method::GET, "/openapi/v2", "", "");
    asked.headers_mut().insert(header::ACCEPT, media.parse().expect("a header"));
    assert_eq!(cluster.send(cluster.admin(), asked).await.status(), 200);
    cluster.stop().await;
}

/// What upstream's conformance does to the status of a definition.
#[tokio::test]
async fn the_status_of_a_definition_can_be_written() {
    let mut cluster = Cluster::start().await;
    let mut crd = define(&mut cluster, definition(vec![version("v1", true)])).await;
    let status = format!("{DEFINITIONS}/widgets.example.com/status");
    assert_eq!(cluster.get(&status).await.body["spec"], crd["spec"]);
    let updated =
        json!({ "message": "updated", "lastTransitionTime": null, "type": "", "status": "" });
    crd["status"]["conditions"].as_array_mut().expect("a list").push(updated);
    let answer = cluster.put(&status, crd).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    let patch = r#"[{"op":"add","path":"/status/conditions","value":[{"message":"patched"}]}]"#;
    let answer = cluster.ask(Method::PATCH, &status, "application/json-patch+json", patch).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert_eq!(answer.body["status"]["conditions"][0]["message"], "patched");
    cluster.stop().await;
}

//! Which webhooks a request concerns, what they are asked, and what their answers mean.

use super::{
    Part, concerned,
    matching::selected,
    review::{self, Question},
};
use crate::admission::*;
use crate::{
    admission::tests::{Allows, AsIs, active_namespace, machine},
    authz::testing::World,
    kinds,
};
use serde_json::{Value, json};

fn configuration(name: &str, hooks: Value) -> Value {
    json!({ "metadata": { "name": name }, "webhooks": hooks })
}

fn hook(name: &str, rule: Value, more: Value) -> Value {
    let mut hook = json!({
        "name": name,
        "clientConfig": { "service": { "namespace": "n", "name": "s", "port": 443, "path": "/p" } },
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v2", "v1"],
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
    });
    if let (Some(hook), Value::Object(more)) = (hook.as_object_mut(), more) {
        hook.extend(more);
    }
    hook
}

fn rule(groups: &str, versions: &str, resources: &[&str], operations: &str, scope: &str) -> Value {
    json!({
        "apiGroups": [groups], "apiVersions": [versions], "resources": resources,
        "operations": [operations], "scope": scope,
    })
}

struct Request<'a> {
    kind: (&'a str, &'a str),
    subresource: &'a str,
    operation: Operation,
    name: &'a str,
    old: Option<Object>,
}

fn with_cx<T>(world: &World, asked: &Request<'_>, act: impl FnOnce(&Cx<'_>) -> T) -> T {
    let kind = Kind::from(kinds::find(asked.kind.0, asked.kind.1).expect("a kind"));
    let identity = Identity::authenticated("jane", &["devs"]);
    let (notes, options, config) = (Notes::default(), Options::default(), Config::default());
    let machine = machine();
    act(&Cx {
        operation: asked.operation,
        kind: &kind,
        version: "v1",
        namespace: if kind.namespaced { "default" } else { "" },
        name: asked.name,
        subresource: asked.subresource,
        identity: &identity,
        old: asked.old.as_ref(),
        view: world,
        authorizer: &Allows(&[]),
        config: &config,
        options: &options,
        dry_run: false,
        notes: &notes,
        machine: &machine,
        reader: &AsIs,
    })
}

fn request<'a>(kind: (&'a str, &'a str), operation: Operation) -> Request<'a> {
    Request { kind, subresource: "", operation, name: "x", old: None }
}

/// The names of the webhooks that would be asked.
fn names(world: &World, asked: &Request<'_>) -> String {
    with_cx(world, asked, |cx| {
        let found = concerned(cx, Part::Validating);
        let names: Vec<&str> = found.iter().map(|one| &*one.hook.name).collect();
        names.join(" ")
    })
}

#[test]
fn rules_choose_by_resource_operation_and_scope() {
    let mut world = active_namespace("default");
    let hooks = json!([
        hook("all", rule("*", "*", &["*/*"], "*", "*"), json!({})),
        hook("plain", rule("*", "*", &["*"], "*", "*"), json!({})),
        hook("pods", rule("", "v1", &["pods"], "CREATE", "*"), json!({})),
        hook("pods-sub", rule("", "v1", &["pods/*"], "*", "*"), json!({})),
        hook("status", rule("*", "*", &["*/status"], "*", "*"), json!({})),
        hook("namespaced", rule("*", "*", &["*/*"], "*", "Namespaced"), json!({})),
        hook("cluster", rule("*", "*", &["*/*"], "*", "Cluster"), json!({})),
        hook("other", rule("apps", "v1", &["pods"], "CREATE", "*"), json!({})),
        hook("old", rule("", "v0", &["pods"], "CREATE", "*"), json!({})),
    ]);
    let space = "admissionregistration.k8s.io/validatingwebhookconfigurations";
    world.put(space, configuration("c", hooks));
    let pods = ("", "pods");
    let of = |kind, subresource, operation| {
        names(&world, &Request { subresource, ..request(kind, operation) })
    };
    let found = [
        of(pods, "", Operation::Create),
        of(pods, "", Operation::Delete),
        of(pods, "status", Operation::Update),
        of(pods, "exec", Operation::Connect),
        of(pods, "binding", Operation::Update),
        of(("", "nodes"), "", Operation::Create),
        of(("", "namespaces"), "", Operation::Create),
        of(
            ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
            "",
            Operation::Delete,
        ),
    ];
    insta::assert_snapshot!(found.join("\n"));
}

#[test]
fn selectors_look_at_the_namespace_and_at_both_versions_of_the_object() {
    let mut world = active_namespace("default");
    world
        .put("namespaces", json!({ "metadata": { "name": "other", "labels": { "env": "prod" } } }));
    let all = rule("*", "*", &["*"], "*", "*");
    let hooks = json!([
        hook(
            "prod",
            all.clone(),
            json!({ "namespaceSelector": { "matchLabels": { "env": "prod" } } })
        ),
        hook("web", all, json!({ "objectSelector": { "matchLabels": { "app": "web" } } })),
    ]);
    let space = "admissionregistration.k8s.io/validatingwebhookconfigurations";
    world.put(space, configuration("c", hooks));
    let object = |labels: Value| {
        Object::from_value(json!({ "metadata": { "name": "x", "labels": labels } })).expect("one")
    };
    let of = |asked: Request<'_>, new: Object| {
        with_cx(&world, &asked, |cx| {
            let found = concerned(cx, Part::Validating);
            let asked = found
                .iter()
                .filter(|one| selected(cx, &one.hook, Some(&new)).expect("valid selectors"));
            asked.map(|one| one.hook.name.clone()).collect::<Vec<_>>().join(" ")
        })
    };
    let pods = || request(("", "pods"), Operation::Create);
    let namespaces = || request(("", "namespaces"), Operation::Create);
    let relabelled = Request {
        old: Some(object(json!({ "app": "web" }))),
        ..request(("", "pods"), Operation::Update)
    };
    assert_eq!(of(pods(), object(json!({ "app": "web" }))), "web");
    assert_eq!(of(pods(), object(json!({}))), "");
    assert_eq!(of(relabelled, object(json!({}))), "web");
    assert_eq!(of(namespaces(), object(json!({ "env": "prod" }))), "prod");
    let nodes = request(("", "nodes"), Operation::Create);
    assert_eq!(of(nodes, object(json!({}))), "prod", "in no namespace, so not exempt by one");
}

fn ask(
    asked: &Request<'_>,
    object: Option<&Object>,
    act: impl Fn(&Cx<'_>, &Question<'_>) -> String,
) -> String {
    let mut world = active_namespace("default");
    let hooks = json!([hook("x.example.com", rule("*", "*", &["*/*"], "*", "*"), json!({}))]);
    for part in [Part::Validating, Part::Mutating] {
        world.put(part.space(), configuration("c", hooks.clone()));
    }
    with_cx(&world, asked, |cx| {
        let invocation = &concerned(cx, Part::Mutating)[0];
        let uid = "u1".to_string();
        act(cx, &Question { invocation, uid, object })
    })
}

#[test]
fn a_review_tells_all_there_is_to_know() {
    let pretty = |cx: &Cx<'_>, question: &Question<'_>| {
        serde_json::to_string_pretty(&question.body(cx)).expect("JSON")
    };
    let deployment = json!({
        "metadata": { "name": "web", "namespace": "default", "resourceVersion": "7" },
        "spec": { "replicas": 2, "selector": { "matchLabels": { "a": "b" } } },
    });
    let deployment = Object::from_value(deployment).expect("an object");
    let update = Request {
        kind: ("apps", "deployments"),
        subresource: "scale",
        operation: Operation::Update,
        name: "web",
        old: Some(deployment.clone()),
    };
    insta::assert_snapshot!(ask(&update, Some(&deployment), pretty));
    let delete =
        Request { old: Some(deployment), subresource: "", operation: Operation::Delete, ..update };
    insta::assert_snapshot!(ask(&delete, None, pretty));
}

#[test]
fn answers_are_held_to_the_rules() {
    let created = request(("", "pods"), Operation::Create);
    let object = Object::default();
    let read = |part: Part, response: Value| {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
        });
        ask(&created, Some(&object), |_, question| {
            match question.read(part, review.to_string().as_bytes()) {
                Ok(answer) => format!("allowed {} patch {:?}", answer.allowed, answer.patch),
                Err(why) => why,
            }
        })
    };
    let patch = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let good = patch("[{\"op\":\"remove\",\"path\":\"/a\"}]");
    let kind = "JSONPatch";
    let lines = [
        read(Part::Validating, json!({ "uid": "u1", "allowed": true })),
        read(Part::Validating, json!({ "uid": "u2", "allowed": true })),
        read(Part::Validating, json!({ "uid": "u1", "allowed": true, "patch": good })),
        read(
            Part::Mutating,
            json!({ "uid": "u1", "allowed": true, "patch": good, "patchType": kind }),
        ),
        read(Part::Mutating, json!({ "uid": "u1", "allowed": true, "patch": good })),
        read(Part::Mutating, json!({ "uid": "u1", "allowed": true, "patchType": kind })),
        read(Part::Mutating, json!({ "uid": "u1", "patch": patch("nonsense"), "patchType": kind })),
        read(Part::Mutating, Value::Null),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn refusals_are_upstreams() {
    let refused = |result: Value| {
        let status = review::refusal("x.example.com", &result);
        format!("{} {}: {}", status.code, status.reason, status.message)
    };
    let lines = [
        refused(json!({ "message": "no", "code": 403, "reason": "Forbidden" })),
        refused(json!({ "reason": "Because", "code": 200 })),
        refused(Value::Null),
        refused(json!({ "status": "Success", "code": 999 })),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

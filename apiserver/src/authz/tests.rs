//! RBAC on the bootstrap objects and a few more: who may do what, and what they are told.

use super::{testing::World, *};
use k8s::Object;
use serde_json::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io";

/// A cluster as it starts, with `ann` an editor in `dev` and `bob` who may read pods in `dev`.
fn world() -> World {
    let mut world = World::default();
    for object in bootstrap() {
        let plural = format!("{}s", object.kind().to_lowercase());
        world.put(&format!("{RBAC}/{plural}"), object.into_value());
    }
    let bind = |name: &str, kind: &str, role: &str, user: &str| {
        json!({
            "metadata": { "name": name, "namespace": "dev" },
            "roleRef": { "apiGroup": RBAC, "kind": kind, "name": role },
            "subjects": [{ "apiGroup": RBAC, "kind": "User", "name": user }],
        })
    };
    world.put("rbac.authorization.k8s.io/rolebindings", bind("ann", "ClusterRole", "edit", "ann"));
    world.put("rbac.authorization.k8s.io/rolebindings", bind("bob", "Role", "reader", "bob"));
    world.put("rbac.authorization.k8s.io/rolebindings", bind("eve", "Role", "gone", "eve"));
    world.put(
        "rbac.authorization.k8s.io/roles",
        json!({
            "metadata": { "name": "reader", "namespace": "dev" },
            "rules": [
                { "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"] },
                { "verbs": ["update"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["app"] },
            ],
        }),
    );
    world
}

/// `user verb resource[/sub][.group] [namespace [name]]` or `user verb /path`, one a line.
fn check(script: &str) -> String {
    let world = world();
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let user = match words[0].split_once('@') {
            Some((name, group)) => Identity::authenticated(name, &[group]),
            None if words[0] == "anonymous" => Identity::anonymous(),
            None => Identity::authenticated(words[0], &[]),
        };
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        let path = if word(2).starts_with('/') { word(2) } else { "" };
        let (resource, group) = word(2).split_once('.').unwrap_or((word(2), ""));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = Attributes {
            user: &user,
            verb: word(1),
            group,
            version: "v1",
            resource,
            subresource,
            namespace: word(3),
            name: word(4),
            field_selector: "",
            path,
        };
        let answer = match rbac::authorize(&world, &asked) {
            Decision::Allow => "yes".to_string(),
            Decision::NoOpinion { reason } | Decision::Deny { reason } => {
                forbidden(&asked, &reason).message
            }
        };
        out.push_str(&format!("{line}: {answer}\n"));
    }
    out
}

#[test]
fn who_may_do_what() {
    insta::assert_snapshot!(check(
        r"
        root@system:masters delete secrets kube-system
        root@system:masters get /metrics
        x list pods default
        x list nodes
        x get pods default web
        x get /metrics
        x get /api/v1
        x get /version
        anonymous get /version
        anonymous get /api
        anonymous list pods default
        x create selfsubjectaccessreviews.authorization.k8s.io
        ann create deployments.apps dev
        ann get secrets dev
        ann list pods dev
        ann list pods prod
        ann create rolebindings.rbac.authorization.k8s.io dev
        bob list pods dev
        bob get pods/log dev web
        bob get pods/exec dev web
        bob watch pods dev
        bob update configmaps dev app
        bob update configmaps dev other
        eve list pods dev
        n1@system:nodes update nodes/status  n1
        n1@system:nodes watch pods
        n1@system:nodes list endpointslices.discovery.k8s.io
        n1@system:nodes delete nodes
        n1@system:nodes get /coxswain/members
        n1@system:nodes get /coxswain/ca
        x get /coxswain/ca
        system:kube-scheduler create pods/binding default web
        system:kube-scheduler create pods default
        system:kube-controller-manager patch deployments/status.apps default web
        system:kube-controller-manager create pods default
        system:kube-controller-manager delete widgets.example.com default w
        system:serviceaccount:kube-system:namespace-controller update namespaces/finalize  dev
        "
    ));
}

#[test]
fn can_i_list() {
    let world = std::sync::Arc::new(world());
    let rules = super::rbac_alone(world).rules(&Identity::authenticated("bob", &[]), "dev");
    insta::assert_json_snapshot!(rules);
}

fn write(user: &str, plural: &'static str, object: Value) -> String {
    let world = world();
    let user = Identity::authenticated(user, &[]);
    let resource = Resource::new(RBAC, "v1", plural);
    let object = Object::from_value(object).expect("an object");
    match escalation::check(&world, &user, &resource, &object, None) {
        Ok(()) => "allowed".into(),
        Err(status) => format!("{} {}: {}", status.code, status.reason, status.message),
    }
}

#[test]
fn nobody_gives_what_they_do_not_have() {
    let role =
        |rules: Value| json!({ "metadata": { "name": "r", "namespace": "dev" }, "rules": rules });
    let binding = |kind: &str, name: &str| {
        json!({
            "metadata": { "name": "b", "namespace": "dev" },
            "roleRef": { "apiGroup": RBAC, "kind": kind, "name": name },
            "subjects": [{ "kind": "User", "name": "bob" }],
        })
    };
    let pods = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }]);
    let nodes = json!([{ "verbs": ["get", "delete"], "apiGroups": [""], "resources": ["nodes"] }]);
    let cases = [
        write("bob", "roles", role(pods)),
        write("bob", "roles", role(nodes)),
        write("bob", "rolebindings", binding("Role", "reader")),
        write("bob", "rolebindings", binding("Role", "nothing")),
        write("ann", "rolebindings", binding("ClusterRole", "view")),
    ];
    insta::assert_snapshot!(cases.join("\n"));
}

#[test]
fn reviews_are_answered() {
    let world = std::sync::Arc::new(world());
    let authorizer = super::rbac_alone(world);
    let ask_with = |kind: &str, metadata: Value, spec: Value| {
        let kind = crate::kinds::BUILT_IN.iter().find(|def| def.kind == kind).expect("a kind");
        let review = json!({ "metadata": metadata, "spec": spec });
        let review = Object::from_value(review).expect("an object");
        let user = Identity::authenticated("bob", &[]);
        match answer(&*authorizer, &user, kind, &review, "now").expect("a review") {
            Ok(review) if kind.kind == "SelfSubjectReview" => Value::Object(review.0).to_string(),
            Ok(review) => review.0["status"].to_string(),
            Err(status) => status.message,
        }
    };
    let ask = |kind: &str, spec: Value| ask_with(kind, json!({}), spec);
    let pods = json!({ "verb": "list", "resource": "pods", "namespace": "dev" });
    let cases = [
        ask("SelfSubjectAccessReview", json!({ "resourceAttributes": pods })),
        ask("SelfSubjectAccessReview", json!({})),
        ask("SubjectAccessReview", json!({ "user": "ann", "resourceAttributes": pods })),
        ask("SubjectAccessReview", json!({ "resourceAttributes": pods })),
        ask_with(
            "LocalSubjectAccessReview",
            json!({ "namespace": "dev" }),
            json!({ "user": "ann", "resourceAttributes": { "namespace": "prod" } }),
        ),
        ask_with(
            "LocalSubjectAccessReview",
            json!({ "namespace": "dev", "name": "", "managedFields": [{}] }),
            json!({ "user": "ann", "resourceAttributes": pods }),
        ),
        ask_with(
            "LocalSubjectAccessReview",
            json!({ "namespace": "dev", "labels": { "a": "b" } }),
            json!({ "groups": ["g"], "nonResourceAttributes": { "path": "/" } }),
        ),
        ask_with("SubjectAccessReview", json!({ "name": "a" }), json!({})),
        ask(
            "SelfSubjectAccessReview",
            json!({ "resourceAttributes": {
            "fieldSelector": { "rawSelector": "a=b", "requirements": [{ "operator": "In" }] },
            "labelSelector": { "requirements": [
                { "key": "a b", "operator": "Exists", "values": ["v"] },
                { "key": "a", "operator": "Newer", "values": ["v w"] },
            ] },
        } }),
        ),
        ask("SelfSubjectRulesReview", json!({})),
        ask("SelfSubjectReview", json!({})),
    ];
    insta::assert_snapshot!(cases.join("\n"));
}

/// Every call our own agents and controllers make, `verb resource[/sub][.group]`; what else nodes may
/// is the Node authorizer's.
#[test]
fn our_own_parts_may_do_their_work() {
    let agent = "
        list nodes, watch nodes, list services, watch services, list namespaces
        list endpointslices.discovery.k8s.io, watch endpointslices.discovery.k8s.io";
    let scheduler = "
        list nodes, watch nodes, list pods, watch pods, get pods, create pods/binding, patch pods/status
        list namespaces, watch namespaces, create events, patch events";
    let controllers = "
        list deployments.apps, watch replicasets.apps, patch deployments.apps
        patch deployments.apps, patch deployments/status.apps, create replicasets.apps
        patch replicasets.apps, delete replicasets.apps, patch replicasets/status.apps
        create pods, patch pods, delete pods, get pods, patch pods/status
        watch replicationcontrollers, patch replicationcontrollers/status
        create endpointslices.discovery.k8s.io, patch endpointslices.discovery.k8s.io
        delete endpointslices.discovery.k8s.io, get endpointslices.discovery.k8s.io
        patch nodes, patch nodes/status, list leases.coordination.k8s.io
        create serviceaccounts, get serviceaccounts, create configmaps, patch configmaps
        update namespaces/finalize, deletecollection anything.example.com
        delete anything.example.com, patch anything.example.com, get anything.example.com
        create events, patch events";
    let world = world();
    let parts = [
        (Identity::authenticated("system:node:n1", &["system:nodes"]), agent),
        (Identity::authenticated("system:kube-scheduler", &[]), scheduler),
        (Identity::authenticated("system:kube-controller-manager", &[]), controllers),
    ];
    let mut refused = Vec::new();
    for (user, calls) in &parts {
        for call in calls.split([',', '\n']).map(str::trim).filter(|call| !call.is_empty()) {
            let (verb, what) = call.split_once(' ').expect("verb and resource");
            let (resource, group) = what.split_once('.').unwrap_or((what, ""));
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let asked = Attributes {
                user,
                verb,
                group,
                version: "v1",
                resource,
                subresource,
                namespace: "dev",
                name: "x",
                field_selector: "",
                path: "",
            };
            if rbac::authorize(&world, &asked) != Decision::Allow {
                refused.push(format!("{}: {call}", user.user));
            }
        }
    }
    assert_eq!(refused, Vec::<String>::new());
}

//! Admission steps on values: a request in YAML-like JSON, the object or the refusal out.

use super::*;
use crate::{authz::testing::World, kinds};
use serde_json::{Value, json};

/// Objects come back from outside as they are.
pub(super) struct AsIs;

impl Reader for AsIs {
    fn read(&self, _: &Kind, _: &str, document: Value) -> Result<Object, Status> {
        Object::from_value(document).ok_or_else(|| Status::bad_request("not an object"))
    }
}

/// Allows these verbs.
pub(super) struct Allows<'a>(pub(super) &'a [&'a str]);

impl authz::Authorizer for Allows<'_> {
    fn authorize(&self, asked: &authz::Attributes<'_>) -> authz::Decision {
        if self.0.contains(&asked.verb) {
            return authz::Decision::Allow;
        }
        authz::Decision::NoOpinion { reason: String::new() }
    }

    fn rules(&self, _: &Identity, _: &str) -> Value {
        Value::Null
    }
}

/// What the steps share; nobody is reached.
pub(super) fn machine() -> Machine {
    let believed = crate::Authorities::default().into();
    let ways = Ways { view: std::sync::Arc::new(World::default()), believed };
    Machine::new(&prometheus::Registry::new(), ways)
}

/// A request for the tests; its fields may be set before it is decided.
pub(super) struct Asked<'a> {
    pub(super) world: &'a World,
    pub(super) operation: Operation,
    pub(super) kind: (&'a str, &'a str),
    pub(super) subresource: &'a str,
    pub(super) old: Option<Value>,
    pub(super) config: Config,
    /// The verbs the user may do.
    pub(super) allowed: &'a [&'a str],
}

impl<'a> Asked<'a> {
    pub(super) fn new(world: &'a World, operation: Operation, kind: (&'a str, &'a str)) -> Self {
        let config = Config { default_toleration_seconds: 5, ..Config::default() };
        let allowed = &["delete", "update"];
        Asked { world, operation, kind, subresource: "", old: None, config, allowed }
    }

    /// The object after all steps, and what was warned of.
    pub(super) fn decide(self, object: Value) -> (Result<Object, Status>, Vec<String>) {
        let kind = Kind::from(kinds::find(self.kind.0, self.kind.1).expect("a kind"));
        let mut object = Object::from_value(object).expect("an object");
        let old = self.old.map(|old| Object::from_value(old).expect("an object"));
        let (namespace, name) = (object.namespace().to_string(), object.name().to_string());
        let identity = Identity::authenticated("admin", &["system:masters"]);
        let (notes, options) = (Notes::default(), Options::default());
        let cx = Cx {
            operation: self.operation,
            kind: &kind,
            version: kind.versions[0],
            namespace: &namespace,
            name: &name,
            subresource: self.subresource,
            identity: &identity,
            old: old.as_ref(),
            view: self.world,
            authorizer: &Allows(self.allowed),
            config: &self.config,
            options: &options,
            dry_run: false,
            notes: &notes,
            machine: &machine(),
            reader: &AsIs,
        };
        let decided = async {
            mutate(&cx, &mut object).await?;
            validate(&cx, &object).await
        };
        let result = futures::executor::block_on(decided);
        (result.map(|()| object), notes.take_warnings())
    }

    /// The same as text, for snapshots.
    pub(super) fn text(self, object: Value) -> String {
        match self.decide(object).0 {
            Ok(object) => serde_json::to_string_pretty(&object).expect("JSON"),
            Err(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        }
    }
}

fn admit(world: &World, group: &str, plural: &str, operation: Operation, object: Value) -> String {
    Asked::new(world, operation, (group, plural)).text(object)
}

fn pod(namespace: &str, spec: Value) -> Value {
    json!({ "metadata": { "name": "web", "namespace": namespace }, "spec": spec })
}

/// A world with one namespace and the account every namespace has, whose pods get no tokens.
pub(super) fn active_namespace(name: &str) -> World {
    let mut world = World::default();
    let namespace = json!({ "metadata": { "name": name }, "status": { "phase": "Active" } });
    world.put("namespaces", namespace);
    let account = json!({
        "metadata": { "name": "default", "namespace": name },
        "automountServiceAccountToken": false,
    });
    world.put("serviceaccounts", account);
    world
}

fn world() -> World {
    let mut world = active_namespace("default");
    world.put(
        "namespaces",
        json!({ "metadata": { "name": "ending", "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
    );
    world.put(
        "scheduling.k8s.io/priorityclasses",
        json!({ "metadata": { "name": "high" }, "value": 1000, "preemptionPolicy": "Never" }),
    );
    world.put(
        "serviceaccounts",
        json!({ "metadata": { "name": "default", "namespace": "default" } }),
    );
    world.put(
        "serviceaccounts",
        json!({ "metadata": { "name": "builder", "namespace": "default" }, "imagePullSecrets": [{ "name": "reg" }] }),
    );
    world
}

#[test]
fn a_pod_gets_an_account_tolerations_and_a_priority() {
    let spec = json!({ "serviceAccountName": "builder", "priorityClassName": "high" });
    let admitted = admit(&world(), "", "pods", Operation::Create, pod("default", spec));
    insta::assert_snapshot!(admitted);
}

#[test]
fn refusals_are_upstreams() {
    let world = world();
    let create = |object| admit(&world, "", "pods", Operation::Create, object);
    let cases = [
        create(pod("nowhere", json!({}))),
        create(pod("ending", json!({}))),
        create(pod("default", json!({ "priorityClassName": "none" }))),
        create(pod("default", json!({ "priorityClassName": "high", "priority": 7 }))),
        create(pod("default", json!({ "serviceAccountName": "ghost" }))),
        admit(
            &world,
            "",
            "namespaces",
            Operation::Delete,
            json!({ "metadata": { "name": "kube-system" } }),
        ),
    ];
    insta::assert_snapshot!(cases.join("\n"));
}

#[test]
fn a_toleration_of_the_users_own_is_left_alone() {
    let own = json!({ "tolerations": [{ "operator": "Exists", "effect": "NoExecute" }] });
    let admitted = admit(&world(), "", "pods", Operation::Create, pod("default", own));
    let admitted: Value = serde_json::from_str(&admitted).expect("admitted");
    assert_eq!(admitted["spec"]["tolerations"].as_array().map(Vec::len), Some(1));
}

#[test]
fn there_is_one_default_priority_class() {
    let mut world = world();
    let class =
        |name: &str| json!({ "metadata": { "name": name }, "value": 5, "globalDefault": true });
    world.put("scheduling.k8s.io/priorityclasses", class("normal"));
    let made = |name: &str| {
        admit(&world, "scheduling.k8s.io", "priorityclasses", Operation::Create, class(name))
    };
    insta::assert_snapshot!(made("other"), @r#"403 Forbidden: priorityclasses.scheduling.k8s.io "other" is forbidden: PriorityClass normal is already marked as default. Only one default can exist"#);
    assert!(made("normal").starts_with('{'), "the same one may be written again");
    let pod: Value = serde_json::from_str(&admit(
        &world,
        "",
        "pods",
        Operation::Create,
        pod("default", json!({})),
    ))
    .expect("admitted");
    assert_eq!(pod["spec"]["priority"], 5);
}

#[test]
fn owners_are_set_by_those_who_may() {
    let world = world();
    let owner = |block: bool| {
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u",
            "blockOwnerDeletion": block,
        })
    };
    let ask = |operation: Operation, allowed: &[&str], owners: Value| {
        let name = "OwnerReferencesPermissionEnforcement".to_string();
        let mut asked = Asked::new(&world, operation, ("", "pods"));
        asked.config = Config::default().plugins(&[name], &[]).expect("known");
        asked.allowed = allowed;
        let metadata = json!({ "name": "p", "namespace": "default", "ownerReferences": owners });
        let pod = json!({ "metadata": metadata, "spec": {} });
        asked.decide(pod).0.map_or_else(|status| status.message, |_| "admitted".to_string())
    };
    let lines = [
        ask(Operation::Create, &[], json!([owner(false)])),
        ask(Operation::Create, &[], json!([owner(true)])),
        ask(Operation::Update, &["delete"], json!([owner(false)])),
        ask(Operation::Update, &["update"], json!([owner(false)])),
        ask(Operation::Update, &["delete", "update"], json!([owner(true)])),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

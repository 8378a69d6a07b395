//! Scripts of writers, and what becomes of the object and its managers with each step. A step is a
//! line `# verb manager …` with YAML below it.

use super::*;
use crate::schema::Schema;
use crate::structural::{self, Node};
use crate::{Object, decode, default};
use serde_json::Value;
use std::fmt::Write as _;

struct World {
    ty: &'static str,
    /// Of a custom kind.
    node: Option<Node>,
    live: Object,
    managers: Managers,
    clock: u32,
}

/// Runs a script over an object of a built-in type.
fn script(ty: &'static str, text: &str) -> String {
    run(ty, None, text)
}

/// Runs a script over an object of a custom kind with the schema of its `spec`.
fn custom(spec: &str, text: &str) -> String {
    let spec = decode::yaml_to_value(spec.as_bytes()).unwrap();
    let root = serde_json::json!({"type": "object", "properties": {"spec": spec}});
    run("example.com.v1.Widget", Some(Node::read(&root)), text)
}

fn run(ty: &'static str, node: Option<Node>, text: &str) -> String {
    let (live, managers) = (Object::default(), Managers::default());
    let mut world = World { ty, node, live, managers, clock: 0 };
    let mut out = String::new();
    for step in text.split("\n#").map(str::trim).filter(|step| !step.is_empty()) {
        let (head, body) = step.trim_start_matches('#').split_once('\n').unwrap_or((step, ""));
        let _ = writeln!(out, "# {}", head.trim());
        world.step(head, body, &mut out);
    }
    out
}

impl World {
    fn step(&mut self, head: &str, body: &str, out: &mut String) {
        self.clock += 1;
        let now = format!("2026-01-01T00:00:{:02}Z", self.clock);
        let mut body = decode::yaml_to_value(body.as_bytes()).unwrap();
        let (api_version, kind) = head_of(self.ty);
        if let Value::Object(map) = &mut body {
            map.entry("apiVersion").or_insert_with(|| api_version.clone().into());
            map.entry("kind").or_insert_with(|| kind.into());
        }
        let words: Vec<&str> = head.split_whitespace().collect();
        let has = |word: &str| words.contains(&word);
        let node = self.node.clone();
        let place = match &node {
            Some(node) => AnyKind::custom(node),
            None => {
                let schema = Schema::built_in();
                AnyKind::built_in(schema, schema.get(self.ty).unwrap())
            }
        };
        let write = Write {
            place,
            api_version: &api_version,
            kind,
            subresource: if has("status") { "status" } else { "" },
            manager: words.get(1).copied().unwrap_or_default(),
            scope: if has("status") { Scope::STATUS } else { Scope::MAIN },
            now: &now,
            versions: &OneVersion,
        };
        let before = (self.live.clone(), self.managers.clone());
        if words[0] == "apply" {
            let config = Object::from_value(body).unwrap();
            match write.apply(self.managers.clone(), &self.live, &config, has("force")) {
                Err(error) => {
                    let status = error.status();
                    let _ = writeln!(out, "{} {}", status.code, status.message);
                    for cause in status.causes {
                        let _ = writeln!(out, "  {}: {}", cause.field, cause.message);
                    }
                    return;
                }
                Ok(applied) => {
                    self.live = self.stored(applied.object.into_value());
                    self.managers = applied.managers;
                }
            }
        } else {
            let new = self.stored(body);
            let sent = new.metadata().and_then(|metadata| metadata.get("managedFields")).cloned();
            self.managers =
                write.update(std::mem::take(&mut self.managers), sent.as_ref(), &self.live, &new);
            self.live = new;
        }
        self.live.metadata_mut().insert("uid".into(), "u".into());
        self.live.metadata_mut().remove("managedFields");
        if before.0 != self.live {
            let _ = writeln!(out, "{}", Value::Object(self.live.0.clone()));
        }
        self.report_managers(&before.1, out);
    }

    fn report_managers(&self, before: &Managers, out: &mut String) {
        if *before == self.managers {
            let _ = writeln!(out, "  managers as before");
            return;
        }
        for entry in self.managers.clone().into_value().as_array().unwrap() {
            let entry = entry.as_object().unwrap();
            let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or("-");
            let (operation, time) = (text("operation"), text("time"));
            let seconds = time.get(17..19).unwrap_or("-");
            let _ = writeln!(
                out,
                "  {} {operation} {} {seconds}: {}",
                text("manager"),
                text("subresource"),
                entry["fieldsV1"]
            );
        }
    }

    /// As the server keeps it: checked, defaulted, complete.
    fn stored(&self, mut body: Value) -> Object {
        if let Some(node) = &self.node {
            structural::default(&mut body, node);
            return Object::from_value(body).unwrap();
        }
        let schema = Schema::built_in();
        let id = schema.get(self.ty).unwrap();
        let mut object = decode::value(schema, id, &body).unwrap().object;
        default::apply(schema, id, &mut object);
        default::zero_values(schema, id, &mut object);
        if !self.live.uid().is_empty() {
            object.metadata_mut().insert("uid".into(), self.live.uid().into());
        }
        object
    }
}

fn head_of(ty: &'static str) -> (String, &'static str) {
    let mut parts = ty.rsplitn(3, '.');
    let (kind, version) = (parts.next().unwrap(), parts.next().unwrap());
    let group = parts.next().unwrap();
    let group = if group == "core" { String::new() } else { format!("{group}/") };
    (format!("{group}{version}"), kind)
}

#[test]
fn one_field_has_several_owners_until_they_disagree() {
    insta::assert_snapshot!(script(
        "core.v1.ConfigMap",
        r#"
# apply one
metadata: {name: a, labels: {app: web}}
data: {color: blue, size: s}
# apply two
metadata: {name: a}
data: {color: blue, shape: round}
# apply two
metadata: {name: a}
data: {color: red, shape: round}
# apply two force
metadata: {name: a}
data: {color: red, shape: round}
# apply one
metadata: {name: a, labels: {app: web}}
data: {size: s}
# apply one
metadata: {name: a}
# apply two
metadata: {name: a}
data: {color: red, shape: round}
# apply two
metadata: {name: a}
"#
    ));
}

#[test]
fn updates_take_what_they_change_and_forget_what_they_remove() {
    insta::assert_snapshot!(script(
        "core.v1.ConfigMap",
        r#"
# create editor
metadata: {name: a, labels: {app: web}}
data: {color: blue, size: s}
# update other
metadata: {name: a, labels: {app: web}}
data: {color: red, size: s}
# update other
metadata: {name: a, labels: {app: web}}
data: {color: red, size: s}
# update third
metadata: {name: a}
data: {color: red}
# apply one
metadata: {name: a}
data: {color: red}
# apply one
metadata: {name: a}
data: {color: blue}
"#
    ));
}

#[test]
fn entries_of_lists_are_owned_one_by_one() {
    insta::assert_snapshot!(script(
        "apps.v1.Deployment",
        r#"
# apply one
metadata: {name: a}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {creationTimestamp: null, labels: {app: a}}
    spec:
      containers:
      - name: main
        image: a:1
        args: [x, z]
        ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]
        env: [{name: A, value: "1"}]
# apply sidecar
metadata: {name: a}
spec:
  template:
    metadata: {creationTimestamp: null}
    spec:
      containers: [{name: proxy, image: p:1}]
# apply sidecar
metadata: {name: a}
spec:
  template:
    spec:
      containers: [{name: proxy, image: p:1}, {name: main, image: a:2, args: [z], env: [{name: A, value: "2"}]}]
# apply one
metadata: {name: a}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers:
      - name: main
        image: a:1
        ports: [{containerPort: 80, protocol: UDP}]
# apply sidecar
metadata: {name: a}
"#
    ));
}

#[test]
fn sets_and_atomic_values() {
    insta::assert_snapshot!(script(
        "core.v1.Pod",
        r#"
# apply one
metadata: {name: a, finalizers: [x/a, x/b]}
spec: {tolerations: [{key: a}], containers: [{name: c, image: i}]}
# apply two
metadata: {name: a, finalizers: [x/c, x/a]}
# apply two
metadata: {name: a}
spec: {tolerations: [{key: b}]}
# apply one
metadata: {name: a, finalizers: [x/b]}
spec: {tolerations: [{key: a}], containers: [{name: c, image: i}]}
"#
    ));
}

#[test]
fn a_created_object_belongs_to_its_maker_but_for_what_go_always_has() {
    insta::assert_snapshot!(script(
        "apps.v1.Deployment",
        r#"
# create maker
metadata: {name: a, labels: {app: a}}
spec:
  replicas: 1
  selector: {matchLabels: {app: a}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: [{name: main, image: a:1, ports: [{containerPort: 443}, {containerPort: 80}]}], securityContext: {}}
# update controller status
metadata: {name: a, labels: {app: a}, annotations: {revision: "1"}}
spec:
  replicas: 1
  selector: {matchLabels: {app: a}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: [{name: main, image: a:1, ports: [{containerPort: 443}, {containerPort: 80}]}], securityContext: {}}
status: {replicas: 1, conditions: [{type: Available, status: "True"}]}
# apply one
metadata: {name: a}
status: {replicas: 5}
spec: {replicas: 1}
"#
    ));
}

#[test]
fn client_side_apply_is_taken_over_by_kubectl() {
    insta::assert_snapshot!(script(
        "core.v1.ConfigMap",
        r#"
# create kubectl-client-side-apply
metadata:
  name: a
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"color":"blue","size":"s"}}'
data: {color: blue, size: s}
# update other
metadata:
  name: a
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"color":"blue","size":"s"}}'
data: {color: blue, size: xl}
# apply somebody
metadata: {name: a}
data: {color: red}
# apply kubectl
metadata: {name: a}
data: {color: red, size: m}
# apply kubectl
metadata: {name: a}
data: {color: red}
"#
    ));
}

#[test]
fn managers_may_be_edited_and_forgotten() {
    insta::assert_snapshot!(script(
        "core.v1.ConfigMap",
        r#"
# create one
metadata: {name: a}
data: {a: "1"}
# update two
metadata:
  name: a
  managedFields:
  - {manager: x, operation: Update, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {"f:data": {"f:a": {}}}}
data: {a: "1", b: "2"}
# update two
metadata:
  name: a
  managedFields: [{manager: x, operation: Dance, apiVersion: v1}]
data: {a: "1", b: "3"}
# update three
metadata: {name: a, managedFields: [{}]}
data: {a: "1", b: "4"}
# update four
metadata: {name: a}
data: {a: "1", b: "5"}
# apply five
metadata: {name: a}
data: {c: "6"}
# update six
metadata: {name: a, managedFields: []}
data: {a: "1", b: "5"}
"#
    ));
}

#[test]
fn the_oldest_updates_become_one() {
    let mut text = String::from("# create m00\nmetadata: {name: a}\ndata: {a: x}\n");
    for number in 1..12 {
        let _ = write!(text, "# update m{number:02}\nmetadata: {{name: a}}\ndata: {{a: x");
        for key in 1..=number {
            let _ = write!(text, ", k{key}: x");
        }
        text.push_str("}\n");
    }
    let shown = script("core.v1.ConfigMap", &text);
    let last = shown.rsplit("# update").next().unwrap();
    insta::assert_snapshot!(last);
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    insta::assert_snapshot!(script(
        "apps.v1.Deployment",
        r#"
# apply one
metadata: {name: a, namespace: ns}
spec: {replicas: 1, bogus: 1, template: {spec: {containers: [{name: c, wrong: 1}]}}}
# apply one
metadata: {name: a}
spec: {replicas: three}
# apply one
metadata: {name: a}
spec: {template: {spec: {containers: [{name: c}, {name: c}]}}}
# apply one
metadata: {name: a}
spec: {template: {spec: {containers: [{image: c}]}}}
# apply one
metadata: {name: a}
spec: {template: {spec: {containers: {}}, metadata: {labels: {a: 1}}}}
# apply one
metadata: {name: a, managedFields: []}
# apply one
apiVersion: v1
metadata: {name: a}
# apply one
kind: Pod
metadata: {name: a}
"#
    ));
}

#[test]
fn a_scale_shows_one_field_of_its_object() {
    let set = |names: &[&str]| Set::of_names(names);
    let mut all = set(&["spec", "replicas"]);
    all.union(&set(&["spec", "paused"]));
    let list = vec![
        Entry::new("a", false, "apps/v1", "", all),
        Entry::new("b", true, "apps/v1", "", set(&["spec", "replicas"])),
        Entry::new("c", false, "apps/v1", "", set(&["spec", "paused"])),
    ];
    let managers = Managers(list);
    let shown = managers.in_scale(&["spec", "replicas"]);
    let names = |managers: &Managers| {
        let entries = managers.entries().iter();
        let text = entries
            .map(|e| format!("{} {} {:?}", e.manager(), e.api_version(), e.fields().paths()));
        text.collect::<Vec<_>>().join("\n")
    };
    let same = managers.clone().with_scale(shown.clone(), &["spec", "replicas"], "apps/v1");
    assert_eq!(same, managers);
    let new = Managers(vec![Entry::new(
        "kubectl",
        false,
        "autoscaling/v1",
        "scale",
        set(&["spec", "replicas"]),
    )]);
    let moved = managers.with_scale(new, &["spec", "replicas"], "apps/v1");
    insta::assert_snapshot!(format!("{}\n\n{}", names(&shown), names(&moved)));
}

const WIDGET: &str = r#"
type: object
properties:
  size: {type: integer}
  tags: {type: array, x-kubernetes-list-type: set, items: {type: string}}
  ports:
    type: array
    x-kubernetes-list-type: map
    x-kubernetes-list-map-keys: [port, protocol]
    items:
      type: object
      properties:
        port: {type: integer}
        protocol: {type: string, default: TCP}
        name: {type: string}
  words: {type: array, items: {type: string}}
  whole: {type: object, x-kubernetes-map-type: atomic, additionalProperties: {type: string}}
  each: {type: object, additionalProperties: {type: array, x-kubernetes-list-type: set, items: {type: string}}}
  open: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {a: {type: object, properties: {b: {type: integer}}}}}
  either: {x-kubernetes-int-or-string: true}
  pod: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
"#;

#[test]
fn the_schema_of_a_custom_kind_says_what_is_shared() {
    insta::assert_snapshot!(custom(
        WIDGET,
        r#"
# apply one
metadata: {name: a, finalizers: [x/y]}
spec: {size: 1, tags: [a], ports: [{port: 80, name: web}], words: [x], whole: {a: b}, each: {k: [v]}}
# apply two
metadata: {name: a, finalizers: [x/z]}
spec: {tags: [b], ports: [{port: 81}, {port: 80, protocol: UDP}], each: {k: [w], l: [v]}}
# apply two
metadata: {name: a}
spec: {ports: [{port: 80, protocol: TCP, name: other}], words: [q], whole: {c: d}}
# apply two force
metadata: {name: a}
spec: {words: [q], whole: {c: d}}
# apply one
metadata: {name: a}
spec: {size: 1}
"#
    ));
}

#[test]
fn what_a_custom_schema_leaves_open_is_owned_field_by_field() {
    insta::assert_snapshot!(custom(
        WIDGET,
        r#"
# apply one
metadata: {name: a}
spec:
  open: {a: {b: 1, c: {d: [1, 2]}}, z: {y: 1}}
  either: 80%
  pod: {apiVersion: v1, kind: Pod, metadata: {name: p, labels: {a: b}}, spec: {containers: [{name: c}]}}
# apply two
metadata: {name: a}
spec:
  open: {z: {x: 2}}
  pod: {metadata: {labels: {c: d}}}
# apply two
metadata: {name: a}
spec: {either: 8080, open: {z: {y: 2}}}
# update three
metadata: {name: a}
spec: {open: {z: {y: 1}}}
# apply two
metadata: {name: a}
spec: {size: x, unknown: 1, tags: {}, ports: [{name: x, port: q}]}
"#
    ));
}

#[test]
fn a_custom_schema_that_became_atomic_is_owned_as_a_whole() {
    let granular =
        r#"{type: object, properties: {m: {type: object, additionalProperties: {type: string}}}}"#;
    let node = |text: &str| {
        let spec = decode::yaml_to_value(text.as_bytes()).unwrap();
        Node::read(&serde_json::json!({"type": "object", "properties": {"spec": spec}}))
    };
    let (ty, live, managers) = ("example.com.v1.Widget", Object::default(), Managers::default());
    let mut world = World { ty, node: Some(node(granular)), live, managers, clock: 0 };
    let mut out = String::new();
    world.step("apply one", "metadata: {name: a}\nspec: {m: {a: b}}", &mut out);
    world.step("apply two", "metadata: {name: a}\nspec: {m: {c: d}}", &mut out);
    world.node = Some(node(
        &granular
            .replace("{type: object, add", "{type: object, x-kubernetes-map-type: atomic, add"),
    ));
    world.step("apply two", "metadata: {name: a}\nspec: {m: {c: e}}", &mut out);
    world.step("apply two force", "metadata: {name: a}\nspec: {m: {c: e}}", &mut out);
    insta::assert_snapshot!(out);
}

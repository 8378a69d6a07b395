//! The roles and bindings a cluster starts with, and how an existing one is brought up to them.

use super::rbac::Rule;
use k8s::Object;
use serde_json::{Map, Value, json};

const TEXT: &str = include_str!("bootstrap.roles");
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// All of them, with `apiVersion` and `kind`. Aggregated roles have the rules of their parts in full,
/// as upstream's controller writes them.
pub(super) fn objects() -> Vec<Object> {
    let mut objects = parse(TEXT);
    for at in 0..objects.len() {
        if objects[at].contains_key("aggregationRule") {
            let rules = aggregate(&objects, &objects[at], 0);
            objects[at].insert("rules".into(), rules.into());
        }
    }
    objects.into_iter().map(Object).collect()
}

/// The rules of one of the cluster roles.
pub(super) fn rules_of(role: &str) -> Vec<Rule> {
    let found = parse(TEXT).into_iter().map(Object);
    let mut found = found.filter(|object| object.kind() == "ClusterRole" && object.name() == role);
    found.next().map(|role| Rule::list(&role)).unwrap_or_default()
}

/// What `have` must become to grant at least what `want` does; `None` if it does already, or if
/// somebody took it out of our care (annotation `autoupdate` other than "true"). Idempotent; never
/// takes anything away.
pub fn reconcile(have: &Object, want: &Object) -> Option<Object> {
    if have.annotation(AUTOUPDATE).is_some_and(|value| value != "true") {
        return None;
    }
    let mut new = have.clone();
    for field in ["labels", "annotations"] {
        let wanted = want.metadata().and_then(|meta| meta.get(field)?.as_object());
        for (key, value) in wanted.into_iter().flatten() {
            let slot = new.metadata_mut().entry(field).or_insert_with(|| json!({}));
            slot[key.as_str()] = value.clone();
        }
    }
    let own = Rule::list(have);
    let missing = |rule: &Rule| {
        let granted = |atom: Rule| own.iter().any(|own| own.covers(&atom));
        !rule.atoms().into_iter().all(granted)
    };
    let rules = Rule::list(want).into_iter().filter(missing);
    append(&mut new, "rules", rules.map(|rule| rule.to_value()).collect());
    let subjects = |object: &Object| {
        object.at("/subjects").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let named = subjects(have);
    let absent = subjects(want).into_iter().filter(|subject| !named.contains(subject));
    append(&mut new, "subjects", absent.collect());
    (new != *have).then_some(new)
}

fn append(object: &mut Object, field: &str, more: Vec<Value>) {
    if more.is_empty() {
        return;
    }
    match object.0.get_mut(field).and_then(Value::as_array_mut) {
        Some(list) => list.extend(more),
        None => {
            object.0.insert(field.into(), more.into());
        }
    }
}

/// Rules of the parts of an aggregated role. `depth` ends a circle, which the text does not have.
fn aggregate(all: &[Map<String, Value>], role: &Map<String, Value>, depth: u8) -> Vec<Value> {
    assert!(depth < 8, "bootstrap roles aggregate in a circle");
    let label = role["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"].as_object();
    let label = label.and_then(|labels| labels.keys().next()).expect("one label in the text");
    let mut rules: Vec<Value> = Vec::new();
    for part in all.iter().filter(|part| part["metadata"]["labels"].get(label).is_some()) {
        let more = match part.contains_key("aggregationRule") {
            true => aggregate(all, part, depth + 1),
            false => part["rules"].as_array().cloned().unwrap_or_default(),
        };
        rules.extend(more.into_iter().filter(|rule| !rules.contains(rule)).collect::<Vec<_>>());
    }
    rules
}

fn parse(text: &str) -> Vec<Map<String, Value>> {
    let mut objects: Vec<Map<String, Value>> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            let role = objects.last_mut().expect("a rule follows its role");
            let rules = role["rules"].as_array_mut().expect("made with the role");
            rules.push(rule(&words));
            continue;
        }
        objects.push(match words.as_slice() {
            ["clusterrole", name, labels @ ..] => role("ClusterRole", "", name, labels),
            ["aggregate", name, label, labels @ ..] => {
                let mut role = role("ClusterRole", "", name, labels);
                let selector =
                    json!({ "matchLabels": { format!("{AGGREGATE_TO}{label}"): "true" } });
                let rule = json!({ "clusterRoleSelectors": [selector] });
                role.insert("aggregationRule".into(), rule);
                role
            }
            ["role", namespace, name] => role("Role", namespace, name, &[]),
            ["bind", name, subjects @ ..] => binding("ClusterRole", "", name, name, subjects),
            ["bindin", namespace, name, role, subjects @ ..] => {
                binding("Role", namespace, name, role, subjects)
            }
            other => unreachable!("bootstrap.roles: {other:?}"),
        });
    }
    objects
}

fn object(kind: &str, namespace: &str, name: &str) -> Map<String, Value> {
    let mut metadata = json!({
        "name": name,
        "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        "annotations": { AUTOUPDATE: "true" },
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    let fields =
        [("apiVersion", json!(API_VERSION)), ("kind", json!(kind)), ("metadata", metadata)];
    fields.into_iter().map(|(field, value)| (field.to_string(), value)).collect()
}

fn role(kind: &str, namespace: &str, name: &str, labels: &[&str]) -> Map<String, Value> {
    let mut role = object(kind, namespace, name);
    for label in labels {
        let label = label.trim_start_matches('+');
        role["metadata"]["labels"][format!("{AGGREGATE_TO}{label}")] = "true".into();
    }
    role.insert("rules".into(), json!([]));
    role
}

fn rule(words: &[&str]) -> Value {
    let list = |text: &str| -> Vec<String> {
        let words = text.split(',').flat_map(|word| match word {
            "read" => vec!["get", "list", "watch"],
            "write" => vec!["create", "delete", "deletecollection", "patch", "update"],
            "core" => vec![""],
            word => vec![word],
        });
        words.map(String::from).collect()
    };
    let mut rule = Rule { verbs: list(words[0]), ..Rule::default() };
    rule.verbs.sort();
    match words {
        [_, "url", paths] => rule.non_resource_urls = list(paths),
        [_, groups, resources, names @ ..] => {
            rule.api_groups = list(groups);
            rule.resources = list(resources);
            rule.resource_names = names.iter().flat_map(|names| list(names)).collect();
        }
        other => unreachable!("bootstrap.roles: {other:?}"),
    }
    rule.to_value()
}

fn binding(
    role_kind: &str,
    namespace: &str,
    name: &str,
    role: &str,
    subjects: &[&str],
) -> Map<String, Value> {
    let mut binding = object(&format!("{role_kind}Binding"), namespace, name);
    let group = "rbac.authorization.k8s.io";
    let subject = |text: &&str| match (&text[..2], &text[2..]) {
        ("u:", name) => json!({ "apiGroup": group, "kind": "User", "name": name }),
        ("g:", name) => json!({ "apiGroup": group, "kind": "Group", "name": name }),
        (_, account) => {
            let (namespace, name) = account.split_once('/').expect("namespace/name");
            json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name })
        }
    };
    let subjects: Vec<Value> = subjects.iter().map(subject).collect();
    binding.insert("subjects".into(), subjects.into());
    let role = json!({ "apiGroup": group, "kind": role_kind, "name": role });
    binding.insert("roleRef".into(), role);
    binding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(objects: &[Object], kind: &str, name: &str) -> Object {
        let found = objects.iter().find(|object| object.kind() == kind && object.name() == name);
        found.expect("a bootstrap object").clone()
    }

    #[test]
    fn the_text_makes_upstreams_objects() {
        let objects = objects();
        let names: Vec<String> =
            objects.iter().map(|object| format!("{} {}", object.kind(), object.name())).collect();
        insta::assert_snapshot!(names.join("\n"));
        insta::assert_json_snapshot!(named(&objects, "ClusterRole", "system:basic-user"));
        insta::assert_json_snapshot!(named(
            &objects,
            "ClusterRoleBinding",
            "system:public-info-viewer"
        ));
    }

    #[test]
    fn aggregated_roles_have_the_rules_of_their_parts() {
        let objects = objects();
        let rules = |name: &str| Rule::list(&named(&objects, "ClusterRole", name));
        let (admin, edit, view) = (rules("admin"), rules("edit"), rules("view"));
        assert!(view.iter().all(|rule| edit.contains(rule)));
        assert!(edit.iter().all(|rule| admin.contains(rule)));
        let secrets =
            |rules: &[Rule]| rules.iter().any(|rule| rule.resources.contains(&"secrets".into()));
        assert!(secrets(&edit) && !secrets(&view), "view must not read secrets");
    }

    #[test]
    fn reconciling_adds_what_is_missing_and_then_nothing() {
        let want = named(&objects(), "ClusterRole", "system:kube-dns");
        let mut have = want.clone();
        have.0["rules"] =
            json!([{ "verbs": ["list"], "apiGroups": [""], "resources": ["services"] }]);
        let new = reconcile(&have, &want).expect("rules are missing");
        assert_eq!(Rule::list(&new).len(), 2);
        assert_eq!(reconcile(&new, &want), None);
        have.metadata_mut().insert("annotations".into(), json!({ AUTOUPDATE: "false" }));
        assert_eq!(reconcile(&have, &want), None);
    }
}

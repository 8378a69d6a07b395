//! RBAC: who may do what, by the roles and bindings in the applied state. Each stored version is
//! compiled at most once (memo); nothing is cached beside the store, so nothing can be stale.

use super::{Attributes, Authorizer, Decision};
use crate::{
    identity::{Identity, SYSTEM_MASTERS},
    memo,
    view::View,
};
use k8s::{Object, selector::LabelSelector};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

const GROUP: &str = "rbac.authorization.k8s.io";
const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
const CLUSTER_ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/clusterrolebindings";
const ROLES: &str = "rbac.authorization.k8s.io/roles";
const ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";

/// `rbac.authorization.k8s.io/v1 PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) api_groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) resource_names: Vec<String>,
    pub(crate) non_resource_urls: Vec<String>,
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|entry| entry == text)
}

fn has_or_star(list: &[String], text: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == text)
}

fn covers_all(owner: &[String], wanted: &[String]) -> bool {
    has(owner, "*") || wanted.iter().all(|entry| has(owner, entry))
}

impl Rule {
    pub(crate) fn from_value(value: &Value) -> Rule {
        let texts = |field: &str| {
            let list = value.get(field).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|entry| Some(entry.as_str()?.to_string())).collect()
        };
        Rule {
            verbs: texts("verbs"),
            api_groups: texts("apiGroups"),
            resources: texts("resources"),
            resource_names: texts("resourceNames"),
            non_resource_urls: texts("nonResourceURLs"),
        }
    }

    /// The rules at `/rules` of a role.
    pub(crate) fn list(role: &Object) -> Vec<Rule> {
        let rules = role.at("/rules").and_then(Value::as_array).into_iter().flatten();
        rules.map(Rule::from_value).collect()
    }

    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({ "verbs": self.verbs });
        let mut put = |field: &str, list: &[String]| {
            if !list.is_empty() {
                value[field] = json!(list);
            }
        };
        put("apiGroups", &self.api_groups);
        put("resources", &self.resources);
        put("resourceNames", &self.resource_names);
        put("nonResourceURLs", &self.non_resource_urls);
        value
    }

    pub(super) fn allows(&self, asked: &Attributes<'_>) -> bool {
        if !has_or_star(&self.verbs, asked.verb) {
            return false;
        }
        if !asked.path.is_empty() {
            return self.non_resource_urls.iter().any(|url| url_matches(url, asked.path));
        }
        has_or_star(&self.api_groups, asked.group)
            && self.resources.iter().any(|rule| resource_matches(rule, asked))
            && (self.resource_names.is_empty() || has(&self.resource_names, asked.name))
    }

    /// True if whoever has `self` has all of `other`.
    pub(crate) fn covers(&self, other: &Rule) -> bool {
        let names = match other.resource_names.is_empty() {
            true => self.resource_names.is_empty(),
            false => {
                self.resource_names.is_empty()
                    || other.resource_names.iter().all(|name| has(&self.resource_names, name))
            }
        };
        let urls = other
            .non_resource_urls
            .iter()
            .all(|url| self.non_resource_urls.iter().any(|own| url_matches(own, url)));
        let resources = other.resources.iter().all(|wanted| {
            let wildcard = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
            has_or_star(&self.resources, wanted)
                || wildcard.is_some_and(|wildcard| has(&self.resources, &wildcard))
        });
        covers_all(&self.verbs, &other.verbs)
            && covers_all(&self.api_groups, &other.api_groups)
            && resources
            && names
            && urls
    }

    /// One rule per verb, group and resource (or verb and URL).
    pub(crate) fn atoms(&self) -> Vec<Rule> {
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    atoms.push(Rule {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        resource_names: self.resource_names.clone(),
                        non_resource_urls: Vec::new(),
                    });
                }
            }
            for url in &self.non_resource_urls {
                atoms.push(Rule {
                    verbs: vec![verb.clone()],
                    non_resource_urls: vec![url.clone()],
                    ..Rule::default()
                });
            }
        }
        atoms
    }
}

fn url_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

fn resource_matches(rule: &str, asked: &Attributes<'_>) -> bool {
    match rule.split_once('/') {
        None => rule == "*" || (asked.subresource.is_empty() && rule == asked.resource),
        Some((resource, subresource)) => {
            subresource == asked.subresource
                && !asked.subresource.is_empty()
                && (resource == "*" || resource == asked.resource)
        }
    }
}

/// A Role or ClusterRole, compiled.
struct Role {
    rules: Vec<Rule>,
    /// Empty unless the role is made of others.
    aggregated: Vec<LabelSelector>,
    labels: Vec<(String, String)>,
}

impl Role {
    fn compile(object: &Object) -> Role {
        let selectors = object.at("/aggregationRule/clusterRoleSelectors");
        let selectors = selectors.and_then(Value::as_array).into_iter().flatten();
        Role {
            rules: Rule::list(object),
            aggregated: selectors
                .filter_map(|value| LabelSelector::from_value(value).ok())
                .collect(),
            labels: object.labels().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Subject {
    User(String),
    Group(String),
}

/// A RoleBinding or ClusterRoleBinding, compiled.
struct Binding {
    name: String,
    cluster_role: bool,
    role: String,
    subjects: Vec<Subject>,
}

impl Binding {
    fn compile(object: &Object) -> Binding {
        let subjects = object.at("/subjects").and_then(Value::as_array).into_iter().flatten();
        let subject = |value: &Value| {
            let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
            let namespace = match text("namespace") {
                "" => object.namespace(),
                namespace => namespace,
            };
            match text("kind") {
                "User" => Some(Subject::User(text("name").to_string())),
                "Group" => Some(Subject::Group(text("name").to_string())),
                "ServiceAccount" => {
                    let user = format!("system:serviceaccount:{namespace}:{}", text("name"));
                    Some(Subject::User(user))
                }
                _ => None,
            }
        };
        Binding {
            name: object.name().to_string(),
            cluster_role: object.str_at("/roleRef/kind") == "ClusterRole",
            role: object.str_at("/roleRef/name").to_string(),
            subjects: subjects.filter_map(subject).collect(),
        }
    }

    fn names(&self, user: &Identity) -> bool {
        self.subjects.iter().any(|subject| match subject {
            Subject::User(name) => *name == user.user,
            Subject::Group(group) => user.in_group(group),
        })
    }
}

/// What stops the search for rules.
enum Seen {
    Stop,
    GoOn,
}

/// The rules a role grants, aggregated ones included; `None` if there is no such role.
pub(crate) fn role_rules(
    view: &dyn View,
    cluster: bool,
    namespace: &str,
    name: &str,
) -> Option<Vec<Rule>> {
    let mut rules = Vec::new();
    visit_role(view, cluster, namespace, name, &mut |rule| {
        rules.push(rule.clone());
        Seen::GoOn
    })
    .map(|_| rules)
}

fn visit_role(
    view: &dyn View,
    cluster: bool,
    namespace: &str,
    name: &str,
    visit: &mut dyn FnMut(&Rule) -> Seen,
) -> Option<Seen> {
    let stored = match cluster {
        true => view.stored(CLUSTER_ROLES, name)?,
        false => view.stored(ROLES, &format!("{namespace}/{name}"))?,
    };
    let role = memo::derived(&stored, Role::compile);
    let mut through = BTreeSet::from([name.to_string()]);
    Some(visit_rules(view, &role, &mut through, visit))
}

/// A role made of others has what they have now; what its own `rules` say is not asked, as upstream's
/// controller overwrites it.
fn visit_rules(
    view: &dyn View,
    role: &Role,
    through: &mut BTreeSet<String>,
    visit: &mut dyn FnMut(&Rule) -> Seen,
) -> Seen {
    if role.aggregated.is_empty() {
        for rule in &role.rules {
            if let Seen::Stop = visit(rule) {
                return Seen::Stop;
            }
        }
        return Seen::GoOn;
    }
    for stored in view.range(CLUSTER_ROLES, "") {
        let part = memo::derived(&stored, Role::compile);
        let label = |wanted: &str| {
            let found = part.labels.iter().find(|(key, _)| key == wanted);
            found.map(|(_, value)| value.as_str())
        };
        let chosen = role.aggregated.iter().any(|selector| selector.matches(label));
        if chosen
            && through.insert(stored.key.path.to_string())
            && let Seen::Stop = visit_rules(view, &part, through, visit)
        {
            return Seen::Stop;
        }
    }
    Seen::GoOn
}

/// Every rule `user` has in `namespace` (empty: at the cluster scope), until `visit` says stop.
/// The texts are of roles that bindings name and that are not there.
fn visit_user(
    view: &dyn View,
    user: &Identity,
    namespace: &str,
    visit: &mut dyn FnMut(&Rule) -> Seen,
) -> Vec<String> {
    let mut missing = Vec::new();
    let mut scan = |space: &str, prefix: &str| {
        for stored in view.range(space, prefix) {
            let binding = memo::derived(&stored, Binding::compile);
            if !binding.names(user) {
                continue;
            }
            match visit_role(view, binding.cluster_role, namespace, &binding.role, visit) {
                Some(Seen::Stop) => return Seen::Stop,
                Some(Seen::GoOn) => (),
                None => {
                    tracing::debug!(binding = binding.name, role = binding.role, "role is missing");
                    let kind = if binding.cluster_role { "clusterrole" } else { "role" };
                    missing.push(format!("{kind}.{GROUP} {:?} not found", binding.role));
                }
            }
        }
        Seen::GoOn
    };
    if let Seen::GoOn = scan(CLUSTER_ROLE_BINDINGS, "")
        && !namespace.is_empty()
    {
        scan(ROLE_BINDINGS, &format!("{namespace}/"));
    }
    missing
}

/// Every rule `user` has in `namespace`.
pub(crate) fn rules_of(view: &dyn View, user: &Identity, namespace: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    if user.in_group(SYSTEM_MASTERS) {
        rules.extend(everything());
    }
    visit_user(view, user, namespace, &mut |rule| {
        rules.push(rule.clone());
        Seen::GoOn
    });
    rules
}

fn everything() -> [Rule; 2] {
    let star = || vec!["*".to_string()];
    [
        Rule { verbs: star(), api_groups: star(), resources: star(), ..Rule::default() },
        Rule { verbs: star(), non_resource_urls: star(), ..Rule::default() },
    ]
}

/// Decides by the applied state.
pub(crate) fn authorize(view: &dyn View, asked: &Attributes<'_>) -> Decision {
    if asked.user.in_group(SYSTEM_MASTERS) {
        return Decision::Allow;
    }
    let mut allowed = false;
    let missing = visit_user(view, asked.user, asked.namespace, &mut |rule| {
        allowed = rule.allows(asked);
        if allowed { Seen::Stop } else { Seen::GoOn }
    });
    match (allowed, missing.as_slice()) {
        (true, _) => Decision::Allow,
        (false, []) => Decision::NoOpinion { reason: String::new() },
        (false, [one]) => Decision::NoOpinion { reason: format!("RBAC: {one}") },
        (false, many) => Decision::NoOpinion { reason: format!("RBAC: [{}]", many.join(", ")) },
    }
}

/// RBAC as the authorizer of the server.
pub(super) struct Rbac {
    pub(super) view: Arc<dyn View>,
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        authorize(&*self.view, attributes)
    }

    fn rules(&self, user: &Identity, namespace: &str) -> Value {
        let rules = rules_of(&*self.view, user, namespace);
        let (urls, resources): (Vec<&Rule>, Vec<&Rule>) =
            rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
        let values = |rules: Vec<&Rule>| rules.into_iter().map(Rule::to_value).collect::<Vec<_>>();
        json!({
            "resourceRules": values(resources),
            "nonResourceRules": values(urls),
            "incomplete": false,
        })
    }
}

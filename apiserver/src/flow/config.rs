//! FlowSchemas and PriorityLevelConfigurations as they act: parsed once per version, sorted, and
//! matched against requests.

use super::bootstrap;
use crate::{identity::Identity, memo, pipeline::Core, server::RequestInfo};
use k8s::Object;
use raft_store::Revision;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

pub(super) const SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
pub(super) const LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";
/// The schema and level that take what nobody else does.
const CATCH_ALL: &str = "catch-all";

/// All of it at one time.
pub(super) struct Config {
    /// By precedence, then name; the last one matches everybody.
    schemas: Vec<Arc<Schema>>,
    pub(super) levels: BTreeMap<Arc<str>, Level>,
    /// Which versions it was made from.
    made_from: Vec<(String, Revision)>,
}

pub(super) struct Schema {
    pub(super) name: Arc<str>,
    pub(super) uid: Arc<str>,
    pub(super) level: Arc<str>,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

enum Distinguisher {
    None,
    User,
    Namespace,
}

/// `PolicyRulesWithSubjects`.
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

/// A priority level.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Level {
    pub(super) uid: Arc<str>,
    pub(super) kind: LevelKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum LevelKind {
    Exempt,
    Limited {
        shares: u32,
        lendable_percent: u32,
        /// Of its own seats; `None`: as much as there is.
        borrowing_percent: Option<u32>,
        queuing: Option<Queuing>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Queuing {
    pub(super) queues: u32,
    pub(super) hand_size: u32,
    pub(super) length_max: u32,
}

/// How a request was classified.
pub(super) struct Matched<'a> {
    pub(super) schema: &'a Schema,
    pub(super) level_uid: Arc<str>,
    /// What distinguishes it from other flows of its schema.
    pub(super) flow: String,
}

impl Config {
    /// Before any object was read: what every cluster starts with.
    pub(super) fn initial() -> Config {
        let objects = bootstrap::objects();
        let of = |kind: &str| objects.iter().filter(|one| one.kind() == kind).collect::<Vec<_>>();
        let (schemas, levels) = (of("FlowSchema"), of("PriorityLevelConfiguration"));
        Config::build(&schemas, &levels, Vec::new())
    }

    /// `None` if nothing changed since `before`.
    pub(super) fn read(core: &Core, before: &Config) -> Option<Config> {
        let schemas = core.view.range(SCHEMAS, "");
        let levels = core.view.range(LEVELS, "");
        let version =
            |stored: &Arc<raft_store::Stored>| (stored.key.path.to_string(), stored.revision);
        let made_from: Vec<_> = schemas.iter().chain(&levels).map(version).collect();
        if made_from == before.made_from || made_from.is_empty() {
            return None;
        }
        let schemas: Vec<Arc<Object>> = schemas.iter().map(|one| memo::object(one)).collect();
        let levels: Vec<Arc<Object>> = levels.iter().map(|one| memo::object(one)).collect();
        let (schemas, levels): (Vec<&Object>, Vec<&Object>) =
            (schemas.iter().map(|one| &**one).collect(), levels.iter().map(|one| &**one).collect());
        Some(Config::build(&schemas, &levels, made_from))
    }

    fn build(
        schemas: &[&Object],
        levels: &[&Object],
        made_from: Vec<(String, Revision)>,
    ) -> Config {
        let mut levels: BTreeMap<Arc<str>, Level> =
            levels.iter().map(|object| (object.name().into(), level(object))).collect();
        // The two that cannot be done without (upstream's mandatory objects).
        for object in bootstrap::objects().iter().filter(|one| bootstrap::is_mandatory(one)) {
            if object.kind() == "PriorityLevelConfiguration" {
                levels.entry(object.name().into()).or_insert_with(|| level(object));
            }
        }
        let mut all: Vec<Arc<Schema>> =
            schemas.iter().map(|object| Arc::new(schema(object))).collect();
        // One that names no level there is matches nothing.
        all.retain(|schema| levels.contains_key(&schema.level));
        if !all.iter().any(|schema| &*schema.name == CATCH_ALL) {
            let objects = bootstrap::objects();
            let own = objects.iter().filter(|one| one.kind() == "FlowSchema");
            let own = own.into_iter().find(|one| one.name() == CATCH_ALL);
            all.extend(own.map(|object| Arc::new(schema(object))));
        }
        all.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        Config { schemas: all, levels, made_from }
    }

    pub(super) fn classify(&self, user: &Identity, info: &RequestInfo) -> Matched<'_> {
        let found = self.schemas.iter().find(|schema| schema.matches(user, info));
        // Whoever changed catch-all so that it does not catch all: the last one is as good.
        let schema = found.or(self.schemas.last()).expect("catch-all is among them");
        let flow = match schema.distinguisher {
            Distinguisher::None => String::new(),
            Distinguisher::User => user.user.clone(),
            Distinguisher::Namespace => info.namespace.clone(),
        };
        let level_uid = self.levels.get(&schema.level).map(|level| level.uid.clone());
        Matched { schema, level_uid: level_uid.unwrap_or_else(|| "".into()), flow }
    }
}

impl Schema {
    fn matches(&self, user: &Identity, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.matches(user))
                && match info.is_resource {
                    true => rule.resources.iter().any(|rule| rule.matches(info)),
                    false => rule.paths.iter().any(|rule| rule.matches(info)),
                }
        })
    }
}

impl Subject {
    fn matches(&self, user: &Identity) -> bool {
        match self {
            Subject::User(name) => name == "*" || *name == user.user,
            Subject::Group(name) => name == "*" || user.in_group(name),
            Subject::ServiceAccount { namespace, name } => {
                let account = user.user.strip_prefix("system:serviceaccount:");
                let account = account.and_then(|account| account.split_once(':'));
                account.is_some_and(|(own, account)| {
                    own == namespace && (name == "*" || name == account)
                })
            }
        }
    }
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|one| one == "*" || one == value)
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = match info.subresource.as_str() {
            "" => info.resource.clone(),
            subresource => format!("{}/{subresource}", info.resource),
        };
        let place = match info.namespace.as_str() {
            "" => self.cluster_scope,
            namespace => has(&self.namespaces, namespace),
        };
        place
            && has(&self.verbs, &info.verb)
            && has(&self.groups, &info.group)
            && has(&self.resources, &resource)
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let under = |pattern: &String| {
            pattern.strip_suffix("/*").is_some_and(|prefix| {
                info.path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
            })
        };
        has(&self.verbs, &info.verb)
            && (has(&self.paths, &info.path) || self.paths.iter().any(under))
    }
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value[field].as_array().into_iter().flatten();
    list.filter_map(|one| one.as_str().map(str::to_string)).collect()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

fn schema(object: &Object) -> Schema {
    let rules = object.at("/spec/rules").and_then(Value::as_array);
    Schema {
        name: object.name().into(),
        uid: object.uid().into(),
        level: object.str_at("/spec/priorityLevelConfiguration/name").into(),
        precedence: object.int_at("/spec/matchingPrecedence").unwrap_or(1000),
        distinguisher: match object.str_at("/spec/distinguisherMethod/type") {
            "ByUser" => Distinguisher::User,
            "ByNamespace" => Distinguisher::Namespace,
            _ => Distinguisher::None,
        },
        rules: rules.into_iter().flatten().map(rule).collect(),
    }
}

fn rule(value: &Value) -> Rule {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let subject = |value: &Value| match value["kind"].as_str()? {
        "User" => Some(Subject::User(text(&value["user"]["name"]))),
        "Group" => Some(Subject::Group(text(&value["group"]["name"]))),
        "ServiceAccount" => Some(Subject::ServiceAccount {
            namespace: text(&value["serviceAccount"]["namespace"]),
            name: text(&value["serviceAccount"]["name"]),
        }),
        _ => None,
    };
    let resource = |value: &Value| ResourceRule {
        verbs: texts(value, "verbs"),
        groups: texts(value, "apiGroups"),
        resources: texts(value, "resources"),
        cluster_scope: value["clusterScope"].as_bool().unwrap_or_default(),
        namespaces: texts(value, "namespaces"),
    };
    let path = |value: &Value| PathRule {
        verbs: texts(value, "verbs"),
        paths: texts(value, "nonResourceURLs"),
    };
    Rule {
        subjects: list(value, "subjects").filter_map(subject).collect(),
        resources: list(value, "resourceRules").map(resource).collect(),
        paths: list(value, "nonResourceRules").map(path).collect(),
    }
}

fn level(object: &Object) -> Level {
    let number = |pointer: &str| {
        object.int_at(&format!("/spec/limited/{pointer}")).and_then(|n| u32::try_from(n).ok())
    };
    let queuing = |field: &str| number(&format!("limitResponse/queuing/{field}"));
    let queues = object.str_at("/spec/limited/limitResponse/type") == "Queue";
    let kind = match object.str_at("/spec/type") {
        "Exempt" => LevelKind::Exempt,
        _ => LevelKind::Limited {
            shares: number("nominalConcurrencyShares").unwrap_or(30),
            lendable_percent: number("lendablePercent").unwrap_or(0).min(100),
            borrowing_percent: number("borrowingLimitPercent"),
            queuing: queues.then(|| Queuing {
                queues: queuing("queues").unwrap_or(64).max(1),
                hand_size: queuing("handSize").unwrap_or(8).max(1),
                length_max: queuing("queueLengthLimit").unwrap_or(50).max(1),
            }),
        },
    };
    Level { uid: object.uid().into(), kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn classified(user: &str, groups: &[&str], method: Method, path: &str) -> String {
        let config = Config::initial();
        let info = RequestInfo::parse(&method, path, false, None);
        let user = Identity::authenticated(user, groups);
        let matched = config.classify(&user, &info);
        format!("{} {} {}", matched.schema.name, matched.schema.level, matched.flow)
    }

    #[test]
    fn the_objects_every_cluster_starts_with_classify_as_upstreams_do() {
        let get = |user, groups: &[&str], path| classified(user, groups, Method::GET, path);
        assert_eq!(get("a", &["system:masters"], "/api/v1/pods"), "exempt exempt ");
        assert_eq!(get("a", &[], "/healthz"), "probes exempt ");
        let nodes = ["system:nodes"];
        let node = "system:node:n";
        assert_eq!(
            get(node, &nodes, "/api/v1/nodes/n"),
            "system-node-high node-high system:node:n"
        );
        assert_eq!(get(node, &nodes, "/api/v1/pods"), "system-nodes system system:node:n");
        let manager = "system:kube-controller-manager";
        assert_eq!(
            get(manager, &[], "/api/v1/namespaces/a/pods"),
            "kube-controller-manager workload-high a"
        );
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x";
        assert_eq!(
            classified(manager, &[], Method::PUT, lease),
            "system-leader-election leader-election system:kube-controller-manager"
        );
        let account = "system:serviceaccount:a:b";
        assert_eq!(
            get(account, &["system:serviceaccounts"], "/api/v1/pods"),
            "service-accounts workload-low system:serviceaccount:a:b"
        );
        let account = "system:serviceaccount:kube-system:b";
        assert_eq!(
            get(account, &["system:serviceaccounts"], "/api/v1/namespaces/x/pods"),
            "kube-system-service-accounts workload-high x"
        );
        assert_eq!(get("jane", &[], "/api/v1/pods"), "global-default global-default jane");
    }
}

//! The FlowSchemas and PriorityLevelConfigurations that every cluster starts with, as upstream has
//! them, and which of them cannot be changed.

use k8s::Object;
use serde_json::{Value, json};

/// Upstream's: while it says `true` the object's spec is kept as it is here.
pub(super) const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Those upstream cannot do without: their spec is put right whatever their annotation says.
pub(super) fn is_mandatory(object: &Object) -> bool {
    matches!(object.name(), "exempt" | "catch-all")
}

/// Levels first.
pub(super) fn objects() -> Vec<Object> {
    let mut values = levels();
    values.extend(schemas());
    values.into_iter().filter_map(Object::from_value).collect()
}

fn levels() -> Vec<Value> {
    let limited = |shares: u32, lendable: u32, queues: Option<(u32, u32)>| {
        let response = match queues {
            None => json!({ "type": "Reject" }),
            Some((queues, hand)) => json!({ "type": "Queue", "queuing": {
                "queues": queues, "handSize": hand, "queueLengthLimit": 50,
            }}),
        };
        json!({ "type": "Limited", "limited": {
            "nominalConcurrencyShares": shares,
            "lendablePercent": lendable,
            "limitResponse": response,
        }})
    };
    let exempt = json!({
        "type": "Exempt",
        "exempt": { "nominalConcurrencyShares": 0, "lendablePercent": 0 },
    });
    vec![
        object("PriorityLevelConfiguration", "exempt", exempt),
        object("PriorityLevelConfiguration", "catch-all", limited(5, 0, None)),
        object("PriorityLevelConfiguration", "system", limited(30, 33, Some((64, 6)))),
        object("PriorityLevelConfiguration", "node-high", limited(40, 25, Some((64, 6)))),
        object("PriorityLevelConfiguration", "leader-election", limited(10, 0, Some((16, 4)))),
        object("PriorityLevelConfiguration", "workload-high", limited(40, 50, Some((128, 6)))),
        object("PriorityLevelConfiguration", "workload-low", limited(100, 90, Some((128, 6)))),
        object("PriorityLevelConfiguration", "global-default", limited(20, 50, Some((128, 6)))),
    ]
}

fn schemas() -> Vec<Value> {
    let everything = || {
        (
            json!([{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
                     "clusterScope": true }]),
            json!([{ "verbs": ["*"], "nonResourceURLs": ["*"] }]),
        )
    };
    let all = |subjects: Value| {
        let (resources, paths) = everything();
        json!({ "subjects": subjects, "resourceRules": resources, "nonResourceRules": paths })
    };
    let groups = |names: &[&str]| -> Value {
        names.iter().map(|name| json!({ "kind": "Group", "group": { "name": name } })).collect()
    };
    let users = |names: &[&str]| -> Value {
        names.iter().map(|name| json!({ "kind": "User", "user": { "name": name } })).collect()
    };
    let accounts = json!({ "kind": "ServiceAccount",
        "serviceAccount": { "name": "*", "namespace": "kube-system" } });
    let everybody = || groups(&["system:unauthenticated", "system:authenticated"]);
    let leases = json!({ "verbs": ["get", "create", "update"], "resources": ["leases"],
        "apiGroups": ["coordination.k8s.io"], "namespaces": ["*"] });
    let node_leases = json!({ "verbs": ["*"], "resources": ["leases"],
        "apiGroups": ["coordination.k8s.io"], "namespaces": ["*"] });
    let nodes = json!({ "verbs": ["*"], "resources": ["nodes", "nodes/status"],
        "apiGroups": [""], "namespaces": ["*"], "clusterScope": true });
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let mut electors = users(&[manager, scheduler]);
    if let Some(list) = electors.as_array_mut() {
        list.push(accounts.clone());
    }
    let probes = json!({ "subjects": everybody(), "nonResourceRules": [
        { "verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"] },
    ]});
    let elections = json!({ "subjects": electors, "resourceRules": [leases] });
    let node_health =
        json!({ "subjects": groups(&["system:nodes"]), "resourceRules": [nodes, node_leases] });
    vec![
        schema("exempt", "exempt", 1, "", all(groups(&["system:masters"]))),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", elections),
        schema("system-node-high", "node-high", 400, "ByUser", node_health),
        schema("system-nodes", "system", 500, "ByUser", all(groups(&["system:nodes"]))),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            all(users(&[manager])),
        ),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", all(users(&[scheduler]))),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            all(json!([accounts])),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            all(groups(&["system:serviceaccounts"])),
        ),
        schema("global-default", "global-default", 9900, "ByUser", all(everybody())),
        schema("catch-all", "catch-all", 10000, "ByUser", all(everybody())),
    ]
}

fn schema(name: &str, level: &str, precedence: u32, distinguisher: &str, rule: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": { "name": level },
        "matchingPrecedence": precedence,
        "rules": [rule],
    });
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({ "type": distinguisher });
    }
    object("FlowSchema", name, spec)
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": kind,
        "metadata": { "name": name, "annotations": { AUTOUPDATE: "true" } },
        "spec": spec,
    })
}

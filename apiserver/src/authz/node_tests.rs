//! What a node may do, asked one question a line, on a store that changes.

use super::*;
use raft_store::{Guard, Key, Op, Txn};

async fn put(store: &Store, space: &str, path: &str, object: Value) {
    let key = Key::new(space, path);
    let txn = Txn::one(key, Guard::Any, Op::Put(object.to_string().into()));
    store.txn(txn).await.expect("written");
}

fn pod(name: &str, node: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["nodeName"] = node.into();
    json!({ "metadata": { "name": name, "namespace": "dev" }, "spec": spec })
}

/// `VERB GROUP/RESOURCE[/SUB] NAMESPACE NAME [SELECTOR]`, `-` for empty.
fn ask(authorizer: &Node, node: &str, line: &str) -> String {
    let user = Identity::authenticated(&format!("system:node:{node}"), &["system:nodes"]);
    let words: Vec<&str> =
        line.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
    let (group, rest) = words[1].split_once('/').expect("a group");
    let (resource, subresource) = rest.split_once('/').unwrap_or((rest, ""));
    let decision = authorizer.authorize(&Attributes {
        user: &user,
        verb: words[0],
        group: if group == "core" { "" } else { group },
        version: "v1",
        resource,
        subresource,
        namespace: words[2],
        name: words[3],
        field_selector: words.get(4).copied().unwrap_or_default(),
        path: "",
    });
    let said = match decision {
        Decision::Allow => "yes".to_string(),
        Decision::Deny { reason } => format!("never: {reason}"),
        Decision::NoOpinion { reason } => format!("no: {reason}"),
    };
    format!("{node} {line}: {said}")
}

#[tokio::test]
async fn a_node_sees_what_its_pods_refer_to() {
    let store = Store::in_memory();
    let authorizer = Node::new(store.clone());
    let spec = json!({
        "serviceAccountName": "builder",
        "imagePullSecrets": [{ "name": "pull" }],
        "containers": [{
            "envFrom": [{ "configMapRef": { "name": "env" } }],
            "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "key", "key": "k" } } }],
        }],
        "volumes": [
            { "name": "v", "persistentVolumeClaim": { "claimName": "data" } },
            { "name": "p", "projected": { "sources": [{ "secret": { "name": "cert" } }] } },
        ],
    });
    put(&store, "pods", "dev/web", pod("web", "n1", spec)).await;
    let volume = json!({
        "metadata": { "name": "pv" },
        "spec": { "claimRef": { "namespace": "dev", "name": "data" },
                  "csi": { "nodeStageSecretRef": { "namespace": "csi", "name": "stage" } } },
    });
    put(&store, "persistentvolumes", "pv", volume).await;
    let claim = json!({
        "metadata": { "name": "data", "namespace": "dev" }, "spec": { "volumeName": "pv" },
    });
    put(&store, "persistentvolumeclaims", "dev/data", claim).await;
    let lines = [
        "get core/secrets dev pull",
        "watch core/secrets dev key",
        "get core/secrets dev cert",
        "get core/secrets csi stage",
        "get core/secrets dev other",
        "list core/secrets dev -",
        "update core/secrets dev key",
        "get core/configmaps dev env",
        "get core/persistentvolumeclaims dev data",
        "get core/persistentvolumes - pv",
        "create core/serviceaccounts/token dev builder",
        "create core/serviceaccounts/token dev admin",
        "get core/pods dev web",
        "list core/pods - - spec.nodeName=n1",
        "watch core/pods - -",
        "patch core/pods/status dev web",
        "create core/pods/exec dev web",
        "get core/nodes - n1",
        "get core/nodes - n9",
        "delete core/nodes - n1",
        "update coordination.k8s.io/leases kube-node-lease n1",
        "update coordination.k8s.io/leases kube-node-lease n9",
        "get coordination.k8s.io/leases kube-system n1",
        "get storage.k8s.io/csinodes - n1",
        "get storage.k8s.io/csinodes - n9",
        "create core/events dev -",
        "list core/services - -",
        "list rbac.authorization.k8s.io/roles dev -",
    ];
    let mut answers: Vec<String> = lines.iter().map(|line| ask(&authorizer, "n1", line)).collect();
    for line in [lines[0], lines[9], lines[12]] {
        answers.push(ask(&authorizer, "n2", line));
    }
    insta::assert_snapshot!(answers.join("\n"));
}

#[tokio::test]
async fn what_a_node_sees_follows_its_pods() {
    let store = Store::in_memory();
    let authorizer = Node::new(store.clone());
    let line = "get core/secrets dev key";
    let yes = |authorizer: &Node, node: &str| ask(authorizer, node, line).ends_with(": yes");
    assert!(!yes(&authorizer, "n1"));
    let spec = || json!({ "volumes": [{ "name": "v", "secret": { "secretName": "key" } }] });
    for name in ["a", "b"] {
        put(&store, "pods", &format!("dev/{name}"), pod(name, "n1", spec())).await;
    }
    assert!(yes(&authorizer, "n1") && !yes(&authorizer, "n2"));
    put(&store, "pods", "dev/a", pod("a", "n1", json!({}))).await;
    assert!(yes(&authorizer, "n1"), "the other pod still refers to it");
    let gone = Txn::one(Key::new("pods", "dev/b"), Guard::Any, Op::Delete);
    store.txn(gone).await.expect("deleted");
    assert!(!yes(&authorizer, "n1"));
    let mut mirror = pod("c", "n1", spec());
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
    put(&store, "pods", "dev/c", mirror).await;
    assert!(!yes(&authorizer, "n1"), "a node cannot give itself rights");
}

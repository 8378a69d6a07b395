//! `kubectl cordon`, `drain` and `uncordon` against evictions and the budgets they respect, `attach`
//! and `exec` against a policy: a master in this process, and pods that nobody runs.

mod served;

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use served::Served;
use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};
use tests::cluster::kubectl;

fn read<T: k8s_openapi::serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of its kind")
}

fn command(served: &Served, arguments: &str) -> Command {
    let mut command = Command::new(kubectl());
    command.arg("--kubeconfig").arg(served.kubeconfig()).args(arguments.split(' '));
    command
}

/// What `kubectl` said to `arguments` (split at spaces).
async fn done(served: &Served, arguments: &str) -> String {
    let mut command = command(served, arguments);
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output = ran.await.expect("no panic").expect("kubectl runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `kubectl` until it says that a budget keeps it waiting; it would wait on.
async fn held_up(served: &Served, arguments: &str) {
    let mut command = command(served, arguments);
    let waiting = tokio::task::spawn_blocking(move || {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
        let child = child.as_mut().expect("kubectl runs");
        let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
        let told = said.find_map(|line| line.ok().filter(|line| line.contains("will retry after")));
        child.kill().and_then(|()| child.wait()).expect("it was still there");
        told
    });
    let told = waiting.await.expect("no panic").expect("kubectl is kept waiting");
    let why = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert!(told.contains(why), "{told}");
}

/// Two ready pods of a ReplicaSet on node `n1`, and a budget over them.
async fn fill(served: &Served) {
    let nodes: Api<Node> = Api::all(served.admin());
    let pods: Api<Pod> = Api::default_namespaced(served.admin());
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(served.admin());
    let (create, merge) = (PostParams::default(), PatchParams::default());
    let node = read(json!({ "metadata": { "name": "n1" } }));
    nodes.create(&create, &node).await.expect("a node");
    for name in ["web-0", "web-1"] {
        let pod = read(json!({
            "metadata": { "name": name, "labels": { "app": "web" }, "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u",
                "controller": true,
            }] },
            "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i" }] },
        }));
        pods.create(&create, &pod).await.expect("a pod");
        let ready = json!({ "status": {
            "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }],
        } });
        pods.patch_status(name, &merge, &Patch::Merge(ready)).await.expect("ready");
    }
    let budget = read(json!({
        "metadata": { "name": "web" },
        "spec": { "maxUnavailable": 2, "selector": { "matchLabels": { "app": "web" } } },
    }));
    budgets.create(&create, &budget).await.expect("a budget");
}

/// Says what the controller would say that counts.
async fn allow(served: &Served, disruptions: i32) {
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(served.admin());
    let status = json!({ "status": {
        "observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 2 - disruptions,
        "expectedPods": 2, "disruptionsAllowed": disruptions,
    } });
    let merge = PatchParams::default();
    budgets.patch_status("web", &merge, &Patch::Merge(status)).await.expect("counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_as_far_as_budgets_allow() {
    if Command::new(kubectl()).args(["version", "--client"]).output().is_err() {
        eprintln!("SKIPPED: needs kubectl");
        return;
    }
    let served = Served::start().await;
    fill(&served).await;
    allow(&served, 0).await;
    assert_eq!(done(&served, "cordon n1").await, "node/n1 cordoned\n");
    let shown = done(&served, "get nodes").await;
    assert!(shown.contains("SchedulingDisabled"), "{shown}");

    held_up(&served, "drain n1 --grace-period=0").await;
    let pods: Api<Pod> = Api::default_namespaced(served.admin());
    let count = async || pods.list(&ListParams::default()).await.expect("listed").items.len();
    assert_eq!(count().await, 2);

    allow(&served, 2).await;
    let tried = done(&served, "drain n1 --grace-period=0 --dry-run=server").await;
    assert!(tried.contains("node/n1 drained (server dry run)"), "{tried}");
    assert_eq!(count().await, 2);
    let drained = done(&served, "drain n1 --grace-period=0 --timeout=30s").await;
    for line in ["pod/web-0 evicted", "pod/web-1 evicted", "node/n1 drained"] {
        assert!(drained.contains(line), "no {line} in {drained}");
    }
    assert_eq!(count().await, 0);
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(served.admin());
    let status = budgets.get("web").await.expect("the budget").status.expect("a status");
    assert_eq!(status.disruptions_allowed, Some(0));
    assert_eq!(
        status.disrupted_pods.map(|pods| pods.len()),
        Some(2),
        "evictions say whom they took"
    );

    assert_eq!(done(&served, "uncordon n1").await, "node/n1 uncordoned\n");
    let nodes: Api<Node> = Api::all(served.admin());
    let spec = nodes.get("n1").await.expect("the node").spec.unwrap_or_default();
    assert_ne!(spec.unschedulable, Some(true));
    served.stop().await;
}

/// Nobody attaches to a pod or runs in it what is called `forbidden`.
async fn guard(served: &Served) {
    let create = PostParams::default();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(served.admin());
    let policy = read(json!({ "metadata": { "name": "guard" }, "spec": {
        "matchConstraints": { "resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"],
            "resources": ["pods/attach", "pods/exec"],
        }] },
        "validations": [{
            "expression": "has(object.command) && !('forbidden' in object.command)",
            "messageExpression": "'what is done to pod ' + request.name + ' is not allowed'",
        }],
    } }));
    policies.create(&create, &policy).await.expect("a policy");
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(served.admin());
    let spec = json!({ "policyName": "guard", "validationActions": ["Deny"] });
    let binding = read(json!({ "metadata": { "name": "guard" }, "spec": spec }));
    bindings.create(&create, &binding).await.expect("a binding");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_connects_is_told_what_a_policy_says() {
    if Command::new(kubectl()).args(["version", "--client"]).output().is_err() {
        eprintln!("SKIPPED: needs kubectl");
        return;
    }
    let served = Served::start().await;
    fill(&served).await;
    guard(&served).await;
    let said = async |arguments: &str| {
        let mut command = command(&served, arguments);
        let ran = tokio::task::spawn_blocking(move || command.output());
        let output = ran.await.expect("no panic").expect("kubectl runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let why = "what is done to pod web-0 is not allowed";
    for arguments in ["attach web-0 -c c -i", "exec web-0 -c c -- forbidden"] {
        let told = said(arguments).await;
        assert!(told.contains(why), "{arguments}: {told}");
    }
    let allowed = said("exec web-0 -c c -- ls").await;
    assert!(!allowed.contains(why), "only the node is missing: {allowed}");
    served.stop().await;
}

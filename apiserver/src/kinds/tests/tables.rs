//! Rows as `kubectl get` shows them.

use super::table;

#[test]
fn pods() {
    let pod = |status: &str| {
        table(
            "pods",
            &format!(
                "metadata: {{name: web, creationTimestamp: '2026-01-01T11:00:00Z'}}\nspec: {{nodeName: n1, containers: [{{name: a}}, {{name: b}}], initContainers: [{{name: i}}, {{name: s, restartPolicy: Always}}]}}\nstatus: {status}"
            ),
        )
    };
    let rows = [
        pod("{phase: Pending}"),
        pod("{phase: Pending, initContainerStatuses: [{name: i, state: {running: {}}}]}"),
        pod(
            "{phase: Pending, initContainerStatuses: [{name: i, restartCount: 2, state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 1, finishedAt: '2026-01-01T11:58:00Z'}}}]}",
        ),
        pod(
            "{phase: Pending, containerStatuses: [{name: a, state: {waiting: {reason: ContainerCreating}}}]}",
        ),
        pod(
            "{phase: Running, podIP: 10.1.1.1, podIPs: [{ip: 10.1.1.1}], conditions: [{type: Ready, status: 'True'}, {type: Initialized, status: 'True'}], initContainerStatuses: [{name: i, state: {terminated: {exitCode: 0}}}, {name: s, started: true, ready: true, state: {running: {}}}], containerStatuses: [{name: a, ready: true, state: {running: {}}}, {name: b, ready: true, restartCount: 3, state: {running: {}}, lastState: {terminated: {exitCode: 1, finishedAt: '2026-01-01T11:30:00Z'}}}]}",
        ),
        pod(
            "{phase: Running, containerStatuses: [{name: a, ready: true, state: {running: {}}}, {name: b, restartCount: 1, state: {waiting: {reason: CrashLoopBackOff}}}]}",
        ),
        pod(
            "{phase: Succeeded, containerStatuses: [{name: a, state: {terminated: {exitCode: 0, reason: Completed}}}]}",
        ),
        pod("{phase: Failed, containerStatuses: [{name: a, state: {terminated: {exitCode: 3}}}]}"),
        pod("{phase: Failed, reason: Evicted}"),
        pod(
            "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: SchedulingGated}]}",
        ),
    ];
    insta::assert_snapshot!(rows.join("\n"));
    insta::assert_snapshot!(table(
        "pods",
        "metadata: {name: web, deletionTimestamp: '2026-01-01T11:59:00Z'}\nspec: {containers: [{name: a}]}\nstatus: {phase: Running}"
    ));
}

#[test]
fn workloads() {
    let spec = "selector: {matchLabels: {app: web}}, template: {spec: {containers: [{name: a, image: 'x:1'}, {name: b, image: 'y:1'}]}}";
    let row = |plural: &str, more: &str, status: &str| {
        table(
            plural,
            &format!(
                "metadata: {{name: web, creationTimestamp: '2025-12-20T12:00:00Z'}}\nspec: {{{more}{spec}}}\nstatus: {status}"
            ),
        )
    };
    let rows = [
        row(
            "deployments",
            "replicas: 3, ",
            "{replicas: 3, readyReplicas: 2, updatedReplicas: 3, availableReplicas: 2}",
        ),
        row("replicasets", "replicas: 3, ", "{replicas: 3, readyReplicas: 2}"),
        row("statefulsets", "replicas: 3, ", "{readyReplicas: 2}"),
        row(
            "daemonsets",
            "",
            "{desiredNumberScheduled: 2, currentNumberScheduled: 2, numberReady: 1, updatedNumberScheduled: 2, numberAvailable: 1}",
        ),
        row(
            "jobs",
            "completions: 3, parallelism: 1, ",
            "{succeeded: 1, startTime: '2026-01-01T11:00:00Z'}",
        ),
        row(
            "jobs",
            "parallelism: 2, ",
            "{succeeded: 2, startTime: '2026-01-01T11:00:00Z', completionTime: '2026-01-01T11:00:30Z', conditions: [{type: Complete, status: 'True'}]}",
        ),
    ];
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn services_nodes_and_others() {
    let meta = "metadata: {name: x, creationTimestamp: '2026-01-01T11:59:30Z'";
    let rows = [
        table(
            "services",
            &format!(
                "{meta}}}\nspec: {{type: NodePort, clusterIP: 10.96.0.9, selector: {{app: web}}, ports: [{{port: 80, nodePort: 30080, protocol: TCP}}, {{port: 53, protocol: UDP}}]}}"
            ),
        ),
        table("services", &format!("{meta}}}\nspec: {{type: LoadBalancer, clusterIP: 10.96.0.9}}")),
        table(
            "services",
            &format!("{meta}}}\nspec: {{type: ExternalName, externalName: example.com}}"),
        ),
        table(
            "nodes",
            &format!(
                "{meta}, labels: {{node-role.kubernetes.io/control-plane: ''}}}}\nspec: {{unschedulable: true}}\nstatus: {{conditions: [{{type: Ready, status: 'True'}}], addresses: [{{type: InternalIP, address: 10.0.0.1}}], nodeInfo: {{kubeletVersion: v1.36.0, osImage: Debian, kernelVersion: '6.1', containerRuntimeVersion: 'coxswain://0.1'}}}}"
            ),
        ),
        table(
            "nodes",
            &format!("{meta}}}\nstatus: {{conditions: [{{type: Ready, status: Unknown}}]}}"),
        ),
        table("configmaps", &format!("{meta}}}\ndata: {{a: b, c: d}}")),
        table("secrets", &format!("{meta}}}\ntype: Opaque\ndata: {{a: Yg==}}")),
        table("namespaces", &format!("{meta}}}\nstatus: {{phase: Active}}")),
        table(
            "events",
            &format!(
                "{meta}}}\ntype: Warning\nreason: BackOff\nmessage: back-off\ncount: 3\ninvolvedObject: {{kind: Pod, name: web, fieldPath: 'spec.containers{{a}}'}}\nsource: {{component: kubelet, host: n1}}\nfirstTimestamp: '2026-01-01T11:00:00Z'\nlastTimestamp: '2026-01-01T11:59:00Z'"
            ),
        ),
        table(
            "endpointslices",
            &format!(
                "{meta}}}\naddressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [10.1.0.1]}}, {{addresses: [10.1.0.2]}}, {{addresses: [10.1.0.3]}}, {{addresses: [10.1.0.4]}}]"
            ),
        ),
        table("clusterroles", &format!("{meta}}}")),
        table("leases", &format!("{meta}}}\nspec: {{holderIdentity: n1}}")),
        table(
            "clusterrolebindings",
            &format!(
                "{meta}}}\nroleRef: {{kind: ClusterRole, name: edit}}\nsubjects: [{{kind: User, name: ann}}, {{kind: ServiceAccount, namespace: a, name: b}}]"
            ),
        ),
    ];
    insta::assert_snapshot!(rows.join("\n"));
}

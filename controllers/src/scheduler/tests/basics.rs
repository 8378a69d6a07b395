//! One node at a time: names, cordons, taints, selectors, ports, resources, images.

use super::check;

#[test]
fn without_nodes_it_says_so() {
    assert_eq!(check("pods: [{metadata: {name: p}}]"), "p: no nodes available to schedule pods\n");
}

#[test]
fn pods_go_where_most_is_free() {
    let trace = check(
        "
nodes:
- metadata: {name: small}
  status: {allocatable: {cpu: '2', memory: 4Gi}}
- metadata: {name: large}
  status: {allocatable: {cpu: '8', memory: 16Gi}}
pods:
- {metadata: {name: p1}, requests: {cpu: '1', memory: 2Gi}}
- {metadata: {name: p2}, requests: {cpu: '1', memory: 2Gi}}
- {metadata: {name: p3}, requests: {cpu: '2', memory: 4Gi}}
- {metadata: {name: p4}, requests: {cpu: '1', memory: 2Gi}}
- {metadata: {name: p5}, requests: {cpu: '3', memory: 6Gi}}
- {metadata: {name: p6}, requests: {cpu: '3', memory: 6Gi}}
",
    );
    assert_eq!(
        trace,
        "\
p1 -> large
p2 -> large
p3 -> large
p4 -> small
p5 -> large
p6: 0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory.
"
    );
}

#[test]
fn each_node_says_first_what_upstream_would_say_first() {
    let trace = check(
        "
nodes:
- metadata: {name: cordoned}
  spec: {unschedulable: true, taints: [{key: k, effect: NoSchedule}]}
- metadata: {name: tainted}
  spec: {taints: [{key: dedicated, value: db, effect: NoSchedule}]}
- metadata: {name: leaving}
  spec: {taints: [{key: node.kubernetes.io/unreachable, effect: NoExecute}]}
- metadata: {name: elsewhere, labels: {disk: hdd}}
- metadata: {name: taken, labels: {disk: ssd}}
- metadata: {name: full, labels: {disk: ssd}}
  status: {allocatable: {pods: '0', cpu: 1m}}
pods:
- metadata: {name: holder}
  spec:
    nodeName: taken
    containers: [{name: c, ports: [{hostPort: 80, containerPort: 80, protocol: TCP}]}]
- metadata: {name: p}
  spec:
    nodeSelector: {disk: ssd}
    containers:
    - name: c
      ports: [{hostPort: 80, containerPort: 80, protocol: TCP, hostIP: 127.0.0.1}]
      resources: {requests: {cpu: 2m, example.com/gpu: '1'}}
",
    );
    assert_eq!(
        trace,
        "p: 0/6 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu, \
         1 Too many pods, 1 node(s) didn't have free ports for the requested pod ports, \
         1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were unschedulable, \
         2 node(s) had untolerated taint(s).\n"
    );
}

#[test]
fn tolerations_open_tainted_and_cordoned_nodes() {
    let node = "
nodes:
- metadata: {name: a}
  spec:
    unschedulable: true
    taints:
    - {key: dedicated, value: db, effect: NoSchedule}
    - {key: node.kubernetes.io/unschedulable, effect: NoSchedule}
pods:
";
    for (tolerations, fits) in [
        ("[{operator: Exists}]", true),
        (
            "[{key: dedicated, value: db}, {key: node.kubernetes.io/unschedulable, operator: Exists}]",
            true,
        ),
        (
            "[{key: dedicated, value: web}, {key: node.kubernetes.io/unschedulable, operator: Exists}]",
            false,
        ),
        (
            "[{key: dedicated, operator: Exists, effect: NoExecute}, {key: node.kubernetes.io/unschedulable, operator: Exists}]",
            false,
        ),
        ("[{key: dedicated, value: db}]", false),
    ] {
        let pod = format!("- {{metadata: {{name: p}}, spec: {{tolerations: {tolerations}}}}}");
        let trace = check(&format!("{node}{pod}"));
        assert_eq!(trace == "p -> a\n", fits, "{tolerations}: {trace}");
    }
}

#[test]
fn a_soft_taint_makes_a_node_the_second_choice() {
    let trace = check(
        "
nodes:
- metadata: {name: soft}
  spec: {taints: [{key: k, effect: PreferNoSchedule}]}
- metadata: {name: other}
  status: {allocatable: {cpu: '1', memory: 1Gi}}
pods:
- {metadata: {name: p1}, requests: {cpu: 800m}}
- {metadata: {name: p2}, requests: {cpu: 800m}}
",
    );
    assert_eq!(trace, "p1 -> other\np2 -> soft\n");
}

#[test]
fn node_affinity_requires_any_term_and_prefers_by_weight() {
    let nodes = "
nodes:
- {metadata: {name: a, labels: {zone: x, cores: '8'}}}
- {metadata: {name: b, labels: {zone: w, cores: '32'}}}
- {metadata: {name: c}}
pods:
- metadata: {name: p}
  spec: {affinity: {nodeAffinity: ";
    let required = |terms: &str| {
        let key = "requiredDuringSchedulingIgnoredDuringExecution";
        check(&format!("{nodes} {{{key}: {{nodeSelectorTerms: {terms}}}}}}}}}"))
    };
    let nowhere = "p: 0/3 nodes are available: \
                   3 node(s) didn't match Pod's node affinity/selector.\n";
    assert_eq!(
        required("[{matchExpressions: [{key: zone, operator: In, values: [x]}]}]"),
        "p -> a\n"
    );
    assert_eq!(
        required("[{matchExpressions: [{key: cores, operator: Gt, values: ['8']}]}]"),
        "p -> b\n"
    );
    assert_eq!(required("[{matchExpressions: [{key: zone, operator: DoesNotExist}]}]"), "p -> c\n");
    assert_eq!(
        required("[{matchFields: [{key: metadata.name, operator: In, values: [b]}]}]"),
        "p -> b\n"
    );
    assert_eq!(
        required(
            "[{matchExpressions: [{key: zone, operator: NotIn, values: [x, w]}, \
              {key: zone, operator: Exists}]}, {}]"
        ),
        nowhere,
        "all of one term, and an empty term matches nothing"
    );
    let key = "preferredDuringSchedulingIgnoredDuringExecution";
    let weighted = "[{weight: 1, preference: {matchExpressions: [{key: zone, operator: Exists}]}}, \
                    {weight: 50, preference: {matchExpressions: [{key: zone, operator: In, values: [w]}]}}]";
    assert_eq!(check(&format!("{nodes} {{{key}: {weighted}}}}}}}")), "p -> b\n");
}

#[test]
fn host_ports_clash_by_protocol_and_address() {
    let world = "
nodes: [{metadata: {name: a}}]
pods:
- metadata: {name: holder}
  spec:
    nodeName: a
    containers: [{name: c, ports: [{hostPort: 53, containerPort: 53, protocol: UDP, hostIP: 10.0.0.1}]}]
- metadata: {name: p}
  spec:
    containers: [{name: c, ports: [";
    for (port, fits) in [
        ("{hostPort: 53, containerPort: 53, protocol: TCP, hostIP: 10.0.0.1}", true),
        ("{hostPort: 53, containerPort: 53, protocol: UDP, hostIP: 10.0.0.2}", true),
        ("{hostPort: 53, containerPort: 53, protocol: UDP, hostIP: 10.0.0.1}", false),
        ("{hostPort: 53, containerPort: 53, protocol: UDP}", false),
        ("{containerPort: 53, protocol: UDP}", true),
    ] {
        let trace = check(&format!("{world}{port}]}}]"));
        assert_eq!(trace == "p -> a\n", fits, "{port}: {trace}");
    }
}

#[test]
fn a_pod_takes_what_its_hungriest_moment_needs() {
    let pod = |body: &str| {
        check(&format!(
            "
nodes:
- metadata: {{name: a}}
  status: {{allocatable: {{cpu: '2'}}}}
pods:
- metadata: {{name: p}}
  spec: {{{body}}}"
        ))
    };
    let asks = |name: &str, cpu: &str, more: &str| {
        format!("{{name: {name}, resources: {{requests: {{cpu: '{cpu}'}}}}{more}}}")
    };
    let (sidecar, always) = ("s", ", restartPolicy: Always");
    let fits = "p -> a\n";
    let init =
        format!("initContainers: [{}], containers: [{}]", asks("i", "2", ""), asks("c", "1", ""));
    assert_eq!(pod(&init), fits, "an init container gives back what it took");
    let beside = format!(
        "initContainers: [{}, {}], containers: [{}]",
        asks(sidecar, "1", always),
        asks("i", "1500m", ""),
        asks("c", "1", "")
    );
    assert_ne!(pod(&beside), fits, "a sidecar keeps running beside later init containers");
    let after = format!(
        "initContainers: [{}, {}], containers: [{}]",
        asks("i", "1500m", ""),
        asks(sidecar, "1", always),
        asks("c", "1", "")
    );
    assert_eq!(pod(&after), fits, "but not beside earlier ones");
    let overhead = format!("overhead: {{cpu: 100m}}, containers: [{}]", asks("c", "2", ""));
    assert_ne!(pod(&overhead), fits);
    let whole = format!(
        "resources: {{requests: {{cpu: '2'}}}}, containers: [{}, {}]",
        asks("c", "1", ""),
        asks("d", "500m", "")
    );
    assert_eq!(pod(&whole), fits, "a pod-level request stands for the sum");
}

#[test]
fn finished_pods_take_no_room_and_leaving_ones_still_do() {
    let trace = check(
        "
nodes: [{metadata: {name: a}, status: {allocatable: {cpu: '2'}}}]
pods:
- {metadata: {name: done}, spec: {nodeName: a}, requests: {cpu: '2'}, status: {phase: Succeeded}}
- metadata: {name: leaving, deletionTimestamp: '2026-01-01T00:00:00Z'}
  spec: {nodeName: a}
  requests: {cpu: '1'}
- {metadata: {name: p1}, requests: {cpu: '1'}}
- {metadata: {name: p2}, requests: {cpu: '1'}}
",
    );
    assert_eq!(trace, "p1 -> a\np2: 0/1 nodes are available: 1 Insufficient cpu.\n");
}

#[test]
fn a_node_that_has_the_image_is_preferred() {
    let trace = check(
        "
nodes:
- metadata: {name: a}
- metadata: {name: b}
  status: {images: [{names: ['registry/app:v1'], sizeBytes: 900000000}]}
- metadata: {name: c}
  status: {images: [{names: ['registry/app:latest'], sizeBytes: 900000000}]}
pods:
- metadata: {name: p1}
  spec: {containers: [{name: c, image: 'registry/app:v1'}]}
- metadata: {name: p2}
  spec: {containers: [{name: c, image: 'registry/app'}]}
",
    );
    assert_eq!(trace, "p1 -> b\np2 -> c\n");
}

//! Pods that want or cannot bear each other.

use super::check;

const NODES: &str = "
nodes:
- {metadata: {name: a1, labels: {zone: a}}}
- {metadata: {name: a2, labels: {zone: a}}}
- {metadata: {name: b1, labels: {zone: b}}}
- {metadata: {name: x}}
";

fn pod(name: &str, app: &str, node: &str, affinity: &str) -> String {
    let node = if node.is_empty() { String::new() } else { format!("nodeName: {node}, ") };
    format!(
        "- {{metadata: {{name: {name}, labels: {{app: {app}}}}}, \
         spec: {{{node}affinity: {{{affinity}}}}}}}\n"
    )
}

fn required(side: &str, app: &str, key: &str) -> String {
    format!(
        "{side}: {{requiredDuringSchedulingIgnoredDuringExecution: [{{topologyKey: {key}, \
         labelSelector: {{matchLabels: {{app: {app}}}}}}}]}}"
    )
}

fn preferred(side: &str, app: &str, key: &str) -> String {
    format!(
        "{side}: {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: 100, \
         podAffinityTerm: {{topologyKey: {key}, \
         labelSelector: {{matchLabels: {{app: {app}}}}}}}}}]}}"
    )
}

fn run(pods: &[String]) -> String {
    check(&format!("{NODES}pods:\n{}", pods.concat()))
}

#[test]
fn required_affinity_goes_where_the_other_is() {
    let wants = required("podAffinity", "db", "zone");
    assert_eq!(run(&[pod("db", "db", "b1", ""), pod("web", "web", "", &wants)]), "web -> b1\n");
    assert_eq!(
        run(&[pod("web", "web", "", &wants)]),
        "web: 0/4 nodes are available: 4 node(s) didn't match pod affinity rules.\n"
    );
}

#[test]
fn the_first_of_a_group_that_asks_for_itself_may_start() {
    let wants = required("podAffinity", "web", "zone");
    let trace = run(&[pod("w1", "web", "", &wants), pod("w2", "web", "", &wants)]);
    let zones: Vec<&str> =
        trace.lines().filter_map(|line| Some(&line.split_once(" -> ")?.1[..1])).collect();
    assert_eq!(zones.len(), 2, "{trace}");
    assert_eq!(zones[0], zones[1], "{trace}");
    assert_ne!(zones[0], "x", "a node without the label is in no zone");
}

#[test]
fn anti_affinity_holds_both_ways() {
    let alone = required("podAntiAffinity", "web", "zone");
    let trace = run(&[
        pod("w0", "web", "a1", &alone),
        pod("w1", "web", "", &alone),
        pod("w2", "web", "", &alone),
        pod("w3", "web", "", ""),
    ]);
    // Not in zone b: w1 or w2 is there. On x there is no zone, so nothing is forbidden there.
    let nodes: Vec<&str> =
        trace.lines().filter_map(|line| Some(line.split_once(" -> ")?.1)).collect();
    assert_eq!(nodes.len(), 3, "{trace}");
    assert!(nodes.iter().all(|node| !node.starts_with('a')), "{trace}");
    assert_eq!(nodes.iter().filter(|node| **node == "b1").count(), 1, "{trace}");

    let host = required("podAntiAffinity", "web", "kubernetes.io/hostname");
    let names = ["w1", "w2", "w3", "w4", "w5"];
    let trace = run(&names.map(|name| pod(name, "web", "", &host)));
    let last = "w5: 0/4 nodes are available: 4 node(s) didn't match pod anti-affinity rules.";
    assert_eq!(trace.lines().last(), Some(last), "{trace}");

    let trace = run(&[
        pod("a", "web", "a1", &host),
        pod("b", "web", "a2", &host),
        pod("c", "web", "b1", &host),
        pod("d", "web", "x", &host),
        pod("plain", "web", "", ""),
    ]);
    assert_eq!(
        trace,
        "plain: 0/4 nodes are available: \
         4 node(s) didn't satisfy existing pods anti-affinity rules.\n"
    );
}

#[test]
fn preferences_pull_and_push() {
    let likes = preferred("podAffinity", "db", "zone");
    assert_eq!(run(&[pod("db", "db", "b1", ""), pod("web", "web", "", &likes)]), "web -> b1\n");
    let shuns = preferred("podAntiAffinity", "db", "zone");
    let trace = run(&[
        pod("d1", "db", "a1", ""),
        pod("d2", "db", "x", &preferred("podAntiAffinity", "web", "kubernetes.io/hostname")),
        pod("web", "web", "", &shuns),
    ]);
    assert_eq!(trace, "web -> b1\n", "what a placed pod shuns counts too");
}

#[test]
fn terms_reach_other_namespaces_only_when_they_say_so() {
    let world = "
nodes: [{metadata: {name: a, labels: {zone: a}}}, {metadata: {name: b, labels: {zone: b}}}]
namespaces: [{metadata: {name: other, labels: {team: red}}}]
pods:
- {metadata: {name: db, namespace: other, labels: {app: db}}, spec: {nodeName: b}}
";
    let web = |scope: &str| {
        format!(
            "{world}- {{metadata: {{name: web}}, spec: {{affinity: {{podAffinity: \
             {{requiredDuringSchedulingIgnoredDuringExecution: [{{topologyKey: zone, {scope}\
             labelSelector: {{matchLabels: {{app: db}}}}}}]}}}}}}}}\n"
        )
    };
    assert!(check(&web("")).contains("didn't match pod affinity rules"));
    assert_eq!(check(&web("namespaces: [other], ")), "web -> b\n");
    assert_eq!(check(&web("namespaceSelector: {matchLabels: {team: red}}, ")), "web -> b\n");
    assert_eq!(check(&web("namespaceSelector: {}, ")), "web -> b\n");
    let blue = check(&web("namespaceSelector: {matchLabels: {team: blue}}, "));
    assert!(blue.contains("didn't match pod affinity rules"), "{blue}");
}

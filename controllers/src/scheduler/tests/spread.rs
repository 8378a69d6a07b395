//! Pods of one kind over zones and hosts.

use super::check;

const NODES: &str = "
nodes:
- {metadata: {name: a1, labels: {zone: a}}}
- {metadata: {name: a2, labels: {zone: a}}}
- {metadata: {name: b1, labels: {zone: b}}}
- {metadata: {name: x}}
";

fn pods(names: &[&str], spec: &str) -> String {
    let line = |name: &&str| {
        format!("- {{metadata: {{name: {name}, labels: {{app: web}}}}, spec: {{{spec}}}}}\n")
    };
    names.iter().map(line).collect()
}

fn constraint(skew: u32, key: &str, when: &str, more: &str) -> String {
    format!(
        "topologySpreadConstraints: [{{maxSkew: {skew}, topologyKey: {key}, \
         whenUnsatisfiable: {when}, labelSelector: {{matchLabels: {{app: web}}}}{more}}}]"
    )
}

/// The zone of each placed pod, or its message.
fn zones(trace: &str) -> Vec<String> {
    let zone = |line: &str| match line.split_once(" -> ") {
        Some((_, node)) => node[..1].to_string(),
        None => line.to_string(),
    };
    trace.lines().map(zone).collect()
}

#[test]
fn hard_constraints_keep_zones_level() {
    let web = pods(&["w1", "w2", "w3", "w4"], &constraint(1, "zone", "DoNotSchedule", ""));
    let found = zones(&check(&format!("{NODES}pods:\n{web}")));
    let count = |zone: &str| found.iter().filter(|found| *found == zone).count();
    assert_eq!((count("a"), count("b"), count("x")), (2, 2, 0), "{found:?}");
}

#[test]
fn a_zone_that_cannot_grow_holds_the_others_back() {
    let full = "- {metadata: {name: hog}, spec: {nodeName: b1}, requests: {cpu: '4'}}\n";
    let spec = constraint(1, "zone", "DoNotSchedule", "");
    let container = "containers: [{name: c, resources: {requests: {cpu: 100m}}}]";
    let web = pods(&["w1", "w2"], &format!("{spec}, {container}"));
    let trace = check(&format!("{NODES}pods:\n{full}{web}"));
    assert_eq!(
        zones(&trace),
        [
            "a",
            "w2: 0/4 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology \
             spread constraints (missing required label), 2 node(s) didn't match pod topology \
             spread constraints."
        ]
    );
}

#[test]
fn fewer_domains_than_asked_count_as_an_empty_one() {
    let spec = constraint(1, "zone", "DoNotSchedule", ", minDomains: 3");
    let found = zones(&check(&format!("{NODES}pods:\n{}", pods(&["w1", "w2", "w3"], &spec))));
    assert_eq!(found[..2].iter().filter(|zone| zone.len() == 1).count(), 2, "{found:?}");
    assert!(found[2].contains("didn't match pod topology spread constraints"), "{found:?}");
}

#[test]
fn nodes_the_pod_may_not_use_do_not_hold_it_back() {
    let only_a = "nodeSelector: {zone: a}, ";
    let honored = constraint(1, "zone", "DoNotSchedule", "");
    let web = pods(&["w1", "w2"], &format!("{only_a}{honored}"));
    assert_eq!(zones(&check(&format!("{NODES}pods:\n{web}"))), ["a", "a"]);
    let ignored = constraint(1, "zone", "DoNotSchedule", ", nodeAffinityPolicy: Ignore");
    let web = pods(&["w1", "w2"], &format!("{only_a}{ignored}"));
    let found = zones(&check(&format!("{NODES}pods:\n{web}")));
    assert_eq!(found[0], "a");
    assert!(found[1].contains("didn't match pod topology spread"), "zone b counts: {found:?}");
}

#[test]
fn match_label_keys_count_only_the_same_revision() {
    let spec = constraint(1, "zone", "DoNotSchedule", ", matchLabelKeys: [hash]");
    let line = |name: &str, hash: &str, node: &str| {
        format!(
            "- {{metadata: {{name: {name}, labels: {{app: web, hash: {hash}}}}}, \
             spec: {{{node}{spec}}}}}\n"
        )
    };
    let old = line("o1", "old", "nodeName: a1, ") + &line("o2", "old", "nodeName: a1, ");
    let new = line("n1", "new", "nodeSelector: {zone: a}, nodeAffinityPolicy: Ignore, ");
    let found = zones(&check(&format!("{NODES}pods:\n{old}{new}")));
    assert_eq!(found, ["a"], "pods of the old revision do not count");
}

#[test]
fn soft_constraints_level_as_far_as_they_can() {
    let web = pods(&["w1", "w2", "w3", "w4"], &constraint(1, "zone", "ScheduleAnyway", ""));
    let found = zones(&check(&format!("{NODES}pods:\n{web}")));
    let count = |zone: &str| found.iter().filter(|found| *found == zone).count();
    assert_eq!((count("a"), count("b")), (2, 2), "{found:?}");
}

#[test]
fn replicas_without_constraints_are_spread_over_hosts() {
    let owned = |name: &str| {
        format!(
            "- metadata: {{name: {name}, ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, \
             name: web, uid: u1, controller: true}}]}}\n"
        )
    };
    let web: String = ["w1", "w2", "w3", "w4"].map(owned).concat();
    let trace = check(&format!("{NODES}pods:\n{web}"));
    let mut nodes: Vec<&str> =
        trace.lines().filter_map(|line| Some(line.split_once(" -> ")?.1)).collect();
    nodes.sort();
    assert_eq!(nodes, ["a1", "a2", "b1", "x"]);
}

#[test]
fn pods_of_a_service_are_spread_too() {
    let services = "services: [{name: web, selector: {app: web}}]\n";
    let busy = "- {metadata: {name: w0, labels: {app: web}}, spec: {nodeName: b1}}\n";
    let trace = check(&format!("{NODES}{services}pods:\n{busy}{}", pods(&["w1", "w2", "w3"], "")));
    assert!(!trace.contains("b1"), "{trace}");
}

//! What holds for every world: no node is overfull, no rule is broken, and the same input gives the
//! same plan, whatever was planned before.

use super::super::plugins;
use super::{parse_node, parse_pod, trace};
use crate::scheduler::{Decision, Planner, Pod, World, plan};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn node() -> impl Strategy<Value = Value> {
    let zone = prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))];
    (1..9u32, 1..5u32, zone, any::<bool>(), 0..20u8).prop_map(|(cpu, pods, zone, ssd, odd)| {
        let mut node = json!({
            "metadata": {"labels": {}},
            "spec": {"unschedulable": odd == 1, "taints": []},
            "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "4Gi", "pods": pods.to_string()}},
        });
        if let Some(zone) = zone {
            node["metadata"]["labels"]["zone"] = zone.into();
        }
        if ssd {
            node["metadata"]["labels"]["disk"] = "ssd".into();
        }
        if odd == 2 {
            node["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
        }
        node
    })
}

fn pod() -> impl Strategy<Value = Value> {
    (0..4u32, 0..4u32, 0..3u8, 0..8u8).prop_map(|(cpu, memory, app, kind)| {
        let labels = json!({"app": app.to_string()});
        let selector = json!({"matchLabels": labels});
        let mut spec = json!({"containers": [{"name": "c", "resources": {"requests":
            {"cpu": format!("{}m", cpu * 500), "memory": format!("{memory}Gi")}}}]});
        match kind {
            0 => spec["nodeSelector"] = json!({"disk": "ssd"}),
            1 => spec["tolerations"] = json!([{"operator": "Exists"}]),
            2 => spec["containers"][0]["ports"] = json!([{"hostPort": 80, "containerPort": 80}]),
            3 => spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]),
            4 => spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}]),
            5 => spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] =
                json!([{"weight": 9, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": selector}}]),
            _ => (),
        }
        json!({"metadata": {"labels": labels}, "spec": spec})
    })
}

fn named(values: Vec<Value>, prefix: &str) -> Vec<Value> {
    let name = |(index, mut value): (usize, Value)| {
        value["metadata"]["name"] = format!("{prefix}{index}").into();
        value
    };
    values.into_iter().enumerate().map(name).collect()
}

fn world(nodes: &[Value]) -> World {
    let mut world = World::default();
    for node in nodes {
        let (name, facts) = parse_node(node.clone());
        world.set_node(&name, facts);
    }
    world
}

/// Where each pod went, checked against a count made from scratch.
fn check_room(world: &World, decisions: &[Decision], pods: &[Arc<Pod>]) {
    let mut on: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for (decision, pod) in decisions.iter().zip(pods) {
        if let Decision::Bind { node, .. } = decision {
            on.entry(node).or_default().push(pod);
        }
    }
    for (_, node) in world.candidates() {
        let here = on.get(node.name).cloned().unwrap_or_default();
        let cpu: i64 = here.iter().map(|pod| pod.shape.requests.cpu_milli).sum();
        let memory: i64 = here.iter().map(|pod| pod.shape.requests.memory).sum();
        let ports = here.iter().map(|pod| pod.shape.ports.len()).sum::<usize>();
        assert!(cpu <= node.facts.allocatable.cpu_milli, "{}: cpu", node.name);
        assert!(memory <= node.facts.allocatable.memory, "{}: memory", node.name);
        assert!(here.len() as i64 <= node.facts.pods_max, "{}: pods", node.name);
        assert!(ports <= 1, "{}: one pod has the port", node.name);
        assert_eq!((cpu, memory), (node.used.requests.cpu_milli, node.used.requests.memory));
        let alone = |pod: &&&Arc<Pod>| {
            pod.terms.iter().any(|term| term.pull == crate::scheduler::Pull::Forbid)
        };
        for pod in here.iter().filter(alone) {
            let same = here.iter().filter(|other| other.labels == pod.labels).count();
            assert_eq!(same, 1, "{}: {} is alone of its kind", node.name, pod.key);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn never_overcommits_and_never_breaks_a_rule(
        nodes in prop::collection::vec(node(), 0..8),
        pods in prop::collection::vec(pod(), 0..24),
    ) {
        let (nodes, pods) = (named(nodes, "n"), named(pods, "p"));
        let pods: Vec<Arc<Pod>> = pods.into_iter().map(|pod| Arc::new(parse_pod(pod))).collect();
        let mut planned = world(&nodes);
        let decisions = plan(&mut Planner::default(), &mut planned, &pods);
        check_room(&planned, &decisions, &pods);

        // Pod by pod, with nothing remembered: the same plan, and each choice passes each filter.
        let mut again = world(&nodes);
        for (pod, decision) in pods.iter().zip(&decisions) {
            if let Decision::Bind { node, .. } = decision {
                let slot = again.slot_of(node).expect("a node of this world");
                let candidate = again.candidate(slot).expect("a node of this world");
                prop_assert!(plugins::check(&pod.shape, candidate).is_ok());
                for judge in plugins::judges(&mut again, pod) {
                    prop_assert!(judge.check(slot).is_ok());
                }
            }
            let one = plan(&mut Planner::default(), &mut again, std::slice::from_ref(pod));
            prop_assert_eq!(trace(&one), trace(std::slice::from_ref(decision)));
        }
    }

    #[test]
    fn what_goes_leaves_no_trace(
        nodes in prop::collection::vec(node(), 1..6),
        pods in prop::collection::vec(pod(), 1..12),
        probe in pod(),
    ) {
        let (nodes, pods) = (named(nodes, "n"), named(pods, "p"));
        let pods: Vec<Arc<Pod>> = pods.into_iter().map(|pod| Arc::new(parse_pod(pod))).collect();
        let probe = named(vec![probe], "probe").remove(0);
        let probe = Arc::new(parse_pod(probe));
        let mut planner = Planner::default();
        let mut used = world(&nodes);
        plan(&mut planner, &mut used, &pods);
        for pod in &pods {
            used.remove_pod(&pod.key);
        }
        let after = plan(&mut planner, &mut used, std::slice::from_ref(&probe));
        let fresh = plan(&mut Planner::default(), &mut world(&nodes), &[probe]);
        prop_assert_eq!(after, fresh);
    }
}

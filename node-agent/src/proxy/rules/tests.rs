//! Rules as text, and changes tried on a model of the kernel that refuses what the kernel refuses.

use super::*;
use crate::proxy::model::SlicePort;

fn place() -> Place {
    let (node, cluster_cidr) = ("n1".to_string(), "10.244.0.0/16".parse().unwrap());
    Place { node, cluster_cidr, host_ports: BTreeMap::new() }
}

/// `web 10.96.0.7 tcp/80 np=30080 affinity=600 internal-local external-local: ENDPOINT…`, an
/// endpoint being `10.244.1.2@n1` with `!` for not ready and `~` for ending but serving.
fn world(lines: &str) -> Services {
    let mut world = Services::default();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, tail) = line.split_once(':').unwrap();
        let mut words = head.split_whitespace();
        let name = words.next().unwrap().to_string();
        let ip = words.next().unwrap().parse().unwrap();
        let (protocol, port) = words.next().unwrap().split_once('/').unwrap();
        let protocol = Protocol::parse(&protocol.to_uppercase()).unwrap();
        let mut service_port = ServicePort {
            name: String::new(),
            protocol,
            port: port.parse().unwrap(),
            node_port: None,
        };
        let mut service = Service {
            namespace: "shop".into(),
            name: name.clone(),
            cluster_ips: vec![ip],
            ..Service::default()
        };
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("np", port) => service_port.node_port = port.parse().ok(),
                ("affinity", seconds) => {
                    service.affinity = Some(Duration::from_secs(seconds.parse().unwrap()));
                }
                ("internal-local", _) => service.internal_local = true,
                ("external-local", _) => service.external_local = true,
                other => panic!("{other:?}"),
            }
        }
        service.ports.push(service_port);
        let slice = Slice {
            namespace: "shop".into(),
            name: format!("{name}-1"),
            service: name.clone(),
            ports: vec![SlicePort { name: String::new(), protocol, port: 8080 }],
            endpoints: tail.split_whitespace().map(endpoint).collect(),
        };
        world.slices.insert(format!("shop/{name}-1"), slice);
        world.services.insert(format!("shop/{name}"), service);
    }
    world
}

fn endpoint(text: &str) -> Endpoint {
    let ending = text.ends_with('~');
    let ready = !ending && !text.ends_with('!');
    let (address, node) = text.trim_end_matches(['~', '!']).split_once('@').unwrap();
    Endpoint {
        addresses: vec![address.parse().unwrap()],
        ready,
        serving: ready || ending,
        terminating: ending,
        hostname: None,
        node: Some(node.into()),
    }
}

fn text(lines: &str) -> String {
    rules(&world(lines), &place()).to_string()
}

#[test]
fn a_service_goes_to_its_ready_endpoints() {
    let web = "web 10.96.0.7 tcp/80: 10.244.1.2@n1 10.244.2.3@n2 10.244.2.4@n2!";
    insta::assert_snapshot!("cluster_ip", text(web));
}

#[test]
fn without_ready_endpoints_those_that_end_still_serve() {
    let web = "web 10.96.0.7 tcp/80: 10.244.1.2@n1~ 10.244.2.3@n2!";
    insta::assert_snapshot!("ending", text(web));
    assert_eq!(text("web 10.96.0.7 tcp/80: 10.244.2.3@n2!"), "");
}

#[test]
fn node_ports_and_policies() {
    insta::assert_snapshot!(
        "policies",
        text(
            "open 10.96.0.1 tcp/80 np=30001: 10.244.1.2@n1 10.244.2.3@n2
             kept 10.96.0.2 udp/53 np=30002 external-local: 10.244.1.2@n1 10.244.2.3@n2
             away 10.96.0.3 tcp/80 np=30003 external-local: 10.244.2.3@n2
             here 10.96.0.4 tcp/80 internal-local: 10.244.1.2@n1 10.244.2.3@n2
             gone 10.96.0.5 tcp/80 internal-local: 10.244.2.3@n2"
        )
    );
}

#[test]
fn clients_with_affinity_are_remembered_per_endpoint() {
    let web = "web 10.96.0.7 tcp/80 affinity=600: 10.244.1.2@n1 10.244.2.3@n2";
    insta::assert_snapshot!("affinity", text(web));
}

#[test]
fn host_ports_lead_to_their_pod() {
    let port = HostPort { protocol: Protocol::Udp, host_port: 5300, container_port: 53 };
    let mut place = place();
    place.host_ports.insert(Ipv4Addr::new(10, 244, 1, 9), vec![port]);
    insta::assert_snapshot!("host_port", rules(&Services::default(), &place).to_string());
}

/// Applies changes in order and refuses references to what is not there, and removal of what is
/// still referred to.
fn apply(ruleset: &mut Ruleset, step: &Change<'_>) {
    let exists = |ruleset: &Ruleset, chain: &str| {
        assert!(ruleset.chains.contains_key(chain), "{step:?}: no chain {chain}");
    };
    match step {
        Change::RemoveVip(vip) => assert!(ruleset.vips.remove(vip).is_some(), "{step:?}"),
        Change::RemoveNodePort(protocol, port) => {
            assert!(ruleset.node_ports.remove(&(*protocol, *port)).is_some(), "{step:?}");
        }
        Change::RemoveHairpin(address) => assert!(ruleset.hairpin.remove(address), "{step:?}"),
        Change::AddSet(set, timeout) => {
            assert!(ruleset.affinity.insert(set.to_string(), *timeout).is_none(), "{step:?}");
        }
        Change::AddChain(chain) => {
            assert!(ruleset.chains.insert(chain.to_string(), vec![]).is_none(), "{step:?}");
        }
        Change::SetRules(chain, rules) => {
            exists(ruleset, chain);
            for rule in *rules {
                refers_to(rule).0.iter().for_each(|chain| exists(ruleset, chain));
                for set in refers_to(rule).1 {
                    assert!(ruleset.affinity.contains_key(set), "{step:?}");
                }
            }
            ruleset.chains.insert(chain.to_string(), rules.to_vec());
        }
        Change::ClearChain(chain) => {
            exists(ruleset, chain);
            ruleset.chains.insert(chain.to_string(), vec![]);
        }
        Change::RemoveChain(chain) => {
            let verdicts = ruleset.vips.values().chain(ruleset.node_ports.values());
            let of_maps = verdicts.filter(|v| **v == Verdict::Goto(chain.to_string())).count();
            let rules = ruleset.chains.values().flatten();
            let of_rules = rules.filter(|rule| refers_to(rule).0.contains(chain)).count();
            assert_eq!((of_maps, of_rules), (0, 0), "{step:?}: busy");
            assert_eq!(ruleset.chains.remove(*chain), Some(vec![]), "{step:?}");
        }
        Change::RemoveSet(set) => {
            let mut rules = ruleset.chains.values().flatten();
            assert!(!rules.any(|rule| refers_to(rule).1.contains(set)), "{step:?}: busy");
            assert!(ruleset.affinity.remove(*set).is_some(), "{step:?}");
        }
        Change::AddVip(vip, verdict) => {
            assert!(ruleset.vips.insert(*vip, (*verdict).clone()).is_none(), "{step:?}");
        }
        Change::AddNodePort(protocol, port, verdict) => {
            let key = (*protocol, *port);
            assert!(ruleset.node_ports.insert(key, (*verdict).clone()).is_none(), "{step:?}");
        }
        Change::AddHairpin(address) => assert!(ruleset.hairpin.insert(*address), "{step:?}"),
    }
}

/// Chains and sets.
fn refers_to(rule: &Rule) -> (Vec<&str>, Vec<&str>) {
    match rule {
        Rule::Translate(_) | Rule::MarkMasquerade | Rule::MarkOwn | Rule::Drop => (vec![], vec![]),
        Rule::Spread(chains) => (chains.iter().map(String::as_str).collect(), vec![]),
        Rule::Sticky { set, chain } => (vec![chain], vec![set]),
        Rule::Remember { set } => (vec![], vec![set]),
        Rule::From { chain, .. } | Rule::Own { chain } | Rule::Goto(chain) => (vec![chain], vec![]),
    }
}

/// States that differ from each other in every kind of thing.
pub(crate) fn states() -> Vec<Ruleset> {
    let texts = [
        "",
        "web 10.96.0.7 tcp/80: 10.244.1.2@n1 10.244.2.3@n2",
        "web 10.96.0.7 tcp/80: 10.244.2.3@n2",
        "web 10.96.0.8 tcp/80 np=30001: 10.244.1.2@n1",
        "web 10.96.0.7 tcp/80 np=30001 external-local: 10.244.2.3@n2 10.244.2.4@n2",
        "web 10.96.0.7 tcp/80 affinity=600: 10.244.1.2@n1 10.244.2.3@n2",
        "web 10.96.0.7 tcp/80 affinity=600 np=30001 external-local: 10.244.1.2@n1
         dns 10.96.0.7 udp/80 internal-local: 10.244.2.3@n2",
        "other 10.96.0.7 tcp/80 np=30001: 10.244.1.9@n1
         web 10.96.0.9 tcp/80 internal-local affinity=60: 10.244.1.2@n1 10.244.1.3@n1",
    ];
    texts.iter().map(|text| rules(&world(text), &place())).collect()
}

#[test]
fn every_change_of_state_is_acceptable_and_arrives() {
    let states = states();
    for old in &states {
        for new in &states {
            let mut kernel = old.clone();
            for step in changes(old, new) {
                apply(&mut kernel, &step);
            }
            assert_eq!(&kernel, new);
        }
    }
}

#[test]
fn a_changed_endpoint_touches_one_chain() {
    let many = |last: u8| {
        let line = |n: u8| format!("s{n} 10.96.0.{n} tcp/80: 10.244.2.{n}@n2\n");
        let mut lines: String = (1..100).map(line).collect();
        lines.push_str(&format!("web 10.96.1.1 tcp/80: 10.244.3.{last}@n2"));
        rules(&world(&lines), &place())
    };
    let (old, new) = (many(1), many(2));
    let steps = changes(&old, &new);
    assert!(matches!(steps[..], [Change::SetRules("svc/shop/web/tcp/80", _)]), "{steps:?}");
    assert!(changes(&old, &old).is_empty());
}

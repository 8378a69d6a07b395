//! The network as pods see it: real namespaces, real packets, two nodes.

use super::{
    HostPort, Protocol,
    lab::{
        Inhabitant, Lab, Machine, Objects, Pod, ask, ask_udp, datagram, eventually, node_ip, path,
        serve,
    },
    namespace,
};
use hickory_server::proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use serde_json::json;
use std::{collections::BTreeSet, fs::File, io::ErrorKind, net::Ipv4Addr};

const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

struct Two {
    lab: Lab,
    machines: [Machine; 2],
    pods: [Pod; 2],
}

/// Two nodes, each with a pod: `a` on the first, `b` on the second.
async fn two() -> Two {
    let lab = Lab::new().await;
    let machines = [lab.start(0).await, lab.start(1).await];
    let pods = [machines[0].pod("a").await, machines[1].pod("b").await];
    Two { lab, machines, pods }
}

/// A service on 10.96.1.N, TCP and UDP port 80, with `extra` fields in its spec.
fn service(objects: &Objects, name: &str, last: u8, extra: serde_json::Value) -> Ipv4Addr {
    let address = Ipv4Addr::new(10, 96, 1, last);
    let mut spec = json!({
        "type": "ClusterIP", "clusterIP": address.to_string(),
        "ports": [
            {"name": "tcp", "protocol": "TCP", "port": 80},
            {"name": "udp", "protocol": "UDP", "port": 80},
        ],
    });
    for (field, value) in extra.as_object().unwrap() {
        spec[field] = value.clone();
    }
    objects.set(
        "services",
        json!({
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        }),
    );
    address
}

/// The endpoints of a service: pods and the node each is on.
fn endpoints(objects: &Objects, name: &str, pods: &[(&Pod, usize)]) {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|(pod, node)| {
            json!({"addresses": [pod.address.to_string()], "nodeName": format!("n{node}")})
        })
        .collect();
    objects.set(
        "endpointslices",
        json!({
            "metadata": {
                "name": format!("{name}-1"), "namespace": "shop",
                "labels": {"kubernetes.io/service-name": name},
            },
            "ports": [
                {"name": "tcp", "protocol": "TCP", "port": 8080},
                {"name": "udp", "protocol": "UDP", "port": 8080},
            ],
            "endpoints": endpoints,
        }),
    );
}

/// Waits until the service answers from there.
async fn until_served(from: &File, to: (Ipv4Addr, u16)) {
    eventually("the service answers", || async { ask(from, to).await.ok() }).await;
}

/// Who answers 40 connections. With two endpoints the chance that one is never chosen is 2^-39.
async fn who_answers(from: &File, to: (Ipv4Addr, u16)) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for _ in 0..40 {
        let said = ask(from, to).await.unwrap();
        names.insert(said.split_once(' ').unwrap().0.to_string());
    }
    names
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| name.to_string()).collect()
}

#[tokio::test]
async fn pods_reach_each_other_and_nodes_without_translation() {
    let Two { machines: [first, second], pods: [a, b], .. } = two().await;
    assert_eq!(
        (a.address.to_string(), b.address.to_string()),
        ("10.244.0.2".into(), "10.244.1.2".into())
    );
    eventually("routes lead to the other node", || async {
        ask(&a.namespace, (b.address, 8080)).await.ok()
    })
    .await;
    assert_eq!(ask(&a.namespace, (b.address, 8080)).await.unwrap(), format!("b {}", a.address));
    assert_eq!(ask(&b.namespace, (a.address, 8080)).await.unwrap(), format!("a {}", b.address));
    assert_eq!(
        ask(&first.namespace, (a.address, 8080)).await.unwrap(),
        format!("a {}", node_ip(0))
    );
    assert_eq!(
        ask(&first.namespace, (b.address, 8080)).await.unwrap(),
        format!("b {}", node_ip(0))
    );
    // Outside the pod network the pod appears as its node.
    let (_server, ()) = Inhabitant::start(&second.namespace, |ready| serve("host", ready)).await;
    let said = ask(&a.namespace, (node_ip(1), 8080)).await.unwrap();
    assert_eq!(said, format!("host {}", node_ip(0)));
    // An address without a pod is refused at once.
    let nobody = ask(&a.namespace, (Ipv4Addr::new(10, 244, 1, 99), 8080)).await.unwrap_err();
    assert_ne!(nobody.kind(), ErrorKind::TimedOut, "{nobody}");
}

#[tokio::test]
async fn services_spread_over_endpoints_from_pods_and_nodes() {
    let Two { lab, machines: [first, second], pods: [a, b] } = two().await;
    let ports = json!({"type": "NodePort", "ports": [
        {"name": "tcp", "protocol": "TCP", "port": 80, "nodePort": 30080},
        {"name": "udp", "protocol": "UDP", "port": 80},
    ]});
    let web = service(&lab.objects, "web", 1, ports);
    endpoints(&lab.objects, "web", &[(&a, 0), (&b, 1)]);
    for from in [&a.namespace, &b.namespace, &first.namespace, &second.namespace] {
        until_served(from, (web, 80)).await;
        assert_eq!(who_answers(from, (web, 80)).await, names(&["a", "b"]));
        let udp = ask_udp(from, (web, 80)).await.unwrap();
        assert!(udp.starts_with("a ") || udp.starts_with("b "), "{udp}");
    }
    // A node port leads anywhere from anywhere: the sender is the node that was asked.
    for (from, node) in [(&second.namespace, 0), (&first.namespace, 0), (&b.namespace, 0)] {
        assert_eq!(who_answers(from, (node_ip(node), 30080)).await, names(&["a", "b"]));
    }
    endpoints(&lab.objects, "web", &[(&a, 0)]);
    eventually("the lost endpoint gets no more connections", || async {
        (who_answers(&b.namespace, (web, 80)).await == names(&["a"])).then_some(())
    })
    .await;
    assert_eq!(ask(&b.namespace, (web, 80)).await.unwrap(), format!("a {}", b.address));
    // The pod that reaches itself sees its node as the sender.
    eventually("its own node knows, too", || async {
        (who_answers(&a.namespace, (web, 80)).await == names(&["a"])).then_some(())
    })
    .await;
    assert_eq!(ask(&a.namespace, (web, 80)).await.unwrap(), format!("a {}", node_ip(0)));
    // Without endpoints, and on ports that no service has, refusal is immediate.
    endpoints(&lab.objects, "web", &[]);
    for from in [&b.namespace, &second.namespace] {
        eventually("the service refuses", || async { ask(from, (web, 80)).await.err() }).await;
        for port in [80, 81] {
            let refused = ask(from, (web, port)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
    }
}

#[tokio::test]
async fn policies_keep_clients_where_they_were_and_traffic_local() {
    let Two { lab, machines: [first, second], pods: [a, b] } = two().await;
    let sticky = service(&lab.objects, "sticky", 2, json!({"sessionAffinity": "ClientIP"}));
    endpoints(&lab.objects, "sticky", &[(&a, 0), (&b, 1)]);
    let local = service(&lab.objects, "local", 3, json!({"internalTrafficPolicy": "Local"}));
    endpoints(&lab.objects, "local", &[(&a, 0), (&b, 1)]);
    let kept = json!({
        "type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{"name": "tcp", "protocol": "TCP", "port": 80, "nodePort": 30081}],
    });
    let external = service(&lab.objects, "external", 4, kept);
    endpoints(&lab.objects, "external", &[(&b, 1)]);
    for from in [&a.namespace, &b.namespace] {
        until_served(from, (external, 80)).await;
        assert_eq!(who_answers(from, (sticky, 80)).await.len(), 1);
    }
    assert_eq!(who_answers(&first.namespace, (local, 80)).await, names(&["a"]));
    assert_eq!(who_answers(&b.namespace, (local, 80)).await, names(&["b"]));
    // The pod sees the client, since the node that was asked has it.
    let said = ask(&first.namespace, (node_ip(1), 30081)).await.unwrap();
    assert_eq!(said, format!("b {}", node_ip(0)));
    // The other node has none and says nothing.
    let silent = ask(&second.namespace, (node_ip(0), 30081)).await.unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn datagrams_follow_when_their_endpoint_is_lost() {
    let Two { lab, machines: [first, _second], pods: [a, b] } = two().await;
    let web = service(&lab.objects, "web", 1, json!({}));
    endpoints(&lab.objects, "web", &[(&b, 1)]);
    until_served(&first.namespace, (web, 80)).await;
    // One socket that never pauses: the kernel remembers where its flow goes.
    let client = first.namespace.try_clone().unwrap();
    let objects = lab.objects.clone();
    let (address, node) = (a.address, 0);
    namespace::inside(client, move || async move {
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        socket.connect((web, 80)).await.unwrap();
        let ask = async || {
            socket.send(b"?").await.unwrap();
            let mut buffer = [0; 64];
            let wait = std::time::Duration::from_millis(100);
            let length = tokio::time::timeout(wait, socket.recv(&mut buffer)).await.ok()?.ok()?;
            Some(buffer[..length][0])
        };
        assert_eq!(ask().await, Some(b'b'));
        objects.set(
            "endpointslices",
            json!({
                "metadata": {
                    "name": "web-1", "namespace": "shop",
                    "labels": {"kubernetes.io/service-name": "web"},
                },
                "ports": [{"name": "udp", "protocol": "UDP", "port": 8080}],
                "endpoints": [{"addresses": [address.to_string()], "nodeName": format!("n{node}")}],
            }),
        );
        eventually("the flow moves", || async { (ask().await == Some(b'a')).then_some(()) }).await;
    })
    .await
    .unwrap();
}

async fn resolve(from: &File, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.queries.push(Query::query(Name::from_ascii(name).unwrap(), kind));
    let answer = datagram(from, (DNS, 53).into(), query.to_vec().unwrap()).await.unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    let records = answer.answers.iter().map(|record| record.data.to_string()).collect();
    (answer.metadata.response_code, records)
}

#[tokio::test]
async fn every_node_answers_names_even_while_nobody_feeds_it() {
    let Two { lab, machines: [first, second], pods: [a, b] } = two().await;
    let web = service(&lab.objects, "web", 1, json!({}));
    until_refused(&first.namespace, (web, 80)).await;
    for from in [&a.namespace, &b.namespace, &first.namespace, &second.namespace] {
        eventually("the name is known", || async {
            let (_, found) = resolve(from, "web.shop.svc.cluster.local.", RecordType::A).await;
            (found == [web.to_string()]).then_some(())
        })
        .await;
        let name = "Nope.shop.svc.cluster.local.";
        assert_eq!(resolve(from, name, RecordType::A).await, (ResponseCode::NXDomain, vec![]));
        let none = resolve(from, "web.shop.svc.cluster.local.", RecordType::AAAA).await;
        assert_eq!(none, (ResponseCode::NoError, vec![]));
    }
    let srv = resolve(&a.namespace, "_tcp._tcp.web.shop.svc.cluster.local.", RecordType::SRV).await;
    assert_eq!(srv.1, ["0 100 80 web.shop.svc.cluster.local."]);
    let text = prometheus::TextEncoder::new().encode_to_string(&first.registry.gather()).unwrap();
    assert!(text.contains("coxswain_dns_requests_total{proto=\"udp\",type=\"A\"}"), "{text}");
    assert!(text.contains("kubeproxy_sync_proxy_rules_duration_seconds_count"), "{text}");
}

async fn until_refused(from: &File, to: (Ipv4Addr, u16)) {
    eventually("the service refuses", || async { ask(from, to).await.err() }).await;
}

#[tokio::test]
async fn a_restarted_agent_disturbs_nobody() {
    let Two { lab, machines: [first, second], pods: [a, b] } = two().await;
    let web = service(&lab.objects, "web", 1, json!({}));
    endpoints(&lab.objects, "web", &[(&a, 0)]);
    until_served(&b.namespace, (web, 80)).await;
    until_served(&a.namespace, (web, 80)).await;
    drop(first);
    // Nobody is there to set anything up, and all is as it was.
    assert_eq!(ask(&b.namespace, (web, 80)).await.unwrap(), format!("a {}", b.address));
    assert_eq!(ask(&a.namespace, (web, 80)).await.unwrap(), format!("a {}", node_ip(0)));
    let first = lab.start(0).await;
    assert_eq!(first.pods.address("a"), Some(a.address));
    let again = first.pods.attach("a", &path(&a.namespace), vec![]).await.unwrap();
    assert_eq!(again, a.address);
    assert_eq!(ask(&a.namespace, (web, 80)).await.unwrap(), format!("a {}", node_ip(0)));
    // Another pod gets another address; a pod that ended meanwhile is cleaned up.
    let port = HostPort { protocol: Protocol::Tcp, host_port: 8000, container_port: 8080 };
    let other = namespace::fresh();
    let address = first.pods.attach("c", &path(&other), vec![port]).await.unwrap();
    assert_ne!(address, a.address);
    let (_server, ()) = Inhabitant::start(&other, |ready| serve("c", ready)).await;
    eventually("the host port leads to the pod", || async {
        ask(&second.namespace, (node_ip(0), 8000)).await.ok()
    })
    .await;
    first.pods.retain(&BTreeSet::from(["c".to_string()])).await.unwrap();
    assert_eq!(first.pods.address("a"), None);
    assert!(ask(&b.namespace, (a.address, 8080)).await.is_err());
    first.pods.detach("c").await.unwrap();
    first.pods.detach("c").await.unwrap();
    until_refused(&second.namespace, (node_ip(0), 8000)).await;
}

#[tokio::test]
async fn a_pod_that_comes_back_in_a_new_namespace_keeps_its_address() {
    let lab = Lab::new().await;
    let machine = lab.start(0).await;
    let pod = machine.pod("a").await;
    let address = pod.address;
    let reborn = namespace::fresh();
    assert_eq!(machine.pods.attach("a", &path(&reborn), vec![]).await.unwrap(), address);
    drop(pod);
    let (_server, ()) = Inhabitant::start(&reborn, |ready| serve("reborn", ready)).await;
    let said = ask(&machine.namespace, (address, 8080)).await.unwrap();
    assert_eq!(said, format!("reborn {}", node_ip(0)));
}

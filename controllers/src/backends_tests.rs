//! Services and their pods, seen as EndpointSlices and as Endpoints.

use crate::testing::plan;
use crate::{endpoint_slice, endpoints, kubernetes_service};
use insta::assert_snapshot;

fn service(more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default, labels: {{app: web}}}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http}}, {{name: dns, port: 53, protocol: UDP}}]
{more}
"
    )
}

fn pod(name: &str, ip: &str, ready: bool, more: &str) -> String {
    let status = if ready { "True" } else { "False" };
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  labels: {{app: web}}
{more}
spec:
  nodeName: n1
  containers: [{{name: web, image: a, ports: [{{name: http, containerPort: 8080}}]}}]
status:
  phase: Running
  podIP: {ip}
  podIPs: [{{ip: {ip}}}]
  conditions: [{{type: Ready, status: '{status}'}}]
"
    )
}

const DELETED: &str = "  deletionTimestamp: 2026-01-01T00:09:00Z";

const NODE: &str = "
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}
";

fn slices(world: &[String]) -> String {
    plan(endpoint_slice::CONTROLLER, &world.concat(), "default", "web")
}

fn mirror(world: &[String]) -> String {
    plan(endpoints::CONTROLLER, &world.concat(), "default", "web")
}

fn mixed(service: String) -> Vec<String> {
    vec![
        service,
        pod("a", "10.244.0.1", true, ""),
        pod("b", "10.244.0.2", false, ""),
        pod("c", "10.244.0.3", true, DELETED),
        NODE.to_string(),
    ]
}

#[test]
fn ready_serving_and_terminating_pods() {
    assert_snapshot!("slice_of_mixed_pods", slices(&mixed(service(""))));
    assert_snapshot!("endpoints_of_mixed_pods", mirror(&mixed(service(""))));
}

#[test]
fn unready_pods_are_published_if_asked_for() {
    let text = slices(&mixed(service("  publishNotReadyAddresses: true\n  clusterIP: None")));
    assert!(!text.contains("\"ready\":false"), "{text}");
    assert!(text.contains("\"service.kubernetes.io/headless\":\"\""), "{text}");
    let text = mirror(&mixed(service("  publishNotReadyAddresses: true")));
    assert!(!text.contains("notReadyAddresses") && text.contains("10.244.0.3"), "{text}");
}

#[test]
fn a_service_without_pods_has_an_empty_slice() {
    assert_snapshot!(slices(&[service("")]));
}

#[test]
fn services_without_selector_are_not_ours() {
    let own = service("").replace("  selector: {app: web}\n", "");
    assert_eq!(slices(&[own.clone(), pod("a", "10.244.0.1", true, "")]), "nothing\n");
    assert_eq!(mirror(&[own]), "nothing\n");
}

#[test]
fn pods_with_other_named_ports_get_a_slice_of_their_own() {
    let other = pod("b", "10.244.0.2", true, "").replace("8080", "9090");
    let text = slices(&[service(""), pod("a", "10.244.0.1", true, ""), other]);
    assert_eq!(text.matches("create endpointslices").count(), 2, "{text}");
    let text = mirror(&[service(""), pod("a", "10.244.0.1", true, "")]);
    assert!(text.contains("\"port\":8080") && text.contains("\"port\":53"), "{text}");
}

#[test]
fn a_slice_in_place_changes_only_where_its_pods_did() {
    let slice = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-x
  namespace: default
  labels: {app: web, kubernetes.io/service-name: web, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: http, port: 8080, protocol: TCP}]
endpoints:
- addresses: [10.244.0.1]
  conditions: {ready: true, serving: true, terminating: false}
  nodeName: n1
  targetRef: {kind: Pod, namespace: default, name: a, uid: uid-a}
";
    let a = pod("a", "10.244.0.1", true, "");
    assert_eq!(slices(&[service(""), a.clone(), slice.into()]), "nothing\n");
    let text = slices(&[service(""), a, pod("b", "10.244.0.2", true, ""), slice.into()]);
    assert!(
        text.starts_with("together patch endpointslices.discovery.k8s.io default/web-x"),
        "{text}"
    );
    assert!(text.contains("10.244.0.2") && !text.contains("ports"), "{text}");
    let text = slices(&[service(""), slice.into()]);
    assert!(text.contains("\"endpoints\":[]"), "the last slice stays: {text}");
}

#[test]
fn many_pods_fill_slices_of_a_hundred() {
    let pods = (0..250).map(|n| pod(&format!("p{n}"), &format!("10.244.1.{n}"), true, ""));
    let world: Vec<String> = std::iter::once(service("")).chain(pods).collect();
    let text = slices(&world);
    let sizes: Vec<usize> = text
        .lines()
        .filter(|line| line.contains("create"))
        .map(|l| l.matches("targetRef").count())
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
}

#[test]
fn the_kubernetes_service_leads_to_the_masters() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}";
    assert_snapshot!(plan(kubernetes_service::CONTROLLER, namespace, "", ""));
}

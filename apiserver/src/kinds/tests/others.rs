//! Services, nodes, namespaces, config maps, secrets.

use super::{check, check_update, stored};

#[test]
fn services_are_filled_in() {
    let service =
        |spec: &str| stored("services", &format!("metadata: {{name: web}}\nspec: {spec}"));
    insta::assert_yaml_snapshot!(service("{selector: {app: web}, ports: [{port: 80}]}"));
    insta::assert_yaml_snapshot!(service(
        "{type: LoadBalancer, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http}]}"
    ));
    insta::assert_yaml_snapshot!(service("{clusterIP: None, selector: {app: web}}"));
    insta::assert_yaml_snapshot!(service("{type: ExternalName, externalName: example.com}"));
}

#[test]
fn services_that_are_wrong() {
    let service = |spec: &str| check("services", &format!("metadata: {{name: web}}\nspec: {spec}"));
    assert_eq!(service("{ports: [{port: 80}]}"), "");
    assert_eq!(service("{clusterIP: None}"), "");
    assert_eq!(service("{type: NodePort, ports: [{port: 80, nodePort: 30080}]}"), "");
    let cases = [
        service("{}"),
        service("{type: Mine, ports: [{port: 80}]}"),
        service(
            "{ports: [{port: 0}, {port: 80, name: a, protocol: X}, {port: 80, name: a, nodePort: 30000}]}",
        ),
        service("{ports: [{port: 80, name: a}, {port: 80, name: b}]}"),
        service("{ports: [{port: 80, targetPort: 'Not_A_Port'}], selector: {'a b': c}}"),
        service("{type: ExternalName}"),
        service("{type: ExternalName, externalName: 'a_b', clusterIP: 10.96.0.9}"),
        service("{clusterIP: nope, ports: [{port: 80}]}"),
        service("{type: NodePort, clusterIP: None, ports: [{port: 80}]}"),
        service("{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.2], ports: [{port: 80}]}"),
        service("{sessionAffinity: Sticky, externalTrafficPolicy: Local, ports: [{port: 80}]}"),
        service("{sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}, ports: [{port: 80}]}"),
        service(
            "{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 99999}}, ports: [{port: 80}]}",
        ),
        service(
            "{ipFamilies: [IPv4, IPv5], ipFamilyPolicy: Any, externalIPs: [x], ports: [{port: 80}]}",
        ),
    ];
    insta::assert_snapshot!(cases.join("\n--\n"));
}

#[test]
fn a_services_address_stays() {
    let spec = |spec: &str| format!("metadata: {{name: web}}\nspec: {spec}");
    let old = spec("{type: NodePort, clusterIP: 10.96.0.7, ports: [{port: 80, nodePort: 30080}]}");
    assert_eq!(check_update("services", &old, &spec("{type: NodePort, ports: [{port: 80}]}")), "");
    let moved = spec("{type: NodePort, clusterIP: 10.96.0.8, ports: [{port: 80}]}");
    insta::assert_snapshot!(check_update("services", &old, &moved));
}

#[test]
fn nodes() {
    insta::assert_snapshot!(check(
        "nodes",
        r"
        metadata: {name: n1}
        spec:
          podCIDR: 10.244.0.0/24
          podCIDRs: [10.244.1.0/24, x]
          taints: [{key: a, effect: NoSchedule}, {key: a, value: b, effect: NoSchedule}, {key: '', effect: Never}]
        status: {capacity: {cpu: '-1'}}
        "
    ));
    let old = "metadata: {name: n1}\nspec: {podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24], providerID: a}";
    let new = "metadata: {name: n1}\nspec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24], providerID: b}";
    insta::assert_snapshot!(check_update("nodes", old, new));
}

#[test]
fn namespaces() {
    insta::assert_yaml_snapshot!(stored("namespaces", "metadata: {name: dev}"));
    insta::assert_snapshot!(check(
        "namespaces",
        "metadata: {name: dev}\nspec: {finalizers: [kubernetes, mine]}"
    ));
}

#[test]
fn config_maps() {
    insta::assert_snapshot!(check(
        "configmaps",
        "metadata: {name: a}\ndata: {'a b': x, both: z}\nbinaryData: {both: eA==}"
    ));
    let huge = format!("metadata: {{name: a}}\ndata: {{a: {}}}", "x".repeat(1024 * 1024 + 1));
    insta::assert_snapshot!(check("configmaps", &huge));
    let old = "metadata: {name: a}\nimmutable: true\ndata: {a: b}";
    insta::assert_snapshot!(check_update("configmaps", old, "metadata: {name: a}\ndata: {a: c}"));
    assert_eq!(check_update("configmaps", old, old), "");
}

#[test]
fn secrets() {
    insta::assert_yaml_snapshot!(stored(
        "secrets",
        "metadata: {name: a}\ndata: {a: eA==}\nstringData: {a: new, b: z}"
    ));
    let typed = |kind: &str, data: &str| {
        check("secrets", &format!("metadata: {{name: a}}\ntype: {kind}\nstringData: {data}"))
    };
    let cases = [
        typed("kubernetes.io/tls", "{tls.crt: a}"),
        typed("kubernetes.io/basic-auth", "{a: b}"),
        typed("kubernetes.io/ssh-auth", "{}"),
        typed("kubernetes.io/service-account-token", "{}"),
        typed("kubernetes.io/dockercfg", "{}"),
        typed("kubernetes.io/dockerconfigjson", "{.dockerconfigjson: '{'}"),
        typed("Opaque", "{'a/b': c}"),
    ];
    insta::assert_snapshot!(cases.join("\n--\n"));
    let old = "metadata: {name: a}\nimmutable: true\ndata: {a: eA==}";
    let new = "metadata: {name: a}\ntype: other\ndata: {a: eQ==}";
    insta::assert_snapshot!(check_update("secrets", old, new));
}

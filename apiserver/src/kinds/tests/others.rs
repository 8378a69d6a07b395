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

#[test]
fn rbac() {
    let role = |rules: &str| check("roles", &format!("metadata: {{name: a}}\nrules: {rules}"));
    let binding = |rest: &str| check("rolebindings", &format!("metadata: {{name: a}}\n{rest}"));
    assert_eq!(role("[{verbs: [get], apiGroups: [''], resources: [pods]}]"), "");
    assert_eq!(binding("roleRef: {kind: Role, name: a}\nsubjects: [{kind: User, name: bob}]"), "");
    let cases = [
        role("[{}]"),
        role("[{verbs: [get], nonResourceURLs: [/x], resources: [pods]}]"),
        binding(
            "roleRef: {kind: Pod, apiGroup: x}\nsubjects: [{kind: Robot, name: ''}, {kind: ServiceAccount, name: a}]",
        ),
        check_update(
            "rolebindings",
            "metadata: {name: a}\nroleRef: {kind: Role, name: a}",
            "metadata: {name: a}\nroleRef: {kind: Role, name: b}",
        ),
        check("clusterroles", "metadata: {name: a}\naggregationRule: {}"),
    ];
    insta::assert_snapshot!(cases.join("\n--\n"));
}

#[test]
fn storage_networking_and_policy() {
    let cases = [
        check("persistentvolumeclaims", "metadata: {name: a}\nspec: {accessModes: [Any]}"),
        check("persistentvolumes", "metadata: {name: a}\nspec: {capacity: {storage: '-1'}}"),
        check("storageclasses", "metadata: {name: a}\nvolumeBindingMode: Later"),
        check("ingresses", "metadata: {name: a}\nspec: {}"),
        check(
            "ingresses",
            "metadata: {name: a}\nspec: {rules: [{host: 'A', http: {paths: [{path: x, backend: {service: {name: s}}}, {path: x, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}",
        ),
        check(
            "networkpolicies",
            "metadata: {name: a}\nspec: {podSelector: {}, ingress: [{from: [{}, {ipBlock: {cidr: x}}], ports: [{protocol: X}]}]}",
        ),
        check(
            "poddisruptionbudgets",
            "metadata: {name: a}\nspec: {minAvailable: 1, maxUnavailable: 101%}",
        ),
        check(
            "horizontalpodautoscalers",
            "metadata: {name: a}\nspec: {minReplicas: 3, maxReplicas: 2, scaleTargetRef: {kind: Deployment}}",
        ),
        check("priorityclasses", "metadata: {name: system-mine}\nvalue: 2000000000"),
        check("leases", "metadata: {name: a}\nspec: {leaseDurationSeconds: 0}"),
        check(
            "endpointslices",
            "metadata: {name: a}\naddressType: IPv4\nendpoints: [{addresses: [x]}, {addresses: []}]\nports: [{port: 0}, {port: 1}]",
        ),
        check(
            "events",
            "metadata: {name: a}\ninvolvedObject: {kind: Pod, namespace: other, name: b}",
        ),
        check(
            "customresourcedefinitions",
            "metadata: {name: a}\nspec: {group: x.io, scope: Odd, names: {plural: as, kind: A}, versions: []}",
        ),
        check(
            "cronjobs",
            "metadata: {name: a}\nspec: {schedule: '@daily', concurrencyPolicy: Queue, jobTemplate: {spec: {template: {spec: {containers: [{name: a, image: b}]}}}}}",
        ),
    ];
    insta::assert_snapshot!(cases.join("\n--\n"));
    insta::assert_yaml_snapshot!(stored(
        "networkpolicies",
        "metadata: {name: a}\nspec: {podSelector: {}, egress: [{ports: [{port: 53}]}]}"
    ));
    insta::assert_yaml_snapshot!(stored(
        "limitranges",
        "metadata: {name: a}\nspec: {limits: [{type: Container, max: {cpu: 1}, min: {memory: 1Mi}}]}"
    ));
    insta::assert_yaml_snapshot!(stored(
        "horizontalpodautoscalers",
        "metadata: {name: a}\nspec: {maxReplicas: 2, scaleTargetRef: {kind: Deployment, name: a}}"
    ));
    insta::assert_yaml_snapshot!(stored(
        "validatingwebhookconfigurations",
        "metadata: {name: a}\nwebhooks: [{name: a.b.c, admissionReviewVersions: [v1], sideEffects: None, clientConfig: {service: {name: a, namespace: b}}, rules: [{operations: ['*'], apiGroups: [''], apiVersions: [v1], resources: [pods]}]}]"
    ));
}

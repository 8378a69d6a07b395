//! Pods: what they get, what they may not say, what may change.

use super::{causes, check, check_update, created, decode, kind, stored};

#[test]
fn a_small_pod_is_filled_in() {
    insta::assert_yaml_snapshot!(stored(
        "pods",
        r"
        metadata: {name: web}
        spec:
          containers:
          - name: web
            image: nginx
            ports: [{containerPort: 80}]
            resources: {limits: {cpu: 500m, memory: 64Mi}}
            readinessProbe: {httpGet: {port: 80}}
            env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
          initContainers:
          - {name: side, image: 'sidecar:1', restartPolicy: Always}
          volumes: [{name: tmp}, {name: conf, configMap: {name: conf}}]
        "
    ));
}

#[test]
fn quality_of_service() {
    let class = |resources: &str| {
        let pod = format!(
            "metadata: {{name: a}}\nspec: {{containers: [{{name: a, image: b, resources: {resources}}}]}}"
        );
        stored("pods", &pod)["status"]["qosClass"].as_str().unwrap_or_default().to_string()
    };
    let classes = [
        class("{}"),
        class("{limits: {cpu: 1, memory: 1Gi}}"),
        class("{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1000m, memory: 1024Mi}}"),
        class("{requests: {cpu: 1}}"),
        class("{limits: {cpu: 1}}"),
        class("{requests: {example.com/gpu: 1}, limits: {example.com/gpu: 1}}"),
    ];
    assert_eq!(
        classes,
        ["BestEffort", "Guaranteed", "Guaranteed", "Burstable", "Burstable", "BestEffort"]
    );
}

#[test]
fn nothing_is_wrong_with_a_rich_pod() {
    assert_eq!(
        check(
            "pods",
            r"
        metadata: {name: web, labels: {app: web}}
        spec:
          hostNetwork: true
          terminationGracePeriodSeconds: 5
          nodeSelector: {kubernetes.io/os: linux}
          tolerations:
          - {key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 3}
          - {operator: Exists}
          affinity:
            nodeAffinity:
              requiredDuringSchedulingIgnoredDuringExecution:
                nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a]}]}]
            podAntiAffinity:
              preferredDuringSchedulingIgnoredDuringExecution:
              - weight: 10
                podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}
          topologySpreadConstraints:
          - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
          volumes:
          - {name: a, emptyDir: {sizeLimit: 1Gi}}
          - {name: b, secret: {secretName: s, items: [{key: k, path: p}]}}
          - {name: c, hostPath: {path: /var, type: Directory}}
          - {name: d, projected: {sources: [{configMap: {name: x}}, {downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}]}}
          initContainers:
          - {name: init, image: i, command: [sh]}
          - {name: side, image: i, restartPolicy: Always, livenessProbe: {exec: {command: [ls]}}}
          containers:
          - name: web
            image: nginx:1
            ports: [{containerPort: 80, name: http}]
            envFrom: [{configMapRef: {name: env}}]
            env:
            - {name: A, value: x}
            - {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}
            - {name: C, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
            resources: {requests: {cpu: 100m}, limits: {cpu: 1, example.com/gpu: 1}}
            volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b, subPath: x/y}]
            livenessProbe: {tcpSocket: {port: http}}
            readinessProbe: {grpc: {port: 9090}}
            startupProbe: {httpGet: {port: http, path: /ok}}
            lifecycle: {preStop: {sleep: {seconds: 3}}}
            securityContext: {runAsUser: 1000, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        "
        ),
        ""
    );
}

#[test]
fn containers() {
    insta::assert_snapshot!(check(
        "pods",
        r"
        metadata: {name: web}
        spec:
          restartPolicy: Sometimes
          dnsPolicy: Mine
          hostNetwork: true
          containers:
          - name: Web
            image: ''
            imagePullPolicy: Maybe
            ports:
            - {containerPort: 0}
            - {containerPort: 70000, name: a--b}
            - {containerPort: 80, hostPort: 81, protocol: HTTP}
            - {containerPort: 81, hostPort: 81}
            env:
            - {name: ''}
            - {name: A=B}
            - {name: C, value: x, valueFrom: {fieldRef: {fieldPath: spec.containers}}}
            - {name: D, valueFrom: {}}
            - {name: E, valueFrom: {configMapKeyRef: {key: '..'}, secretKeyRef: {name: a, key: b}}}
            envFrom: [{}, {configMapRef: {name: ''}}]
            volumeMounts: [{name: none, mountPath: /a}, {name: '', mountPath: /a, subPath: ../x}]
          - name: dup
            image: ' nginx'
          - name: dup
            image: nginx
          initContainers:
          - {name: dup, image: x, readinessProbe: {exec: {command: [a]}}, lifecycle: {}}
        "
    ));
}

#[test]
fn probes_resources_and_security() {
    insta::assert_snapshot!(check(
        "pods",
        r"
        metadata: {name: web}
        spec:
          activeDeadlineSeconds: 0
          securityContext: {runAsUser: -1}
          containers:
          - name: a
            image: b
            livenessProbe: {successThreshold: 2, periodSeconds: -1, terminationGracePeriodSeconds: 0}
            readinessProbe: {exec: {command: []}, tcpSocket: {port: 0}, terminationGracePeriodSeconds: 3}
            startupProbe: {httpGet: {port: 99999, scheme: FTP, httpHeaders: [{name: 'a b', value: c}]}}
            lifecycle: {postStart: {}, preStop: {sleep: {seconds: 99}}}
            resources:
              requests: {cpu: 2, memory: '-1', bogus: 1, example.com/gpu: 1}
              limits: {cpu: 1}
            securityContext: {privileged: true, allowPrivilegeEscalation: false, seccompProfile: {type: Localhost}}
        "
    ));
}

#[test]
fn volumes() {
    insta::assert_snapshot!(check(
        "pods",
        r"
        metadata: {name: web}
        spec:
          containers: [{name: a, image: b}]
          volumes:
          - {name: a, emptyDir: {}, hostPath: {path: /x}}
          - {name: a, secret: {secretName: ''}}
          - {name: A}
          - {name: b, hostPath: {path: a/../b, type: Thing}}
          - {name: c, configMap: {name: '', defaultMode: 999, items: [{key: '', path: /abs}]}}
          - {name: d, downwardAPI: {items: [{path: p}]}}
          - {name: e, persistentVolumeClaim: {claimName: ''}}
          - {name: f, projected: {sources: [{secret: {name: a}, configMap: {name: b}}]}}
          - {name: g, emptyDir: {sizeLimit: '-1'}}
        "
    ));
}

#[test]
fn scheduling() {
    insta::assert_snapshot!(check(
        "pods",
        r"
        metadata: {name: web}
        spec:
          containers: [{name: a, image: b}]
          nodeName: node_1
          nodeSelector: {'a b': c}
          tolerations:
          - {key: '', operator: Equal}
          - {key: a, operator: Exists, value: x}
          - {key: a, operator: Near, effect: Soon}
          - {key: a, effect: NoSchedule, tolerationSeconds: 3}
          affinity:
            nodeAffinity:
              requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}
              preferredDuringSchedulingIgnoredDuringExecution:
              - {weight: 0, preference: {matchExpressions: [{key: a, operator: Gt, values: ['1', '2']}, {key: '', operator: Is}]}}
            podAffinity:
              requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: '', labelSelector: {matchExpressions: [{key: a, operator: In}]}}]
          topologySpreadConstraints:
          - {maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}
          - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}
          - {maxSkew: 1, topologyKey: '', whenUnsatisfiable: Never, minDomains: 0}
        "
    ));
    insta::assert_snapshot!(check(
        "pods",
        "metadata: {name: a}\nspec: {containers: [], ephemeralContainers: [{name: e, image: x}]}"
    ));
}

const OLD: &str = "
metadata: {name: web}
spec:
  containers: [{name: a, image: 'b:1'}]
  tolerations: [{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]
  activeDeadlineSeconds: 10
";

#[test]
fn an_update_may_change_images_and_little_else() {
    let update = |from: &str, to: &str| {
        let new = OLD.replace(from, to);
        assert_ne!(new, OLD);
        check_update("pods", OLD, &new)
    };
    assert_eq!(update("b:1", "b:2"), "");
    assert_eq!(update("activeDeadlineSeconds: 10", "activeDeadlineSeconds: 9"), "");
    assert_eq!(update("tolerationSeconds: 5", "tolerationSeconds: 6"), "");
    let cases = [
        update("{name: a, image: 'b:1'}", "{name: a, image: 'b:1'}, {name: c, image: d}"),
        update("name: a, image", "name: z, image"),
        update("activeDeadlineSeconds: 10", "activeDeadlineSeconds: 11"),
        update("key: a", "key: b"),
        update("  activeDeadlineSeconds: 10", "  restartPolicy: Never"),
    ];
    insta::assert_snapshot!(cases.join("\n--\n"));
}

#[test]
fn the_claim_of_extended_resources_names_what_the_pod_asks_for() {
    let kind = kind("pods");
    let pod = "
metadata: {name: a}
spec:
  initContainers:
  - {name: first, image: i, resources: {limits: {example.com/gpu: 1}}}
  containers:
  - {name: main, image: i}";
    let old = created(kind, pod);
    let check = |claim: &str| {
        let status = decode(kind, &format!("status: {{extendedResourceClaimStatus: {claim}}}"));
        let mut new = old.clone();
        new.map_mut("status").extend(status.0["status"].as_object().cloned().expect("a map"));
        causes(kind, &new, &(kind.validate_status)(&new, &old))
    };
    let right = "{containerName: first, resourceName: example.com/gpu, requestName: r}";
    assert_eq!(check(&format!("{{resourceClaimName: c, requestMappings: [{right}]}}")), "");
    let wrong = format!(
        "{{requestMappings: [{right}, {right},
          {{containerName: main, resourceName: example.com/gpu, requestName: 'R r'}},
          {{containerName: gone, resourceName: example.com/gpu, requestName: r}}]}}"
    );
    let cases = ["{}", &wrong, "{resourceClaimName: 'a b', requestMappings: []}"];
    insta::assert_snapshot!(cases.map(check).join("\n---\n"));
}

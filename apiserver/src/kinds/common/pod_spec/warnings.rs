//! What a client is warned of in a pod or a pod template that is accepted all the same (upstream's
//! `GetWarningsForPod`).

use super::{
    super::{claims, field::At, warn_ip},
    annotations::APP_ARMOR,
    os::LISTS,
};
use k8s::{Object, names as rules};
use std::collections::{BTreeMap, BTreeSet};

/// Labels of nodes that have other names now.
const OLD_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// What is wrong with a label of a node, if anything.
pub(crate) fn label_warning(key: &str) -> Option<&'static str> {
    OLD_LABELS.into_iter().find(|(old, _)| *old == key).map(|(_, text)| text)
}

/// Of a pod.
pub(crate) fn warnings(pod: &Object) -> Vec<String> {
    let mut list = Vec::new();
    collect(&At::top(pod, "metadata"), &At::top(pod, "spec"), false, &mut list);
    list
}

/// Of a pod template.
pub(crate) fn template_warnings(template: &At<'_, '_>) -> Vec<String> {
    let mut list = Vec::new();
    collect(&template.field("metadata"), &template.field("spec"), true, &mut list);
    list
}

fn collect(metadata: &At<'_, '_>, spec: &At<'_, '_>, template: bool, list: &mut Vec<String>) {
    for (key, at) in spec.field("nodeSelector").entries() {
        list.extend(label_warning(key).map(|text| format!("{at}: {text}")));
    }
    node_affinity(spec, list);
    for constraint in spec.field("topologySpreadConstraints").items() {
        let key = constraint.field("topologyKey");
        let text = label_warning(key.text());
        list.extend(text.map(|text| format!("{key}: {} is {text}", key.text())));
        no_selector(&constraint, list);
    }
    old_annotations(metadata, list);
    old_volumes(spec, list);
    overlaps(spec, list);
    twice(&spec.field("hostAliases"), "ip", list);
    twice(&spec.field("imagePullSecrets"), "name", list);
    for secret in spec.field("imagePullSecrets").items() {
        let name = secret.field("name");
        if name.text().is_empty() {
            list.push(format!("{name}: invalid empty name \"\""));
        }
    }
    for resource in ["memory", "ephemeral-storage"] {
        fraction(&spec.field("overhead").key(resource), list);
    }
    profiles(metadata, spec, template, list);
    for kind in LISTS {
        for container in spec.field(kind).items() {
            amounts(&container.field("resources"), list);
            hidden(&container, list);
        }
    }
    ports(spec, list);
    let grace = spec.field("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds < 0) {
        list.push(format!(
            "{grace}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    pod_affinity(spec, list);
    for server in spec.field("dnsConfig").field("nameservers").items() {
        list.extend(warn_ip(&server));
    }
    for alias in spec.field("hostAliases").items() {
        list.extend(warn_ip(&alias.field("ip")));
    }
}

fn no_selector(term: &At<'_, '_>, list: &mut Vec<String>) {
    let selector = term.field("labelSelector");
    if !selector.exists() {
        list.push(format!("{selector}: a null labelSelector results in matching no pod"));
    }
}

fn node_affinity(spec: &At<'_, '_>, list: &mut Vec<String>) {
    let affinity = spec.field("affinity");
    let node = affinity.field("nodeAffinity");
    let required = node.field("requiredDuringSchedulingIgnoredDuringExecution");
    for term in required.field("nodeSelectorTerms").items() {
        node_term(&term, false, list);
    }
    for term in node.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
        node_term(&term.field("preference"), true, list);
    }
}

fn node_term(term: &At<'_, '_>, values: bool, list: &mut Vec<String>) {
    for expression in term.field("matchExpressions").items() {
        let key = expression.field("key");
        let text = label_warning(key.text());
        list.extend(text.map(|text| format!("{key}: {} is {text}", key.text())));
        for value in expression.field("values").items().filter(|_| values) {
            for wrong in rules::is_label_value(value.text()) {
                list.push(format!("{value}: {} is invalid, {wrong}", value.text()));
            }
        }
    }
}

fn old_annotations(metadata: &At<'_, '_>, list: &mut Vec<String>) {
    const OLD: [(&str, &str); 3] = [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
    ];
    let annotations = metadata.field("annotations");
    for (key, text) in OLD {
        if annotations.has(key) {
            list.push(format!("{annotations}[{key}]: {text}"));
        }
    }
}

fn old_volumes(spec: &At<'_, '_>, list: &mut Vec<String>) {
    const OLD: [(&str, &str, &str); 9] = [
        (
            "photonPersistentDisk",
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for volume in spec.field("volumes").items() {
        for (field, name, text) in OLD {
            if volume.field(field).exists() {
                list.push(format!("{volume}.{name}: {text}"));
            }
        }
        let ephemeral = volume.field("ephemeral");
        let template = ephemeral.field("volumeClaimTemplate");
        list.extend(claims::warnings(&template.field("spec")));
    }
}

/// A path of a file in a volume, and what puts it there.
type Placed = (String, String);

fn overlaps(spec: &At<'_, '_>, list: &mut Vec<String>) {
    for volume in spec.field("volumes").items() {
        let name = volume.field("name").text();
        for (kind, what, named) in
            [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")]
        {
            let source = volume.field(kind);
            let what = format!("{what} \"{}\"", source.field(named).text());
            colliding(name, &what, paths(&source, ""), list);
        }
        colliding(name, "DownwardAPI", paths(&volume.field("downwardAPI"), ""), list);
        let projected = volume.field("projected");
        let mut all = Vec::new();
        for source in projected.field("sources").items() {
            if source.count() == 0 {
                list.push(format!("volume \"{name}\" (Projected) has no sources provided"));
            }
            all.extend(projected_paths(&source));
        }
        colliding(name, "Projected", all, list);
    }
}

fn paths(source: &At<'_, '_>, what: &str) -> Vec<Placed> {
    let items = source.field("items");
    items.items().map(|item| (item.field("path").text().into(), what.into())).collect()
}

fn projected_paths(source: &At<'_, '_>) -> Vec<Placed> {
    for (kind, what) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        let files = source.field(kind);
        if files.field("items").exists() {
            return paths(&files, &format!("{what} \"{}\"", files.field("name").text()));
        }
    }
    if source.field("downwardAPI").exists() {
        return paths(&source.field("downwardAPI"), "DownwardAPI");
    }
    let token = source.field("serviceAccountToken");
    if token.exists() {
        return vec![(token.field("path").text().into(), "ServiceAccountToken".into())];
    }
    let bundle = source.field("clusterTrustBundle");
    if bundle.exists() {
        let name = match bundle.field("name").text() {
            "" => bundle.field("signerName").text(),
            name => name,
        };
        let what = format!("ClusterTrustBundle \"{name}\"");
        return vec![(bundle.field("path").text().into(), what)];
    }
    let certificate = source.field("podCertificate");
    [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ]
    .into_iter()
    .filter(|(field, _)| !certificate.field(field).text().is_empty())
    .map(|(field, what)| (certificate.field(field).text().to_string(), what.to_string()))
    .collect()
}

fn colliding(volume: &str, what: &str, files: Vec<Placed>, list: &mut Vec<String>) {
    let shown = |(path, source): &Placed| match source.as_str() {
        "" => format!("\"{path}\""),
        source => format!("\"{path}\" ({source})"),
    };
    let below = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
    let mut seen: Vec<Placed> = Vec::new();
    for (path, source) in files {
        let file = (path.trim_end_matches('/').to_string(), source);
        for other in seen.iter().filter(|other| !other.0.is_empty() && !file.0.is_empty()) {
            if below(&file.0, &other.0) || below(&other.0, &file.0) {
                list.push(format!(
                    "volume \"{volume}\" ({what}): overlapping paths: {} with {}",
                    shown(&file),
                    shown(other)
                ));
            }
        }
        seen.push(file);
    }
}

fn twice(entries: &At<'_, '_>, field: &'static str, list: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for entry in entries.items() {
        let at = entry.field(field);
        if !seen.insert(at.text()) {
            list.push(format!("{at}: duplicate {field} \"{}\"", at.text()));
        }
    }
}

fn fraction(at: &At<'_, '_>, list: &mut Vec<String>) {
    if let Some(amount) = at.quantity().filter(|amount| amount.milli_value() % 1000 != 0) {
        list.push(format!(
            "{at}: fractional byte value \"{amount}\" is invalid, must be an integer"
        ));
    }
}

fn amounts(resources: &At<'_, '_>, list: &mut Vec<String>) {
    for resource in ["memory", "ephemeral-storage"] {
        for kind in ["limits", "requests"] {
            fraction(&resources.field(kind).key(resource), list);
        }
    }
}

fn profiles(metadata: &At<'_, '_>, spec: &At<'_, '_>, template: bool, list: &mut Vec<String>) {
    const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    let annotations = metadata.field("annotations");
    let context = spec.field("securityContext");
    let pod_key = "seccomp.security.alpha.kubernetes.io/pod";
    if !context.field("seccompProfile").exists() && annotations.has(pod_key) {
        list.push(format!("{annotations}[{pod_key}]: {SECCOMP}"));
    }
    for kind in LISTS {
        for container in spec.field(kind).items() {
            let (name, own) = (container.field("name").text(), container.field("securityContext"));
            let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
            if !own.field("seccompProfile").exists() && annotations.has(&key) {
                list.push(format!("{annotations}[{key}]: {SECCOMP}"));
            }
            let key = format!("{APP_ARMOR}{name}");
            let fields = [&own, &context].into_iter().any(|c| c.field("appArmorProfile").exists());
            if template && !fields && annotations.has(&key) {
                let text = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
                list.push(format!("{annotations}[{key}]: {text}"));
            }
        }
    }
}

/// A variable said twice, unless the second adds to the first.
fn hidden(container: &At<'_, '_>, list: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for variable in container.field("env").items() {
        let (name, value) = (variable.field("name").text(), variable.field("value").text());
        let reference = format!("$({name})");
        let adds = !variable.field("valueFrom").exists()
            && value != reference
            && value.contains(&reference);
        if !seen.insert(name) && !adds {
            list.push(format!(
                "{variable}: hides previous definition of \"{name}\", which may be dropped when \
                 using apply"
            ));
        }
    }
}

/// A port of a container as others may want it too.
struct Port<'v> {
    path: String,
    host_ip: &'v str,
    host: i64,
}

fn ports(spec: &At<'_, '_>, list: &mut Vec<String>) {
    let mut all: BTreeMap<(i64, &str), Vec<Port<'_>>> = BTreeMap::new();
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut later = Vec::new();
    for kind in LISTS {
        for container in spec.field(kind).items() {
            for port in container.field("ports").items() {
                let (host_ip, host) =
                    (port.field("hostIP").text(), port.field("hostPort").int().unwrap_or(0));
                if !host_ip.is_empty() && host == 0 {
                    let shown = port.owned();
                    list.push(format!("{port}: hostIP set without hostPort: {shown}"));
                }
                let key =
                    (port.field("containerPort").int().unwrap_or(0), port.field("protocol").text());
                let own = Port { path: port.to_string(), host_ip, host };
                let others = all.entry(key).or_default();
                list.extend(others.iter().filter_map(|other| conflict(&own, other)));
                others.push(own);
                let name = port.field("name").text();
                match names.get(name) {
                    _ if name.is_empty() => (),
                    Some(first) => later.push(format!(
                        "{port}: duplicate port name \"{name}\" with {first}, services and probes \
                         that select ports by name will use {first}"
                    )),
                    None => _ = names.insert(name, port.to_string()),
                }
            }
        }
    }
    list.append(&mut later);
}

fn conflict(own: &Port<'_>, other: &Port<'_>) -> Option<String> {
    let word = if own.host_ip == other.host_ip && own.host == other.host {
        "duplicate"
    } else if own.host == 0 || other.host == 0 {
        "overlapping"
    } else if own.host == other.host && own.host_ip.is_empty() != other.host_ip.is_empty() {
        "dangerously ambiguous"
    } else {
        return None;
    };
    Some(format!("{}: {word} port definition with {}", own.path, other.path))
}

fn pod_affinity(spec: &At<'_, '_>, list: &mut Vec<String>) {
    let affinity = spec.field("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.field(kind);
        for term in pods.field("requiredDuringSchedulingIgnoredDuringExecution").items() {
            no_selector(&term, list);
        }
        for weighted in pods.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
            no_selector(&weighted.field("podAffinityTerm"), list);
        }
    }
}

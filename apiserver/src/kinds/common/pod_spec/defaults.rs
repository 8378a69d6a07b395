//! What a pod spec gets where it says nothing, beyond the defaults in the schema table.

use super::{
    super::{
        child, children, made, resources::is_huge_page, set_default, set_text, volume_sources,
    },
    totals,
};
use k8s::Object;
use serde_json::{Map, Value, json};

type Fields = Map<String, Value>;

/// Of every pod spec, in a pod or in a template.
pub(crate) fn pod_spec(spec: &mut Fields) {
    set_text(spec, "restartPolicy", "Always");
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set_text(spec, "schedulerName", "default-scheduler");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    made(spec, "securityContext");
    service_account(spec);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        children(spec, list).for_each(container);
    }
    for volume in children(spec, "volumes") {
        self::volume(volume);
    }
}

/// The old field and the new one say the same.
fn service_account(spec: &mut Fields) {
    let text =
        |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
    let name = match (text("serviceAccountName"), text("serviceAccount")) {
        (name, old) if name.is_empty() => old,
        (name, _) => name,
    };
    if !name.is_empty() {
        spec.insert("serviceAccountName".into(), name.clone().into());
        spec.insert("serviceAccount".into(), name.into());
    }
}

fn container(container: &mut Fields) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    set_text(container, "imagePullPolicy", policy);
    set_text(container, "terminationMessagePath", "/dev/termination-log");
    set_text(container, "terminationMessagePolicy", "File");
    made(container, "resources");
    for port in children(container, "ports") {
        set_text(port, "protocol", "TCP");
    }
    for variable in children(container, "env") {
        if let Some(source) = child(variable, "valueFrom") {
            field_source(source);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, probe) {
            self::probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = child(container, "lifecycle").and_then(|hooks| child(hooks, hook)) {
            http_get(hook);
        }
    }
}

/// `:latest`, said or meant, may change: ask every time.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let last = name.rsplit('/').next().unwrap_or_default();
    match (last.split_once(':'), digest) {
        (Some((_, "latest")), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

fn field_source(source: &mut Fields) {
    if let Some(field) = child(source, "fieldRef") {
        set_text(field, "apiVersion", "v1");
    }
    if let Some(resource) = child(source, "resourceFieldRef") {
        set_default(resource, "divisor", "0");
    }
}

fn probe(probe: &mut Fields) {
    http_get(probe);
    let numbers = [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ];
    for (field, value) in numbers {
        // Zero means unset here, as upstream reads it.
        if probe.get(field).and_then(Value::as_i64) == Some(0) {
            probe.remove(field);
        }
        set_default(probe, field, value);
    }
}

fn http_get(handler: &mut Fields) {
    if let Some(get) = child(handler, "httpGet") {
        set_text(get, "path", "/");
        set_text(get, "scheme", "HTTP");
    }
}

fn volume(volume: &mut Fields) {
    if volume.keys().all(|field| field == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    for kind in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, kind) {
            set_default(source, "defaultMode", 0o644);
        }
    }
    volume_sources::default(volume);
    if let Some(source) = child(volume, "downwardAPI") {
        children(source, "items").for_each(field_source);
    }
    if let Some(projected) = child(volume, "projected") {
        for source in children(projected, "sources") {
            if let Some(token) = child(source, "serviceAccountToken") {
                set_default(token, "expirationSeconds", 3600);
            }
            if let Some(fields) = child(source, "downwardAPI") {
                children(fields, "items").for_each(field_source);
            }
        }
    }
    if let Some(image) = child(volume, "image") {
        let policy =
            pull_policy(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        set_text(image, "pullPolicy", policy);
    }
    let claim = child(volume, "ephemeral").and_then(|source| child(source, "volumeClaimTemplate"));
    if let Some(spec) = claim.and_then(|template| child(template, "spec")) {
        set_text(spec, "volumeMode", "Filesystem");
    }
}

/// Of a pod itself, not of a template: requests as limits, links to services, ports of the node.
pub(crate) fn pod(spec: &mut Fields) {
    for list in ["containers", "initContainers"] {
        for container in children(spec, list) {
            let Some(resources) = child(container, "resources") else { continue };
            let Some(limits) = child(resources, "limits").map(|limits| limits.clone()) else {
                continue;
            };
            if let Some(requests) = made(resources, "requests") {
                for (resource, limit) in limits {
                    requests.entry(resource).or_insert(limit);
                }
            }
        }
    }
    whole(spec);
    set_default(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false) {
        for list in ["containers", "initContainers"] {
            for port in children(spec, list).flat_map(|container| children(container, "ports")) {
                if port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0 {
                    let number = port.get("containerPort").cloned().unwrap_or(Value::Null);
                    port.insert("hostPort".into(), number);
                }
            }
        }
    }
}

/// Resources of the pod as a whole follow from those of its containers (KEP-2837).
fn whole(spec: &mut Fields) {
    let own = |spec: &Fields, kind: &str| {
        let amounts = spec.get("resources").and_then(|resources| resources.get(kind)?.as_object());
        amounts.cloned().unwrap_or_default()
    };
    let (mut requests, mut limits) = (own(spec, "requests"), own(spec, "limits"));
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let containers = Value::Object(spec.clone());
    for (name, amount) in totals::sum(&containers, "limits") {
        if is_huge_page(&name) && !requests.contains_key(&name) {
            limits.entry(name).or_insert_with(|| amount.to_string().into());
        }
    }
    if !limits.is_empty() {
        for (name, amount) in totals::sum(&containers, "requests") {
            if matches!(name.as_str(), "cpu" | "memory") {
                requests.entry(name).or_insert_with(|| amount.to_string().into());
            }
        }
        for (name, limit) in &limits {
            if matches!(name.as_str(), "cpu" | "memory") || is_huge_page(name) {
                requests.entry(name.clone()).or_insert_with(|| limit.clone());
            }
        }
    }
    if let Some(resources) = made(spec, "resources") {
        for (kind, amounts) in [("requests", requests), ("limits", limits)] {
            if !amounts.is_empty() {
                resources.insert(kind.into(), amounts.into());
            }
        }
    }
}

/// `matchLabelKeys` of affinity and spreading become part of the selectors, with the values the pod
/// has (KEP-3633, KEP-3243).
pub(crate) fn merge_label_keys(pod: &mut Object) {
    let labels: std::collections::BTreeMap<String, String> =
        pod.labels().map(|(key, value)| (key.into(), value.into())).collect();
    let spec = pod.map_mut("spec");
    for constraint in children(spec, "topologySpreadConstraints") {
        merge(constraint, &labels);
    }
    let Some(affinity) = child(spec, "affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = child(affinity, kind) else { continue };
        for term in children(pods, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge(term, &labels);
        }
        for weighted in children(pods, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = child(weighted, "podAffinityTerm") {
                merge(term, &labels);
            }
        }
    }
}

fn merge(term: &mut Fields, labels: &std::collections::BTreeMap<String, String>) {
    let keys = |term: &Fields, field: &str| -> Vec<String> {
        let keys = term.get(field).and_then(Value::as_array).into_iter().flatten();
        keys.filter_map(Value::as_str).map(String::from).collect()
    };
    let kinds = [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")];
    let more: Vec<Value> = kinds
        .into_iter()
        .flat_map(|(field, operator)| keys(term, field).into_iter().map(move |k| (k, operator)))
        .filter_map(|(key, operator)| {
            let value = labels.get(&key)?;
            Some(json!({ "key": key, "operator": operator, "values": [value] }))
        })
        .collect();
    let Some(selector) = child(term, "labelSelector").filter(|_| !more.is_empty()) else { return };
    set_default(selector, "matchExpressions", Value::Array(Vec::new()));
    if let Some(list) = selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
        list.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_may_change_are_pulled_always() {
        let policies = [
            "busybox",
            "busybox:latest",
            "busybox:1.36",
            "reg:5000/busybox",
            "reg:5000/busybox:1",
            "busybox@sha256:00",
            "busybox:latest@sha256:00",
        ]
        .map(|image| format!("{image} {}", pull_policy(image)));
        insta::assert_snapshot!(policies.join("\n"), @r"
        busybox Always
        busybox:latest Always
        busybox:1.36 IfNotPresent
        reg:5000/busybox Always
        reg:5000/busybox:1 IfNotPresent
        busybox@sha256:00 IfNotPresent
        busybox:latest@sha256:00 Always
        ");
    }
}

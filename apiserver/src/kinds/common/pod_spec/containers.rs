//! Containers: names, images, ports, environment, mounts, probes, hooks.

use super::{
    super::field::{At, Errors},
    Taken, resources, security,
    volumes::relative,
};
use k8s::{FieldError, names as rules};
use serde_json::Value;
use std::collections::BTreeSet;

/// What containers refer to in their pod.
pub(super) struct Scope<'a, 'v> {
    pub(super) volumes: &'a Taken<'v>,
    pub(super) host_network: bool,
    pub(super) grace_period_seconds: i64,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Main,
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that stays (`restartPolicy: Always`).
    Sidecar,
    Ephemeral,
}

pub(super) fn validate(spec: &At<'_, '_>, scope: &Scope<'_, '_>, errors: &mut Errors) {
    let mut taken = Taken::default();
    let mut host_ports = BTreeSet::new();
    let mains = spec.field("containers");
    if mains.count() == 0 {
        errors.required(&mains, "");
    }
    for container in mains.items() {
        validate_one(&container, Role::Main, scope, &mut taken, errors);
        host_port_conflicts(&container, &mut host_ports, errors);
    }
    let mut init_ports = BTreeSet::new();
    for container in spec.field("initContainers").items() {
        let role = match container.field("restartPolicy").text() {
            "Always" => Role::Sidecar,
            _ => Role::Init,
        };
        validate_one(&container, role, scope, &mut taken, errors);
        host_port_conflicts(&container, &mut init_ports, errors);
    }
    for container in spec.field("ephemeralContainers").items() {
        validate_one(&container, Role::Ephemeral, scope, &mut taken, errors);
        for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            let at = container.field(field);
            if at.exists() {
                errors.forbidden(&at, "cannot be set for an Ephemeral Container");
            }
        }
    }
}

fn validate_one<'v>(
    container: &At<'_, 'v>,
    role: Role,
    scope: &Scope<'_, '_>,
    taken: &mut Taken<'v>,
    errors: &mut Errors,
) {
    let name = container.field("name");
    match name.text() {
        "" => errors.required(&name, ""),
        text => match rules::is_dns1123_label(text) {
            wrong if !wrong.is_empty() => errors.invalid_each(&name, wrong),
            _ => {
                taken.add(&name, errors);
            }
        },
    }
    let image = container.field("image");
    if errors.needs_text(&image) && image.text().trim() != image.text() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
    errors.one_of(&container.field("imagePullPolicy"), &["Always", "IfNotPresent", "Never"], true);
    let policies = ["FallbackToLogsOnError", "File"];
    errors.one_of(&container.field("terminationMessagePolicy"), &policies, true);
    ports(container, scope, errors);
    env(container, errors);
    env_from(container, errors);
    mounts(container, scope, errors);
    probes(container, role, errors);
    lifecycle(container, role, scope, errors);
    restart_policy(container, role, errors);
    resources::validate(&container.field("resources"), errors);
    security::validate_container(&container.field("securityContext"), errors);
}

fn restart_policy(container: &At<'_, '_>, role: Role, errors: &mut Errors) {
    let policy = container.field("restartPolicy");
    match role {
        _ if !policy.exists() => (),
        Role::Ephemeral => errors.forbidden(&policy, "may not be set for ephemeral containers"),
        _ => errors.one_of(&policy, &["Always", "OnFailure", "Never"], false),
    }
}

fn ports(container: &At<'_, '_>, scope: &Scope<'_, '_>, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for port in container.field("ports").items() {
        let name = port.field("name");
        if !name.text().is_empty() {
            match rules::is_port_name(name.text()) {
                wrong if !wrong.is_empty() => errors.invalid_each(&name, wrong),
                _ if !taken.insert(name.text()) => errors.duplicate(&name),
                _ => (),
            }
        }
        let number = port.field("containerPort");
        match number.int().unwrap_or(0) {
            0 => errors.required(&number, ""),
            _ => errors.port_number(&number),
        }
        let host = port.field("hostPort");
        if host.int().unwrap_or(0) != 0 {
            errors.port_number(&host);
        }
        if scope.host_network && host.int() != number.int() {
            errors.invalid(&host, "must match `containerPort` when `hostNetwork` is true");
        }
        errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"], true);
    }
}

/// No two containers may want the same port of the node.
fn host_port_conflicts(container: &At<'_, '_>, taken: &mut BTreeSet<String>, errors: &mut Errors) {
    for port in container.field("ports").items() {
        let host = port.field("hostPort");
        let number = host.int().unwrap_or(0);
        if number == 0 {
            continue;
        }
        let (protocol, ip) = (port.field("protocol").text(), port.field("hostIP").text());
        let key = format!("{protocol}/{ip}/{number}");
        if taken.contains(&key) {
            errors.duplicate_value(&host, key);
        } else {
            taken.insert(key);
        }
    }
}

const SOURCES: [&str; 5] =
    ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

fn env(container: &At<'_, '_>, errors: &mut Errors) {
    for variable in container.field("env").items() {
        let name = variable.field("name");
        if errors.needs_text(&name) {
            let wrong = rules::is_env_var_name(name.text());
            errors.invalid_each(&name, wrong);
        }
        let source = variable.field("valueFrom");
        if !source.exists() {
            continue;
        }
        let (field, resource) = (source.field("fieldRef"), source.field("resourceFieldRef"));
        validate_field_source(&field, &resource, false, errors);
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            let reference = source.field(kind);
            if reference.exists() {
                errors.needs_text(&reference.field("name"));
                let key = reference.field("key");
                if errors.needs_text(&key) {
                    let wrong = rules::is_config_map_key(key.text());
                    errors.invalid_each(&key, wrong);
                }
            }
        }
        let count = SOURCES.into_iter().filter(|kind| source.field(kind).exists()).count();
        let has_value = !variable.field("value").text().is_empty();
        let detail = match count {
            0 => {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            }
            _ if has_value => "may not be specified when `value` is not empty",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.invalid_value(&source, "", detail);
    }
}

/// Fields of a pod that its environment may hold; a volume may hold the first five only.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// A field or a resource of the pod as a value (downward API).
pub(super) fn validate_field_source(
    field: &At<'_, '_>,
    resource: &At<'_, '_>,
    volume: bool,
    errors: &mut Errors,
) {
    if field.exists() {
        let path = field.field("fieldPath");
        let known: &[&str] = if volume { &VOLUME_FIELDS } else { &FIELDS };
        let subscripted = ["metadata.labels['", "metadata.annotations['"];
        let one_entry = subscripted.iter().any(|start| path.text().starts_with(start))
            && path.text().ends_with("']");
        if errors.needs_text(&field.field("apiVersion"))
            && errors.needs_text(&path)
            && !one_entry
            && !known.contains(&path.text())
        {
            errors.not_supported(&path, known);
        }
    }
    if resource.exists() {
        let container = resource.field("containerName");
        let name = resource.field("resource");
        if volume && container.text().is_empty() {
            errors.required(&container, "");
        } else if errors.needs_text(&name) {
            let huge_pages = name.text().contains(".hugepages-");
            if !huge_pages && !RESOURCES.contains(&name.text()) {
                errors.not_supported(&name, &RESOURCES);
            }
        }
    }
}

fn env_from(container: &At<'_, '_>, errors: &mut Errors) {
    for source in container.field("envFrom").items() {
        let prefix = source.field("prefix");
        if !prefix.text().is_empty() {
            errors.invalid_each(&prefix, rules::is_env_var_name(prefix.text()));
        }
        let kinds = ["configMapRef", "secretRef"];
        let given = kinds.into_iter().filter(|kind| source.field(kind).exists());
        let given: Vec<&'static str> = given.collect();
        for kind in &given {
            errors.needs_text(&source.field(kind).field("name"));
        }
        let detail = match given.len() {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.invalid_value(&source, "", detail);
    }
}

fn mounts(container: &At<'_, '_>, scope: &Scope<'_, '_>, errors: &mut Errors) {
    let mut paths = BTreeSet::new();
    for mount in container.field("volumeMounts").items() {
        let name = mount.field("name");
        if name.text().is_empty() {
            errors.required(&name, "");
        } else if !scope.volumes.has(name.text()) {
            errors.not_found(&name);
        }
        let path = mount.field("mountPath");
        if errors.needs_text(&path) && !paths.insert(path.text()) {
            errors.invalid(&path, "must be unique");
        }
        let (sub, expression) = (mount.field("subPath"), mount.field("subPathExpr"));
        if !sub.text().is_empty() {
            relative(&sub, errors);
        }
        if !expression.text().is_empty() {
            if !sub.text().is_empty() {
                errors.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
            }
            relative(&expression, errors);
        }
        let propagation = mount.field("mountPropagation");
        let kinds = ["Bidirectional", "HostToContainer", "None"];
        errors.one_of(&propagation, &kinds, false);
        let privileged = container.field("securityContext").field("privileged").flag();
        if propagation.text() == "Bidirectional" && !privileged {
            let detail =
                "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&propagation, detail);
        }
    }
}

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";

fn probes(container: &At<'_, '_>, role: Role, errors: &mut Errors) {
    for kind in PROBES {
        let probe = container.field(kind);
        if !probe.exists() || role == Role::Ephemeral {
            continue;
        }
        if role == Role::Init {
            errors.forbidden(&probe, NOT_FOR_INIT);
            continue;
        }
        handler(&probe, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
        for field in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            errors.not_negative(&probe.field(field));
        }
        let grace = probe.field("terminationGracePeriodSeconds");
        if kind == "readinessProbe" {
            if grace.exists() {
                errors.invalid(&grace, "must not be set for readinessProbes");
            }
            continue;
        }
        if grace.int().is_some_and(|seconds| seconds <= 0) {
            errors.invalid(&grace, "must be greater than 0");
        }
        let successes = probe.field("successThreshold");
        if successes.int().is_some_and(|count| count != 1) {
            errors.invalid(&successes, "must be 1");
        }
    }
}

fn lifecycle(container: &At<'_, '_>, role: Role, scope: &Scope<'_, '_>, errors: &mut Errors) {
    let lifecycle = container.field("lifecycle");
    if !lifecycle.exists() || role == Role::Ephemeral {
        return;
    }
    if role == Role::Init {
        errors.forbidden(&lifecycle, NOT_FOR_INIT);
        return;
    }
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.field(hook);
        if !hook.exists() {
            continue;
        }
        handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
        let seconds = hook.field("sleep");
        let seconds = seconds.field("seconds");
        let most = scope.grace_period_seconds;
        if seconds.int().is_some_and(|value| !(0..=most).contains(&value)) {
            let detail = format!(
                "must be non-negative and less than terminationGracePeriodSeconds ({most})"
            );
            errors.invalid(&seconds, detail);
        }
    }
}

/// Exactly one way to ask or to tell a container.
fn handler(at: &At<'_, '_>, kinds: &[&'static str], errors: &mut Errors) {
    let given: Vec<&'static str> =
        kinds.iter().copied().filter(|kind| at.field(kind).exists()).collect();
    if given.is_empty() {
        errors.required(at, "must specify a handler type");
    }
    for (place, kind) in given.iter().enumerate() {
        let one = at.field(kind);
        if place > 0 {
            errors.forbidden(&one, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" if one.field("command").count() == 0 => {
                errors.required(&one.field("command"), "");
            }
            "httpGet" => {
                errors.needs_text(&one.field("path"));
                errors.port(&one.field("port"));
                errors.one_of(&one.field("scheme"), &["HTTP", "HTTPS"], true);
                for header in one.field("httpHeaders").items() {
                    let name = header.field("name");
                    errors.invalid_each(&name, rules::is_http_header_name(name.text()));
                }
            }
            "tcpSocket" => errors.port(&one.field("port")),
            "grpc" => match one.field("port").int() {
                Some(_) => errors.port_number(&one.field("port")),
                None => errors.0.push(FieldError::invalid(
                    one.field("port").to_string(),
                    Value::from(0),
                    "must be between 1 and 65535, inclusive",
                )),
            },
            _ => (),
        }
    }
}

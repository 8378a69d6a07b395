//! Environment variables and files that say something of their pod (the downward API), and
//! environments from config maps, secrets and files.

use super::super::{
    field::{At, Errors},
    volume_sources::no_back_steps,
};
use k8s::names as rules;

/// Fields of a pod that its environment may hold.
const IN_ENV: [&str; 9] = [
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
/// Fields of a pod that a file may hold.
const IN_FILES: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// Fields the server knows of at all; another is an error of its own kind.
const KNOWN: [&str; 16] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.host",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SIZES: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// `fieldRef`
pub(crate) fn field(at: &At<'_, '_>, file: bool, errors: &mut Errors) {
    let (version, path) = (at.field("apiVersion"), at.field("fieldPath"));
    if !errors.needs_text(&version) || !errors.needs_text(&path) {
        return;
    }
    let text = path.text();
    if let Some((map, key)) = subscripted(text) {
        match map {
            "metadata.annotations" => {
                for detail in rules::is_qualified_name(&key.to_lowercase()) {
                    errors.invalid_value(at, key.to_lowercase(), detail);
                }
            }
            "metadata.labels" => {
                for detail in rules::is_qualified_name(key) {
                    errors.invalid_value(at, key, detail);
                }
            }
            _ => errors.invalid_value(at, map, "does not support subscript"),
        }
        return;
    }
    if version.text() != "v1" {
        let detail =
            format!("error converting fieldPath: unsupported pod version: {}", version.text());
        return errors.invalid(&path, detail);
    }
    if !KNOWN.contains(&text) {
        let detail = format!("error converting fieldPath: field label not supported: {text}");
        return errors.invalid(&path, detail);
    }
    let good: &[&str] = if file { &IN_FILES } else { &IN_ENV };
    if !good.contains(&text) {
        errors.not_supported(&path, good);
    }
}

/// `metadata.labels['a']` taken apart.
fn subscripted(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    (!map.is_empty()).then_some((map, key))
}

/// `resourceFieldRef`
pub(crate) fn resource(at: &At<'_, '_>, file: bool, errors: &mut Errors) {
    let (container, name) = (at.field("containerName"), at.field("resource"));
    let huge_pages = ["requests.hugepages-", "limits.hugepages-"]
        .into_iter()
        .any(|prefix| name.text().starts_with(prefix));
    if file && container.text().is_empty() {
        errors.required(&container, "");
    } else if errors.needs_text(&name) && !huge_pages && !RESOURCES.contains(&name.text()) {
        errors.not_supported(&name, &RESOURCES);
    }
    let divisor = at.field("divisor");
    let Some(by) = divisor.quantity().filter(|by| !by.is_zero()) else { return };
    let by = by.to_string();
    let (what, good): (&str, &[&str]) = match name.text() {
        "limits.cpu" | "requests.cpu" => ("cpu", &["1m", "1"]),
        "limits.memory" | "requests.memory" => ("memory", &SIZES),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            ("local ephemeral storage", &SIZES)
        }
        _ if huge_pages => ("hugepages", &SIZES),
        _ => return,
    };
    if !good.contains(&by.as_str()) {
        let values = match what {
            "cpu" => "1m and 1".to_string(),
            _ => good.join(", "),
        };
        let detail =
            format!("only divisor's values {values} are supported with the {what} resource");
        errors.invalid_value(&divisor, name.text(), detail);
    }
}

const SOURCES: [&str; 5] =
    ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// `env` of a container.
pub(crate) fn env(container: &At<'_, '_>, errors: &mut Errors) {
    for variable in container.field("env").items() {
        let name = variable.field("name");
        if errors.needs_text(&name) {
            errors.invalid_each(&name, rules::is_env_var_name(name.text()));
        }
        let from = variable.field("valueFrom");
        if !from.exists() {
            continue;
        }
        let given: Vec<&'static str> =
            SOURCES.into_iter().filter(|kind| from.field(kind).exists()).collect();
        for kind in &given {
            let reference = from.field(kind);
            match *kind {
                "fieldRef" => field(&reference, false, errors),
                "resourceFieldRef" => resource(&reference, false, errors),
                "fileKeyRef" => file_key(&reference, errors),
                _ => key(&reference, errors),
            }
        }
        let detail = match given.len() {
            0 => {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
                 `secretKeyRef` or `fileKeyRef`"
            }
            _ if !variable.field("value").text().is_empty() => {
                "may not be specified when `value` is not empty"
            }
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.invalid_value(&from, "", detail);
    }
}

/// A key of a ConfigMap or Secret.
fn key(reference: &At<'_, '_>, errors: &mut Errors) {
    let (name, key) = (reference.field("name"), reference.field("key"));
    for detail in rules::is_dns1123_subdomain(name.text()) {
        errors.invalid_value(&name, name.text(), detail);
    }
    if errors.needs_text(&key) {
        errors.invalid_each(&key, rules::is_config_map_key(key.text()));
    }
}

/// A variable in a file that an init container wrote (KEP-3721).
fn file_key(reference: &At<'_, '_>, errors: &mut Errors) {
    let (key, path) = (reference.field("key"), reference.field("path"));
    if errors.needs_text(&key) {
        errors.invalid_each(&key, rules::is_env_var_name(key.text()));
    }
    errors.needs_label(&reference.field("volumeName"));
    if errors.needs_text(&path) {
        no_back_steps(&path, errors);
    }
}

/// `envFrom` of a container. Upstream tells a wrong count of the list, not of the entry.
pub(crate) fn env_from(container: &At<'_, '_>, errors: &mut Errors) {
    let list = container.field("envFrom");
    for source in list.items() {
        let prefix = source.field("prefix");
        if !prefix.text().is_empty() {
            errors.invalid_each(&prefix, rules::is_env_var_name(prefix.text()));
        }
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            let reference = source.field(kind);
            if reference.exists() {
                count += 1;
                let name = reference.field("name");
                if errors.needs_text(&name) {
                    let masked = rules::mask_trailing_dash(name.text());
                    errors.invalid_each(&name, rules::is_dns1123_subdomain(&masked));
                }
            }
        }
        let detail = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.invalid_value(&list, "", detail);
    }
}

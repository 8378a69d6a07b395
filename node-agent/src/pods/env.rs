//! A container's environment. Pure.

use super::{amount, sources::Sources};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, Pod, ResourceFieldSelector, Secret, Service,
};
use std::collections::BTreeMap;

/// What a pod may ask about itself and its node (`fieldRef`, `resourceFieldRef`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) pod_ip: String,
    pub(crate) host_ip: String,
    /// Stand in for absent limits: millicores and bytes.
    pub(crate) node_cpu_milli: i64,
    pub(crate) node_memory_bytes: i64,
}

/// The variables in the order they are set; later ones win. The error is upstream's text.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    facts: &Facts,
) -> Result<Vec<(String, String)>, String> {
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let mut known: BTreeMap<String, String> = service_variables(&sources.services, links);
    let mut order: Vec<String> = known.keys().cloned().collect();
    let mut set = |known: &mut BTreeMap<String, String>, name: String, value: String| {
        order.retain(|other| *other != name);
        order.push(name.clone());
        known.insert(name, value);
    };
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let pairs = if let Some(map) = &from.config_map_ref {
            let found = sources.config_maps.get(&map.name).and_then(Option::as_ref);
            all_of_config_map(found, &map.name, map.optional)?
        } else if let Some(secret) = &from.secret_ref {
            let found = sources.secrets.get(&secret.name).and_then(Option::as_ref);
            all_of_secret(found, &secret.name, secret.optional)?
        } else {
            Vec::new()
        };
        for (key, value) in pairs {
            set(&mut known, format!("{prefix}{key}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &known)),
            Some(from) => from_source(pod, container, from, sources, facts)?,
        };
        if let Some(value) = value {
            set(&mut known, variable.name.clone(), value);
        }
    }
    Ok(order.into_iter().filter_map(|name| known.remove_entry(&name)).collect())
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

fn all_of_config_map(
    found: Option<&ConfigMap>,
    name: &str,
    optional: Option<bool>,
) -> Result<Vec<(String, String)>, String> {
    match found {
        Some(map) => Ok(map.data.clone().unwrap_or_default().into_iter().collect()),
        None if optional == Some(true) => Ok(Vec::new()),
        None => Err(format!("configmap {name:?} not found")),
    }
}

fn all_of_secret(
    found: Option<&Secret>,
    name: &str,
    optional: Option<bool>,
) -> Result<Vec<(String, String)>, String> {
    match found {
        Some(secret) => Ok(secret
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
            .collect()),
        None if optional == Some(true) => Ok(Vec::new()),
        None => Err(format!("secret {name:?} not found")),
    }
}

/// `None` for an optional key that is not there.
fn from_source(
    pod: &Pod,
    container: &Container,
    from: &EnvVarSource,
    sources: &Sources,
    facts: &Facts,
) -> Result<Option<String>, String> {
    if let Some(field) = &from.field_ref {
        return pod_field(pod, &field.field_path, facts).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_field(pod, Some(container), resource, facts).map(Some);
    }
    if let Some(key) = &from.config_map_key_ref {
        let found = sources.config_maps.get(&key.name).and_then(Option::as_ref);
        let value = found.and_then(|map| map.data.as_ref()?.get(&key.key).cloned());
        return match (value, found) {
            (Some(value), _) => Ok(Some(value)),
            _ if key.optional == Some(true) => Ok(None),
            (None, None) => Err(format!("configmap {:?} not found", key.name)),
            (None, Some(_)) => Err(format!(
                "couldn't find key {} in ConfigMap {}/{}",
                key.key,
                namespace(pod),
                key.name
            )),
        };
    }
    if let Some(key) = &from.secret_key_ref {
        let found = sources.secrets.get(&key.name).and_then(Option::as_ref);
        let value = found.and_then(|secret| secret.data.as_ref()?.get(&key.key));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        return match (value, found) {
            (Some(value), _) => Ok(Some(value)),
            _ if key.optional == Some(true) => Ok(None),
            (None, None) => Err(format!("secret {:?} not found", key.name)),
            (None, Some(_)) => Err(format!(
                "couldn't find key {} in Secret {}/{}",
                key.key,
                namespace(pod),
                key.name
            )),
        };
    }
    Err("this source of a variable is not supported".to_string())
}

/// The fields of the downward API, for variables and volumes.
pub(crate) fn pod_field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(text(map.as_ref().and_then(|map| map.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"` lines, as a downward API volume has labels and annotations.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// `requests.cpu`, `limits.memory`, … in units of the divisor, rounded up.
pub(crate) fn resource_field(
    pod: &Pod,
    container: Option<&Container>,
    field: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, String> {
    let named = field.container_name.as_ref().and_then(|name| {
        let spec = pod.spec.as_ref()?;
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.into_iter().find(|container| container.name == *name)
    });
    let container = named.or(container).ok_or("container not found")?;
    let (kind, resource) = field
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", field.resource))?;
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|all| all.limits.as_ref()?.get(resource));
    let amount = match kind {
        "limits" => limit,
        "requests" => resources.and_then(|all| all.requests.as_ref()?.get(resource)),
        _ => return Err(format!("unsupported container resource : {}", field.resource)),
    };
    let milli = match (amount, resource) {
        (Some(quantity), _) => amount::milli(quantity)?,
        (None, "cpu") if kind == "limits" => i128::from(facts.node_cpu_milli),
        (None, "memory") if kind == "limits" => i128::from(facts.node_memory_bytes) * 1000,
        (None, _) => 0,
    };
    let divisor = match &field.divisor {
        Some(quantity) if amount::milli(quantity)? > 0 => amount::milli(quantity)?,
        _ => 1000,
    };
    Ok(milli.div_ceil_compat(divisor).to_string())
}

/// Rounding up of non-negative numbers.
trait DivCeil {
    fn div_ceil_compat(self, divisor: Self) -> Self;
}

impl DivCeil for i128 {
    fn div_ceil_compat(self, divisor: i128) -> i128 {
        (self + divisor - 1) / divisor
    }
}

/// `$(NAME)` becomes the value of a known variable, `$$` a dollar; anything else stays.
pub(crate) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match known.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

/// `NAME_SERVICE_HOST` and Docker-link style variables of services with a cluster IP; without
/// `links` only those of the `kubernetes` service.
fn service_variables(services: &[Service], links: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let meta = &service.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let master = name == "kubernetes" && meta.namespace.as_deref() == Some("default");
        let Some(spec) = service.spec.as_ref().filter(|_| links || master) else { continue };
        let Some(ip) = spec.cluster_ip.as_ref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let prefix = name.to_uppercase().replace('-', "_");
        let ports = spec.ports.as_deref().unwrap_or_default();
        let mut set = |name: String, value: String| variables.insert(name, value);
        set(format!("{prefix}_SERVICE_HOST"), ip.clone());
        for (number, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
            if number == 0 {
                set(format!("{prefix}_SERVICE_PORT"), port.port.to_string());
                set(format!("{prefix}_PORT"), url.clone());
            }
            if let Some(name) = port.name.as_ref().filter(|name| !name.is_empty()) {
                let name = name.to_uppercase().replace('-', "_");
                set(format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string());
            }
            let one = format!("{prefix}_PORT_{}_{protocol}", port.port);
            set(format!("{one}_PROTO"), protocol.to_lowercase());
            set(format!("{one}_PORT"), port.port.to_string());
            set(format!("{one}_ADDR"), ip.clone());
            set(one, url);
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(container: serde_json::Value) -> Result<String, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": []},
        }))
        .unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let map =
            serde_json::from_value(json!({"data": {"colour": "red", "size": "big"}})).unwrap();
        let secret = serde_json::from_value(json!({"data": {"key": "czNjcmV0"}})).unwrap();
        let service = json!({
            "metadata": {"name": "my-db", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "sql", "port": 5432}]},
        });
        let sources = Sources {
            config_maps: [("settings".to_string(), Some(map)), ("none".to_string(), None)].into(),
            secrets: [("keys".to_string(), Some(secret))].into(),
            services: vec![serde_json::from_value(service).unwrap()],
            ..Sources::default()
        };
        let facts = Facts {
            pod_ip: "10.244.1.2".into(),
            host_ip: "10.90.0.21".into(),
            node_cpu_milli: 2000,
            node_memory_bytes: 1 << 30,
        };
        let list = environment(&pod, &container, &sources, &facts)?;
        let list = list.into_iter().filter(|(name, _)| !name.starts_with("MY_DB_PORT"));
        Ok(list.map(|(name, value)| format!("{name}={value}\n")).collect())
    }

    #[test]
    fn variables_from_everywhere() {
        let text = check(json!({
            "name": "app",
            "resources": {"limits": {"cpu": "1500m"}},
            "envFrom": [{"prefix": "S_", "configMapRef": {"name": "settings"}},
                        {"secretRef": {"name": "absent", "optional": true}}],
            "env": [
                {"name": "PLAIN", "value": "a$(S_colour)b$(NOPE)$$(S_size)"},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}},
                {"name": "GONE", "valueFrom":
                    {"configMapKeyRef": {"name": "none", "key": "x", "optional": true}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "MEM", "valueFrom":
                    {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "DB", "value": "$(MY_DB_SERVICE_HOST):$(MY_DB_SERVICE_PORT)"},
            ],
        }));
        insta::assert_snapshot!(text.unwrap());
    }

    #[test]
    fn what_is_missing_is_named() {
        let one = |from| check(json!({"name": "app", "env": [{"name": "A", "valueFrom": from}]}));
        let error = one(json!({"configMapKeyRef": {"name": "none", "key": "x"}}));
        assert_eq!(error.unwrap_err(), "configmap \"none\" not found");
        let error = one(json!({"secretKeyRef": {"name": "keys", "key": "x"}}));
        assert_eq!(error.unwrap_err(), "couldn't find key x in Secret shop/keys");
        let error = check(json!({"name": "app", "envFrom": [{"secretRef": {"name": "s"}}]}));
        assert_eq!(error.unwrap_err(), "secret \"s\" not found");
    }
}

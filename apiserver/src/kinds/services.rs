//! Services: one address for many pods.

use super::{
    Column, KindDef, NameRule, SelectableField, Subresource,
    common::{
        self, child, children,
        field::{At, Errors},
        labels, print, set_default, set_text,
    },
};
use k8s::{FieldError, Object, names};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub(super) const KIND: KindDef = KindDef {
    kind: "Service",
    plural: "services",
    short_names: &["svc"],
    categories: &["all"],
    schema: "core.v1.Service",
    subresources: &[
        Subresource::Status,
        Subresource::Named {
            name: "proxy",
            schema: "core.v1.ServiceProxyOptions",
            verbs: &["create", "delete", "get", "patch", "update"],
        },
    ],
    columns: &[
        Column::NAME,
        Column::text("Type", |o, _| print::text(o, "/spec/type")),
        Column::text("Cluster-IP", |o, _| cluster_ip(o)),
        Column::text("External-IP", |o, _| external_ip(o)),
        Column::text("Port(s)", |o, _| ports(o)),
        Column::AGE,
        Column::text("Selector", |o, _| print::labels(o.at("/spec/selector")).into()).wide(),
    ],
    selectable: &[
        SelectableField::text("spec.clusterIP", |o| o.str_at("/spec/clusterIP").to_string()),
        SelectableField::text("spec.type", |o| o.str_at("/spec/type").to_string()),
    ],
    name: NameRule::Rfc1035Label,
    create_on_update: true,
    default,
    prepare_create: common::drop_status,
    prepare_update,
    validate,
    validate_status,
    warnings,
    ..KindDef::BASE
};

fn cluster_ip(service: &Object) -> Value {
    print::text_or_none(service, "/spec/clusterIPs/0")
}

fn external_ip(service: &Object) -> Value {
    let given: Vec<&str> =
        print::list(service, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match service.str_at("/spec/type") {
        "LoadBalancer" => {
            let ingress = print::load_balancer(service);
            let mut all: Vec<&str> = vec![ingress.as_str().unwrap_or_default()];
            all.retain(|address| !address.is_empty());
            all.extend(given);
            if all.is_empty() { "<pending>".into() } else { all.join(",").into() }
        }
        "ExternalName" => service.str_at("/spec/externalName").into(),
        _ if given.is_empty() => "<none>".into(),
        _ => given.join(",").into(),
    }
}

/// `80:30080/TCP,443/TCP`
fn ports(service: &Object) -> Value {
    let shown = print::list(service, "/spec/ports").iter().map(|port| {
        let protocol = print::field(port, "protocol");
        let number = print::scalar(port.get("port"), "0");
        match port.get("nodePort").and_then(Value::as_i64) {
            Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { "<none>".into() } else { shown.join(",").into() }
}

/// Addresses and node ports themselves are given out by the core, in the same transaction.
fn default(service: &mut Object) {
    let spec = service.map_mut("spec");
    set_text(spec, "sessionAffinity", "None");
    set_text(spec, "type", "ClusterIP");
    session_affinity(spec);
    for port in children(spec, "ports") {
        set_text(port, "protocol", "TCP");
        let unset = port.get("targetPort").is_none_or(|target| {
            target.is_null() || target.as_i64() == Some(0) || target.as_str() == Some("")
        });
        if unset {
            let same = port.get("port").cloned().unwrap_or(Value::Null);
            port.insert("targetPort".into(), same);
        }
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_string();
    let outside = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && outside) {
        set_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        families(spec);
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
        let balancer = child(&mut service.0, "status").and_then(|s| child(s, "loadBalancer"));
        for ingress in balancer.into_iter().flat_map(|balancer| children(balancer, "ingress")) {
            if ingress.get("ip").and_then(Value::as_str).is_some_and(|ip| !ip.is_empty()) {
                set_text(ingress, "ipMode", "VIP");
            }
        }
    }
}

/// Three hours on one pod, unless the client says how long.
fn session_affinity(spec: &mut Map<String, Value>) {
    match spec["sessionAffinity"].as_str() {
        Some("None") => _ = spec.remove("sessionAffinityConfig"),
        Some("ClientIP") => {
            let config = spec.get("sessionAffinityConfig");
            let said = config.and_then(|config| config.pointer("/clientIP/timeoutSeconds"));
            if said.is_none_or(Value::is_null) {
                let config = json!({ "clientIP": { "timeoutSeconds": 10800 } });
                spec.insert("sessionAffinityConfig".into(), config);
            }
        }
        _ => (),
    }
}

/// The cluster has one family, IPv4. A headless service without selector may be of both, as its
/// endpoints are the user's.
fn families(spec: &mut Map<String, Value>) {
    let ip = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_string();
    if !ip.is_empty() {
        let empty = spec.get("clusterIPs").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if empty {
            spec.insert("clusterIPs".into(), json!([ip]));
        }
    }
    let selects = child(spec, "selector").is_some_and(|selector| !selector.is_empty());
    let both = ip == "None" && !selects;
    set_text(spec, "ipFamilyPolicy", if both { "RequireDualStack" } else { "SingleStack" });
    let unset = spec.get("ipFamilies").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if unset {
        let v6_first = ip.contains(':');
        let single = if v6_first { json!(["IPv6"]) } else { json!(["IPv4"]) };
        let dual = both && spec["ipFamilyPolicy"] != "SingleStack";
        spec.insert("ipFamilies".into(), if dual { json!(["IPv4", "IPv6"]) } else { single });
    }
}

/// What the server gave out stays, unless the client says otherwise.
fn prepare_update(new: &mut Object, old: &Object) {
    common::keep_status(new, old);
    let needs_address = |service: &Object| service.str_at("/spec/type") != "ExternalName";
    if needs_address(new) && needs_address(old) && new.str_at("/spec/clusterIP").is_empty() {
        let spec = new.map_mut("spec");
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.at("/spec").and_then(|spec| spec.get(field)) {
                let empty = spec.get(field).and_then(Value::as_array).is_none_or(Vec::is_empty);
                if empty {
                    spec.insert(field.into(), value.clone());
                }
            }
        }
    }
    let node_ports =
        |service: &Object| matches!(service.str_at("/spec/type"), "NodePort" | "LoadBalancer");
    if node_ports(new) && node_ports(old) {
        keep_node_ports(new, old);
    }
    if needs_health_port(new) && needs_health_port(old) {
        let given = old.at("/spec/healthCheckNodePort").cloned().unwrap_or(Value::Null);
        let spec = new.map_mut("spec");
        if spec.get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0) == 0 {
            spec.insert("healthCheckNodePort".into(), given);
        }
    }
}

/// A port without a number of the node has the one its name had, if no other port took it.
fn keep_node_ports(new: &mut Object, old: &Object) {
    let number = |port: &Value| port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
    let given = print::list(old, "/spec/ports");
    let used: BTreeSet<i64> = print::list(new, "/spec/ports").iter().map(number).collect();
    for port in children(new.map_mut("spec"), "ports") {
        if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 {
            continue;
        }
        let name = port.get("name").and_then(Value::as_str).unwrap_or_default();
        let had =
            given.iter().filter(|old| print::field(old, "name") == name).map(number).next_back();
        if let Some(had) = had.filter(|had| *had != 0 && !used.contains(had)) {
            port.insert("nodePort".into(), had.into());
        }
    }
}

/// A balancer that has to know which nodes have a pod asks them at a port of its own.
fn needs_health_port(service: &Object) -> bool {
    service.str_at("/spec/type") == "LoadBalancer"
        && service.str_at("/spec/externalTrafficPolicy") == "Local"
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    if let Some(old) = old {
        let was = At::top(old, "spec");
        addresses_stay(&spec, &was, &mut errors);
        families_stay(&spec, &was, &mut errors);
        balancer_stays(new, old, &mut errors);
    }
    topology(new, &mut errors);
    let kind = spec.field("type");
    let ports = spec.field("ports");
    if ports.count() == 0 && !headless(&spec) && kind.text() != "ExternalName" {
        errors.required(&ports, "");
    }
    of_type(&spec, &mut errors);
    validate_ports(&spec, &mut errors);
    labels::validate_labels(&spec.field("selector"), &mut errors);
    affinity(&spec, &mut errors);
    if kind.text() != "ExternalName" {
        addresses(&spec, old, &mut errors);
    }
    external_ips(&spec, old, &mut errors);
    errors.one_of(&kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], true);
    port_numbers(&spec, &mut errors);
    balancer(new, old, &mut errors);
    policies(new, &mut errors);
    errors.0
}

fn headless(spec: &At<'_, '_>) -> bool {
    let ips = spec.field("clusterIPs");
    ips.count() == 1 && ips.has("None")
}

fn topology(service: &Object, errors: &mut Errors) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let metadata = At::top(service, "metadata");
    let annotations = metadata.field("annotations");
    let (hints, mode) = (annotations.key(HINTS), annotations.key(MODE));
    if hints.exists() && mode.exists() && hints.text() != mode.text() {
        let detail = format!("must match annotations[{HINTS}] when both are specified");
        errors.invalid(&mode, detail);
    }
}

fn of_type(spec: &At<'_, '_>, errors: &mut Errors) {
    let (ips, name) = (spec.field("clusterIPs"), spec.field("externalName"));
    match spec.field("type").text() {
        kind @ ("LoadBalancer" | "NodePort") if headless(spec) => {
            let first = ips.index(0);
            errors.invalid(&first, format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let at = spec.field(field);
                if at.count() > 0 || !at.text().is_empty() {
                    errors.forbidden(&at, "may not be set for ExternalName services");
                }
            }
            match name.text().strip_suffix('.').unwrap_or(name.text()) {
                "" => errors.required(&name, ""),
                text => names::is_dns1123_subdomain(text)
                    .into_iter()
                    .for_each(|detail| errors.invalid_value(&name, text, detail)),
            }
        }
        _ => (),
    }
}

fn validate_ports(spec: &At<'_, '_>, errors: &mut Errors) {
    let ports = spec.field("ports");
    let mut taken = BTreeSet::new();
    for port in ports.items() {
        let (name, number) = (port.field("name"), port.field("port"));
        match name.text() {
            "" if ports.count() > 1 => errors.required(&name, ""),
            "" => (),
            text => {
                errors.label(&name);
                if !taken.insert(text) {
                    errors.duplicate(&name);
                }
            }
        }
        errors.port(&number);
        errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"], true);
        errors.port(&port.field("targetPort"));
        let protocol = port.field("appProtocol");
        if protocol.exists() {
            errors.qualified_name(&protocol);
        }
    }
}

/// Ports of the node and of the service, each of them once.
fn port_numbers(spec: &At<'_, '_>, errors: &mut Errors) {
    let ports = spec.field("ports");
    let (mut node_ports, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let wanted = |port: &At<'_, '_>| port.field("nodePort").int().unwrap_or(0);
    for port in ports.items() {
        if wanted(&port) != 0 && spec.field("type").text() == "ClusterIP" {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.forbidden(&port.field("nodePort"), detail);
        }
    }
    for port in ports.items() {
        let protocol = port.field("protocol").text();
        if wanted(&port) != 0 && !node_ports.insert((wanted(&port), protocol)) {
            errors.duplicate(&port.field("nodePort"));
        }
    }
    for port in ports.items() {
        let (number, protocol) = (port.field("port").int(), port.field("protocol").text());
        if !numbers.insert((number, protocol)) {
            errors.duplicate_value(&port, json!({ "port": number, "protocol": protocol }));
        }
    }
}

/// Upstream's `MaxClientIPServiceAffinitySeconds`: a day.
const AFFINITY_SECONDS_MAX: i64 = 86400;

fn affinity(spec: &At<'_, '_>, errors: &mut Errors) {
    const WHEN: &str = "when session affinity type is ClientIP";
    let affinity = spec.field("sessionAffinity");
    errors.one_of(&affinity, &["ClientIP", "None"], true);
    let config = spec.field("sessionAffinityConfig");
    if affinity.text() == "None" && config.exists() {
        errors.forbidden(&config, "must not be set when session affinity is None");
    }
    if affinity.text() != "ClientIP" {
        return;
    }
    let client = config.field("clientIP");
    let seconds = client.field("timeoutSeconds");
    if let Some(absent) = [&config, &client, &seconds].into_iter().find(|at| !at.exists()) {
        errors.required(absent, WHEN);
    } else if !seconds.int().is_some_and(|value| (1..=AFFINITY_SECONDS_MAX).contains(&value)) {
        let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        errors.invalid(&seconds, detail);
    }
}

fn addresses(spec: &At<'_, '_>, old: Option<&Object>, errors: &mut Errors) {
    let (ip, ips) = (spec.field("clusterIP"), spec.field("clusterIPs"));
    let first = ips.texts().next().unwrap_or_default();
    match (ip.text(), ips.count()) {
        ("", 0) => (),
        ("", _) => errors.invalid(&ips, "must be empty when `clusterIP` is not specified"),
        (_, 0) => errors.required(&ips, ""),
        (one, _) if one != first => errors.invalid(&ips, "first value must match `clusterIP`"),
        _ => (),
    }
    family_names(spec, errors);
    let kept: Vec<&str> = old.map_or(Vec::new(), |old| {
        print::list(old, "/spec/clusterIPs").iter().filter_map(Value::as_str).collect()
    });
    let before = errors.0.len();
    for (place, at) in ips.items().enumerate() {
        if place > 0 || at.text() != "None" {
            errors.legacy_ip(&at, &kept);
        } else if ips.count() > 1 {
            errors.invalid(&ips, "'None' must be the first and only value");
        }
    }
    if ips.count() > 2 {
        errors.invalid(&ips, "may only hold up to 2 values");
    }
    if errors.0.len() > before {
        return;
    }
    let (v6, v4): (Vec<&str>, Vec<&str>) = ips.texts().partition(|ip| ip.contains(':'));
    if ips.count() > 1 && (v6.len() != 1 || v4.len() != 1) {
        errors.invalid(&ips, "may specify no more than one IP for each IP family");
    }
    let families = spec.field("ipFamilies");
    for (place, (at, family)) in ips.items().zip(families.texts()).enumerate() {
        let is_v6 = at.text().contains(':');
        if at.text() != "None" && matches!(family, "IPv4" | "IPv6") && is_v6 != (family == "IPv6") {
            let detail =
                format!("expected an {family} value as indicated by `ipFamilies[{place}]`");
            errors.invalid(&at, detail);
        }
    }
}

fn family_names(spec: &At<'_, '_>, errors: &mut Errors) {
    let (families, policy) = (spec.field("ipFamilies"), spec.field("ipFamilyPolicy"));
    let mut seen = BTreeSet::new();
    let before = errors.0.len();
    for family in families.items() {
        if !matches!(family.text(), "IPv4" | "IPv6") {
            errors.not_supported(&family, &["IPv4", "IPv6"]);
        }
        if !seen.insert(family.text()) {
            errors.duplicate(&family);
        }
    }
    errors.one_of(&policy, &["PreferDualStack", "RequireDualStack", "SingleStack"], false);
    let own_endpoints = headless(spec) && spec.field("selector").count() == 0;
    if errors.0.len() > before || own_endpoints {
        return;
    }
    // What this cluster cannot give.
    if policy.text() == "RequireDualStack" {
        errors.invalid(&policy, "this cluster is not configured for dual-stack services");
    }
    for family in families.items().filter(|family| family.text() == "IPv6") {
        errors.invalid(&family, "not configured on this cluster");
    }
}

fn external_ips(spec: &At<'_, '_>, old: Option<&Object>, errors: &mut Errors) {
    let kept: Vec<&str> = old.map_or(Vec::new(), |old| {
        print::list(old, "/spec/externalIPs").iter().filter_map(Value::as_str).collect()
    });
    for ip in spec.field("externalIPs").items() {
        let before = errors.0.len();
        errors.legacy_ip(&ip, &kept);
        if errors.0.len() == before {
            errors.endpoint_ip(&ip);
        }
    }
}

const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";

fn balancer(service: &Object, old: Option<&Object>, errors: &mut Errors) {
    let spec = At::top(service, "spec");
    let balanced = spec.field("type").text() == "LoadBalancer";
    let kept: Vec<&str> = old.map_or(Vec::new(), |old| {
        let ranges = print::list(old, "/spec/loadBalancerSourceRanges").iter();
        ranges.filter_map(Value::as_str).map(str::trim).collect()
    });
    // Upstream's path begins with a capital.
    let ranges = spec.field("loadBalancerSourceRanges").renamed("LoadBalancerSourceRanges");
    let metadata = At::top(service, "metadata");
    let annotations = metadata.field("annotations");
    let annotated = annotations.key(RANGES);
    if ranges.count() > 0 {
        if !balanced {
            errors.forbidden(&ranges, ONLY_BALANCED);
        }
        ranges.items().for_each(|range| errors.legacy_cidr(&range, &kept));
    } else if annotated.exists() {
        if !balanced {
            errors.forbidden(&annotated, ONLY_BALANCED);
        }
        let same = old.is_some_and(|old| old.annotation(RANGES) == Some(annotated.text()));
        let list = annotated.text().trim();
        for range in list.split(',').filter(|_| !same && !list.is_empty()) {
            errors.legacy_cidr_text(&annotated, range.trim());
        }
    }
    let allocate = spec.field("allocateLoadBalancerNodePorts");
    if allocate.exists() && !balanced {
        errors.forbidden(&allocate, ONLY_BALANCED);
    }
    let class = spec.field("loadBalancerClass");
    if class.exists() && balanced {
        errors.qualified_name(&class);
    } else if class.exists() {
        errors.forbidden(&class, ONLY_BALANCED);
    }
}

fn policies(service: &Object, errors: &mut Errors) {
    let spec = At::top(service, "spec");
    let kind = spec.field("type").text();
    let external = spec.field("externalTrafficPolicy");
    let reachable = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && spec.field("externalIPs").count() > 0);
    if !reachable && !external.text().is_empty() {
        errors.invalid(&external, "may only be set for externally-accessible services");
    } else if reachable {
        errors.one_of(&external, &["Cluster", "Local"], true);
    }
    let health = spec.field("healthCheckNodePort");
    match (needs_health_port(service), health.int().unwrap_or(0)) {
        (false, 0) => (),
        (false, _) => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&health, detail);
        }
        (true, 0) => errors.required(&health, ""),
        (true, _) => errors.port_number(&health),
    }
    let inside = matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer");
    let internal = spec.field("internalTrafficPolicy");
    errors.one_of(&internal, &["Cluster", "Local"], inside);
    let distribution = spec.field("trafficDistribution");
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if distribution.exists() && !known.contains(&distribution.text()) {
        errors.not_supported(&distribution, &known);
    }
}

const ONCE: &str = "may not change once set";

/// The first address is for ever; a second may come and go.
fn addresses_stay(spec: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    let outside = [spec, was].iter().any(|spec| spec.field("type").text() == "ExternalName");
    if outside || (headless(spec) && headless(was)) {
        return;
    }
    let (ips, had) = (spec.field("clusterIPs"), was.field("clusterIPs"));
    let at = |place: usize| format!("{ips}[{place}]");
    let mut changed = |place: usize, detail: &str| {
        errors.0.push(FieldError::invalid(at(place), ips.owned(), detail));
    };
    if had.count() == ips.count() {
        for (place, (now, before)) in ips.texts().zip(had.texts()).enumerate() {
            if now != before {
                changed(place, ONCE);
            }
        }
        return;
    }
    match (had.texts().next(), ips.texts().next()) {
        (Some(_), None) => changed(0, "primary clusterIP can not be unset"),
        (Some(before), Some(now)) if now != before => changed(0, ONCE),
        _ => (),
    }
    let policy = spec.field("ipFamilyPolicy");
    if had.count() > ips.count() && ips.count() == 1 && policy.text() != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.invalid(&policy, detail);
    }
}

fn families_stay(spec: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    let outside = [spec, was].iter().any(|spec| spec.field("type").text() == "ExternalName");
    if outside || headless(spec) || headless(was) {
        return;
    }
    let (families, had) = (spec.field("ipFamilies"), was.field("ipFamilies"));
    let changed = families.texts().zip(had.texts()).any(|(now, before)| now != before);
    let only_first = families.texts().next() != had.texts().next();
    if (families.count() == had.count() && changed) || (families.count() > 0 && only_first) {
        let first = families.index(0);
        errors.invalid_value(&first, families.owned(), ONCE);
    }
    let policy = spec.field("ipFamilyPolicy");
    if had.count() > families.count() && families.count() == 1 && policy.text() != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        errors.invalid(&policy, detail);
    }
}

fn balancer_stays(new: &Object, old: &Object, errors: &mut Errors) {
    let (spec, was) = (At::top(new, "spec"), At::top(old, "spec"));
    let both = [&spec, &was].iter().all(|spec| spec.field("type").text() == "LoadBalancer");
    let (class, had) = (spec.field("loadBalancerClass"), was.field("loadBalancerClass"));
    if both && class.value() != had.value() {
        errors.invalid(&class, ONCE);
    }
    let (port, had) = (spec.field("healthCheckNodePort"), was.field("healthCheckNodePort"));
    if needs_health_port(new) && needs_health_port(old) && port.value() != had.value() {
        errors.forbidden(&port, "field is immutable");
    }
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    let balancer = status.field("loadBalancer");
    let ingress = balancer.field("ingress");
    if new.str_at("/spec/type") != "LoadBalancer" && ingress.count() > 0 {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        errors.forbidden(&ingress, detail);
        return errors.0;
    }
    let kept: Vec<&str> = print::list(old, "/status/loadBalancer/ingress")
        .iter()
        .map(|ingress| print::field(ingress, "ip"))
        .collect();
    for entry in ingress.items() {
        let (ip, mode, host) = (entry.field("ip"), entry.field("ipMode"), entry.field("hostname"));
        let has_ip = !ip.text().is_empty();
        if has_ip {
            errors.legacy_ip(&ip, &kept);
        }
        match (mode.exists(), has_ip) {
            (false, true) => errors.required(&mode, "must be specified when `ip` is set"),
            (true, false) => {
                errors.forbidden(&mode, "may not be specified when `ip` is not set");
            }
            (true, true) => errors.one_of(&mode, &["Proxy", "VIP"], true),
            (false, false) => (),
        }
        if !host.text().is_empty() {
            errors.subdomain(&host);
            if host.text().parse::<std::net::IpAddr>().is_ok() {
                errors.invalid(&host, "must be a DNS name, not an IP address");
            }
        }
    }
    errors.0
}

fn warnings(new: &Object, _: Option<&Object>) -> Vec<String> {
    let spec = At::top(new, "spec");
    let text = |field: &'static str| spec.field(field).text();
    let mut warnings = Vec::new();
    if new.annotation("service.kubernetes.io/topology-aware-hints").is_some() {
        warnings.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead"
                .into(),
        );
    }
    let outside = spec.field("externalIPs").count() > 0;
    let alone = text("type") == "ClusterIP" && text("clusterIP") == "None";
    for (set, what) in [
        (!text("loadBalancerIP").is_empty(), "spec.loadBalancerIP"),
        (outside, "spec.externalIPs"),
        (text("sessionAffinity") != "None", "spec.SessionAffinity"),
    ] {
        if alone && set {
            warnings.push(format!("{what} is ignored for headless services"));
        }
    }
    for list in ["clusterIPs", "externalIPs"] {
        warnings.extend(spec.field(list).items().filter_map(|ip| common::warn_ip(&ip)));
    }
    if outside && !alone && text("type") != "ExternalName" {
        let text = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        warnings.push(text.into());
    }
    warnings.extend(common::warn_ip(&spec.field("loadBalancerIP")));
    if text("type") == "ExternalName" && outside {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if text("type") != "ExternalName" && !text("externalName").is_empty() {
        let text = "spec.externalName is ignored when spec.type is not \"ExternalName\"";
        warnings.push(text.into());
    }
    if text("trafficDistribution") == "PreferClose" {
        let text = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        warnings.push(text.into());
    }
    warnings
}

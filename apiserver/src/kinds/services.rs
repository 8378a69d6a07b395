//! Services: one address for many pods.

use super::{
    Column, KindDef, NameRule, SelectableField, Subresource,
    common::{
        self, child, children,
        field::{At, Errors},
        labels, made, print, set_default, set_text,
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
    default,
    prepare_create: common::drop_status,
    prepare_update,
    validate,
    ..KindDef::BASE
};

fn cluster_ip(service: &Object) -> Value {
    print::text_or_none(service, "/spec/clusterIP")
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
    if spec["sessionAffinity"] == "ClientIP" {
        let config =
            made(spec, "sessionAffinityConfig").and_then(|config| made(config, "clientIP"));
        if let Some(config) = config {
            set_default(config, "timeoutSeconds", 10800);
        }
    }
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
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        set_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
    if kind != "ExternalName" {
        set_text(spec, "internalTrafficPolicy", "Cluster");
        families(spec);
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
        let dual = spec["ipFamilyPolicy"] == "RequireDualStack" && both;
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
    if !node_ports(new) || !node_ports(old) {
        return;
    }
    let given = print::list(old, "/spec/ports");
    for port in children(new.map_mut("spec"), "ports") {
        if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 {
            continue;
        }
        let same = |old: &&Value| {
            old.get("port") == port.get("port") && old.get("protocol") == port.get("protocol")
        };
        if let Some(number) = given.iter().find(same).and_then(|old| old.get("nodePort")) {
            port.insert("nodePort".into(), number.clone());
        }
    }
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let kind = spec.field("type");
    let headless = spec.field("clusterIP").text() == "None";
    let ports = spec.field("ports");
    if ports.count() == 0 && !headless && kind.text() != "ExternalName" {
        errors.required(&ports, "");
    }
    errors.one_of(&kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], true);
    external_name(&spec, &mut errors);
    validate_ports(&spec, &mut errors);
    labels::validate_labels(&spec.field("selector"), &mut errors);
    affinity(&spec, &mut errors);
    addresses(&spec, &mut errors);
    policies(&spec, &mut errors);
    if let Some(old) = old {
        let was = At::top(old, "spec");
        let had = was.field("clusterIP").text();
        let now = spec.field("clusterIP").text();
        let both_have = was.field("type").text() != "ExternalName" && kind.text() != "ExternalName";
        if both_have && !had.is_empty() && had != now {
            let path = "spec.clusterIPs[0]";
            errors.0.push(FieldError::invalid(path, now.into(), "may not change once set"));
        }
    }
    errors.0
}

fn external_name(spec: &At<'_, '_>, errors: &mut Errors) {
    if spec.field("type").text() != "ExternalName" {
        return;
    }
    let (ips, name) = (spec.field("clusterIPs"), spec.field("externalName"));
    if ips.count() > 0 || !spec.field("clusterIP").text().is_empty() {
        errors.forbidden(&ips, "may not be set for ExternalName services");
    }
    match name.text().trim_end_matches('.') {
        "" => errors.required(&name, ""),
        text => errors.invalid_each(&name, names::is_dns1123_subdomain(text)),
    }
}

fn validate_ports(spec: &At<'_, '_>, errors: &mut Errors) {
    let ports = spec.field("ports");
    let (mut taken, mut numbers, mut node_ports) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let kind = spec.field("type").text();
    for port in ports.items() {
        let (name, number) = (port.field("name"), port.field("port"));
        match name.text() {
            "" if ports.count() > 1 => errors.required(&name, ""),
            "" => (),
            text => {
                errors.invalid_each(&name, names::is_dns1123_label(text));
                if !taken.insert(text) {
                    errors.duplicate(&name);
                }
            }
        }
        errors.port(&number);
        errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"], true);
        errors.port(&port.field("targetPort"));
        let protocol = port.field("appProtocol");
        if !protocol.text().is_empty() {
            errors.invalid_each(&protocol, names::is_qualified_name(protocol.text()));
        }
        let transport = port.field("protocol").text();
        if !numbers.insert((number.int(), transport)) {
            let value = json!({ "port": number.int(), "protocol": transport });
            errors.duplicate_value(&port, value);
        }
        let node_port = port.field("nodePort");
        let wanted = node_port.int().unwrap_or(0);
        if wanted != 0 && kind == "ClusterIP" {
            errors.forbidden(&node_port, "may not be used when `type` is 'ClusterIP'");
        }
        if wanted != 0 && !node_ports.insert((wanted, transport)) {
            errors.duplicate(&node_port);
        }
    }
}

fn affinity(spec: &At<'_, '_>, errors: &mut Errors) {
    let affinity = spec.field("sessionAffinity");
    errors.one_of(&affinity, &["ClientIP", "None"], true);
    let config = spec.field("sessionAffinityConfig");
    if affinity.text() == "None" && config.exists() {
        let detail = "must not be set when session affinity is None";
        errors.forbidden(&config, detail);
    }
    let client = config.field("clientIP");
    let seconds = client.field("timeoutSeconds");
    let good = |seconds: i64| (1..=86400).contains(&seconds);
    if affinity.text() == "ClientIP" && !seconds.int().is_some_and(good) {
        let detail = "must be greater than 0 and less than 86400";
        errors.invalid(&seconds, detail);
    }
}

fn addresses(spec: &At<'_, '_>, errors: &mut Errors) {
    let kind = spec.field("type").text();
    let (ip, ips) = (spec.field("clusterIP"), spec.field("clusterIPs"));
    let first = ips.items().next();
    if first.as_ref().is_some_and(|first| first.text() != ip.text()) {
        errors.invalid(&ips, "first value must match `clusterIP`");
    }
    for (place, at) in ips.items().enumerate() {
        match at.text() {
            "None" if place > 0 || ips.count() > 1 => {
                errors.invalid(&ips, "'None' must be the first and only value");
            }
            "None" if matches!(kind, "NodePort" | "LoadBalancer") => {
                errors.invalid(&at, format!("may not be set to 'None' for {kind} services"));
            }
            "None" => (),
            text => errors.invalid_each(&at, names::is_ip(text)),
        }
    }
    for ip in spec.field("externalIPs").items() {
        errors.invalid_each(&ip, names::is_ip(ip.text()));
    }
    let mut seen = BTreeSet::new();
    for family in spec.field("ipFamilies").items() {
        if !matches!(family.text(), "IPv4" | "IPv6") {
            errors.not_supported(&family, &["IPv4", "IPv6"]);
        } else if !seen.insert(family.text()) {
            errors.duplicate(&family);
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    errors.one_of(&spec.field("ipFamilyPolicy"), &policies, false);
}

fn policies(spec: &At<'_, '_>, errors: &mut Errors) {
    let external = spec.field("externalTrafficPolicy");
    let reachable = matches!(spec.field("type").text(), "NodePort" | "LoadBalancer");
    if !reachable && !external.text().is_empty() && spec.field("externalIPs").count() == 0 {
        errors.invalid(&external, "may only be set for externally-accessible services");
    } else if reachable {
        errors.one_of(&external, &["Cluster", "Local"], true);
    }
    errors.one_of(&spec.field("internalTrafficPolicy"), &["Cluster", "Local"], false);
    for range in spec.field("loadBalancerSourceRanges").items() {
        errors.invalid_each(&range, names::is_cidr(range.text().trim()));
    }
}

//! EndpointSlices: where the pods of a service listen.

use super::{
    Column, KindDef,
    common::{
        children,
        field::{At, Errors},
        labels, print, set_default, set_text, warn_ip,
    },
};
use k8s::{FieldError, Object, names};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) const KIND: KindDef = KindDef {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    schema: "discovery.v1.EndpointSlice",
    columns: &[
        Column::NAME,
        Column::text("AddressType", |o, _| print::text(o, "/addressType")),
        Column::text("Ports", |o, _| ports(o)),
        Column::text("Endpoints", |o, _| addresses(o)),
        Column::AGE,
    ],
    generation: true,
    generation_of: "labels",
    default,
    validate,
    warnings,
    ..KindDef::BASE
};

fn ports(object: &Object) -> Value {
    let ports = print::list(object, "/ports");
    let named: Vec<String> =
        ports.iter().map(|port| print::scalar(port.get("port"), &any(port))).collect();
    if named.is_empty() { "<unset>".into() } else { print::at_most_three(&named).into() }
}

/// A port that is all ports goes by its name.
fn any(port: &Value) -> String {
    port.get("name").and_then(Value::as_str).unwrap_or("*").to_string()
}

fn addresses(object: &Object) -> Value {
    let addresses: Vec<String> = print::list(object, "/endpoints")
        .iter()
        .filter_map(|endpoint| endpoint.get("addresses")?.as_array())
        .flatten()
        .filter_map(|address| Some(address.as_str()?.to_string()))
        .collect();
    if addresses.is_empty() { "<unset>".into() } else { print::at_most_three(&addresses).into() }
}

fn default(slice: &mut Object) {
    for port in children(&mut slice.0, "ports") {
        set_default(port, "name", "");
        set_text(port, "protocol", "TCP");
    }
}

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
/// Upstream's bound of the hints of one endpoint.
const HINTS_MAX: usize = 8;

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let kind = At::top(new, "addressType");
    errors.one_of(&kind, &["FQDN", "IPv4", "IPv6"], true);
    let endpoints = At::top(new, "endpoints");
    errors.too_many(&endpoints, ENDPOINTS_MAX);
    if endpoints.count() <= ENDPOINTS_MAX {
        let kept: Vec<&str> = old.map_or(Vec::new(), addresses_of);
        for endpoint in endpoints.items() {
            validate_endpoint(&endpoint, kind.text(), &kept, &mut errors);
        }
    }
    validate_ports(&At::top(new, "ports"), &mut errors);
    if let Some(old) = old {
        errors.immutable(&kind, &At::top(old, "addressType"));
    }
    errors.0
}

fn addresses_of(slice: &Object) -> Vec<&str> {
    print::list(slice, "/endpoints")
        .iter()
        .filter_map(|endpoint| endpoint.get("addresses")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn validate_endpoint(endpoint: &At<'_, '_>, kind: &str, kept: &[&str], errors: &mut Errors) {
    let addresses = endpoint.field("addresses");
    if addresses.count() == 0 {
        errors.required(&addresses, "must contain at least 1 address");
    }
    errors.too_many(&addresses, ADDRESSES_MAX);
    for address in addresses.items() {
        let before = errors.0.len();
        let v6 = address.text().contains(':');
        match kind {
            "FQDN" => {
                errors.subdomain(&address);
                continue;
            }
            "IPv4" | "IPv6" => errors.legacy_ip(&address, kept),
            _ => continue,
        }
        if errors.0.len() == before && v6 != (kind == "IPv6") {
            // Upstream names the list here.
            errors.invalid_value(&addresses, address.text(), format!("must be an {kind} address"));
        }
        if errors.0.len() == before {
            errors.endpoint_ip(&address);
        }
    }
    let (node, host) = (endpoint.field("nodeName"), endpoint.field("hostname"));
    if node.exists() {
        errors.subdomain(&node);
    }
    let topology = endpoint.field("deprecatedTopology");
    errors.too_many(&topology, 16);
    labels::validate_labels(&topology, errors);
    if host.exists() {
        errors.label(&host);
    }
    hints(&endpoint.field("hints"), errors);
}

fn hints(hints: &At<'_, '_>, errors: &mut Errors) {
    for list in ["forZones", "forNodes"] {
        let (list, mut taken) = (hints.field(list), BTreeSet::new());
        errors.too_many(&list, HINTS_MAX);
        for entry in list.items() {
            let name = entry.field("name");
            if !taken.insert(name.text()) {
                errors.duplicate(&name);
            }
            for detail in names::is_label_value(name.text()) {
                errors.invalid_value(&name, name.text(), detail);
            }
        }
    }
}

fn validate_ports(ports: &At<'_, '_>, errors: &mut Errors) {
    errors.too_many(ports, PORTS_MAX);
    let mut taken = BTreeSet::new();
    for port in ports.items() {
        let (name, protocol) = (port.field("name"), port.field("appProtocol"));
        if !name.text().is_empty() {
            errors.label(&name);
        }
        if !taken.insert(name.text()) {
            errors.duplicate(&name);
        }
        errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"], true);
        errors.port_number(&port.field("port"));
        if protocol.exists() {
            errors.qualified_name(&protocol);
        }
    }
}

fn warnings(new: &Object, _: Option<&Object>) -> Vec<String> {
    if new.str_at("/addressType") == "FQDN" {
        return vec!["addressType: FQDN endpoints are deprecated".into()];
    }
    let mut warnings = Vec::new();
    for endpoint in At::top(new, "endpoints").items() {
        warnings.extend(endpoint.field("addresses").items().filter_map(|ip| warn_ip(&ip)));
    }
    warnings
}

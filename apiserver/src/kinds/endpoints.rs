//! Endpoints: the older, single-object form of EndpointSlices.

use super::{
    Column, KindDef,
    common::{
        children,
        field::{At, Errors, same},
        print, set_text, warn_ip,
    },
};
use k8s::{FieldError, Object};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    kind: "Endpoints",
    plural: "endpoints",
    short_names: &["ep"],
    schema: "core.v1.Endpoints",
    columns: &[Column::NAME, Column::text("Endpoints", |o, _| addresses(o)), Column::AGE],
    create_on_update: true,
    default,
    validate,
    warnings,
    ..KindDef::BASE
};

/// `10.0.0.1:80,10.0.0.2:80 + 3 more...`
fn addresses(object: &Object) -> Value {
    let mut shown: Vec<String> = Vec::new();
    for subset in print::list(object, "/subsets") {
        let entries =
            |name: &str| subset.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for address in entries("addresses") {
            let ip = print::field(address, "ip");
            let ports = entries("ports");
            if ports.is_empty() {
                shown.push(ip.to_string());
            }
            for port in ports {
                let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
                let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
                shown.push(format!("{host}:{number}"));
            }
        }
    }
    if shown.is_empty() { "<none>".into() } else { print::at_most_three(&shown).into() }
}

fn default(endpoints: &mut Object) {
    for subset in children(&mut endpoints.0, "subsets") {
        children(subset, "ports").for_each(|port| set_text(port, "protocol", "TCP"));
    }
}

/// What was wrong before may stay as it was.
fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let subsets = At::top(new, "subsets");
    if old.is_some_and(|old| same(old.at("/subsets"), new.at("/subsets"))) {
        return errors.0;
    }
    for subset in subsets.items() {
        let (ready, not_ready) = (subset.field("addresses"), subset.field("notReadyAddresses"));
        if ready.count() + not_ready.count() == 0 {
            errors.required(&subset, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in ready.items().chain(not_ready.items()) {
            let (ip, host, node) =
                (address.field("ip"), address.field("hostname"), address.field("nodeName"));
            errors.legacy_ip(&ip, &[]);
            if !host.text().is_empty() {
                errors.label(&host);
            }
            if node.exists() {
                errors.subdomain(&node);
            }
            errors.endpoint_ip(&ip);
        }
        let ports = subset.field("ports");
        for port in ports.items() {
            let (name, protocol) = (port.field("name"), port.field("appProtocol"));
            if ports.count() > 1 {
                errors.needs_label(&name);
            } else if !name.text().is_empty() {
                errors.label(&name);
            }
            errors.port(&port.field("port"));
            errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"], true);
            if protocol.exists() {
                errors.qualified_name(&protocol);
            }
        }
    }
    errors.0
}

fn warnings(new: &Object, _: Option<&Object>) -> Vec<String> {
    let mut warnings = Vec::new();
    for subset in At::top(new, "subsets").items() {
        for list in ["addresses", "notReadyAddresses"] {
            let list = subset.field(list);
            warnings.extend(list.items().filter_map(|address| warn_ip(&address.field("ip"))));
        }
    }
    warnings
}

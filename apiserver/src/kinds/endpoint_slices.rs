//! EndpointSlices: where the pods of a service listen.

use super::{
    Column, KindDef,
    common::{
        children,
        field::{At, Errors},
        print, set_default, set_text,
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
    default,
    validate,
    ..KindDef::BASE
};

fn ports(object: &Object) -> Value {
    let ports = print::list(object, "/ports");
    let named: Vec<String> =
        ports.iter().map(|port| print::scalar(port.get("port"), "*")).collect();
    if named.is_empty() { "<unset>".into() } else { print::at_most_three(&named).into() }
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

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (kind, endpoints) = (At::top(new, "addressType"), At::top(new, "endpoints"));
    errors.one_of(&kind, &["FQDN", "IPv4", "IPv6"], true);
    if endpoints.count() > 1000 {
        errors.0.push(FieldError::too_many("endpoints", endpoints.count(), 1000));
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.field("addresses");
        if addresses.count() == 0 {
            errors.required(&addresses, "must contain at least 1 address");
        }
        for address in addresses.items() {
            let wrong = match kind.text() {
                "FQDN" => names::is_dns1123_subdomain(address.text()),
                _ => names::is_ip(address.text()),
            };
            errors.invalid_each(&address, wrong);
        }
    }
    let mut taken = BTreeSet::new();
    for port in At::top(new, "ports").items() {
        let name = port.field("name");
        if !name.text().is_empty() {
            errors.invalid_each(&name, names::is_dns1123_label(name.text()));
        }
        if !taken.insert(name.text()) {
            errors.duplicate(&name);
        }
        errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"], true);
        errors.port_number(&port.field("port"));
    }
    if let Some(old) = old {
        errors.immutable(&kind, &At::top(old, "addressType"));
    }
    errors.0
}

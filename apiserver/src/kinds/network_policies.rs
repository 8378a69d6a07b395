//! NetworkPolicies: which pods may talk. Stored, not yet enforced.

use super::{
    Column, KindDef,
    common::{
        children,
        field::{At, Errors},
        labels, print, set_default, set_text,
    },
};
use k8s::{FieldError, Object};
use serde_json::{Value, json};
use std::net::IpAddr;

pub(super) const KIND: KindDef = KindDef {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    short_names: &["netpol"],
    schema: "networking.v1.NetworkPolicy",
    columns: &[
        Column::NAME,
        Column::text("Pod-Selector", |o, _| print::selector(o.at("/spec/podSelector")).into()),
        Column::AGE,
    ],
    generation: true,
    default,
    validate,
    ..KindDef::BASE
};

fn default(policy: &mut Object) {
    let spec = policy.map_mut("spec");
    let egress =
        spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    set_default(spec, "policyTypes", types);
    for rules in ["ingress", "egress"] {
        for rule in children(spec, rules) {
            children(rule, "ports").for_each(|port| set_text(port, "protocol", "TCP"));
        }
    }
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let kept = old.map_or(Vec::new(), blocks);
    labels::validate_selector(&spec.field("podSelector"), &mut errors);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.field(rules).items() {
            rule.field("ports").items().for_each(|port| validate_port(&port, &mut errors));
            for peer in rule.field(peers).items() {
                validate_peer(&peer, &kept, &mut errors);
            }
        }
    }
    let types = spec.field("policyTypes");
    if types.count() > 2 {
        errors.invalid(&types, "may not specify more than two policyTypes");
        return errors.0;
    }
    for kind in types.items() {
        errors.one_of(&kind, &["Egress", "Ingress"], false);
    }
    errors.0
}

/// The networks a policy names, which an update may leave as they are.
fn blocks(policy: &Object) -> Vec<&str> {
    let rules = [("ingress", "from"), ("egress", "to")].into_iter().flat_map(|(rules, peers)| {
        print::list(policy, &format!("/spec/{rules}"))
            .iter()
            .filter_map(move |rule| rule.get(peers)?.as_array())
    });
    let blocks = rules.flatten().filter_map(|peer| peer.get("ipBlock"));
    blocks
        .flat_map(|block| {
            let except = block.get("except").and_then(Value::as_array).into_iter().flatten();
            except.chain(block.get("cidr")).filter_map(Value::as_str)
        })
        .collect()
}

fn validate_port(port: &At<'_, '_>, errors: &mut Errors) {
    errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"], false);
    let (number, end) = (port.field("port"), port.field("endPort"));
    match number.value() {
        None if end.exists() => {
            errors.invalid(&end, "may not be specified when `port` is not specified");
        }
        None => (),
        Some(Value::String(_)) => {
            if end.exists() {
                errors.invalid(&end, "may not be specified when `port` is non-numeric");
            }
            errors.port(&number);
        }
        Some(_) => {
            errors.port(&number);
            if end.exists() && end.int() < number.int() {
                // Upstream shows the port.
                let detail = "must be greater than or equal to `port`";
                errors.invalid_value(&end, number.owned(), detail);
            }
            errors.port_number(&end);
        }
    }
}

fn validate_peer(peer: &At<'_, '_>, kept: &[&str], errors: &mut Errors) {
    let (pods, namespaces) = (peer.field("podSelector"), peer.field("namespaceSelector"));
    let block = peer.field("ipBlock");
    labels::validate_selector(&pods, errors);
    labels::validate_selector(&namespaces, errors);
    if block.exists() {
        let cidr = block.field("cidr");
        if errors.needs_text(&cidr) {
            errors.legacy_cidr(&cidr, kept);
        }
        for except in block.field("except").items() {
            let before = errors.0.len();
            errors.legacy_cidr(&except, kept);
            if errors.0.len() == before && !within(except.text(), cidr.text()) {
                errors.invalid(&except, "must be a strict subset of `cidr`");
            }
        }
    }
    match (pods.exists() || namespaces.exists(), block.exists()) {
        (false, false) => errors.required(peer, "must specify a peer"),
        (true, true) => {
            errors.forbidden(peer, "may not specify both ipBlock and another peer");
        }
        _ => (),
    }
}

/// True if a network is part of another and not all of it.
fn within(inner: &str, outer: &str) -> bool {
    let parse = |text: &str| -> Option<(bool, u128, u32)> {
        let (ip, bits) = text.split_once('/')?;
        let bits: u32 = bits.parse().ok()?;
        Some(match ip.parse().ok()? {
            IpAddr::V4(ip) => (false, u128::from(u32::from(ip)) << 96, bits),
            IpAddr::V6(ip) => (true, u128::from(ip), bits),
        })
    };
    let (Some(inner), Some(outer)) = (parse(inner), parse(outer)) else { return true };
    let prefix = |number: u128| number.checked_shr(128 - outer.2).unwrap_or(0);
    inner.0 == outer.0 && inner.2 > outer.2 && prefix(inner.1) == prefix(outer.1)
}

//! NetworkPolicies: which pods may talk. Stored, not yet enforced.

use super::{
    Column, KindDef,
    common::{
        children,
        field::{At, Errors},
        labels, print, set_default, set_text,
    },
};
use k8s::{FieldError, Object, names};
use serde_json::{Value, json};

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

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    labels::validate_selector(&spec.field("podSelector"), &mut errors);
    for kind in spec.field("policyTypes").items() {
        errors.one_of(&kind, &["Egress", "Ingress"], true);
    }
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.field(rules).items() {
            for port in rule.field("ports").items() {
                errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"], false);
                if port.field("port").exists() {
                    errors.port(&port.field("port"));
                }
            }
            for peer in rule.field(peers).items() {
                validate_peer(&peer, &mut errors);
            }
        }
    }
    errors.0
}

fn validate_peer(peer: &At<'_, '_>, errors: &mut Errors) {
    let (pods, namespaces) = (peer.field("podSelector"), peer.field("namespaceSelector"));
    let block = peer.field("ipBlock");
    labels::validate_selector(&pods, errors);
    labels::validate_selector(&namespaces, errors);
    match (pods.exists() || namespaces.exists(), block.exists()) {
        (false, false) => errors.required(peer, "must specify a peer"),
        (true, true) => {
            errors.forbidden(peer, "may not specify both ipBlock and another peer");
        }
        (_, true) => {
            let cidr = block.field("cidr");
            if errors.needs_text(&cidr) {
                errors.invalid_each(&cidr, names::is_cidr(cidr.text()));
            }
        }
        _ => (),
    }
}

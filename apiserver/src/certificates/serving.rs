//! What a node serves its kubelet API with: approved if it names nothing but the node that asks. Upstream
//! leaves these requests to people; here a request that is not beyond doubt is left to them, and says why.
//!
//! On for nodes that may create `certificatesigningrequests/selfnodeserver`, a subresource that RBAC alone
//! knows (as `nodeclient` and `selfnodeclient` are for client certificates).

use super::{
    Step, add_condition, condition, is_decided, may, request::Request, requestor, signers,
};
use crate::{
    authz,
    chores::{Chore, Desk},
    identity::Identity,
    services::ServiceCidr,
    view::View,
};
use futures::{FutureExt, future::BoxFuture};
use k8s::{Object, Status};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Says with status `False` why a request waits for somebody.
const WAITS: &str = "AutoApproval";

pub(crate) const CHORE: Chore = Chore {
    name: "kubelet-serving-certificates",
    space: "certificates.k8s.io/certificatesigningrequests",
    account: "kubelet-serving-approver",
    work,
};

fn work(desk: &Desk, object: Arc<Object>) -> BoxFuture<'_, Result<(), Status>> {
    async move {
        let ours = object.str_at("/spec/signerName") == signers::KUBELET_SERVING;
        if !ours || is_decided(&object) {
            return Ok(());
        }
        super::take(desk, decide(desk, &object)).await
    }
    .boxed()
}

fn decide(desk: &Desk, object: &Object) -> Step {
    let user = requestor(object);
    // Of nobody's node, or switched off: not ours to say anything about.
    let Some(node) = authz::node_name(&user) else { return Step::None };
    if !may(desk, &user, "selfnodeserver") {
        return Step::None;
    }
    let refusal = match Request::of(object) {
        Ok(request) => {
            refusal(&request, &signers::usages(object), &user, &World::around(desk, node))
        }
        Err(why) => Some(why),
    };
    let mut changed = object.clone();
    match refusal {
        None => {
            drop_waits(&mut changed);
            let message = "The certificate names only addresses of the node that asks for it.";
            add_condition(&mut changed, "Approved", "True", "AutoApproved", message);
        }
        Some(why) => {
            let message = format!(
                "{why}. It waits for `kubectl certificate approve {}`, or for this to change.",
                object.name()
            );
            let said = condition(object, WAITS).map(|condition| &condition["message"]);
            if said.is_some_and(|said| *said == message) {
                return Step::None;
            }
            drop_waits(&mut changed);
            add_condition(&mut changed, WAITS, "False", "NotBeyondDoubt", &message);
        }
    }
    Step::Write { subresource: "approval", changed }
}

fn drop_waits(object: &mut Object) {
    let conditions = object.map_mut("status").get_mut("conditions").and_then(Value::as_array_mut);
    if let Some(conditions) = conditions {
        conditions.retain(|condition| condition["type"] != WAITS);
    }
}

/// What a request is compared with. Names in lower case, addresses as they are written canonically.
#[derive(Debug)]
struct World {
    /// The addresses in the Node's status; `None`: there is no such Node.
    own: Option<BTreeSet<String>>,
    /// Names and addresses of other nodes, and whose they are.
    others: BTreeMap<String, String>,
    /// What clients dial masters by.
    masters: BTreeSet<String>,
    service_cidr: ServiceCidr,
}

impl World {
    fn around(desk: &Desk, node: &str) -> World {
        let core = &desk.server.core;
        let (mut own, mut others) = (None, BTreeMap::new());
        for stored in View::range(&core.store, "nodes", "") {
            let object = crate::memo::object(&stored);
            if object.name() == node {
                own = Some(addresses(&object).collect());
                continue;
            }
            let names = addresses(&object).chain([canonical(object.name())]);
            others.extend(names.map(|at| (at, object.name().to_string())));
        }
        let mut masters: BTreeSet<String> =
            core.config.api_names.iter().map(|name| canonical(name)).collect();
        for member in core.store.members() {
            let dialled = [&member.api_address, &member.peer_address];
            let dialled = dialled.into_iter().filter_map(|text| text.parse::<SocketAddr>().ok());
            masters.extend(dialled.map(|at| canonical(&at.ip().to_string())));
            masters.insert(canonical(&member.name));
        }
        World { own, others, masters, service_cidr: core.config.service_cidr }
    }
}

fn addresses(node: &Object) -> impl Iterator<Item = String> + '_ {
    let list = node.at("/status/addresses").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|one| one["address"].as_str()).map(canonical)
}

/// Two spellings of one name or address are one.
fn canonical(text: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => text.trim_end_matches('.').to_ascii_lowercase(),
    }
}

/// Why the request is not beyond doubt.
fn refusal(
    request: &Request,
    usages: &[&str],
    requestor: &Identity,
    world: &World,
) -> Option<String> {
    if let Some(why) = signers::kubelet_serving_refusal(request, usages) {
        return Some(why);
    }
    if requestor.user != request.common_name {
        let (user, named) = (&requestor.user, &request.common_name);
        return Some(format!("{user} asks for a certificate of {named}"));
    }
    if request.others > 0 {
        return Some("only DNS and IP subjectAltNames are allowed".into());
    }
    let names = request.dns_names.iter().map(|name| canonical(name));
    let addresses = request.addresses.iter().map(|address| canonical(&address.to_string()));
    names.chain(addresses).find_map(|name| doubt(&name, world))
}

fn doubt(name: &str, world: &World) -> Option<String> {
    if is_of_the_cluster(name, world) {
        return Some(format!("{name} leads to masters or to services, not to a node"));
    }
    if let Some(node) = world.others.get(name) {
        return Some(format!("{name} belongs to node {node}"));
    }
    let Some(own) = &world.own else {
        return Some("the node that asks is not there yet".into());
    };
    (!own.contains(name)).then(|| format!("{name} is not among the addresses of the node"))
}

/// A node with a certificate for it could stand in for a master or for a service.
fn is_of_the_cluster(name: &str, world: &World) -> bool {
    if world.masters.contains(name) {
        return true;
    }
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            address.is_loopback()
                || address.is_unspecified()
                || world.service_cidr.contains(address)
        }
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unspecified(),
        Err(_) => {
            let parts: Vec<&str> = name.split('.').collect();
            // `NAME.NAMESPACE.svc.DOMAIN` in all its lengths, and whatever may stand for others.
            name.contains('*')
                || matches!(parts[..], ["localhost"] | ["kubernetes"] | ["kubernetes", "default"])
                || parts.contains(&"svc")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        let set = |names: &[&str]| names.iter().map(|name| canonical(name)).collect();
        World {
            own: Some(set(&["10.0.0.11", "N1", "n1.example.com", "10.0.0.1", "10.96.0.9"])),
            others: BTreeMap::from([("10.0.0.12".to_string(), "n2".to_string())]),
            masters: set(&["10.0.0.1", "m1", "api.example.com"]),
            service_cidr: ServiceCidr::parse("10.96.0.0/16").expect("a range"),
        }
    }

    fn asked(names: &[&str], addresses: &[&str]) -> Request {
        Request {
            common_name: "system:node:n1".into(),
            organizations: vec!["system:nodes".into()],
            dns_names: names.iter().map(|name| name.to_string()).collect(),
            addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            ..Request::default()
        }
    }

    fn check(request: &Request, usages: &[&str], user: &str, world: &World) -> String {
        let user = Identity::authenticated(user, &["system:nodes"]);
        refusal(request, usages, &user, world).unwrap_or_else(|| "good".into())
    }

    #[test]
    fn only_what_names_the_node_and_nothing_else_is_beyond_doubt() {
        let usages = ["digital signature", "server auth"];
        let lines = [
            (&["n1"][..], &["10.0.0.11"][..]),
            (&["n1.example.com", "N1"], &["::ffff:10.0.0.11"]),
            (&[], &[]),
            (&["n2"], &["10.0.0.11"]),
            (&["n1"], &["10.0.0.12"]),
            (&["n1"], &["10.0.0.13"]),
            (&["n1"], &["10.0.0.11", "10.0.0.1"]),
            (&["n1", "api.example.com"], &[]),
            (&["M1"], &[]),
            (&["kubernetes"], &[]),
            (&["kubernetes.default"], &[]),
            (&["web.prod.svc"], &[]),
            (&["web.prod.svc.cluster.local."], &[]),
            (&["*.example.com"], &[]),
            (&["localhost"], &[]),
            (&[], &["127.0.0.1"]),
            (&[], &["::1"]),
            (&[], &["10.96.0.9"]),
        ]
        .map(|(names, addresses)| {
            let request = asked(names, addresses);
            let found = check(&request, &usages, "system:node:n1", &world());
            format!("{names:?} {addresses:?}: {found}")
        });
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn who_asks_and_for_what_must_be_right_too() {
        let good = asked(&["n1"], &["10.0.0.11"]);
        let usages = ["digital signature", "server auth"];
        let found = |request: &Request| check(request, &usages, "system:node:n1", &world());
        let mut lines = vec![
            check(&good, &usages, "system:node:n2", &world()),
            check(&good, &["digital signature", "client auth"], "system:node:n1", &world()),
            check(&good, &["server auth"], "system:node:n1", &world()),
            check(&good, &usages, "system:node:n1", &World { own: None, ..world() }),
            found(&Request { organizations: vec!["system:masters".into()], ..good.clone() }),
            found(&Request { common_name: "n1".into(), ..good.clone() }),
        ];
        lines.push(found(&Request { emails: 1, ..good.clone() }));
        lines.push(found(&Request { uris: 1, ..good.clone() }));
        lines.push(found(&Request { others: 1, ..good }));
        insta::assert_snapshot!(lines.join("\n"));
    }
}

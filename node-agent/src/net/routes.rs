//! Which pod network lies behind which node, as kernel routes on the nodes' common link.

use super::{cidr::Cidr, link};
use futures::TryStreamExt;
use k8s::Object;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol},
};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// Marks our routes in the kernel (`ip route` shows `proto 99`), so that others' stay untouched.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(99);

/// What routing and pod addresses need of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// `status.addresses` of type InternalIP.
    pub internal_ip: Option<Ipv4Addr>,
    /// `spec.podCIDR`.
    pub pod_cidr: Option<Cidr>,
}

impl Node {
    pub fn read(object: &Object) -> Node {
        let addresses = object.at("/status/addresses").and_then(|list| list.as_array());
        let internal = addresses.into_iter().flatten().find_map(|address| {
            if address.get("type")?.as_str()? != "InternalIP" {
                return None;
            }
            address.get("address")?.as_str()?.parse().ok()
        });
        Node {
            name: object.name().to_string(),
            internal_ip: internal,
            pod_cidr: object.str_at("/spec/podCIDR").parse().ok(),
        }
    }
}

/// Network to gateway.
pub type Routes = BTreeMap<Cidr, Ipv4Addr>;

/// The routes that node `own` needs to reach every other node's pods.
pub fn routes<'a>(nodes: impl IntoIterator<Item = &'a Node>, own: &str) -> Routes {
    let others = nodes.into_iter().filter(|node| node.name != own);
    others.filter_map(|node| Some((node.pod_cidr?, node.internal_ip?))).collect()
}

/// What is to be removed from and set in the kernel, given what it has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    remove: Vec<(Cidr, Ipv4Addr)>,
    set: Vec<(Cidr, Ipv4Addr)>,
}

fn changes(wanted: &Routes, present: &Routes) -> Changes {
    let differ = |a: &Routes, b: &Routes| {
        let absent = a.iter().filter(|(cidr, gateway)| b.get(cidr) != Some(gateway));
        absent.map(|(cidr, gateway)| (*cidr, *gateway)).collect::<Vec<_>>()
    };
    let mut remove = differ(present, wanted);
    // Replaced in one step below, so that there is no moment without a route.
    remove.retain(|(cidr, _)| !wanted.contains_key(cidr));
    Changes { remove, set: differ(wanted, present) }
}

/// Makes the kernel's routes of ours equal to `wanted`; returns how many it changed. One that the
/// kernel refuses (a gateway that is not on the link) does not keep the others from being set.
pub(super) async fn reconcile(handle: &Handle, wanted: &Routes) -> Result<usize, link::Error> {
    let present = present(handle).await?;
    let changes = changes(wanted, &present);
    let mut first_error = None;
    for (cidr, gateway) in &changes.remove {
        let deleted = handle.route().del(message(*cidr, *gateway)).execute().await;
        if let Err(error) = link::unless_gone(deleted) {
            first_error.get_or_insert(link::Error::new(format!("delete route {cidr}"), error));
        }
    }
    for (cidr, gateway) in &changes.set {
        let set = handle.route().add(message(*cidr, *gateway)).replace().execute().await;
        if let Err(error) = set {
            let what = format!("route {cidr} via {gateway}");
            first_error.get_or_insert(link::Error::new(what, error));
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(changes.remove.len() + changes.set.len()),
    }
}

async fn present(handle: &Handle) -> Result<Routes, link::Error> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let dump = handle.route().get(all).execute().try_collect::<Vec<RouteMessage>>().await;
    let dump = dump.map_err(|error| link::Error::new("list routes", error))?;
    Ok(dump.iter().filter_map(ours).collect())
}

fn ours(route: &RouteMessage) -> Option<(Cidr, Ipv4Addr)> {
    if route.header.protocol != PROTOCOL {
        return None;
    }
    let mut address = None;
    let mut gateway = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(destination)) => {
                address = Some(*destination);
            }
            RouteAttribute::Gateway(RouteAddress::Inet(via)) => gateway = Some(*via),
            _ => {}
        }
    }
    Some((Cidr::new(address?, route.header.destination_prefix_length)?, gateway?))
}

fn message(cidr: Cidr, gateway: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(cidr.address(), cidr.prefix())
        .gateway(gateway)
        .protocol(PROTOCOL)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, ip: &str, cidr: &str) -> Node {
        Node { name: name.into(), internal_ip: ip.parse().ok(), pod_cidr: cidr.parse().ok() }
    }

    fn show(routes: &[(Cidr, Ipv4Addr)]) -> Vec<String> {
        routes.iter().map(|(cidr, gateway)| format!("{cidr} via {gateway}")).collect()
    }

    #[test]
    fn every_other_node_with_network_and_address_is_routed() {
        let nodes = [
            node("a", "10.90.0.21", "10.244.0.0/24"),
            node("b", "10.90.0.22", "10.244.1.0/24"),
            node("c", "10.90.0.23", ""),
            node("d", "", "10.244.3.0/24"),
        ];
        let routes: Vec<_> = routes(&nodes, "a").into_iter().collect();
        assert_eq!(show(&routes), ["10.244.1.0/24 via 10.90.0.22"]);
    }

    #[test]
    fn only_differences_are_changed() {
        let routes = |list: &[&str]| -> Routes {
            let parse = |text: &&str| {
                let (cidr, gateway) = text.split_once(" via ").unwrap();
                (cidr.parse().unwrap(), gateway.parse().unwrap())
            };
            list.iter().map(parse).collect()
        };
        let present = routes(&[
            "10.244.1.0/24 via 10.90.0.22",
            "10.244.2.0/24 via 10.90.0.23",
            "10.244.3.0/24 via 10.90.0.24",
        ]);
        let wanted = routes(&[
            "10.244.1.0/24 via 10.90.0.22",
            "10.244.2.0/24 via 10.90.0.99",
            "10.244.4.0/24 via 10.90.0.25",
        ]);
        let changes = changes(&wanted, &present);
        assert_eq!(show(&changes.remove), ["10.244.3.0/24 via 10.90.0.24"]);
        let set = ["10.244.2.0/24 via 10.90.0.99", "10.244.4.0/24 via 10.90.0.25"];
        assert_eq!(show(&changes.set), set);
    }

    #[test]
    fn nodes_are_read_as_the_api_has_them() {
        let object = json!({
            "metadata": {"name": "n"},
            "spec": {"podCIDR": "10.244.7.0/24"},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n"},
                {"type": "InternalIP", "address": "10.90.0.27"},
            ]},
        });
        let object = Object::from_value(object).unwrap();
        assert_eq!(Node::read(&object), node("n", "10.90.0.27", "10.244.7.0/24"));
    }
}

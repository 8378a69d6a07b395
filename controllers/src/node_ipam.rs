//! Node IPAM: gives each node its part of the pod network.

use crate::Settings;
use k8s_openapi::api::core::v1::{Node, NodeSpec};
use reconcile::{
    Change, Context, Controller, Key, Note, Plan, Root, Wake, World, Write, kinds,
};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "node_ipam",
    component: "cidrAllocator",
    // One plan for all nodes: two plans could give the same range away.
    root: Root::Whole,
    wakes: &[(kinds::NODES, Wake::Map(range_wanted_or_freed))],
    workers: 1,
    plan,
    ..Controller::BASE
};

fn range_wanted_or_freed(_: &World, change: &Change) -> Vec<Key> {
    let settled = change.new_as::<Node>().is_some_and(|node| ranges(node).next().is_some());
    if settled { Vec::new() } else { vec![Key::whole()] }
}

fn ranges(node: &Node) -> impl Iterator<Item = &str> {
    let spec = node.spec.as_ref();
    let many = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
    let one = spec.and_then(|spec| spec.pod_cidr.as_ref());
    many.chain(one).map(String::as_str).filter(|range| !range.is_empty())
}

fn plan(world: &World, _: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(settings) = world.fact::<Settings>() else { return plan };
    let Some(network) = Network::parse(&settings.cluster_cidr, settings.node_cidr_mask) else {
        tracing::error!(cidr = settings.cluster_cidr, "not an IPv4 network that holds such parts");
        return plan;
    };
    let mut used: BTreeSet<u32> =
        world.list::<Node>().flat_map(ranges).flat_map(|range| network.indexes(range)).collect();
    let mut writes = Vec::new();
    for node in world.list::<Node>().filter(|node| ranges(node).next().is_none()) {
        if node.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let Some(index) = (0..network.count()).find(|index| !used.contains(index)) else {
            let text = "Node cannot be given a part of the pod network: all are taken";
            plan.event(Note::warning(node, "CIDRNotAvailable", text));
            continue;
        };
        used.insert(index);
        let range = network.part(index);
        let mut changed = node.clone();
        let spec = changed.spec.get_or_insert_with(NodeSpec::default);
        spec.pod_cidr = Some(range.clone());
        spec.pod_cidrs = Some(vec![range]);
        writes.extend(Write::patch(node, &changed));
    }
    plan.together(writes);
    plan
}

/// An IPv4 network cut into equal parts.
struct Network {
    base: u32,
    mask: u8,
    part_mask: u8,
}

impl Network {
    fn parse(text: &str, part_mask: u8) -> Option<Network> {
        let (base, mask) = parse_range(text)?;
        (mask <= part_mask && part_mask <= 32).then_some(Network { base, mask, part_mask })
    }

    fn count(&self) -> u32 {
        1u32.checked_shl(u32::from(self.part_mask - self.mask)).unwrap_or(u32::MAX)
    }

    fn part(&self, index: u32) -> String {
        let address = Ipv4Addr::from(self.base + index * self.part_size());
        format!("{address}/{}", self.part_mask)
    }

    fn part_size(&self) -> u32 {
        1u32.checked_shl(u32::from(32 - self.part_mask)).unwrap_or(0)
    }

    /// The parts that a range touches; none if it lies elsewhere.
    fn indexes(&self, range: &str) -> Vec<u32> {
        let Some((base, mask)) = parse_range(range) else { return Vec::new() };
        let (first, last) = (u64::from(base), u64::from(base) + (1u64 << (32 - mask)) - 1);
        let start = u64::from(self.base);
        let end = start + (1u64 << (32 - self.mask)) - 1;
        if last < start || first > end {
            return Vec::new();
        }
        let size = u64::from(self.part_size()).max(1);
        let index = |address: u64| ((address.clamp(start, end) - start) / size) as u32;
        (index(first)..=index(last)).collect()
    }
}

fn parse_range(text: &str) -> Option<(u32, u8)> {
    let (address, mask) = text.split_once('/')?;
    let mask: u8 = mask.parse().ok().filter(|mask| *mask <= 32)?;
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let host_bits = u32::MAX.checked_shr(mask.into()).unwrap_or(0);
    Some((address & !host_bits, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_a_range_get_the_first_free_ones() {
        let node = |name: &str, spec: &str| {
            format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
        };
        let world = [
            node("a", ""),
            node("b", "podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24]"),
            node("c", ""),
        ];
        let text = crate::testing::plan(CONTROLLER, &world.concat(), "", "");
        let ranges: Vec<&str> = text.split("\"podCIDR\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(ranges, ["10.244.1.0/24", "10.244.2.0/24"], "{text}");
    }

    #[test]
    fn a_network_is_cut_into_parts() {
        let network = Network::parse("10.244.0.0/16", 24).expect("a network");
        assert_eq!(network.count(), 256);
        assert_eq!((network.part(0), network.part(255)), ("10.244.0.0/24".into(), "10.244.255.0/24".into()));
        assert_eq!(network.indexes("10.244.3.0/24"), [3]);
        assert_eq!(network.indexes("10.244.2.0/23"), [2, 3], "a range may take several parts");
        assert_eq!(network.indexes("10.0.0.0/8").len(), 256);
        assert!(network.indexes("192.168.0.0/24").is_empty());
        assert!(Network::parse("10.244.0.0/16", 12).is_none());
        assert!(Network::parse("fd00::/48", 64).is_none());
    }
}

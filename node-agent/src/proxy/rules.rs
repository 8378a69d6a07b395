//! From services and endpoints to the packet filter's rules, and from two sets of rules to the
//! changes between them. Pure; the text form is the language of `nft`.

use super::model::{Endpoint, Service, ServicePort, Services, Slice};
use crate::net::{Cidr, HostPort, Protocol};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// Where a connection may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub address: Ipv4Addr,
    pub port: u16,
}

/// Address, protocol and port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vip {
    pub address: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
}

/// What a map says of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Goto(String),
    Drop,
}

/// One rule of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// To one of the targets, at random; not empty.
    Translate(Vec<Target>),
    /// To one of the chains, at random; not empty.
    Spread(Vec<String>),
    /// Clients in `set` go to `chain`.
    Sticky {
        set: String,
        chain: String,
    },
    /// The client goes into `set`, for its timeout from now.
    Remember {
        set: String,
    },
    /// The sender is replaced by this node when the packet leaves.
    MarkMasquerade,
    /// Packets from the network go to `chain`.
    From {
        network: Cidr,
        chain: String,
    },
    /// Packets from this node itself are marked for masquerade.
    MarkOwn,
    /// Packets from this node itself go to `chain`.
    Own {
        chain: String,
    },
    Goto(String),
    Drop,
}

/// Everything in our table that depends on services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub vips: BTreeMap<Vip, Verdict>,
    pub node_ports: BTreeMap<(Protocol, u16), Verdict>,
    pub chains: BTreeMap<String, Vec<Rule>>,
    /// Sets of clients, each forgotten after the time given; a set's name tells its timeout.
    pub affinity: BTreeMap<String, Duration>,
    /// Endpoints on this node: one that reaches itself through a service must see another sender.
    pub hairpin: BTreeSet<Ipv4Addr>,
}

/// What the rules depend on besides services.
#[derive(Clone, Debug)]
pub struct Place {
    pub node: String,
    pub cluster_cidr: Cidr,
    /// Pods of this node that ask for ports of the node.
    pub host_ports: BTreeMap<Ipv4Addr, Vec<HostPort>>,
}

/// The rules that make every service reachable from this node and its pods.
///
/// Ready endpoints are used; if a service has none, those that still serve while they end (KEP-1669).
/// A service without endpoints has no rule: its address is rejected by the table's frame.
pub fn rules(world: &Services, place: &Place) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let slices = world.slices_by_service();
    for service in world.services.values() {
        if service.external_name.is_some() {
            continue;
        }
        let key = (service.namespace.as_str(), service.name.as_str());
        let slices = slices.get(&key).map(Vec::as_slice).unwrap_or_default();
        for port in &service.ports {
            ruleset.add_port(service, port, slices, place);
        }
    }
    for (address, ports) in &place.host_ports {
        for port in ports {
            ruleset.add_host_port(*address, port);
        }
    }
    ruleset
}

/// Endpoints of one port of a service.
struct Chosen {
    all: Vec<Target>,
    local: Vec<Target>,
}

fn choose(port: &ServicePort, slices: &[&Slice], node: &str) -> Chosen {
    let usable = |endpoint: &Endpoint| endpoint.ready && !endpoint.terminating;
    let ending = |endpoint: &Endpoint| endpoint.serving && endpoint.terminating;
    let here = |endpoint: &Endpoint| endpoint.node.as_deref() == Some(node);
    let pick = |keep: &dyn Fn(&Endpoint) -> bool| {
        let ready = targets(port, slices, |endpoint| keep(endpoint) && usable(endpoint));
        if ready.is_empty() {
            targets(port, slices, |endpoint| keep(endpoint) && ending(endpoint))
        } else {
            ready
        }
    };
    Chosen { all: pick(&|_| true), local: pick(&here) }
}

/// Sorted, each once: two slices may hold the same endpoint for a moment.
fn targets(port: &ServicePort, slices: &[&Slice], keep: impl Fn(&Endpoint) -> bool) -> Vec<Target> {
    let mut targets = BTreeSet::new();
    for slice in slices {
        let ports = slice.ports.iter();
        let matching = ports.filter(|p| p.name == port.name && p.protocol == port.protocol);
        for matching in matching {
            for endpoint in slice.endpoints.iter().filter(|endpoint| keep(endpoint)) {
                // All addresses of an endpoint are the same pod; the first is the one to use.
                if let Some(IpAddr::V4(address)) = endpoint.addresses.first() {
                    targets.insert(Target { address: *address, port: matching.port });
                }
            }
        }
    }
    targets.into_iter().collect()
}

impl Ruleset {
    fn add_port(&mut self, service: &Service, port: &ServicePort, slices: &[&Slice], at: &Place) {
        let v4 = service.cluster_ips.iter().filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        let vips: Vec<Vip> =
            v4.map(|address| Vip { address, protocol: port.protocol, port: port.port }).collect();
        if vips.is_empty() {
            return;
        }
        let chosen = choose(port, slices, &at.node);
        if chosen.all.is_empty() {
            return;
        }
        self.hairpin.extend(chosen.local.iter().map(|target| target.address));
        let path = format!(
            "{}/{}/{}/{}",
            service.namespace,
            service.name,
            port.protocol.lower(),
            port.port
        );
        let external_local = service.external_local && port.node_port.is_some();
        let everywhere = format!("svc/{path}");
        let here = format!("local/{path}");
        if !service.internal_local || port.node_port.is_some() {
            self.add_chain(&everywhere, &path, &chosen.all, service.affinity);
        }
        if (service.internal_local || external_local) && !chosen.local.is_empty() {
            self.add_chain(&here, &path, &chosen.local, service.affinity);
        }
        let verdict = match (service.internal_local, chosen.local.is_empty()) {
            (false, _) => Verdict::Goto(everywhere.clone()),
            (true, false) => Verdict::Goto(here.clone()),
            (true, true) => Verdict::Drop,
        };
        self.vips.extend(vips.into_iter().map(|vip| (vip, verdict.clone())));
        if let Some(node_port) = port.node_port {
            let chain = format!("np/{path}");
            let rules = if external_local {
                let then =
                    if chosen.local.is_empty() { Rule::Drop } else { Rule::Goto(here.clone()) };
                vec![
                    Rule::From { network: at.cluster_cidr, chain: everywhere.clone() },
                    Rule::MarkOwn,
                    Rule::Own { chain: everywhere.clone() },
                    then,
                ]
            } else {
                vec![Rule::MarkMasquerade, Rule::Goto(everywhere.clone())]
            };
            self.chains.insert(chain.clone(), rules);
            self.node_ports.insert((port.protocol, node_port), Verdict::Goto(chain));
        }
    }

    /// A chain that sends a connection to one of `targets`.
    fn add_chain(
        &mut self,
        chain: &str,
        path: &str,
        targets: &[Target],
        affinity: Option<Duration>,
    ) {
        let Some(timeout) = affinity else {
            self.chains.insert(chain.to_string(), vec![Rule::Translate(targets.to_vec())]);
            return;
        };
        let mut rules = Vec::new();
        let mut chains = Vec::new();
        for target in targets {
            let suffix = format!("{path}/{}/{}", target.address, target.port);
            // A set's timeout cannot be changed, so another timeout is another set.
            let set = format!("aff/{}/{suffix}", timeout.as_secs());
            let chain = format!("ep/{suffix}");
            self.affinity.insert(set.clone(), timeout);
            let remember = Rule::Remember { set: set.clone() };
            let endpoint = vec![remember, Rule::Translate(vec![*target])];
            self.chains.insert(chain.clone(), endpoint);
            rules.push(Rule::Sticky { set, chain: chain.clone() });
            chains.push(chain);
        }
        rules.push(Rule::Spread(chains));
        self.chains.insert(chain.to_string(), rules);
    }

    fn add_host_port(&mut self, address: Ipv4Addr, port: &HostPort) {
        let chain = format!("host/{}/{}", port.protocol.lower(), port.host_port);
        let target = Target { address, port: port.container_port };
        self.chains.insert(chain.clone(), vec![Rule::Translate(vec![target])]);
        self.node_ports.insert((port.protocol, port.host_port), Verdict::Goto(chain));
        self.hairpin.insert(address);
    }

    /// How many endpoints the rules name, each as often as it serves a port.
    pub fn targets(&self) -> usize {
        let rules = self.chains.values().flatten();
        let counts = rules.map(|rule| match rule {
            Rule::Translate(targets) => targets.len(),
            _ => 0,
        });
        counts.sum()
    }

    /// Where UDP goes: a flow to a target that left this set must be forgotten.
    pub fn udp_targets(&self) -> BTreeSet<Target> {
        let chains = self.chains.iter().filter(|(name, _)| name.contains("/udp/"));
        let rules = chains.flat_map(|(_, rules)| rules);
        let targets = rules.filter_map(|rule| match rule {
            Rule::Translate(targets) => Some(targets),
            _ => None,
        });
        targets.flatten().copied().collect()
    }
}

/// One step from one ruleset to another. Their order is the order in which the kernel must see them:
/// what is referred to is made before what refers to it and removed after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    RemoveVip(Vip),
    RemoveNodePort(Protocol, u16),
    RemoveHairpin(Ipv4Addr),
    AddSet(&'a str, Duration),
    AddChain(&'a str),
    /// Empties the chain and writes its rules.
    SetRules(&'a str, &'a [Rule]),
    ClearChain(&'a str),
    RemoveChain(&'a str),
    RemoveSet(&'a str),
    AddVip(Vip, &'a Verdict),
    AddNodePort(Protocol, u16, &'a Verdict),
    AddHairpin(Ipv4Addr),
}

/// The steps from `old` to `new`; empty if they are equal.
pub fn changes<'a>(old: &'a Ruleset, new: &'a Ruleset) -> Vec<Change<'a>> {
    let mut steps = Vec::new();
    let stale = old.vips.iter().filter(|(vip, verdict)| new.vips.get(vip) != Some(verdict));
    steps.extend(stale.map(|(vip, _)| Change::RemoveVip(*vip)));
    let stale =
        old.node_ports.iter().filter(|(key, verdict)| new.node_ports.get(key) != Some(verdict));
    steps.extend(stale.map(|((protocol, port), _)| Change::RemoveNodePort(*protocol, *port)));
    steps.extend(old.hairpin.difference(&new.hairpin).map(|ip| Change::RemoveHairpin(*ip)));

    let fresh = new.affinity.iter().filter(|(set, _)| !old.affinity.contains_key(*set));
    steps.extend(fresh.map(|(set, timeout)| Change::AddSet(set, *timeout)));
    let gone_sets = old.affinity.keys().filter(|set| !new.affinity.contains_key(*set));

    let fresh = new.chains.keys().filter(|chain| !old.chains.contains_key(*chain));
    steps.extend(fresh.map(|chain| Change::AddChain(chain)));
    let changed = new.chains.iter().filter(|(chain, rules)| old.chains.get(*chain) != Some(rules));
    steps.extend(changed.map(|(chain, rules)| Change::SetRules(chain, rules)));
    let gone: Vec<&String> =
        old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)).collect();
    steps.extend(gone.iter().map(|chain| Change::ClearChain(chain)));
    steps.extend(gone.iter().map(|chain| Change::RemoveChain(chain)));
    steps.extend(gone_sets.map(|set| Change::RemoveSet(set)));

    let fresh = new.vips.iter().filter(|(vip, verdict)| old.vips.get(vip) != Some(verdict));
    steps.extend(fresh.map(|(vip, verdict)| Change::AddVip(*vip, verdict)));
    let fresh =
        new.node_ports.iter().filter(|(key, verdict)| old.node_ports.get(key) != Some(verdict));
    steps.extend(fresh.map(|((proto, port), verdict)| Change::AddNodePort(*proto, *port, verdict)));
    steps.extend(new.hairpin.difference(&old.hairpin).map(|ip| Change::AddHairpin(*ip)));
    steps
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {}", self.address, self.port)
    }
}

impl Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {} . {}", self.address, self.protocol.lower(), self.port)
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
            Verdict::Drop => f.write_str("drop"),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbered = |items: &[String]| {
            let pairs = items.iter().enumerate().map(|(index, item)| format!("{index} : {item}"));
            pairs.collect::<Vec<_>>().join(", ")
        };
        match self {
            Rule::Translate(targets) if targets.len() == 1 => {
                write!(f, "dnat to {}:{}", targets[0].address, targets[0].port)
            }
            Rule::Translate(targets) => {
                let count = targets.len();
                let texts: Vec<String> = targets.iter().map(Target::to_string).collect();
                let map = numbered(&texts);
                write!(f, "dnat ip to numgen random mod {count} map {{ {map} }}")
            }
            Rule::Spread(chains) => {
                let texts: Vec<String> =
                    chains.iter().map(|chain| format!("goto {chain}")).collect();
                write!(f, "numgen random mod {} vmap {{ {} }}", chains.len(), numbered(&texts))
            }
            Rule::Sticky { set, chain } => write!(f, "ip saddr @{set} goto {chain}"),
            Rule::Remember { set } => write!(f, "update @{set} {{ ip saddr }}"),
            Rule::MarkMasquerade => f.write_str("meta mark set meta mark | 0x4000"),
            Rule::From { network, chain } => write!(f, "ip saddr {network} goto {chain}"),
            Rule::MarkOwn => f.write_str("fib saddr type local meta mark set meta mark | 0x4000"),
            Rule::Own { chain } => write!(f, "fib saddr type local goto {chain}"),
            Rule::Goto(chain) => write!(f, "goto {chain}"),
            Rule::Drop => f.write_str("drop"),
        }
    }
}

/// As `nft list table` would show it, without the frame.
impl Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (set, timeout) in &self.affinity {
            writeln!(f, "set {set} timeout {}s", timeout.as_secs())?;
        }
        for address in &self.hairpin {
            writeln!(f, "hairpin {address}")?;
        }
        for (vip, verdict) in &self.vips {
            writeln!(f, "vip {vip} : {verdict}")?;
        }
        for ((protocol, port), verdict) in &self.node_ports {
            writeln!(f, "node-port {} . {port} : {verdict}", protocol.lower())?;
        }
        for (chain, rules) in &self.chains {
            writeln!(f, "chain {chain}")?;
            for rule in rules {
                writeln!(f, "  {rule}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;

//! The names of a cluster and what they mean (the Kubernetes DNS specification 1.1.0), built from
//! services and endpoints. Pure.

use crate::proxy::{Endpoint, Service, Services, Slice};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};

/// Follows this many names of ExternalName services that name each other.
const ALIAS_DEPTH_MAX: usize = 8;

/// What is known of one name. All empty: the name is only the parent of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    addresses: BTreeSet<IpAddr>,
    /// Port and target.
    services: BTreeSet<(u16, String)>,
    alias: Option<String>,
    /// Names of an address, for the name `4.3.2.1.in-addr.arpa`.
    pointers: BTreeSet<String>,
    text: Option<String>,
}

/// Type of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    Srv,
    Ptr,
    Cname,
    Txt,
    Soa,
    Ns,
    /// Anything else: nothing here has it.
    Other,
}

/// One record: its name and its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Address(IpAddr),
    Service { port: u16, target: String },
    Pointer(String),
    Alias(String),
    Text(String),
    Soa,
    Ns(String),
}

/// Name (without trailing dot) and data.
pub type Record = (String, Data);

/// What to tell a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// Records so far, of which the last is an alias to a name outside the cluster.
    Alias {
        answers: Vec<Record>,
        outside: String,
    },
    /// The name is, but has nothing of that type.
    NoData,
    /// There is no such name.
    NoName,
    /// Not a name of the cluster.
    Outside,
}

/// Every name of the cluster, lower case and without trailing dot.
#[derive(Debug)]
pub struct Zone {
    domain: String,
    entries: HashMap<String, Entry>,
}

impl Zone {
    /// The names of `world` under `domain` (`cluster.local`).
    pub fn build(world: &Services, domain: &str) -> Zone {
        let mut zone = Zone { domain: domain.to_ascii_lowercase(), entries: HashMap::new() };
        for parent in ["svc", "pod", "dns-version"] {
            zone.entry(&format!("{parent}.{domain}"));
        }
        zone.entry(&format!("dns-version.{domain}")).text = Some("1.1.0".into());
        let slices = world.slices_by_service();
        for service in world.services.values() {
            let key = (service.namespace.as_str(), service.name.as_str());
            let slices = slices.get(&key).map(Vec::as_slice).unwrap_or_default();
            zone.add_service(service, slices);
        }
        zone
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `name` lower case and without trailing dot.
    pub fn answer(&self, name: &str, kind: Kind) -> Answer {
        let mut answers = Vec::new();
        let mut name = name.to_string();
        for _ in 0..ALIAS_DEPTH_MAX {
            if !self.covers(&name) {
                return match answers.is_empty() {
                    true => Answer::Outside,
                    false => Answer::Alias { answers, outside: name },
                };
            }
            let Some(entry) = self.find(&name) else {
                return if answers.is_empty() { Answer::NoName } else { records(answers, vec![]) };
            };
            if let Some(alias) = entry.alias.clone().filter(|_| kind != Kind::Cname) {
                answers.push((name, Data::Alias(alias.clone())));
                name = alias;
                continue;
            }
            let found = self.data(&name, &entry, kind);
            if found.is_empty() && answers.is_empty() {
                return Answer::NoData;
            }
            let additionals = found.iter().flat_map(|data| self.additional(data)).collect();
            answers.extend(found.into_iter().map(|data| (name.clone(), data)));
            return records(answers, additionals);
        }
        // Aliases in a circle: what was found so far is true.
        records(answers, vec![])
    }

    /// Names of ours: those of the domain, and reverse names of addresses that have one.
    fn covers(&self, name: &str) -> bool {
        let under = name.strip_suffix(&self.domain);
        under.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            || (name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa"))
                && self.entries.contains_key(name)
    }

    fn find(&self, name: &str) -> Option<Entry> {
        if let Some(entry) = self.entries.get(name) {
            return Some(entry.clone());
        }
        self.pod(name)
    }

    /// `10-244-1-5.NAMESPACE.pod.DOMAIN` is 10.244.1.5 whether or not there is such a pod, and each
    /// namespace under `pod` is a name (CoreDNS's `pods insecure`, the default of kubeadm).
    fn pod(&self, name: &str) -> Option<Entry> {
        let labels = name.strip_suffix(&self.domain)?.strip_suffix(".pod.")?;
        let Some((address, namespace)) = labels.split_once('.') else {
            return Some(Entry::default());
        };
        if namespace.contains('.') {
            return None;
        }
        let address: Ipv4Addr = address.replace('-', ".").parse().ok()?;
        Some(Entry { addresses: BTreeSet::from([address.into()]), ..Entry::default() })
    }

    fn data(&self, name: &str, entry: &Entry, kind: Kind) -> Vec<Data> {
        let apex = name == self.domain;
        let addresses = |v4: bool| {
            let of_family = entry.addresses.iter().filter(|address| address.is_ipv4() == v4);
            of_family.map(|address| Data::Address(*address)).collect()
        };
        match kind {
            Kind::A => addresses(true),
            Kind::Aaaa => addresses(false),
            Kind::Srv => {
                let service = |(port, target): &(u16, String)| Data::Service {
                    port: *port,
                    target: target.clone(),
                };
                entry.services.iter().map(service).collect()
            }
            Kind::Ptr => entry.pointers.iter().cloned().map(Data::Pointer).collect(),
            Kind::Cname => entry.alias.iter().cloned().map(Data::Alias).collect(),
            Kind::Txt => entry.text.iter().cloned().map(Data::Text).collect(),
            Kind::Soa if apex => vec![Data::Soa],
            Kind::Ns if apex => vec![Data::Ns(format!("ns.dns.{}", self.domain))],
            Kind::Soa | Kind::Ns | Kind::Other => Vec::new(),
        }
    }

    /// The addresses of what an SRV record names, to spare the client the next question.
    fn additional(&self, data: &Data) -> Vec<Record> {
        let Data::Service { target, .. } = data else { return Vec::new() };
        let Some(entry) = self.entries.get(target) else { return Vec::new() };
        let addresses = entry.addresses.iter();
        addresses.map(|address| (target.clone(), Data::Address(*address))).collect()
    }

    /// The entry of a name, made together with its parents, which are names too.
    fn entry(&mut self, name: &str) -> &mut Entry {
        let name = name.to_ascii_lowercase();
        let mut parent = name.as_str();
        while parent != self.domain {
            let Some((_, rest)) = parent.split_once('.') else { break };
            if self.entries.contains_key(rest) || !rest.ends_with(&self.domain) {
                break;
            }
            self.entries.insert(rest.to_string(), Entry::default());
            parent = rest;
        }
        self.entries.entry(name).or_default()
    }

    fn add_service(&mut self, service: &Service, slices: &[&Slice]) {
        let name = format!("{}.{}.svc.{}", service.name, service.namespace, self.domain);
        if let Some(external) = &service.external_name {
            let alias = external.trim_end_matches('.').to_ascii_lowercase();
            self.entry(&name).alias = Some(alias);
        } else if service.headless {
            self.add_headless(service, slices, &name);
        } else {
            self.entry(&name).addresses.extend(&service.cluster_ips);
            for address in &service.cluster_ips {
                self.entry(&reverse(*address)).pointers.insert(name.clone());
            }
            for port in service.ports.iter().filter(|port| !port.name.is_empty()) {
                let record = format!("_{}._{}.{name}", port.name, port.protocol.lower());
                self.entry(&record).services.insert((port.port, name.clone()));
            }
        }
    }

    /// The service's name has its endpoints' addresses; each endpoint has a name of its own.
    fn add_headless(&mut self, service: &Service, slices: &[&Slice], name: &str) {
        let published = |endpoint: &&Endpoint| endpoint.ready || service.publish_not_ready;
        let mut found = BTreeMap::new();
        for slice in slices {
            for endpoint in slice.endpoints.iter().filter(published) {
                for address in &endpoint.addresses {
                    let label = match &endpoint.hostname {
                        Some(hostname) => hostname.clone(),
                        None => address.to_string().replace(['.', ':'], "-"),
                    };
                    found.insert((*address, label), &slice.ports);
                }
            }
        }
        self.entry(name);
        for ((address, label), ports) in found {
            let target = format!("{label}.{name}").to_ascii_lowercase();
            self.entry(name).addresses.insert(address);
            self.entry(&target).addresses.insert(address);
            self.entry(&reverse(address)).pointers.insert(target.clone());
            for port in ports.iter().filter(|port| !port.name.is_empty()) {
                let record = format!("_{}._{}.{name}", port.name, port.protocol.lower());
                self.entry(&record).services.insert((port.port, target.clone()));
            }
        }
    }
}

fn records(answers: Vec<Record>, additionals: Vec<Record>) -> Answer {
    Answer::Records { answers, additionals }
}

/// `4.3.2.1.in-addr.arpa`, or the nibbles of `ip6.arpa`.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev();
            let nibbles = nibbles.map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4));
            nibbles.collect::<String>() + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{ServicePort, SlicePort};

    fn world() -> Services {
        let service = |name: &str, change: &dyn Fn(&mut Service)| {
            let port = ServicePort {
                name: "http".into(),
                protocol: crate::net::Protocol::Tcp,
                port: 80,
                node_port: None,
            };
            let (namespace, name) = ("shop".into(), name.to_string());
            let mut service = Service { namespace, name, ports: vec![port], ..Service::default() };
            change(&mut service);
            (format!("shop/{}", service.name), service)
        };
        let endpoint = |address: &str, ready: bool, hostname: Option<&str>| Endpoint {
            addresses: vec![address.parse().unwrap()],
            ready,
            serving: ready,
            terminating: false,
            hostname: hostname.map(String::from),
            node: None,
        };
        let slice = Slice {
            namespace: "shop".into(),
            name: "db-1".into(),
            service: "db".into(),
            ports: vec![SlicePort {
                name: "sql".into(),
                protocol: crate::net::Protocol::Tcp,
                port: 5432,
            }],
            endpoints: vec![
                endpoint("10.244.1.5", true, Some("db-0")),
                endpoint("10.244.2.6", true, None),
                endpoint("10.244.3.7", false, Some("db-2")),
            ],
        };
        Services {
            services: BTreeMap::from([
                service("web", &|s| s.cluster_ips = vec!["10.96.0.7".parse().unwrap()]),
                service("db", &|s| s.headless = true),
                service("ext", &|s| s.external_name = Some("Example.org.".into())),
                service("alias", &|s| {
                    s.external_name = Some("web.shop.svc.cluster.local".into());
                }),
                service("loop", &|s| {
                    s.external_name = Some("loop.shop.svc.cluster.local".into());
                }),
            ]),
            slices: BTreeMap::from([("shop/db-1".to_string(), slice)]),
        }
    }

    fn check(name: &str, kind: Kind) -> String {
        let show = |record: &Record| match &record.1 {
            Data::Address(address) => address.to_string(),
            Data::Service { port, target } => format!("{target}:{port}"),
            Data::Pointer(name) | Data::Ns(name) => name.clone(),
            Data::Alias(name) => format!("-> {name}"),
            Data::Text(text) => format!("{text:?}"),
            Data::Soa => "soa".into(),
        };
        let list = |records: &[Record]| records.iter().map(show).collect::<Vec<_>>().join(", ");
        match Zone::build(&world(), "cluster.local").answer(name, kind) {
            Answer::Records { answers, additionals } if additionals.is_empty() => list(&answers),
            Answer::Records { answers, additionals } => {
                format!("{} + {}", list(&answers), list(&additionals))
            }
            Answer::Alias { answers, outside } => format!("{} outside {outside}", list(&answers)),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn services_have_their_cluster_address_and_ports() {
        assert_eq!(check("web.shop.svc.cluster.local", Kind::A), "10.96.0.7");
        assert_eq!(check("web.shop.svc.cluster.local", Kind::Aaaa), "NoData");
        assert_eq!(
            check("_http._tcp.web.shop.svc.cluster.local", Kind::Srv),
            "web.shop.svc.cluster.local:80 + 10.96.0.7"
        );
        assert_eq!(check("7.0.96.10.in-addr.arpa", Kind::Ptr), "web.shop.svc.cluster.local");
    }

    #[test]
    fn headless_services_have_their_ready_endpoints() {
        assert_eq!(check("db.shop.svc.cluster.local", Kind::A), "10.244.1.5, 10.244.2.6");
        assert_eq!(check("db-0.db.shop.svc.cluster.local", Kind::A), "10.244.1.5");
        assert_eq!(check("10-244-2-6.db.shop.svc.cluster.local", Kind::A), "10.244.2.6");
        assert_eq!(check("db-2.db.shop.svc.cluster.local", Kind::A), "NoName");
        assert_eq!(
            check("_sql._tcp.db.shop.svc.cluster.local", Kind::Srv),
            "10-244-2-6.db.shop.svc.cluster.local:5432, db-0.db.shop.svc.cluster.local:5432 \
             + 10.244.2.6, 10.244.1.5"
        );
        assert_eq!(check("5.1.244.10.in-addr.arpa", Kind::Ptr), "db-0.db.shop.svc.cluster.local");
    }

    #[test]
    fn external_names_are_aliases() {
        let alias = "-> web.shop.svc.cluster.local";
        assert_eq!(
            check("ext.shop.svc.cluster.local", Kind::A),
            "-> example.org outside example.org"
        );
        assert_eq!(check("ext.shop.svc.cluster.local", Kind::Cname), "-> example.org");
        assert_eq!(check("alias.shop.svc.cluster.local", Kind::A), format!("{alias}, 10.96.0.7"));
        let circle = check("loop.shop.svc.cluster.local", Kind::A);
        assert_eq!(circle.matches("-> loop").count(), ALIAS_DEPTH_MAX);
    }

    #[test]
    fn pods_are_named_by_their_address() {
        assert_eq!(check("10-244-1-5.shop.pod.cluster.local", Kind::A), "10.244.1.5");
        assert_eq!(check("10-244-1-5.shop.pod.cluster.local", Kind::Aaaa), "NoData");
        assert_eq!(check("shop.pod.cluster.local", Kind::A), "NoData");
        assert_eq!(check("nonsense.shop.pod.cluster.local", Kind::A), "NoName");
        assert_eq!(check("10-244-1-5.a.b.pod.cluster.local", Kind::A), "NoName");
    }

    #[test]
    fn parents_are_names_without_data_and_the_rest_is_not() {
        for parent in ["cluster.local", "svc.cluster.local", "shop.svc.cluster.local"] {
            assert_eq!(check(parent, Kind::A), "NoData", "{parent}");
        }
        assert_eq!(check("_tcp.web.shop.svc.cluster.local", Kind::Srv), "NoData");
        assert_eq!(check("nope.shop.svc.cluster.local", Kind::A), "NoName");
        assert_eq!(check("web.shop.svc.cluster.local.shop.svc.cluster.local", Kind::A), "NoName");
        assert_eq!(check("example.org", Kind::A), "Outside");
        assert_eq!(check("notcluster.local", Kind::A), "Outside");
        assert_eq!(check("8.0.96.10.in-addr.arpa", Kind::Ptr), "Outside");
        assert_eq!(check("cluster.local", Kind::Soa), "soa");
        assert_eq!(check("dns-version.cluster.local", Kind::Txt), "\"1.1.0\"");
    }
}

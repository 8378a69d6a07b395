//! Cluster IPs and node ports of Services: each claim is a key of its own, written in the same
//! transaction as the service and guarded on being absent, so that two masters can never hand out one
//! twice and nothing leaks or needs repair.
//!
//! An IP claim is an `IPAddress` object, as upstream has it since 1.33.

use crate::{
    encode,
    kinds::KindDef,
    pipeline::{Core, meta},
};
use k8s::{FieldError, Object, Status};
use raft_store::{Guard, Key, Op, Write};
use rand::Rng;
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::Ipv4Addr, ops::RangeInclusive};

const IP_SPACE: &str = "networking.k8s.io/ipaddresses";
const PORT_SPACE: &str = "coxswain/nodeports";
/// Random picks before every value is tried in turn.
// At half-full ranges, 16 misses in a row happen once in 65,000.
const RANDOM_PICKS: usize = 16;

/// IPv4 addresses for services: `base` and the number of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    base: u32,
    prefix: u8,
}

impl ServiceCidr {
    /// `10.96.0.0/16`; prefixes from /12 to /28, as upstream bounds them for IPv4.
    pub fn parse(text: &str) -> Option<ServiceCidr> {
        let (base, prefix) = text.split_once('/')?;
        let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (12..=28).contains(prefix))?;
        let mask = u32::MAX << (32 - prefix);
        (base & !mask == 0).then_some(ServiceCidr { base, prefix })
    }

    /// The address of the `kubernetes` Service.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    fn size(&self) -> u32 {
        1 << (32 - self.prefix)
    }

    pub(crate) fn contains(&self, ip: Ipv4Addr) -> bool {
        let offset = u32::from(ip).wrapping_sub(self.base);
        (1..self.size() - 1).contains(&offset)
    }

    /// Offsets handed out: below them is left to users who name an address (KEP-3070).
    fn dynamic(&self) -> RangeInclusive<u32> {
        let reserved = (self.size() / 16).clamp(16, 256).min(self.size() / 2);
        reserved..=self.size() - 2
    }
}

impl std::fmt::Display for ServiceCidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// Something only one service may hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Ip(Ipv4Addr),
    Port(u16),
}

impl Claim {
    fn key(&self) -> Key {
        match self {
            Claim::Ip(ip) => Key::new(IP_SPACE, ip.to_string()),
            Claim::Port(port) => Key::new(PORT_SPACE, port.to_string()),
        }
    }
}

/// The claims a write of a service takes and gives back; empty for every other kind.
#[derive(Debug, Default)]
pub(crate) struct Allocation {
    taken: BTreeSet<Claim>,
    released: BTreeSet<Claim>,
    owner: (String, String),
    /// What the server chose itself and may choose anew.
    chose_ip: bool,
    chose_ports: Vec<usize>,
}

impl Allocation {
    pub(crate) fn for_create(
        core: &Core,
        kind: &KindDef,
        service: &mut Object,
    ) -> Result<Allocation, Status> {
        if !is_service(kind) {
            return Ok(Allocation::default());
        }
        Allocation::fill(core, kind, service, &BTreeSet::new())
    }

    /// What the client left out of an update stays as it was where the type still wants it.
    pub(crate) fn for_update(
        core: &Core,
        kind: &KindDef,
        new: &mut Object,
        old: &Object,
    ) -> Result<Allocation, Status> {
        if !is_service(kind) {
            return Ok(Allocation::default());
        }
        inherit(new, old);
        drop_dependent(new, old);
        let held = claims(old);
        let mut allocation = Allocation::fill(core, kind, new, &held)?;
        allocation.released = held.difference(&claims(new)).cloned().collect();
        Ok(allocation)
    }

    /// After somebody else was faster: choose anew what was chosen here.
    pub(crate) fn again(
        self,
        core: &Core,
        kind: &KindDef,
        service: &mut Object,
    ) -> Result<Allocation, Status> {
        if !is_service(kind) {
            return Ok(Allocation::default());
        }
        let spec = service.map_mut("spec");
        if self.chose_ip {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        if let Some(Value::Array(ports)) = spec.get_mut("ports") {
            for index in self.chose_ports {
                if let Some(Value::Object(port)) = ports.get_mut(index) {
                    port.remove("nodePort");
                }
            }
        }
        Allocation::for_create(core, kind, service)
    }

    /// The service got another generated name.
    pub(crate) fn rename(&mut self, service: &Object) {
        self.owner = (service.namespace().into(), service.name().into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.released.is_empty()
    }

    pub(crate) fn writes(&self) -> Vec<Write> {
        let take = self.taken.iter().map(|claim| Write {
            key: claim.key(),
            guard: Guard::Absent,
            op: Op::Put(encode::body(&self.record(claim))),
        });
        take.chain(self.released.iter().map(release)).collect()
    }

    /// Gives back all a service holds, with its deletion.
    pub(crate) fn release(kind: &KindDef, service: &Object) -> Vec<Write> {
        if is_service(kind) { claims(service).iter().map(release).collect() } else { Vec::new() }
    }

    fn fill(
        core: &Core,
        kind: &KindDef,
        service: &mut Object,
        held: &BTreeSet<Claim>,
    ) -> Result<Allocation, Status> {
        let owner = (service.namespace().to_string(), service.name().to_string());
        let mut allocation = Allocation { owner, ..Allocation::default() };
        let taken = |claim: &Claim| {
            let key = claim.key();
            !held.contains(claim) && core.view.stored(&key.space, &key.path).is_some()
        };
        let refuse = |service: &Object, error: FieldError| {
            Status::invalid(kind.group, kind.kind, service.name(), &[error])
        };
        let cidr = core.config.service_cidr;
        match fill_ip(service, cidr, &taken) {
            Ok(chose) => allocation.chose_ip = chose,
            Err(error) => return Err(refuse(service, error)),
        }
        match fill_ports(service, &core.config.node_ports, &taken) {
            Ok(chose) => allocation.chose_ports = chose,
            Err(error) => return Err(refuse(service, error)),
        }
        allocation.taken = claims(service).difference(held).cloned().collect();
        Ok(allocation)
    }

    fn record(&self, claim: &Claim) -> Object {
        let (namespace, name) = &self.owner;
        let value = match claim {
            Claim::Ip(ip) => json!({
                "metadata": {
                    "name": ip.to_string(),
                    "uid": uuid::Uuid::new_v4().to_string(),
                    "creationTimestamp": meta::now(),
                    "generation": 1,
                    "labels": {
                        "ipaddress.kubernetes.io/ip-family": "IPv4",
                        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                    },
                },
                "spec": {
                    "parentRef": { "resource": "services", "namespace": namespace, "name": name },
                },
            }),
            Claim::Port(port) => json!({
                "metadata": { "name": port.to_string() },
                "service": format!("{namespace}/{name}"),
            }),
        };
        Object::from_value(value).expect("an object literal")
    }
}

fn release(claim: &Claim) -> Write {
    Write { key: claim.key(), guard: Guard::Any, op: Op::Delete }
}

fn is_service(kind: &KindDef) -> bool {
    kind.group.is_empty() && kind.plural == "services"
}

/// `ClusterIP`, `NodePort` or `LoadBalancer`; not `ExternalName`.
fn wants_ip(service: &Object) -> bool {
    service.str_at("/spec/type") != "ExternalName"
}

fn wants_ports(service: &Object) -> bool {
    match service.str_at("/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => {
            service.at("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
        }
        _ => false,
    }
}

/// Everything a service holds as it stands.
fn claims(service: &Object) -> BTreeSet<Claim> {
    let mut claims = BTreeSet::new();
    if wants_ip(service) {
        claims.extend(service.str_at("/spec/clusterIP").parse().ok().map(Claim::Ip));
    }
    if matches!(service.str_at("/spec/type"), "NodePort" | "LoadBalancer") {
        claims.extend(node_ports(service).into_iter().flatten().map(Claim::Port));
        claims.extend(health_port(service).map(Claim::Port));
    }
    claims
}

/// Where a balancer asks a node whether it has a pod of the service.
fn health_port(service: &Object) -> Option<u16> {
    let port = service.int_at("/spec/healthCheckNodePort").filter(|port| *port > 0)?;
    port.try_into().ok()
}

fn wants_health_port(service: &Object) -> bool {
    service.str_at("/spec/type") == "LoadBalancer"
        && service.str_at("/spec/externalTrafficPolicy") == "Local"
}

fn node_ports(service: &Object) -> Vec<Option<u16>> {
    let ports = service.at("/spec/ports").and_then(Value::as_array);
    let number = |port: &Value| port.get("nodePort")?.as_u64().filter(|port| *port > 0);
    ports.into_iter().flatten().map(|port| number(port)?.try_into().ok()).collect()
}

/// The address that an update left out and the old version had (ports are the kind's own).
fn inherit(new: &mut Object, old: &Object) {
    if wants_ip(new) && wants_ip(old) && new.str_at("/spec/clusterIP").is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old.at(&format!("/spec/{field}")).cloned() {
                new.map_mut("spec").insert(field.into(), value);
            }
        }
    }
}

/// What only the old type had goes with it, where the client left it as it was (upstream's
/// `dropTypeDependentFields`).
fn drop_dependent(new: &mut Object, old: &Object) {
    let exposed =
        |service: &Object| matches!(service.str_at("/spec/type"), "NodePort" | "LoadBalancer");
    let balanced = |service: &Object| service.str_at("/spec/type") == "LoadBalancer";
    let mut gone: Vec<&str> = Vec::new();
    if exposed(old) && !exposed(new) {
        if node_ports(new) == node_ports(old)
            && let Some(Value::Array(ports)) = new.map_mut("spec").get_mut("ports")
        {
            for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                port.remove("nodePort");
            }
        }
        if new.at("/spec/externalIPs/0").is_none() {
            gone.push("externalTrafficPolicy");
        }
    }
    if balanced(old) && !balanced(new) {
        gone.extend(["allocateLoadBalancerNodePorts", "healthCheckNodePort", "loadBalancerClass"]);
    }
    for field in gone {
        let pointer = format!("/spec/{field}");
        if new.at(&pointer) == old.at(&pointer) {
            new.map_mut("spec").remove(field);
        }
    }
}

/// Sets the cluster IP and what goes with it; true if the address was chosen here.
fn fill_ip(
    service: &mut Object,
    cidr: ServiceCidr,
    taken: &dyn Fn(&Claim) -> bool,
) -> Result<bool, FieldError> {
    if !wants_ip(service) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            service.map_mut("spec").remove(field);
        }
        return Ok(false);
    }
    let asked = match service.str_at("/spec/clusterIP") {
        "" => service.str_at("/spec/clusterIPs/0").to_string(),
        asked => asked.to_string(),
    };
    let invalid = |why: String| {
        let why = format!("failed to allocate IP {asked}: {why}");
        FieldError::invalid("spec.clusterIPs", json!([asked]), why)
    };
    let mut chose = false;
    let ip = match asked.as_str() {
        "None" => asked.clone(),
        "" => {
            chose = true;
            let free = |offset: u32| {
                let ip = Ipv4Addr::from(cidr.base + offset);
                (!taken(&Claim::Ip(ip))).then_some(ip)
            };
            let ip =
                pick(cidr.dynamic(), free).or_else(|| (1..*cidr.dynamic().start()).find_map(free));
            ip.ok_or_else(|| invalid("range is full".into()))?.to_string()
        }
        _ => match asked.parse::<Ipv4Addr>() {
            // Validation has more to say of what is no address at all.
            Err(_) => return Ok(false),
            Ok(ip) if !cidr.contains(ip) => {
                return Err(invalid(format!(
                    "the provided IP ({ip}) is not in the valid range. The range of valid IPs is \
                     {cidr}"
                )));
            }
            Ok(ip) if taken(&Claim::Ip(ip)) => {
                return Err(invalid("provided IP is already allocated".into()));
            }
            Ok(ip) => ip.to_string(),
        },
    };
    let spec = service.map_mut("spec");
    spec.insert("clusterIPs".into(), json!([ip]));
    spec.insert("clusterIP".into(), ip.into());
    spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
    Ok(chose)
}

/// Sets the missing node ports; the indexes of those chosen here.
fn fill_ports(
    service: &mut Object,
    range: &RangeInclusive<u16>,
    taken: &dyn Fn(&Claim) -> bool,
) -> Result<Vec<usize>, FieldError> {
    let mut chosen = Vec::new();
    fill_health_port(service, range, taken)?;
    if !wants_ports(service) {
        return Ok(chosen);
    }
    let mut mine: BTreeSet<u16> = node_ports(service).into_iter().flatten().collect();
    mine.extend(health_port(service));
    for (index, port) in node_ports(service).into_iter().enumerate() {
        let path = format!("spec.ports[{index}].nodePort");
        match port {
            Some(port) if !range.contains(&port) => {
                let why = format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    range.start(),
                    range.end()
                );
                return Err(FieldError::invalid(path, port.into(), why));
            }
            Some(port) if taken(&Claim::Port(port)) => {
                let why = "provided port is already allocated";
                return Err(FieldError::invalid(path, port.into(), why));
            }
            Some(_) => {}
            None => {
                let (start, end) = (u32::from(*range.start()), u32::from(*range.end()));
                let reserved = ((end - start + 1) / 32).clamp(16, 128).min((end - start) / 2);
                let free = |port: u32| {
                    let port = u16::try_from(port).ok()?;
                    (!mine.contains(&port) && !taken(&Claim::Port(port))).then_some(port)
                };
                let port = pick(start + reserved..=end, free)
                    .or_else(|| (start..start + reserved).find_map(free))
                    .ok_or_else(|| {
                        FieldError::invalid(
                            &path,
                            0.into(),
                            "failed to allocate a nodePort: range is full",
                        )
                    })?;
                mine.insert(port);
                service.map_mut("spec")["ports"][index]["nodePort"] = port.into();
                chosen.push(index);
            }
        }
    }
    Ok(chosen)
}

/// Sets the missing port for health checks.
fn fill_health_port(
    service: &mut Object,
    range: &RangeInclusive<u16>,
    taken: &dyn Fn(&Claim) -> bool,
) -> Result<(), FieldError> {
    const PATH: &str = "spec.healthCheckNodePort";
    if !wants_health_port(service) {
        return Ok(());
    }
    let why = |port: u16, why: &str| {
        let why = format!("failed to allocate requested HealthCheck NodePort {port}: {why}");
        FieldError::invalid(PATH, port.into(), why)
    };
    match health_port(service) {
        Some(port) if !range.contains(&port) => {
            Err(why(port, "provided port is not in the valid range"))
        }
        Some(port) if taken(&Claim::Port(port)) => {
            Err(why(port, "provided port is already allocated"))
        }
        Some(_) => Ok(()),
        None => {
            let mine: BTreeSet<u16> = node_ports(service).into_iter().flatten().collect();
            let free = |port: u32| {
                let port = u16::try_from(port).ok()?;
                (!mine.contains(&port) && !taken(&Claim::Port(port))).then_some(port)
            };
            let ends = u32::from(*range.start())..=u32::from(*range.end());
            let port = pick(ends, free).ok_or_else(|| {
                FieldError::invalid(PATH, 0.into(), "failed to allocate a HealthCheck NodePort")
            })?;
            service.map_mut("spec").insert("healthCheckNodePort".into(), port.into());
            Ok(())
        }
    }
}

/// A free value: at random, or where those are taken, the first.
fn pick<T>(range: RangeInclusive<u32>, free: impl Fn(u32) -> Option<T>) -> Option<T> {
    let mut rng = rand::rng();
    let random = (0..RANDOM_PICKS).find_map(|_| free(rng.random_range(range.clone())));
    random.or_else(|| range.clone().find_map(&free))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Object {
        let value = json!({ "metadata": { "name": "web", "namespace": "default" }, "spec": spec });
        Object::from_value(value).expect("an object")
    }

    fn cidr() -> ServiceCidr {
        ServiceCidr::parse("10.96.0.0/28").expect("valid")
    }

    #[test]
    fn an_address_is_chosen_among_the_free_ones() {
        let mut web = service(json!({ "type": "ClusterIP" }));
        let only_free = Claim::Ip(Ipv4Addr::new(10, 96, 0, 9));
        let chose = fill_ip(&mut web, cidr(), &|claim| *claim != only_free).expect("one is free");
        assert!(chose);
        assert_eq!(claims(&web), BTreeSet::from([only_free]));
        assert_eq!(web.str_at("/spec/clusterIPs/0"), "10.96.0.9");
    }

    #[test]
    fn an_address_asked_for_must_be_free_and_in_range() {
        let ask = |ip: &str, taken: bool| {
            let mut web = service(json!({ "clusterIP": ip }));
            fill_ip(&mut web, cidr(), &|_| taken).map_err(|error| error.text())
        };
        assert_eq!(ask("10.96.0.3", false), Ok(false));
        insta::assert_snapshot!(ask("10.96.0.3", true).expect_err("taken"), @r#"Invalid value: ["10.96.0.3"]: failed to allocate IP 10.96.0.3: provided IP is already allocated"#);
        insta::assert_snapshot!(ask("10.97.0.3", true).expect_err("outside"), @r#"Invalid value: ["10.97.0.3"]: failed to allocate IP 10.97.0.3: the provided IP (10.97.0.3) is not in the valid range. The range of valid IPs is 10.96.0.0/28"#);
        assert_eq!(ask("None", true), Ok(false));
    }

    #[test]
    fn what_belongs_to_the_old_type_goes_with_it() {
        let old = service(json!({
            "type": "NodePort", "externalTrafficPolicy": "Cluster",
            "ports": [{ "port": 80, "nodePort": 30080 }],
        }));
        let mut new = old.clone();
        new.map_mut("spec").insert("type".into(), "ClusterIP".into());
        drop_dependent(&mut new, &old);
        assert_eq!(new, service(json!({ "type": "ClusterIP", "ports": [{ "port": 80 }] })));
        let mut changed = old.clone();
        changed.map_mut("spec").insert("type".into(), "ClusterIP".into());
        changed.map_mut("spec")["ports"][0]["nodePort"] = 30081.into();
        drop_dependent(&mut changed, &old);
        assert_eq!(changed.int_at("/spec/ports/0/nodePort"), Some(30081), "validation refuses it");
    }

    #[test]
    fn ports_of_one_service_differ() {
        let mut web = service(json!({ "type": "NodePort", "ports": [{"port": 1}, {"port": 2}] }));
        let chose = fill_ports(&mut web, &(30000..=30001), &|_| false).expect("two are free");
        assert_eq!(chose, [0, 1]);
        assert_eq!(claims(&web).len(), 2);
    }
}

//! Which pod has which address of this node: handed out in turn, written down before use, so that
//! a restarted agent never gives a living pod's address to another.

use super::cidr::Cidr;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// Protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
}

impl Protocol {
    /// `None` for what this proxy does not carry (SCTP).
    pub fn parse(text: &str) -> Option<Protocol> {
        match text {
            "TCP" | "" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            _ => None,
        }
    }

    /// `tcp` or `udp`.
    pub fn lower(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

/// `hostPort` of a container: traffic to this port of the node goes to the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    pub host_port: u16,
    pub container_port: u16,
}

/// What one pod was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub address: Ipv4Addr,
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
}

/// Addresses by pod. No two pods ever have the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Table {
    /// Offset in the network from which the next free address is looked for: an address is reused
    /// as late as possible, since others may still talk to its last owner.
    next: u32,
    pods: BTreeMap<String, Lease>,
}

impl Table {
    /// The pod's address, the one it has if it has one; `None` if all are taken.
    fn allocate(&mut self, cidr: Cidr, pod: &str, host_ports: &[HostPort]) -> Option<Ipv4Addr> {
        if let Some(lease) = self.pods.get_mut(pod) {
            lease.host_ports = host_ports.to_vec();
            return Some(lease.address);
        }
        // The network address, the first (a gateway, by custom) and the broadcast address stay free.
        let count = u32::try_from(cidr.size()).unwrap_or(u32::MAX).saturating_sub(3);
        for step in 0..count {
            let slot = (self.next.wrapping_add(step)) % count;
            let address = cidr.at(slot + 2);
            if !self.pods.values().any(|lease| lease.address == address) {
                self.next = (slot + 1) % count;
                let lease = Lease { address, host_ports: host_ports.to_vec() };
                self.pods.insert(pod.to_string(), lease);
                return Some(address);
            }
        }
        None
    }
}

/// The table and the file that remembers it.
#[derive(Debug)]
pub(super) struct Addresses {
    file: PathBuf,
    table: Table,
}

impl Addresses {
    /// Reads `file`, or starts empty if there is none yet.
    pub(super) fn open(file: PathBuf) -> io::Result<Addresses> {
        let table = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let why = format!("{}: {error}", file.display());
                io::Error::new(io::ErrorKind::InvalidData, why)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Table::default(),
            Err(error) => return Err(error),
        };
        Ok(Addresses { file, table })
    }

    /// `Ok(None)` if the network is full. On an error nothing was given.
    pub(super) fn allocate(
        &mut self,
        cidr: Cidr,
        pod: &str,
        host_ports: &[HostPort],
    ) -> io::Result<Option<Ipv4Addr>> {
        let mut table = self.table.clone();
        let Some(address) = table.allocate(cidr, pod, host_ports) else { return Ok(None) };
        self.replace(table)?;
        Ok(Some(address))
    }

    pub(super) fn release(&mut self, pod: &str) -> io::Result<Option<Lease>> {
        let mut table = self.table.clone();
        let lease = table.pods.remove(pod);
        self.replace(table)?;
        Ok(lease)
    }

    pub(super) fn pods(&self) -> &BTreeMap<String, Lease> {
        &self.table.pods
    }

    fn replace(&mut self, table: Table) -> io::Result<()> {
        if table != self.table {
            write_atomically(&self.file, &serde_json::to_vec(&table)?)?;
            self.table = table;
        }
        Ok(())
    }
}

/// After a crash the file holds the old bytes or the new ones.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_go_round_and_come_back_late() {
        let mut table = Table::default();
        let small = cidr("10.244.1.0/29");
        let give = |table: &mut Table, pod: &str| {
            table.allocate(small, pod, &[]).map(|address| address.octets()[3])
        };
        assert_eq!(give(&mut table, "a"), Some(2));
        assert_eq!(give(&mut table, "b"), Some(3));
        assert_eq!(give(&mut table, "a"), Some(2));
        table.pods.remove("a");
        assert_eq!(give(&mut table, "c"), Some(4));
        assert_eq!(give(&mut table, "d"), Some(5));
        assert_eq!(give(&mut table, "e"), Some(6));
        assert_eq!(give(&mut table, "f"), Some(2));
        assert_eq!(give(&mut table, "g"), None);
    }

    #[test]
    fn a_restart_remembers_who_has_what() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("addresses.json");
        let port = HostPort { protocol: Protocol::Udp, host_port: 53, container_port: 5353 };
        let mut addresses = Addresses::open(file.clone()).unwrap();
        let network = cidr("10.244.1.0/24");
        let first = addresses.allocate(network, "a", std::slice::from_ref(&port)).unwrap();
        addresses.allocate(network, "b", &[]).unwrap();
        addresses.release("b").unwrap();
        let mut again = Addresses::open(file).unwrap();
        assert_eq!(again.pods(), addresses.pods());
        assert_eq!(again.pods()["a"].host_ports, [port]);
        assert_eq!(again.allocate(network, "a", &[]).unwrap(), first);
        assert_ne!(again.allocate(network, "c", &[]).unwrap(), first);
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("addresses.json");
        fs::write(&file, "{\"next\":").unwrap();
        let error = Addresses::open(file.clone()).unwrap_err();
        assert!(error.to_string().contains("addresses.json"), "{error}");
    }
}

//! An IPv4 network in CIDR notation.

use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// Network address and prefix length; the host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// `None` if the prefix is longer than 32; host bits of `address` are cleared.
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Option<Cidr> {
        if prefix > 32 {
            return None;
        }
        Some(Cidr { address: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix })
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The mask as an address: 255.255.255.0 for /24.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.address.to_bits()
    }

    /// How many addresses there are, network and broadcast included.
    pub fn size(&self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// The address at `offset` from the network address; wraps past the end of IPv4 only.
    pub fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits().wrapping_add(offset))
    }
}

const fn mask(prefix: u8) -> u32 {
    match u32::MAX.checked_shl(32 - prefix as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr, String> {
        let fail = || format!("{text:?} is not an IPv4 network such as 10.244.1.0/24");
        let (address, prefix) = text.split_once('/').ok_or_else(fail)?;
        let address = address.parse().map_err(|_| fail())?;
        let prefix = prefix.parse().map_err(|_| fail())?;
        Cidr::new(address, prefix).ok_or_else(fail)
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Cidr, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_know_their_members() {
        let cidr: Cidr = "10.244.1.77/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.244.1.0/24");
        assert!(cidr.contains(Ipv4Addr::new(10, 244, 1, 255)));
        assert!(!cidr.contains(Ipv4Addr::new(10, 244, 2, 0)));
        assert_eq!((cidr.size(), cidr.mask().to_string().as_str()), (256, "255.255.255.0"));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::BROADCAST));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
        assert!("10.0.0.0".parse::<Cidr>().is_err());
    }
}

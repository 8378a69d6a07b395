//! IP addresses and networks (KEP-2876, "IP and CIDR").

use super::{Declared, strings::text};
use crate::{EvalError, Value, value::Opaque};
use std::{fmt, net::IpAddr};

pub(super) const FUNCTIONS: &[Declared] = &[
    ("ip", "(string) IP | CIDR.() IP", |_, args| match &args[0] {
        Value::String(text) => parse_ip(text.as_str()).map(ip_value).map_err(EvalError::new),
        Value::Opaque(Opaque::Cidr(cidr)) => Ok(ip_value(cidr.address)),
        _ => Err(EvalError::no_such_overload()),
    }),
    ("isIP", "(string) bool", |_, args| Ok(Value::Bool(parse_ip(text(args, 0)?).is_ok()))),
    ("ip.isCanonical", "(string) bool", |_, args| {
        let given = text(args, 0)?;
        let ip = parse_ip(given).map_err(EvalError::new)?;
        Ok(Value::Bool(ip.to_string() == given))
    }),
    ("family", "IP.() int", |_, args| Ok(Value::Int(if ip(args, 0)?.is_ipv4() { 4 } else { 6 }))),
    ("isUnspecified", "IP.() bool", |_, args| Ok(Value::Bool(ip(args, 0)?.is_unspecified()))),
    ("isLoopback", "IP.() bool", |_, args| Ok(Value::Bool(ip(args, 0)?.is_loopback()))),
    ("isLinkLocalMulticast", "IP.() bool", |_, args| {
        Ok(Value::Bool(link_local_multicast(ip(args, 0)?)))
    }),
    ("isLinkLocalUnicast", "IP.() bool", |_, args| {
        Ok(Value::Bool(link_local_unicast(ip(args, 0)?)))
    }),
    ("isGlobalUnicast", "IP.() bool", |_, args| Ok(Value::Bool(global_unicast(ip(args, 0)?)))),
    ("cidr", "(string) CIDR", |_, args| {
        let cidr = parse_cidr(text(args, 0)?).map_err(EvalError::new)?;
        Ok(Value::Opaque(Opaque::Cidr(cidr)))
    }),
    ("isCIDR", "(string) bool", |_, args| Ok(Value::Bool(parse_cidr(text(args, 0)?).is_ok()))),
    ("containsIP", "CIDR.(string) bool | CIDR.(IP) bool", |_, args| {
        let ip = match &args[1] {
            Value::String(text) => parse_ip(text.as_str()).map_err(EvalError::new)?,
            _ => ip(args, 1)?,
        };
        Ok(Value::Bool(cidr(args, 0)?.contains(ip)))
    }),
    ("containsCIDR", "CIDR.(string) bool | CIDR.(CIDR) bool", |_, args| {
        let inner = match &args[1] {
            Value::String(text) => parse_cidr(text.as_str()).map_err(EvalError::new)?,
            _ => cidr(args, 1)?,
        };
        let outer = cidr(args, 0)?;
        let within = outer.bits <= inner.bits && outer.contains(inner.masked().address);
        Ok(Value::Bool(within))
    }),
    ("masked", "CIDR.() CIDR", |_, args| Ok(Value::Opaque(Opaque::Cidr(cidr(args, 0)?.masked())))),
    ("prefixLength", "CIDR.() int", |_, args| Ok(Value::Int(cidr(args, 0)?.bits.into()))),
];

/// An address and how many of its bits name the network; the others may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Bytes that the prefix reaches into.
    pub(crate) fn size(&self) -> u64 {
        u64::from(self.bits).div_ceil(8)
    }

    fn masked(self) -> Cidr {
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Cidr { address, bits: self.bits }
    }

    fn contains(self, ip: IpAddr) -> bool {
        let same_family = self.address.is_ipv4() == ip.is_ipv4();
        same_family && Cidr { address: ip, bits: self.bits }.masked() == self.masked()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn ip_value<'a>(ip: IpAddr) -> Value<'a> {
    Value::Opaque(Opaque::Ip(ip))
}

fn ip(args: &[Value<'_>], index: usize) -> Result<IpAddr, EvalError> {
    match args.get(index) {
        Some(Value::Opaque(Opaque::Ip(ip))) => Ok(*ip),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn cidr(args: &[Value<'_>], index: usize) -> Result<Cidr, EvalError> {
    match args.get(index) {
        Some(Value::Opaque(Opaque::Cidr(cidr))) => Ok(*cidr),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if let Some((address, _)) = text.split_once('%')
        && matches!(address.parse(), Ok(IpAddr::V6(_)))
    {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    let ip: IpAddr = text.parse().map_err(|_| {
        format!(
            "IP Address {text:?} parse error during conversion from string: \
             ParseAddr({text:?}): unable to parse IP"
        )
    })?;
    if mapped(ip) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    Ok(ip)
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let refuse = |why: &str| {
        format!(
            "network address parse error during conversion from string: \
             netip.ParsePrefix({text:?}): {why}"
        )
    };
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| refuse("no '/'"))?;
    let ip: IpAddr = address
        .parse()
        .map_err(|_| refuse(&format!("ParseAddr({address:?}): unable to parse IP")))?;
    let plain =
        bits.bytes().all(|c| c.is_ascii_digit()) && !(bits.len() > 1 && bits.starts_with('0'));
    let length = bits.parse::<u8>().ok().filter(|_| plain);
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let Some(bits) = length else {
        return Err(refuse(&format!("bad bits after slash: {bits:?}")));
    };
    if bits > most {
        return Err(refuse("prefix length out of range"));
    }
    if mapped(ip) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    Ok(Cidr { address: ip, bits })
}

fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

/// Go's notion: anything that is no special address, private ones included.
fn global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !broadcast
        && !ip.is_unspecified()
        && !ip.is_loopback()
        && !ip.is_multicast()
        && !link_local_unicast(ip)
}
